//! Judged photos as a grid, and one of them large.

use egui::{Align, CornerRadius, FontId, Label, Layout, Rect, RichText, ScrollArea, Sense, Stroke, StrokeKind, Ui};
use egui::{WidgetInfo, accesskit::Role, pos2, vec2};
use lucide_icons::Icon;

use crate::gui::Action;
use crate::gui::pictures;
use crate::gui::textures::Textures;
use crate::gui::theme::{self, Palette, RADIUS, STEP};
use crate::gui::widgets;
use crate::predict::{Evaluation, Judged};

const CELL_WIDTH: f32 = 120.0;
const PICTURE_HEIGHT: f32 = 90.0;
const CELL_HEIGHT: f32 = PICTURE_HEIGHT + 38.0;
const GAP: f32 = 10.0;

/// Pixels of a thumbnail's longer side: enough for a cell on a screen with two pixels per point.
const SIDE: u32 = 256;

/// Draws the photos in these places; returns the one that was clicked. Only rows in sight are laid out.
pub fn photos_ui(
    ui: &mut Ui,
    evaluation: &Evaluation,
    places: &[usize],
    chosen: Option<usize>,
    textures: &mut Textures,
    actions: &mut Vec<Action>,
) -> Option<usize> {
    let width = ui.available_width() - 10.0;
    let columns = (((width + GAP) / (CELL_WIDTH + GAP)).floor() as usize).max(1);
    let cell = vec2((width - GAP * (columns - 1) as f32) / columns as f32, CELL_HEIGHT);
    ui.spacing_mut().item_spacing = vec2(GAP, GAP);
    let area = ScrollArea::vertical().id_salt("judged").auto_shrink(false);
    let output = area.show_rows(ui, CELL_HEIGHT, places.len().div_ceil(columns), |ui, rows| {
        let mut clicked = None;
        for row in rows {
            let (line, _) = ui.allocate_exact_size(vec2(width, CELL_HEIGHT), Sense::empty());
            let of_row = places.iter().skip(row * columns).take(columns);
            for (column, &place) in of_row.enumerate() {
                let at = pos2(line.left() + column as f32 * (cell.x + GAP), line.top());
                let rect = Rect::from_min_size(at, cell);
                if photo_ui(ui, rect, evaluation, place, chosen == Some(place), textures, actions) {
                    clicked = Some(place);
                }
            }
        }
        clicked
    });
    output.inner
}

/// True when it was clicked.
fn photo_ui(
    ui: &Ui,
    rect: Rect,
    evaluation: &Evaluation,
    place: usize,
    is_chosen: bool,
    textures: &mut Textures,
    actions: &mut Vec<Action>,
) -> bool {
    let Some(judged) = evaluation.judged.get(place) else { return false };
    let palette = Palette::of(ui);
    let name = |class: usize| evaluation.classes[class].name.as_str();
    let response = ui.interact(rect, ui.scope_id().with(("judged", place)), Sense::click());
    let spoken = format!("{}, {} called {}", file_name(judged), name(judged.class), name(judged.predicted));
    response.widget_info(|| WidgetInfo::selected(Role::Button, true, is_chosen, &spoken));
    widgets::reveal_menu(&response, &judged.path, actions);
    let picture = rect.with_max_y(rect.top() + PICTURE_HEIGHT);
    pictures::filling_ui(ui, picture, &judged.path, SIDE, textures);
    if is_chosen || response.hovered() {
        let color = if is_chosen { palette.accent_line } else { palette.edge };
        ui.painter().rect_stroke(picture, CornerRadius::same(RADIUS), Stroke::new(2.0, color), StrokeKind::Outside);
    }
    widgets::focus_ring(ui, picture.expand(3.0), &response);
    let confidence = widgets::percent(judged.confidence as f32);
    let lines = [
        (format!("{}: {confidence}", name(judged.predicted)), palette.text, 12.0),
        (format!("labelled {}", name(judged.class)), palette.secondary, 28.0),
    ];
    for (text, color, y) in lines {
        let galley = widgets::one_line(ui, &text, FontId::proportional(11.0), color, rect.width());
        let at = pos2(rect.left(), picture.bottom() + y - galley.size().y / 2.0);
        ui.painter().galley(at, galley, color);
    }
    response.on_hover_text(judged.path.display().to_string()).clicked()
}

/// One photo as a whole, and all that is known of it. True when it is to be closed.
pub fn detail_ui(
    ui: &mut Ui,
    evaluation: &Evaluation,
    judged: &Judged,
    textures: &mut Textures,
    actions: &mut Vec<Action>,
) -> bool {
    let mut close = false;
    ui.horizontal(|ui| {
        widgets::section(ui, "Photo");
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            close = widgets::icon_button(ui, Icon::X, "Close photo").clicked();
        });
    });
    pictures::whole_ui(ui, &judged.path, textures);
    ui.add_space(STEP);
    ui.add(Label::new(RichText::new(file_name(judged)).font(theme::strong(13.0))).wrap());
    ui.scope(|ui| {
        ui.spacing_mut().item_spacing.y = 4.0;
        let name = |class: usize| evaluation.classes[class].name.as_str();
        let called = format!("{}, {} sure", name(judged.predicted), widgets::percent(judged.confidence as f32));
        widgets::fact(ui, "Labelled", name(judged.class));
        widgets::fact(ui, "Called", &called);
        if judged.rank > 0 {
            widgets::fact(ui, "Its label came", &ordinal(judged.rank + 1));
        }
        widgets::fact(ui, "Loss", &format!("{:.2}", judged.loss));
    });
    ui.add_space(STEP);
    widgets::section(ui, "File");
    let path = RichText::new(judged.path.display().to_string()).small().color(Palette::of(ui).secondary);
    ui.add(Label::new(path).wrap().selectable(true));
    widgets::reveal_ui(ui, &judged.path, actions);
    close
}

fn file_name(judged: &Judged) -> String {
    let path = &judged.path;
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// `2nd`, `13th`
fn ordinal(number: usize) -> String {
    let ending = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

#[cfg(test)]
mod tests {
    use super::ordinal;

    #[test]
    fn places_are_spoken_as_in_english() {
        assert_eq!(
            [1, 2, 3, 4, 11, 12, 21, 103, 112].map(ordinal).join(" "),
            "1st 2nd 3rd 4th 11th 12th 21st 103rd 112th"
        );
    }
}
