//! Which classes are taken for which, and the photos behind each number; and the photos whose label is the least likely.

use egui::{FontId, Rect, ScrollArea, Sense, Ui, WidgetInfo, accesskit::Role, pos2, vec2};
use lucide_icons::Icon;

use super::{Judged, grid, matrix};
use crate::format;
use crate::gui::Action;
use crate::gui::textures::Textures;
use crate::gui::theme::{Palette, STEP};
use crate::gui::widgets;
use crate::predict::Evaluation;

/// Rows of the list of mistakes beside a matrix.
const MOST_PAIRS: usize = 10;

/// The same where there is no matrix.
const MOST_PAIRS_ALONE: usize = 1000;

pub fn confusion_ui(ui: &mut Ui, judged: &mut Judged) {
    let summary = judged.summary.clone();
    let evaluation = &summary.evaluation;
    let classes = evaluation.seen();
    let chosen = judged.cell.as_ref().map(|(cell, _)| *cell);
    let has_matrix = classes.len() <= matrix::MOST;
    let mut clicked = None;
    // Of what is in sight, the note and the first mistakes have their part.
    let height = ui.available_height() - 72.0;
    ScrollArea::vertical().id_salt("confusion").auto_shrink(false).show(ui, |ui| {
        if has_matrix {
            widgets::note(
                ui,
                "A row is what photos are, a column what they were called. Click a number for its photos",
            );
            clicked = matrix::matrix_ui(ui, evaluation, &classes, chosen, height);
            ui.add_space(STEP);
        }
        widgets::section(ui, "Most often mistaken");
        let mut pairs = evaluation.mistakes();
        pairs.truncate(if has_matrix { MOST_PAIRS } else { MOST_PAIRS_ALONE });
        if pairs.is_empty() {
            widgets::note(ui, "Every photo was called what it is labelled");
        }
        for (class, called, photos) in pairs {
            if pair_ui(ui, evaluation, (class, called), photos, chosen == Some((class, called))) {
                clicked = Some((class, called));
            }
        }
    });
    if let Some(cell) = clicked {
        judged.choose_cell(cell);
    }
}

/// A class that was taken for another, on one line. True when it was clicked.
fn pair_ui(
    ui: &mut Ui,
    evaluation: &Evaluation,
    (class, called): (usize, usize),
    photos: usize,
    is_chosen: bool,
) -> bool {
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width() - STEP, 24.0), Sense::click());
    // Of a thousand, those out of sight cost nothing but their place.
    if !ui.is_rect_visible(rect) {
        return false;
    }
    let palette = Palette::of(ui);
    let name = |class: usize| evaluation.classes[class].name.as_str();
    let spoken = format!("{} mistaken for {}", name(class), name(called));
    response.widget_info(|| WidgetInfo::selected(Role::Button, true, is_chosen, &spoken));
    if is_chosen || response.hovered() {
        let fill = if is_chosen { palette.accent_soft } else { palette.surface };
        ui.painter().rect_filled(rect, 4.0, fill);
    }
    let text = format!("{} called {}", name(class), name(called));
    let galley = widgets::one_line(ui, &text, FontId::proportional(12.0), palette.text, rect.width() - 72.0);
    ui.painter().galley(pos2(rect.left() + 8.0, rect.center().y - galley.size().y / 2.0), galley, palette.text);
    let count = format::counted(photos as u64, "photo");
    let at = pos2(rect.right() - 8.0, rect.center().y);
    ui.painter().text(at, egui::Align2::RIGHT_CENTER, count, FontId::proportional(11.0), palette.secondary);
    widgets::focus_ring(ui, rect, &response);
    response.clicked()
}

/// The photos behind the chosen number, or the one of them that is shown large.
pub fn cell_ui(ui: &mut Ui, judged: &mut Judged, textures: &mut Textures, actions: &mut Vec<Action>) {
    if large_ui(ui, judged, textures, actions) {
        return;
    }
    let summary = judged.summary.clone();
    let evaluation = &summary.evaluation;
    let Some(((class, called), places)) = &judged.cell else {
        return nothing_chosen_ui(ui, Icon::Grid3x3, "Click a number: its photos appear here");
    };
    let mut close = false;
    ui.horizontal(|ui| {
        widgets::section(
            ui,
            &format!("{} called {}", evaluation.classes[*class].name, evaluation.classes[*called].name),
        );
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            close = widgets::icon_button(ui, Icon::X, "Close photos").clicked();
        });
    });
    let clicked = grid::photos_ui(ui, evaluation, places, None, textures, actions);
    judged.photo = clicked.or(judged.photo);
    if close {
        judged.cell = None;
    }
}

/// Every photo that was called another class than it is labelled, the highest loss first.
pub fn suspects_ui(ui: &mut Ui, judged: &mut Judged, textures: &mut Textures, actions: &mut Vec<Action>) {
    let summary = judged.summary.clone();
    let evaluation = &summary.evaluation;
    let wrong = evaluation.judged.iter().enumerate().filter(|(_, one)| one.rank > 0);
    let places: Vec<usize> = wrong.map(|(place, _)| place).collect();
    if places.is_empty() {
        let text = "Every photo was called what it is labelled";
        return widgets::empty_state(ui, Icon::CircleCheck, "Nothing is suspicious", text, |_| ());
    }
    let text =
        "Photos whose label the model finds the least likely come first. Either the model is wrong, or the label is";
    widgets::note(ui, text);
    let clicked = grid::photos_ui(ui, evaluation, &places, judged.photo, textures, actions);
    judged.photo = clicked.or(judged.photo);
}

pub fn suspect_ui(ui: &mut Ui, judged: &mut Judged, textures: &mut Textures, actions: &mut Vec<Action>) {
    if !large_ui(ui, judged, textures, actions) {
        nothing_chosen_ui(ui, Icon::Image, "Click a photo: it appears here as a whole, with its path");
    }
}

/// Draws the chosen photo; false when there is none.
fn large_ui(ui: &mut Ui, judged: &mut Judged, textures: &mut Textures, actions: &mut Vec<Action>) -> bool {
    let summary = judged.summary.clone();
    let Some(photo) = judged.photo.and_then(|place| summary.evaluation.judged.get(place)) else { return false };
    let close = ScrollArea::vertical()
        .id_salt("photo")
        .auto_shrink(false)
        .show(ui, |ui| grid::detail_ui(ui, &summary.evaluation, photo, textures, actions))
        .inner;
    if close {
        judged.photo = None;
    }
    true
}

fn nothing_chosen_ui(ui: &mut Ui, symbol: Icon, text: &str) {
    let palette = Palette::of(ui);
    let space = ui.available_rect_before_wrap();
    let rect = Rect::from_center_size(space.center(), vec2(space.width() - 48.0, 80.0));
    let builder = egui::UiBuilder::new().max_rect(rect).layout(egui::Layout::top_down(egui::Align::Center));
    ui.scope_builder(builder, |ui| {
        widgets::icon(ui, symbol, 24.0, palette.secondary);
        widgets::note(ui, text);
    });
}
