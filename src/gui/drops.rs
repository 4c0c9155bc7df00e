//! The whole window takes drops. While something hovers, an overlay says what letting go will do.

use std::path::PathBuf;

use egui::{Area, Context, CornerRadius, Id, Order, RichText, Stroke, StrokeKind};
use lucide_icons::Icon;

use super::evaluate_actions::labelled;
use super::theme::{Palette, STEP};
use super::train_actions::Dropped;
use super::widgets;
use crate::format;
use crate::jobs::brought::Brought;

/// What hovers over the window: its paths, and what they are once that is known.
#[derive(Debug, Default)]
pub struct Hover {
    pub paths: Vec<PathBuf>,
    pub sorted: Option<Brought>,
}

/// What letting go will do, and a second line where one helps.
pub fn promise(brought: &Brought, running: bool) -> (String, Option<String>) {
    let inputs = [(brought.folders.len(), "folder"), (brought.photos.len(), "photo")];
    let counted: Vec<String> =
        inputs.iter().filter(|(n, _)| *n > 0).map(|(n, noun)| format::counted(*n as u64, noun)).collect();
    let inputs = counted.join(" and ");
    let checkpoints = match brought.checkpoints.len() {
        0 => String::new(),
        1 => "open this checkpoint".to_owned(),
        n => format!("open {n} checkpoints"),
    };
    let head = match (inputs.is_empty(), checkpoints.is_empty()) {
        (true, true) => "Galley cannot open this".to_owned(),
        (true, false) => format!("Drop to {checkpoints}"),
        (false, true) if running => format!("Drop to add {inputs} to this run"),
        (false, true) => format!("Drop to classify {inputs}"),
        (false, false) => format!("Drop to {checkpoints} and classify {inputs} with it"),
    };
    let nothing = inputs.is_empty() && checkpoints.is_empty();
    let tail = match brought.unknown.len() as u64 {
        _ if nothing => Some("It opens folders, photos, and checkpoints: .pth, .safetensors, .gguf".to_owned()),
        0 => None,
        n => Some(format!("{} of another kind will be left out", format::counted(n, "file"))),
    };
    (head, tail)
}

/// What letting go over the Train page will do.
pub fn promise_to_train(brought: &Brought) -> (String, Option<String>) {
    let tail = |text: &str| Some(text.to_owned());
    match (Dropped::of(brought), brought.checkpoints.is_empty()) {
        (Dropped::Photos { val: Some(_), .. }, _) => {
            ("Drop to train on one and validate with the other".to_owned(), tail("Each subfolder is a class"))
        }
        (Dropped::Photos { .. }, true) => {
            ("Drop to train on these photos".to_owned(), tail("Each subfolder is a class"))
        }
        (Dropped::Photos { .. }, false) => ("Drop to train this checkpoint on these photos".to_owned(), None),
        (Dropped::Nothing, false) => ("Drop to begin from this checkpoint".to_owned(), None),
        (Dropped::Nothing, true) => (
            "Galley cannot train on this".to_owned(),
            tail("It takes one folder that holds a subfolder of photos for each class, or a .csv or .jsonl table"),
        ),
    }
}

/// What letting go over the Evaluate page will do.
pub fn promise_to_evaluate(brought: &Brought) -> (String, Option<String>) {
    let tail = |text: &str| Some(text.to_owned());
    match (labelled(brought), brought.checkpoints.is_empty()) {
        (Some(_), true) => ("Drop to evaluate on these photos".to_owned(), tail("Each subfolder is a class")),
        (Some(_), false) => ("Drop to evaluate this checkpoint on these photos".to_owned(), None),
        (None, false) => ("Drop to evaluate this checkpoint".to_owned(), None),
        (None, true) => (
            "Galley cannot evaluate on this".to_owned(),
            tail("It takes one folder that holds a subfolder of photos for each class, or a .csv or .jsonl table"),
        ),
    }
}

pub fn promise_to_compress(brought: &Brought) -> (String, Option<String>) {
    let tail = |text: &str| Some(text.to_owned());
    match (labelled(brought), brought.checkpoints.is_empty()) {
        (_, false) => ("Drop to make this checkpoint smaller".to_owned(), None),
        (Some(_), true) => ("Drop to compare models on these photos".to_owned(), tail("Each subfolder is a class")),
        (None, true) => (
            "Galley cannot compress this".to_owned(),
            tail("It takes a checkpoint, or one folder of photos to compare the results on"),
        ),
    }
}

/// Covers the window while something hovers.
pub fn overlay(ctx: &Context, hover: &Hover, promise: impl Fn(&Brought) -> (String, Option<String>)) {
    let (head, tail) = hover.sorted.as_ref().map_or_else(|| ("Drop to open".to_owned(), None), promise);
    cover(ctx, Icon::ImagePlus, &head, tail.as_deref());
}

/// Covers the window with a line or two.
pub fn cover(ctx: &Context, symbol: Icon, head: &str, tail: Option<&str>) {
    let rect = ctx.content_rect();
    let area = Area::new(Id::unique("drop overlay")).order(Order::Foreground).fixed_pos(rect.min).interactable(false);
    area.show(ctx, |ui| {
        let palette = Palette::of(ui);
        let inner = rect.shrink(STEP * 2.0);
        ui.painter().rect_filled(rect, CornerRadius::ZERO, palette.page.gamma_multiply(0.94));
        let stroke = Stroke::new(2.0, palette.accent_line);
        ui.painter().rect_stroke(inner, CornerRadius::same(12), stroke, StrokeKind::Inside);
        ui.set_min_size(rect.size());
        ui.vertical_centered(|ui| {
            ui.add_space(rect.height() / 2.0 - 60.0);
            widgets::icon(ui, symbol, 40.0, palette.accent_line);
            ui.label(RichText::new(head).heading());
            if let Some(tail) = tail {
                widgets::note(ui, tail);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promised(folders: usize, photos: usize, checkpoints: usize, unknown: usize, running: bool) -> String {
        let paths = |n: usize| (0..n).map(|i| PathBuf::from(i.to_string())).collect::<Vec<_>>();
        let brought = Brought {
            folders: paths(folders),
            photos: paths(photos),
            checkpoints: paths(checkpoints),
            unknown: paths(unknown),
            missing: Vec::new(),
        };
        promise(&brought, running).0
    }

    #[test]
    fn the_overlay_says_what_letting_go_will_do() {
        assert_eq!(promised(3, 0, 0, 0, false), "Drop to classify 3 folders");
        assert_eq!(promised(1, 2, 0, 0, true), "Drop to add 1 folder and 2 photos to this run");
        assert_eq!(promised(0, 0, 1, 0, false), "Drop to open this checkpoint");
        assert_eq!(promised(0, 1, 1, 0, false), "Drop to open this checkpoint and classify 1 photo with it");
        assert_eq!(promised(0, 0, 0, 2, false), "Galley cannot open this");
    }
}
