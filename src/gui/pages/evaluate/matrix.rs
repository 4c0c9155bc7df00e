//! The confusion matrix: a row for what photos are, a column for what they were called. Each number can be chosen.

use egui::epaint::TextShape;
use egui::{Align2, Color32, CornerRadius, FontId, Pos2, Rect, ScrollArea, Sense, Stroke, StrokeKind, Ui};
use egui::{WidgetInfo, accesskit::Role, vec2};

use crate::format;
use crate::gui::theme::Palette;
use crate::gui::widgets;
use crate::predict::Evaluation;

/// More classes than these are no matrix that anyone can read.
pub const MOST: usize = 40;

/// Where the classes' names are.
const LEFT: f32 = 112.0;
const TOP: f32 = 88.0;
const SMALLEST: f32 = 26.0;
const LARGEST: f32 = 44.0;

/// Draws the matrix of these classes; returns the cell that was chosen: the true and the called class.
pub fn matrix_ui(
    ui: &mut Ui,
    evaluation: &Evaluation,
    classes: &[usize],
    chosen: Option<(usize, usize)>,
) -> Option<(usize, usize)> {
    let count = classes.len() as f32;
    let cell = ((ui.available_width() - LEFT - 8.0) / count).clamp(SMALLEST, LARGEST);
    let mut clicked = None;
    ScrollArea::both().id_salt("matrix").auto_shrink([false, true]).show(ui, |ui| {
        let (rect, _) = ui.allocate_exact_size(vec2(LEFT + count * cell, TOP + count * cell), Sense::empty());
        let place = |row: f32, column: f32| rect.min + vec2(LEFT + column * cell, TOP + row * cell);
        names_ui(ui, evaluation, classes, cell, place);
        for (row, &class) in classes.iter().enumerate() {
            for (column, &called) in classes.iter().enumerate() {
                let rect = Rect::from_min_size(place(row as f32, column as f32), vec2(cell, cell)).shrink(1.0);
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
fn names_ui(ui: &Ui, evaluation: &Evaluation, classes: &[usize], cell: f32, place: impl Fn(f32, f32) -> Pos2) {
    let palette = Palette::of(ui);
    for (index, &class) in classes.iter().enumerate() {
        let name = &evaluation.classes[class].name;
        let font = FontId::proportional(11.0);
        let row = widgets::one_line(ui, name, font.clone(), palette.text, LEFT - 10.0);
        let at = place(index as f32 + 0.5, 0.0) - vec2(8.0 + row.size().x, row.size().y / 2.0);
        ui.painter().galley(at, row, palette.text);
        let column = widgets::one_line(ui, name, font, palette.text, TOP - 10.0);
        let at = place(0.0, index as f32) + vec2((cell - column.size().y) / 2.0, -6.0);
        ui.painter().add(TextShape::new(at, column, palette.text).with_angle(-std::f32::consts::FRAC_PI_2));
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
