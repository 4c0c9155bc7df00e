//! The thumbnail grid: only the rows in sight are laid out, whatever the number of photos. One cell holds the keyboard;
//! arrows, Page Up and Down, Home and End move it, Enter opens its photo.

use egui::{
    Align2, Color32, CornerRadius, EventFilter, FontId, Id, Key, Rect, Response, ScrollArea, Sense, Ui, Vec2,
    WidgetInfo, accesskit::Role, pos2, vec2,
};

use crate::gui::Action;
use crate::gui::pictures;
use crate::gui::results::{Entry, Group, Results, Verdict};
use crate::gui::textures::Textures;
use crate::gui::theme::{Palette, RADIUS};
use crate::gui::widgets;

const CELL_WIDTH: f32 = 148.0;
const PICTURE_HEIGHT: f32 = 112.0;
const CELL_HEIGHT: f32 = PICTURE_HEIGHT + 46.0;
const GAP: f32 = 12.0;

/// Pixels of a thumbnail's longer side: enough for a cell on a screen with two pixels per point.
const SIDE: u32 = 256;

/// Where the grid is scrolled to and which cell holds the keyboard.
#[derive(Debug, Default)]
pub struct Grid {
    /// A place in the shown order.
    cursor: usize,
    offset: f32,
    height: f32,
}

/// Draws the grid; returns the photo to show large when one was chosen.
pub fn grid_ui(
    ui: &mut Ui,
    results: &Results,
    order: &[u32],
    textures: &mut Textures,
    grid: &mut Grid,
    selected: Option<u32>,
    actions: &mut Vec<Action>,
) -> Option<u32> {
    let width = ui.available_width() - 12.0;
    let columns = (((width + GAP) / (CELL_WIDTH + GAP)).floor() as usize).max(1);
    let cell = vec2((width - GAP * (columns - 1) as f32) / columns as f32, CELL_HEIGHT);
    grid.cursor = grid.cursor.min(order.len().saturating_sub(1));
    let mut chosen = None;
    let moved = follow_keys(ui, order, grid, columns);
    if moved && selected.is_some() {
        chosen = order.get(grid.cursor).copied();
    }
    ui.spacing_mut().item_spacing = Vec2::splat(GAP);
    let mut area = ScrollArea::vertical().id_salt("photos").auto_shrink(false);
    if moved {
        area = area.vertical_scroll_offset(grid.offset);
    }
    let rows = order.len().div_ceil(columns);
    let output = area.show_rows(ui, CELL_HEIGHT, rows, |ui, shown| {
        let origin = ui.max_rect().min;
        let first_row = shown.start;
        for place in shown.start * columns..(shown.end * columns).min(order.len()) {
            let (row, column) = (place / columns - first_row, place % columns);
            let at = origin + vec2(column as f32 * (cell.x + GAP), row as f32 * (cell.y + GAP));
            let Some(entry) = order.get(place).and_then(|index| results.get(*index as usize)) else { continue };
            let index = order[place];
            let has_cursor = place == grid.cursor;
            let response = cell_ui(
                ui,
                Rect::from_min_size(at, cell),
                index,
                entry,
                results,
                textures,
                has_cursor,
                selected == Some(index),
            );
            widgets::reveal_menu(&response, &entry.path, actions);
            if response.clicked() {
                grid.cursor = place;
                response.request_focus();
                chosen = Some(index);
            } else if has_cursor && moved {
                response.request_focus();
            }
        }
        // The rows in sight take their full height, so that the scroll bar is right.
        ui.allocate_rect(ui.max_rect(), Sense::empty());
    });
    (grid.offset, grid.height) = (output.state.clamped_offset().y, output.inner_rect.height());
    chosen
}

pub fn cell_id(index: u32) -> Id {
    Id::unique(("photo", index))
}

/// Moves the cursor while its cell has the keyboard, and scrolls it into sight. True when it moved.
fn follow_keys(ui: &Ui, order: &[u32], grid: &mut Grid, columns: usize) -> bool {
    let Some(id) = order.get(grid.cursor).map(|index| cell_id(*index)) else { return false };
    if !ui.memory(|memory| memory.has_focus(id)) {
        return false;
    }
    let filter = EventFilter { horizontal_arrows: true, vertical_arrows: true, ..EventFilter::default() };
    ui.memory_mut(|memory| memory.set_focus_lock_filter(id, filter));
    let page = columns * ((grid.height / (CELL_HEIGHT + GAP)).floor() as usize).max(1);
    let last = order.len() - 1;
    let before = grid.cursor;
    let step = |key| ui.input_mut(|input| input.count_and_consume_key(egui::Modifiers::NONE, key));
    let forward = step(Key::ArrowRight) + step(Key::ArrowDown) * columns + step(Key::PageDown) * page;
    let back = step(Key::ArrowLeft) + step(Key::ArrowUp) * columns + step(Key::PageUp) * page;
    grid.cursor = (grid.cursor + forward).saturating_sub(back).min(last);
    if step(Key::Home) > 0 {
        grid.cursor = 0;
    }
    if step(Key::End) > 0 {
        grid.cursor = last;
    }
    let top = (grid.cursor / columns) as f32 * (CELL_HEIGHT + GAP);
    grid.offset = grid.offset.clamp((top + CELL_HEIGHT - grid.height).min(top), top);
    grid.cursor != before
}

#[expect(clippy::too_many_arguments, reason = "a cell is drawn from one place only")]
fn cell_ui(
    ui: &Ui,
    rect: Rect,
    index: u32,
    entry: &Entry,
    results: &Results,
    textures: &mut Textures,
    has_cursor: bool,
    selected: bool,
) -> Response {
    // One Tab stop for the whole grid: the cell with the cursor.
    let sense = if has_cursor { Sense::click() } else { Sense::CLICK };
    let response = ui.interact(rect, cell_id(index), sense);
    let palette = Palette::of(ui);
    let group = entry.group(results.threshold());
    let headline = headline(entry, results, group);
    response.widget_info(|| WidgetInfo::selected(Role::Button, true, selected, spoken(entry, &headline)));
    let picture = rect.with_max_y(rect.top() + PICTURE_HEIGHT);
    pictures::filling_ui(ui, picture, &entry.path, SIDE, textures);
    caption_ui(ui, rect, entry, &headline, group, &palette);
    if selected || response.hovered() {
        let color = if selected { palette.accent_line } else { palette.hairline };
        let stroke = egui::Stroke::new(2.0, color);
        ui.painter().rect_stroke(picture, CornerRadius::same(RADIUS), stroke, egui::StrokeKind::Outside);
    }
    widgets::focus_ring(ui, picture.expand(3.0), &response);
    match &entry.verdict {
        Verdict::Skipped(reason) if response.hovered() => response.on_hover_text(format!("{}: {reason}", entry.name())),
        _ => response,
    }
}

/// The label, `unsure (pizza)`, or the reason why there is no class.
fn headline(entry: &Entry, results: &Results, group: Group) -> String {
    match (&entry.verdict, entry.best) {
        (Verdict::Skipped(reason), _) => format!("skipped: {reason}"),
        (_, Some(best)) if group == Group::Unsure => format!("unsure ({})", results.label(best.class)),
        (_, Some(best)) => results.label(best.class).to_string(),
        (_, None) => "no class".to_owned(),
    }
}

/// What a screen reader says of a cell: `a.jpg, pizza, 97 %`.
fn spoken(entry: &Entry, headline: &str) -> String {
    let name = entry.name();
    match entry.best {
        Some(best) => format!("{name}, {headline}, {}", widgets::percent(best.probability)),
        None => format!("{name}, {headline}"),
    }
}

fn caption_ui(ui: &Ui, rect: Rect, entry: &Entry, headline: &str, group: Group, palette: &Palette) {
    let color = match group {
        Group::Class(_) => palette.text,
        Group::Unsure | Group::Skipped => palette.warning,
    };
    let top = rect.top() + PICTURE_HEIGHT;
    let line = |text: &str, size: f32, color: Color32, y: f32, width: f32| {
        let galley = widgets::one_line(ui, text, FontId::proportional(size), color, width);
        ui.painter().galley(pos2(rect.left(), y - galley.size().y / 2.0), galley, color);
    };
    let percent_width = if entry.best.is_some() { 44.0 } else { 0.0 };
    line(headline, 12.0, color, top + 12.0, rect.width() - percent_width);
    if let Some(best) = entry.best {
        let at = pos2(rect.right(), top + 12.0);
        let percent = widgets::percent(best.probability);
        ui.painter().text(at, Align2::RIGHT_CENTER, percent, FontId::proportional(12.0), palette.secondary);
        let bar = Rect::from_min_size(pos2(rect.left(), top + 22.0), vec2(rect.width(), 3.0));
        let fill = if group == Group::Unsure { palette.warning } else { palette.accent };
        widgets::bar(ui, bar, best.probability, fill);
    }
    line(&entry.name(), 11.0, palette.secondary, top + 36.0, rect.width());
}
