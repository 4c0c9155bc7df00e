//! How many photos each class has. A click on a class shows only its photos.

use egui::{FontId, Sense, Ui, WidgetInfo, accesskit::Role, pos2};
use egui_plot::{Bar, BarChart};

use crate::format;
use crate::gui::results::{Group, Results};
use crate::gui::theme::Palette;
use crate::gui::widgets;

/// Classes in the chart; the rest are in the filter's list.
const SHOWN: usize = 12;
const ROW: f32 = 24.0;

/// Every group with photos: classes by count, then unsure, then skipped.
pub fn groups(results: &Results) -> Vec<(Group, u64)> {
    let counts = results.counts();
    let classes = counts.classes.iter().zip(0..).filter(|(count, _)| **count > 0);
    let mut groups: Vec<(Group, u64)> = classes.map(|(count, class)| (Group::Class(class), *count)).collect();
    groups.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let rest = [(Group::Unsure, counts.unsure), (Group::Skipped, counts.skipped)];
    groups.extend(rest.into_iter().filter(|(_, count)| *count > 0));
    groups
}

pub fn histogram_ui(ui: &mut Ui, results: &Results, chosen: &mut Option<Group>) {
    widgets::section(ui, "Classes");
    let all = groups(results);
    let classes = all.iter().filter(|(group, _)| matches!(group, Group::Class(_))).count();
    let hidden = classes.saturating_sub(SHOWN);
    let rows: Vec<(Group, u64)> = [&all[..classes - hidden], &all[classes..]].concat();
    chart_ui(ui, results, &rows, chosen);
    if hidden > 0 {
        widgets::note(ui, format!("and {} more in the class filter", format::count(hidden as u64)));
    }
}

fn chart_ui(ui: &mut Ui, results: &Results, rows: &[(Group, u64)], chosen: &mut Option<Group>) {
    let palette = Palette::of(ui);
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(1) as f64;
    let bars = rows.iter().enumerate().map(|(row, (group, count))| {
        let dim = chosen.is_some_and(|chosen| chosen != *group);
        let fill = match group {
            Group::Class(_) if dim => palette.surface_hovered,
            Group::Class(_) => palette.accent_soft,
            _ => palette.surface,
        };
        Bar::new(-(row as f64), *count as f64).fill(fill).width(0.84)
    });
    let chart = BarChart::new("classes", bars.collect()).horizontal().allow_hover(false);
    let bottom = 0.5 - rows.len() as f64;
    let plot =
        widgets::still_plot("class histogram").height(rows.len() as f32 * ROW).sense(Sense::click()).show(ui, |plot| {
            plot.set_plot_bounds_x(0.0..=most);
            plot.set_plot_bounds_y(bottom..=0.5);
            plot.bar_chart(chart);
            plot.pointer_coordinate()
        });
    let rect = plot.response.rect;
    for (row, (group, count)) in rows.iter().enumerate() {
        let y = rect.top() + (row as f32 + 0.5) * ROW;
        let color = if matches!(group, Group::Class(_)) { palette.text } else { palette.warning };
        let name =
            widgets::one_line(ui, &results.group_name(*group), FontId::proportional(12.0), color, rect.width() - 72.0);
        ui.painter().galley(pos2(rect.left() + 8.0, y - name.size().y / 2.0), name, color);
        super::painted_count(ui, pos2(rect.right() - 8.0, y), *count, palette.secondary);
    }
    let under = plot.inner.and_then(|point| rows.get((0.5 - point.y).floor().max(0.0) as usize));
    plot.response.widget_info(|| WidgetInfo::labeled(Role::Button, true, "Class histogram: show one class"));
    let response = plot.response.on_hover_cursor(egui::CursorIcon::PointingHand);
    if let Some((group, _)) = under.filter(|_| response.clicked()) {
        *chosen = if *chosen == Some(*group) { None } else { Some(*group) };
    }
    if response.has_focus() {
        step_through(ui, rows, chosen);
    }
    widgets::focus_ring(ui, rect, &response);
}

/// With the keyboard on the chart, up and down go from class to class.
fn step_through(ui: &Ui, rows: &[(Group, u64)], chosen: &mut Option<Group>) {
    let id = ui.memory(|memory| memory.focused());
    let filter = egui::EventFilter { vertical_arrows: true, ..Default::default() };
    ui.memory_mut(|memory| id.into_iter().for_each(|id| memory.set_focus_lock_filter(id, filter)));
    let (down, up) = ui.input(|input| (input.key_pressed(egui::Key::ArrowDown), input.key_pressed(egui::Key::ArrowUp)));
    let at = chosen.and_then(|chosen| rows.iter().position(|(group, _)| *group == chosen));
    let next = match (down, up, at) {
        (true, _, None) => Some(0),
        (true, _, Some(at)) => Some((at + 1).min(rows.len().saturating_sub(1))),
        (_, true, Some(at)) => at.checked_sub(1),
        _ => return,
    };
    *chosen = next.and_then(|next| rows.get(next)).map(|(group, _)| *group);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gui::results::tests::{row, skipped};

    #[test]
    fn groups_go_by_count_and_the_doubtful_come_last() {
        let mut results = Results::new(0.5);
        let rows = [row("a", 2, 0.9), row("b", 0, 0.9), row("c", 2, 0.8), row("d", 1, 0.2), skipped("e"), skipped("f")];
        rows.into_iter().for_each(|row| results.push(row));
        let expected = [(Group::Class(2), 2), (Group::Class(0), 1), (Group::Unsure, 1), (Group::Skipped, 2)];
        assert_eq!(groups(&results), expected);
    }
}
