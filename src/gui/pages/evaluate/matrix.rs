//! The confusion matrix: a row for what photos are, a column for what they were called. Each number can be chosen.

use std::sync::Arc;

use egui::epaint::TextShape;
use egui::{Align2, Color32, CornerRadius, FontId, Galley, Pos2, Rect, ScrollArea, Sense, Stroke, StrokeKind};
use egui::{Ui, Vec2, WidgetInfo, accesskit::Role, vec2};

use crate::format;
use crate::gui::theme::Palette;
use crate::gui::widgets;
use crate::predict::Evaluation;

/// More classes than these are no matrix that anyone can read.
pub const MOST: usize = 40;

/// Most room for the classes' names, at the left and above.
const LEFT: f32 = 120.0;
const TOP: f32 = 88.0;
/// Between a name and its cells.
const GAP: f32 = 8.0;
const SMALLEST: f32 = 26.0;
const LARGEST: f32 = 44.0;

/// Draws the matrix of these classes, in `height` if it has room there; returns the cell that was chosen: the true and the
/// called class.
pub fn matrix_ui(
    ui: &mut Ui,
    evaluation: &Evaluation,
    classes: &[usize],
    chosen: Option<(usize, usize)>,
    height: f32,
) -> Option<(usize, usize)> {
    let names = |most: f32| -> Vec<Arc<Galley>> {
        let color = Palette::of(ui).text;
        let one = |class: &usize| &evaluation.classes[*class].name;
        let font = FontId::proportional(11.0);
        classes.iter().map(|class| widgets::one_line(ui, one(class), font.clone(), color, most - GAP)).collect()
    };
    let (rows, columns) = (names(LEFT), names(TOP));
    let longest = |names: &[Arc<Galley>]| names.iter().map(|name| name.size().x).fold(0.0, f32::max) + GAP;
    let corner = vec2(longest(&rows), longest(&columns));
    let count = classes.len() as f32;
    let room = (ui.available_width() - corner.x - GAP).min(height - corner.y);
    let cell = (room / count).clamp(SMALLEST, LARGEST).floor();
    let mut clicked = None;
    ScrollArea::both().id_salt("matrix").auto_shrink([false, true]).show(ui, |ui| {
        let (rect, _) = ui.allocate_exact_size(corner + Vec2::splat(count * cell), Sense::empty());
        let place = |row: usize, column: usize| rect.min + corner + vec2(column as f32, row as f32) * cell;
        names_ui(ui, rows, columns, cell, place);
        for (row, &class) in classes.iter().enumerate() {
            for (column, &called) in classes.iter().enumerate() {
                let rect = Rect::from_min_size(place(row, column), Vec2::splat(cell)).shrink(1.0);
                if ui.is_rect_visible(rect)
                    && cell_ui(ui, rect, evaluation, (class, called), chosen == Some((class, called)))
                {
                    clicked = Some((class, called));
                }
            }
        }
    });
    clicked
}

/// Names of the rows at the left, of the columns above, upright.
fn names_ui(
    ui: &Ui,
    rows: Vec<Arc<Galley>>,
    columns: Vec<Arc<Galley>>,
    cell: f32,
    place: impl Fn(usize, usize) -> Pos2,
) {
    let color = Palette::of(ui).text;
    for (index, (row, column)) in rows.into_iter().zip(columns).enumerate() {
        let at = place(index, 0) + vec2(-GAP - row.size().x, (cell - row.size().y) / 2.0);
        ui.painter().galley(at, row, color);
        let at = place(0, index) + vec2((cell - column.size().y) / 2.0, -GAP);
        ui.painter().add(TextShape::new(at, column, color).with_angle(-std::f32::consts::FRAC_PI_2));
    }
}

/// True when it was clicked.
fn cell_ui(ui: &Ui, rect: Rect, evaluation: &Evaluation, (class, called): (usize, usize), is_chosen: bool) -> bool {
    let palette = Palette::of(ui);
    let radius = CornerRadius::same(3);
    let photos = evaluation.confusion[class][called];
    if photos == 0 {
        ui.painter().rect_filled(rect, radius, palette.surface);
        return false;
    }
    let share = photos as f32 / evaluation.classes[class].photos.max(1) as f32;
    let (fill, text) = colors(share, class == called, &palette);
    ui.painter().rect_filled(rect, radius, fill);
    let font = FontId::proportional(if photos < 1000 { 11.0 } else { 9.0 });
    ui.painter().text(rect.center(), Align2::CENTER_CENTER, format::count(photos as u64), font, text);
    let name = spoken(evaluation, class, called);
    let response = ui.interact(rect, ui.scope_id().with(("cell", class, called)), Sense::click());
    response.widget_info(|| WidgetInfo::selected(Role::Button, true, is_chosen, &name));
    if is_chosen || response.hovered() {
        let color = if is_chosen { palette.text } else { palette.edge };
        ui.painter().rect_stroke(rect, radius, Stroke::new(2.0, color), StrokeKind::Outside);
    }
    widgets::focus_ring(ui, rect, &response);
    response.on_hover_text(name).clicked()
}

/// The fill of a cell with this share of its row, and the text that is readable on it.
fn colors(share: f32, is_right: bool, palette: &Palette) -> (Color32, Color32) {
    let strong = if is_right { palette.accent } else { palette.series[1] };
    let part = 0.14 + 0.86 * share;
    let fill = palette.page.lerp_to_gamma(strong, part);
    let is_dark = |color: Color32| u32::from(color.r()) * 3 + u32::from(color.g()) * 6 + u32::from(color.b()) < 1280;
    (fill, if is_dark(fill) { Color32::WHITE } else { Color32::from_gray(0x1d) })
}

/// `pizza called soup: 3 photos`
pub fn spoken(evaluation: &Evaluation, class: usize, called: usize) -> String {
    let name = |class: usize| evaluation.classes[class].name.as_str();
    let photos = format::counted(evaluation.confusion[class][called] as u64, "photo");
    format!("{} called {}: {photos}", name(class), name(called))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_can_be_read_on_every_fill() {
        let luminance = |color: Color32| {
            let linear = |value: u8| (f64::from(value) / 255.0).powf(2.2);
            0.2126 * linear(color.r()) + 0.7152 * linear(color.g()) + 0.0722 * linear(color.b())
        };
        for (dark, is_right) in [(false, false), (false, true), (true, false), (true, true)] {
            for share in 0..=10 {
                let (fill, text) = colors(share as f32 / 10.0, is_right, &Palette::for_theme(dark));
                let (high, low) = (luminance(fill).max(luminance(text)), luminance(fill).min(luminance(text)));
                assert!((high + 0.05) / (low + 0.05) >= 3.0, "{dark} {is_right} {share}: {fill:?} {text:?}");
            }
        }
    }
}
