//! One photo, large: its name, its most likely classes, and where it lies.

use egui::{Align, Layout, RichText, Sense, Ui, vec2};
use lucide_icons::Icon;

use crate::gui::Action;
use crate::gui::pictures;
use crate::gui::results::{Entry, Group, Results, Scored, Verdict};
use crate::gui::textures::Textures;
use crate::gui::theme::{self, Palette, STEP};
use crate::gui::widgets;

/// Draws the panel; true when it is to be closed.
pub fn detail_ui(
    ui: &mut Ui,
    results: &Results,
    entry: &Entry,
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
    pictures::whole_ui(ui, &entry.path, textures);
    ui.add_space(STEP);
    ui.add(egui::Label::new(RichText::new(entry.name()).font(theme::strong(13.0))).wrap());
    match &entry.verdict {
        Verdict::Skipped(reason) => {
            widgets::alert(ui, Icon::TriangleAlert, Palette::of(ui).warning, "Skipped");
            ui.add(egui::Label::new(&**reason).wrap().selectable(true));
        }
        Verdict::Ok(scores) => {
            if entry.group(results.threshold()) == Group::Unsure {
                let text = format!("Unsure: no class reaches {}", widgets::percent(results.threshold()));
                widgets::alert(ui, Icon::TriangleAlert, Palette::of(ui).warning, &text);
            }
            scores.iter().for_each(|score| score_ui(ui, results, *score));
        }
    }
    ui.add_space(STEP);
    widgets::section(ui, "File");
    let path = RichText::new(entry.path.display().to_string()).small().color(Palette::of(ui).secondary);
    ui.add(egui::Label::new(path).wrap().selectable(true));
    widgets::reveal_ui(ui, &entry.path, actions);
    close
}

fn score_ui(ui: &mut Ui, results: &Results, score: Scored) {
    let palette = Palette::of(ui);
    let spacing = ui.spacing_mut();
    (spacing.item_spacing.y, spacing.interact_size.y) = (4.0, 18.0);
    ui.horizontal(|ui| {
        let width = ui.available_width() - 56.0;
        let name = results.label(score.class);
        ui.allocate_ui(vec2(width, 16.0), |ui| {
            ui.set_min_width(width);
            ui.add(egui::Label::new(&*name).truncate());
        });
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| ui.label(widgets::percent(score.probability)));
    });
    let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), 4.0), Sense::empty());
    widgets::bar(ui, rect, score.probability, palette.accent);
}
