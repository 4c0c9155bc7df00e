//! The few controls every page is made of. Each has a name for a screen reader: what a person would call it, without
//! its icon.

use std::path::Path;

use egui::text::{LayoutJob, TextFormat};
use egui::{Align, Align2, Button, Color32, CornerRadius, Frame, Layout, Margin, Rect, Response, RichText, Sense};
use egui::{Stroke, StrokeKind, Ui, Vec2, WidgetInfo, accesskit::Role, vec2};
use egui_plot::{GridMark, Plot};
use lucide_icons::Icon;

use super::Action;
use super::theme::{self, Palette, RADIUS, STEP};
use crate::format;
use crate::platform::files;

/// How much a button asks for attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// The one thing to do next; at most one in sight.
    Primary,
    Plain,
    /// No frame until the pointer is over it.
    Quiet,
}

/// A button with an icon before its text, named by its text.
pub fn button(ui: &mut Ui, weight: Weight, icon: Icon, text: &str) -> Response {
    let palette = Palette::of(ui);
    let color = if weight == Weight::Primary { Color32::WHITE } else { Color32::PLACEHOLDER };
    let mut job = LayoutJob::default();
    let format = |font_id, color| TextFormat { font_id, color, valign: Align::Center, ..TextFormat::default() };
    job.append(&char::from(icon).to_string(), 0.0, format(theme::icons(14.0), color));
    job.append(text, 6.0, format(egui::TextStyle::Button.resolve(ui.style()), color));
    let mut button = Button::new(job).min_size(vec2(0.0, theme::CONTROL));
    match weight {
        Weight::Primary => button = button.fill(palette.accent).stroke(Stroke::NONE),
        Weight::Plain => {}
        Weight::Quiet => button = button.frame_when_inactive(false),
    }
    named(ui, button, text)
}

/// A square button that is only an icon; its name is also its tooltip.
pub fn icon_button(ui: &mut Ui, icon: Icon, name: &str) -> Response {
    let glyph = RichText::new(char::from(icon)).font(theme::icons(14.0));
    let button = Button::new(glyph).frame_when_inactive(false).min_size(Vec2::splat(theme::CONTROL));
    named(ui, button, name).on_hover_text(name)
}

fn named(ui: &mut Ui, button: Button<'_>, name: &str) -> Response {
    let enabled = ui.is_enabled();
    let response = ui.add(button);
    response.widget_info(|| WidgetInfo::labeled(Role::Button, enabled, name));
    response
}

/// Shows a file where it lies.
pub fn reveal_ui(ui: &mut Ui, path: &Path, actions: &mut Vec<Action>) {
    if button(ui, Weight::Quiet, Icon::FolderOpen, files::REVEAL).clicked() {
        actions.push(Action::Reveal(path.to_owned()));
    }
}

/// The same for the secondary button.
pub fn reveal_menu(response: &Response, path: &Path, actions: &mut Vec<Action>) {
    response.context_menu(|ui| reveal_ui(ui, path, actions));
}

/// A page in the sidebar.
pub fn nav_item(ui: &mut Ui, icon: Icon, text: &str, shortcut: &str, selected: bool) -> Response {
    let palette = Palette::of(ui);
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 32.0), Sense::click());
    response.widget_info(|| WidgetInfo::selected(Role::Button, true, selected, text));
    let fill = match (selected, response.hovered()) {
        (true, _) => palette.accent_soft,
        (false, true) => palette.surface_hovered,
        (false, false) => Color32::TRANSPARENT,
    };
    let color = if selected { palette.accent_line } else { palette.text };
    let painter = ui.painter();
    painter.rect_filled(rect, CornerRadius::same(RADIUS), fill);
    let middle = |x: f32| egui::pos2(x, rect.center().y);
    painter.text(middle(rect.left() + 12.0), Align2::LEFT_CENTER, char::from(icon), theme::icons(16.0), color);
    let body = egui::FontId::proportional(13.0);
    painter.text(middle(rect.left() + 38.0), Align2::LEFT_CENTER, text, body, palette.text);
    let small = egui::FontId::proportional(11.0);
    painter.text(middle(rect.right() - 10.0), Align2::RIGHT_CENTER, shortcut, small, palette.secondary);
    focus_ring(ui, rect, &response);
    response
}

/// Shows which self-drawn control has the keyboard.
pub fn focus_ring(ui: &Ui, rect: Rect, response: &Response) {
    if response.has_focus() {
        let stroke = Stroke::new(2.0, Palette::of(ui).accent_line);
        ui.painter().rect_stroke(rect, CornerRadius::same(RADIUS), stroke, StrokeKind::Inside);
    }
}

pub fn icon(ui: &mut Ui, icon: Icon, size: f32, color: Color32) {
    let (rect, _) = ui.allocate_exact_size(Vec2::splat(size), Sense::empty());
    ui.painter().text(rect.center(), Align2::CENTER_CENTER, char::from(icon), theme::icons(size), color);
}

pub fn title(ui: &mut Ui, text: &str) {
    ui.label(RichText::new(text).heading());
}

/// The small heading of a group of controls.
pub fn section(ui: &mut Ui, text: &str) {
    ui.label(RichText::new(text).font(theme::strong(12.0)).color(Palette::of(ui).secondary));
}

/// Text of the second rank.
pub fn note(ui: &mut Ui, text: impl Into<String>) -> Response {
    let color = Palette::of(ui).secondary;
    ui.add(egui::Label::new(RichText::new(text).color(color)).wrap())
}

/// A framed group.
pub fn card<R>(ui: &mut Ui, add_contents: impl FnOnce(&mut Ui) -> R) -> R {
    let palette = Palette::of(ui);
    let frame = Frame::new()
        .fill(palette.page)
        .stroke(Stroke::new(1.0, palette.hairline))
        .corner_radius(CornerRadius::same(8))
        .inner_margin(Margin::same(16));
    frame
        .show(ui, |ui| {
            ui.set_width(ui.available_width());
            add_contents(ui)
        })
        .inner
}

/// A name on the left and its value on the right of the same line; long values wrap.
pub fn fact(ui: &mut Ui, name: &str, value: &str) {
    const NAME_WIDTH: f32 = 128.0;
    let secondary = Palette::of(ui).secondary;
    ui.horizontal_top(|ui| {
        let size = vec2(NAME_WIDTH, 16.0);
        let layout = Layout::left_to_right(Align::Min);
        ui.allocate_ui_with_layout(size, layout, |ui| {
            ui.set_min_width(NAME_WIDTH);
            ui.label(RichText::new(name).color(secondary));
        });
        ui.add(egui::Label::new(value).wrap().selectable(true));
    });
}

/// What a page says when it has nothing to show: what this is, and what to do next.
pub fn empty_state(ui: &mut Ui, symbol: Icon, title: &str, text: &str, add_buttons: impl FnOnce(&mut Ui)) {
    const WIDTH: f32 = 440.0;
    const HEIGHT: f32 = 220.0;
    let palette = Palette::of(ui);
    let space = ui.available_rect_before_wrap();
    let rect = Rect::from_center_size(space.center(), vec2(WIDTH.min(space.width()), HEIGHT.min(space.height())));
    let builder = egui::UiBuilder::new().max_rect(rect).layout(Layout::top_down(Align::Center));
    ui.scope_builder(builder, |ui| {
        icon(ui, symbol, 36.0, palette.secondary);
        ui.add_space(STEP);
        ui.label(RichText::new(title).font(theme::strong(16.0)));
        ui.add(egui::Label::new(RichText::new(text).color(palette.secondary)).wrap());
        ui.add_space(STEP);
        add_buttons(ui);
    });
}

/// Buttons side by side, the group centered.
pub fn centered_row(ui: &mut Ui, id: &str, add_contents: impl FnOnce(&mut Ui)) {
    // The width is known from the frame before: one frame off center at most, and never again.
    let id = ui.scope_id().with(id);
    let width = ui.data(|data| data.get_temp::<f32>(id)).unwrap_or(0.0);
    let inner = ui.horizontal(|ui| {
        ui.add_space(((ui.available_width() - width) / 2.0).max(0.0));
        ui.scope(add_contents).response.rect.width()
    });
    if (inner.inner - width).abs() > 0.5 {
        ui.data_mut(|data| data.insert_temp(id, inner.inner));
        ui.ctx().request_repaint();
    }
}

/// A line of warning or error with its icon.
pub fn alert(ui: &mut Ui, symbol: Icon, color: Color32, text: &str) {
    ui.horizontal_top(|ui| {
        icon(ui, symbol, 16.0, color);
        ui.add(egui::Label::new(RichText::new(text).color(color)).wrap().selectable(true));
    });
}

/// A thin bar, `share` of it filled.
pub fn bar(ui: &Ui, rect: Rect, share: f32, fill: Color32) {
    let radius = CornerRadius::same((rect.height() / 2.0) as u8);
    ui.painter().rect_filled(rect, radius, Palette::of(ui).surface_hovered);
    let mut filled = rect;
    filled.set_width(rect.width() * share.clamp(0.0, 1.0));
    ui.painter().rect_filled(filled, radius, fill);
}

/// A thin bar across the width that a screen reader knows as progress.
pub fn progress_bar(ui: &mut Ui, share: f32) {
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 4.0), Sense::hover());
    response.widget_info(|| {
        let mut info = WidgetInfo::labeled(Role::ProgressIndicator, true, "Progress");
        info.value = Some(f64::from(share));
        info
    });
    bar(ui, rect, share, Palette::of(ui).accent);
}

/// A small button that stays down while it is chosen.
pub fn toggle(ui: &mut Ui, chosen: bool, text: &str) -> Response {
    let palette = Palette::of(ui);
    let (fill, edge, color) = match chosen {
        true => (palette.accent_soft, palette.accent_line, palette.text),
        false => (palette.surface, palette.hairline, palette.text),
    };
    let text_shown = RichText::new(text).size(12.0).color(color);
    let button = Button::new(text_shown).fill(fill).stroke(Stroke::new(1.0, edge)).min_size(vec2(0.0, 24.0));
    let response = ui.add(button);
    response.widget_info(|| WidgetInfo::selected(Role::Button, true, chosen, text));
    response
}

/// One of the parts of a page, of which one is shown.
pub fn tab(ui: &mut Ui, chosen: bool, text: &str) -> Response {
    let palette = Palette::of(ui);
    let font = if chosen { theme::strong(13.0) } else { egui::FontId::proportional(13.0) };
    let color = if chosen { palette.text } else { palette.secondary };
    let button = Button::new(RichText::new(text).font(font).color(color)).frame_when_inactive(false);
    let response = ui.add(button.min_size(vec2(0.0, theme::CONTROL)));
    response.widget_info(|| WidgetInfo::selected(Role::Tab, true, chosen, text));
    if chosen {
        let line = Rect::from_min_max(response.rect.left_bottom() - vec2(0.0, 2.0), response.rect.right_bottom());
        ui.painter().rect_filled(line, CornerRadius::ZERO, palette.accent_line);
    }
    response
}

/// The parts of a page side by side over a line; the one that is shown now.
pub fn tabs<T: Copy + PartialEq>(ui: &mut Ui, current: T, all: &[(T, &str)]) -> T {
    let mut shown = current;
    ui.scope(|ui| {
        ui.spacing_mut().item_spacing.y = 0.0;
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 4.0;
            for (one, text) in all {
                if tab(ui, current == *one, text).clicked() {
                    shown = *one;
                }
            }
        });
        let (line, _) = ui.allocate_exact_size(vec2(ui.available_width(), 1.0), Sense::empty());
        ui.painter().rect_filled(line, 0.0, Palette::of(ui).hairline);
    });
    shown
}

/// Figures side by side, each over its name; what has no room goes to the next line as a whole.
pub fn figures(ui: &mut Ui, figures: &[(&str, String)]) {
    const WIDTH: f32 = 91.0;
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing = Vec2::splat(STEP);
        for (name, value) in figures {
            ui.allocate_ui_with_layout(vec2(WIDTH, 34.0), Layout::top_down(Align::Min), |ui| {
                ui.set_width(WIDTH);
                ui.spacing_mut().item_spacing.y = 2.0;
                ui.label(RichText::new(value).font(theme::strong(13.0)));
                ui.label(RichText::new(*name).small().color(Palette::of(ui).secondary));
            });
        }
    });
}

/// What the colors of a chart mean, on one line.
pub fn legend(ui: &mut Ui, entries: &[(&str, Color32)]) {
    for (name, color) in entries {
        let (rect, _) = ui.allocate_exact_size(vec2(12.0, 12.0), Sense::empty());
        ui.painter().line_segment([rect.left_center(), rect.right_center()], Stroke::new(3.0, *color));
        ui.label(RichText::new(*name).font(egui::FontId::proportional(11.0)).color(Palette::of(ui).secondary));
    }
}

/// The last two parts of a path: many sets are called `train`.
pub fn last_two(path: &Path) -> String {
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let names = [path.parent().and_then(last), last(path)];
    names.into_iter().flatten().collect::<Vec<_>>().join("/")
}

/// So many names, and how many more there are.
pub fn first_few<'a>(names: impl ExactSizeIterator<Item = &'a str>, shown: usize) -> String {
    let more = names.len().saturating_sub(shown);
    let text = names.take(shown).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{text} and {} more", format::count(more as u64)) } else { text }
}

/// A short text on a tinted ground.
pub fn chip(ui: &mut Ui, text: &str) -> Response {
    let palette = Palette::of(ui);
    let frame = Frame::new()
        .fill(palette.surface)
        .corner_radius(CornerRadius::same(RADIUS))
        .inner_margin(Margin::symmetric(10, 5));
    frame.show(ui, |ui| ui.label(text)).response
}

/// Text on one line, cut with an ellipsis at `width`.
pub fn one_line(ui: &Ui, text: &str, font: egui::FontId, color: Color32, width: f32) -> std::sync::Arc<egui::Galley> {
    let mut job = LayoutJob::simple_singleline(text.to_owned(), font, color);
    job.wrap = egui::text::TextWrapping::truncate_at_width(width);
    ui.painter().layout_job(job)
}

/// Names a combo box: what it chooses, and what is chosen.
pub fn name_combo(response: &Response, name: &str, chosen: &str) {
    response.widget_info(|| {
        let mut info = WidgetInfo::labeled(Role::ComboBox, true, name);
        info.current_text_value = Some(chosen.to_owned());
        info
    });
}

/// A probability as whole percents, never rounded up to certainty: `97 %`, `>99 %`.
pub fn percent(probability: f32) -> String {
    let percents = f64::from(probability) * 100.0;
    match percents {
        99.5..100.0 => ">99 %".to_owned(),
        _ if percents > 0.0 && percents < 0.5 => "<1 %".to_owned(),
        _ => format!("{percents:.0} %"),
    }
}

/// A chart that fills its place to the edges and stays as it is drawn: no axes, nothing to drag or zoom.
pub fn still_plot(name: &str) -> Plot<'static> {
    fixed_plot(name).show_axes(false).show_grid(false).set_margin_fraction(vec2(0.0, 0.0))
}

/// A chart of this size with axes and a grid, which stays as it is drawn too. What is near the pointer is named if a
/// label formatter is set.
pub fn chart<'a>(ui: &Ui, name: &str, size: Vec2) -> Plot<'a> {
    let plot = fixed_plot(name).width(size.x).height(size.y).sense(Sense::hover());
    // The plot looks for what is near only where it would show coordinates.
    plot.show_x(true).show_y(true).show_crosshair(false).grid_color(Palette::of(ui).hairline)
}

/// About five lines of the grid at round numbers, at least `least` apart.
pub fn round_marks((low, high): (f64, f64), least: f64) -> Vec<GridMark> {
    const ABOUT: f64 = 5.0;
    if !(high - low).is_finite() || high <= low {
        return Vec::new();
    }
    let wanted = ((high - low) / ABOUT).max(least).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(wanted.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= wanted * (1.0 - 1e-9));
    let step_size = power * factor.unwrap_or(10.0);
    let numbers = (low / step_size - 1e-9).ceil() as i64..=(high / step_size + 1e-9).floor() as i64;
    numbers.map(|number| GridMark { value: number as f64 * step_size, step_size }).collect()
}

fn fixed_plot<'a>(name: &str) -> Plot<'a> {
    Plot::new(name)
        .show_background(false)
        .show_x(false)
        .show_y(false)
        .allow_zoom(false)
        .allow_drag(false)
        .allow_scroll(false)
        .allow_boxed_zoom(false)
        .allow_double_click_reset(false)
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn percents_never_round_to_certainty() {
        assert_eq!([percent(0.0), percent(0.001), percent(0.504)], ["0 %", "<1 %", "50 %"]);
        assert_eq!([percent(0.994), percent(0.9999), percent(1.0)], ["99 %", ">99 %", "100 %"]);
    }
}
