//! How each class fared, as a table that can be sorted by any of its columns.

use std::cmp::Ordering;

use egui::{Align2, FontId, Rect, ScrollArea, Sense, Ui, WidgetInfo, accesskit::Role, pos2, vec2};
use lucide_icons::Icon;

use super::{Judged, percent};
use crate::format;
use crate::gui::theme::{self, Palette, STEP};
use crate::gui::widgets;
use crate::predict::ClassScore;

const ROW: f32 = 26.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Name,
    Photos,
    Precision,
    Recall,
    F1,
}

impl Column {
    const ALL: [(Self, &'static str, &'static str); 5] = [
        (Self::Name, "Class", ""),
        (Self::Photos, "Photos", "Photos of this class"),
        (Self::Precision, "Precision", "Of the photos called so, those that are"),
        (Self::Recall, "Recall", "Of the photos that are, the ones called so"),
        (Self::F1, "F1", "Harmonic mean of precision and recall"),
    ];

    /// Its place from left to right, as shares of the table's width.
    fn span(self) -> (f32, f32) {
        match self {
            Self::Name => (0.0, 0.34),
            Self::Photos => (0.34, 0.46),
            Self::Precision => (0.46, 0.60),
            Self::Recall => (0.60, 0.74),
            Self::F1 => (0.74, 1.0),
        }
    }

    fn compare(self, a: &ClassScore, b: &ClassScore) -> Ordering {
        // A share of nothing sorts below every share.
        let share = |share: Option<f64>| share.unwrap_or(-1.0);
        match self {
            Self::Name => a.name.cmp(&b.name),
            Self::Photos => a.photos.cmp(&b.photos),
            Self::Precision => share(a.precision).total_cmp(&share(b.precision)),
            Self::Recall => share(a.recall).total_cmp(&share(b.recall)),
            Self::F1 => share(a.f1).total_cmp(&share(b.f1)),
        }
    }
}

/// How the table is sorted: the worst class first unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    column: Column,
    descending: bool,
}

impl Default for Order {
    fn default() -> Self {
        Self { column: Column::F1, descending: false }
    }
}

impl Order {
    fn sort(self, classes: &mut [&ClassScore]) {
        classes.sort_by(|a, b| {
            let order = self.column.compare(a, b);
            (if self.descending { order.reverse() } else { order }).then_with(|| a.name.cmp(&b.name))
        });
    }

    fn click(&mut self, column: Column) {
        let descending = self.column == column && !self.descending;
        *self = Self { column, descending };
    }
}

pub fn classes_ui(ui: &mut Ui, judged: &mut Judged) {
    let evaluation = &judged.summary.evaluation;
    let mut classes: Vec<&ClassScore> = evaluation.classes.iter().filter(|class| class.photos > 0).collect();
    judged.order.sort(&mut classes);
    let width = (ui.available_width() - STEP * 2.0).min(820.0);
    headings_ui(ui, &mut judged.order, width);
    ui.spacing_mut().item_spacing.y = 0.0;
    ScrollArea::vertical().id_salt("class scores").auto_shrink(false).show_rows(ui, ROW, classes.len(), |ui, rows| {
        for class in &classes[rows] {
            row_ui(ui, class, width);
        }
    });
}

fn headings_ui(ui: &mut Ui, order: &mut Order, width: f32) {
    let palette = Palette::of(ui);
    let (row, _) = ui.allocate_exact_size(vec2(width, ROW), Sense::empty());
    for (column, name, what) in Column::ALL {
        let rect = place(row, column);
        let response = ui.interact(rect, ui.scope_id().with(name), Sense::click());
        let is_chosen = order.column == column;
        response.widget_info(|| WidgetInfo::selected(Role::Button, true, is_chosen, format!("Sort by {name}")));
        let color = if is_chosen || response.hovered() { palette.text } else { palette.secondary };
        let (at, align) = text_place(rect, column);
        let drawn = ui.painter().text(at, align, name, theme::strong(12.0), color);
        if is_chosen {
            let arrow = char::from(if order.descending { Icon::ArrowDown } else { Icon::ArrowUp });
            let at = if align == Align2::LEFT_CENTER { drawn.right() + 10.0 } else { drawn.left() - 10.0 };
            ui.painter().text(pos2(at, rect.center().y), Align2::CENTER_CENTER, arrow, theme::icons(12.0), color);
        }
        widgets::focus_ring(ui, rect, &response);
        let clicked = response.clicked();
        if !what.is_empty() {
            response.on_hover_text(what);
        }
        if clicked {
            order.click(column);
        }
    }
    ui.painter().hline(row.x_range(), row.bottom(), egui::Stroke::new(1.0, palette.hairline));
}

fn row_ui(ui: &mut Ui, class: &ClassScore, width: f32) {
    let palette = Palette::of(ui);
    let (row, response) = ui.allocate_exact_size(vec2(width, ROW), Sense::hover());
    let values = [
        (Column::Photos, format::count(class.photos as u64)),
        (Column::Precision, percent(class.precision)),
        (Column::Recall, percent(class.recall)),
        (Column::F1, percent(class.f1)),
    ];
    let spoken = values.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", ");
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, format!("{}: {spoken}", class.name)));
    let font = FontId::proportional(12.0);
    let (at, _) = text_place(place(row, Column::Name), Column::Name);
    let name = widgets::one_line(ui, &class.name, font.clone(), palette.text, place(row, Column::Name).width() - 8.0);
    ui.painter().galley(at - vec2(0.0, name.size().y / 2.0), name, palette.text);
    for (column, value) in values {
        let (at, align) = text_place(place(row, column), column);
        ui.painter().text(at, align, value, font.clone(), palette.text);
    }
    let bar = place(row, Column::F1);
    let bar =
        Rect::from_min_max(pos2(bar.left() + 64.0, bar.center().y - 2.0), pos2(bar.right(), bar.center().y + 2.0));
    widgets::bar(ui, bar, class.f1.unwrap_or(0.0) as f32, palette.accent);
}

fn place(row: Rect, column: Column) -> Rect {
    let (left, right) = column.span();
    row.with_min_x(row.left() + left * row.width()).with_max_x(row.left() + right * row.width())
}

/// Names from the left, numbers from the right; beside the last there is a bar.
fn text_place(rect: Rect, column: Column) -> (egui::Pos2, Align2) {
    match column {
        Column::Name => (pos2(rect.left(), rect.center().y), Align2::LEFT_CENTER),
        Column::F1 => (pos2(rect.left() + 56.0, rect.center().y), Align2::RIGHT_CENTER),
        _ => (pos2(rect.right() - 4.0, rect.center().y), Align2::RIGHT_CENTER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_class_comes_first_and_a_second_click_turns_the_order() {
        let class =
            |name: &str, photos, f1| ClassScore { name: name.to_owned(), photos, precision: None, recall: None, f1 };
        let classes = [class("a", 3, Some(0.5)), class("b", 9, Some(0.2)), class("c", 3, None)];
        let sorted = |order: Order| {
            let mut sorted: Vec<&ClassScore> = classes.iter().collect();
            order.sort(&mut sorted);
            sorted.iter().map(|class| class.name.as_str()).collect::<String>()
        };
        let mut order = Order::default();
        assert_eq!(sorted(order), "cba");
        order.click(Column::Photos);
        assert_eq!(sorted(order), "acb");
        order.click(Column::Photos);
        assert_eq!(sorted(order), "bac", "equal ones stay in the order of their names");
    }
}
