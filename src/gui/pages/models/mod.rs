//! The Models page: the list of checkpoints, everything known about the selected one, and where to get others.

mod get;
mod sheet;
pub mod shelf;
mod transform;

use egui::{Align2, CornerRadius, FontId, Layout, ScrollArea, Sense, Ui, WidgetInfo, accesskit::Role, pos2, vec2};
use lucide_icons::Icon;

use crate::gui::dialogs::Ask;
use crate::gui::downloads::Downloads;
use crate::gui::library::{Library, Model};
use crate::gui::theme::{self, Palette, RADIUS, STEP};
use crate::gui::widgets::{self, Weight};
use crate::gui::{Action, DownloadAction};
use crate::jobs::models::ModelKey;
use crate::memory::shelf::Shelved;
use crate::predict::ModelSource;

const LIST_WIDTH: f32 = 272.0;

pub fn page_ui(
    ui: &mut Ui,
    library: &mut Library,
    shelved: &[Shelved<ModelKey>],
    downloads: &mut Downloads,
    actions: &mut Vec<Action>,
) {
    ui.horizontal(|ui| {
        widgets::title(ui, "Models");
        ui.with_layout(Layout::right_to_left(egui::Align::Center), |ui| {
            if widgets::button(ui, Weight::Plain, Icon::FolderOpen, "Open checkpoint…").clicked() {
                actions.push(Action::Ask(Ask::Checkpoint));
            }
            if widgets::button(ui, Weight::Plain, Icon::Download, &get_name(downloads)).clicked() {
                actions.push(Action::Download(DownloadAction::Show(!downloads.is_open)));
            }
        });
    });
    ui.add_space(STEP);
    let rest = ui.available_rect_before_wrap();
    let (list, details) = rest.split_left_right_at_x(rest.left() + LIST_WIDTH);
    let details = details.with_min_x(details.left() + STEP * 3.0);
    ui.scope_builder(egui::UiBuilder::new().id_salt("list").max_rect(list), |ui| {
        list_ui(ui, library, shelved, downloads, actions)
    });
    ui.scope_builder(egui::UiBuilder::new().id_salt("details").max_rect(details), |ui| {
        ScrollArea::vertical().id_salt("sheet").auto_shrink(false).show(ui, |ui| {
            ui.set_max_width(680.0);
            match downloads.is_open {
                true => get::get_ui(ui, downloads, actions),
                false => sheet::sheet_ui(ui, library, actions),
            }
        });
    });
    ui.advance_cursor_after_rect(rest);
}

/// How far the model on its way is, also while the rest of it is not shown.
fn get_name(downloads: &Downloads) -> String {
    let share = downloads.current.as_ref().filter(|_| downloads.is_active()).and_then(|fetching| fetching.share());
    match share {
        Some(share) => format!("Downloading, {}", widgets::percent(share)),
        None if downloads.is_active() => "Downloading…".to_owned(),
        None => "Get a model".to_owned(),
    }
}

fn list_ui(
    ui: &mut Ui,
    library: &Library,
    shelved: &[Shelved<ModelKey>],
    downloads: &Downloads,
    actions: &mut Vec<Action>,
) {
    ScrollArea::vertical().id_salt("models").auto_shrink(false).show(ui, |ui| {
        ui.spacing_mut().item_spacing.y = 4.0;
        for model in library.models() {
            let selected = !downloads.is_open && library.selected().source == model.source;
            if item_ui(ui, model, selected, library.is_used(&model.source)).clicked() {
                actions.push(Action::SelectModel(model.source.clone()));
            }
            shelf::rows_ui(ui, &model.source, shelved, actions);
        }
        if library.models().len() == 1 {
            ui.add_space(STEP);
            widgets::note(
                ui,
                "Checkpoints you open or drop here are listed for next time: .pth, .safetensors and .gguf",
            );
        }
    });
}

fn item_ui(ui: &mut Ui, model: &Model, selected: bool, used: bool) -> egui::Response {
    let palette = Palette::of(ui);
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width() - STEP, 52.0), Sense::click());
    let name = model.name();
    let spoken = if used { format!("{name}, in use") } else { name.clone() };
    response.widget_info(|| WidgetInfo::selected(Role::Button, true, selected, &spoken));
    if selected || response.hovered() {
        let fill = if selected { palette.accent_soft } else { palette.surface };
        ui.painter().rect_filled(rect, CornerRadius::same(RADIUS), fill);
    }
    let symbol = if model.source == ModelSource::Starter { Icon::Sparkles } else { Icon::Box };
    let color = if selected { palette.accent_line } else { palette.secondary };
    let painter = ui.painter();
    painter.text(
        pos2(rect.left() + 24.0, rect.center().y),
        Align2::CENTER_CENTER,
        char::from(symbol),
        theme::icons(18.0),
        color,
    );
    let width = rect.width() - 48.0 - if used { 34.0 } else { 12.0 };
    let lines = [
        (name, FontId::proportional(13.0), palette.text, 16.0),
        (model.subtitle(), FontId::proportional(11.0), palette.secondary, 35.0),
    ];
    for (text, font, color, y) in lines {
        let galley = widgets::one_line(ui, &text, font, color, width);
        ui.painter().galley(pos2(rect.left() + 44.0, rect.top() + y - galley.size().y / 2.0), galley, color);
    }
    if used {
        let at = pos2(rect.right() - 20.0, rect.center().y);
        ui.painter().text(at, Align2::CENTER_CENTER, char::from(Icon::Check), theme::icons(16.0), palette.accent_line);
    }
    widgets::focus_ring(ui, rect, &response);
    response
}
