//! The row above the grid: which photos are shown, in which order, and the export.

use egui::containers::menu::MenuButton;
use egui::{Align, Button, ComboBox, Layout, RangeSlider, TextEdit, Ui, WidgetInfo, accesskit::Role};
use lucide_icons::Icon;

use crate::format;
use crate::gui::Action;
use crate::gui::dialogs::{Ask, ExportKind};
use crate::gui::results::{Group, Results};
use crate::gui::run::Run;
use crate::gui::theme;
use crate::gui::view::{Query, Sort};
use crate::gui::widgets::{self, Weight};

pub fn filters_ui(ui: &mut Ui, run: &Run, query: &mut Query, shown: usize, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        text_ui(ui, &mut query.text);
        group_ui(ui, &run.results, &mut query.group);
        confidence_ui(ui, &mut query.confidence);
        sort_ui(ui, query);
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| export_ui(ui, run, actions));
    });
    ui.horizontal(|ui| {
        ui.set_min_height(theme::CONTROL);
        let total = run.results.len() as u64;
        if query.filters() {
            widgets::note(ui, format!("{} of {} shown", format::count(shown as u64), format::counted(total, "photo")));
            if widgets::button(ui, Weight::Quiet, Icon::X, "Clear filters").clicked() {
                query.clear();
            }
        } else {
            widgets::note(ui, format::counted(total, "photo"));
        }
    });
}

fn text_ui(ui: &mut Ui, text: &mut String) {
    let field = TextEdit::singleline(text).hint_text("Filter by name or label").desired_width(160.0);
    ui.add(field.min_size(egui::vec2(0.0, theme::CONTROL)).align(egui::Align2::LEFT_CENTER));
}

fn group_ui(ui: &mut Ui, results: &Results, chosen: &mut Option<Group>) {
    let text = chosen.map_or_else(|| "All classes".into(), |group| results.group_name(group));
    let combo = ComboBox::from_id_salt("class").selected_text(&*text).width(128.0).truncate().show_ui(ui, |ui| {
        ui.selectable_value(chosen, None, "All classes");
        for (group, count) in super::histogram::groups(results) {
            let line = format!("{} ({})", results.group_name(group), format::count(count));
            ui.selectable_value(chosen, Some(group), line);
        }
    });
    widgets::name_combo(&combo.response, "Class", &text);
}

fn confidence_ui(ui: &mut Ui, (low, high): &mut (f32, f32)) {
    let text = format!("{} to {}", widgets::percent(*low), widgets::percent(*high));
    ui.scope(|ui| {
        let spacing = ui.spacing_mut();
        (spacing.slider_width, spacing.interact_size.y) = (88.0, theme::HANDLE);
        ui.add(RangeSlider::new(low, high, 0.0..=1.0).show_value(false).text("Confidence")).on_hover_text(text);
    });
}

fn sort_ui(ui: &mut Ui, query: &mut Query) {
    let text = query.sort.label();
    let combo = ComboBox::from_id_salt("sort").selected_text(text).width(104.0).show_ui(ui, |ui| {
        for sort in Sort::ALL {
            ui.selectable_value(&mut query.sort, sort, sort.label());
        }
    });
    widgets::name_combo(&combo.response, "Sort", text);
    let (icon, name) =
        if query.descending { (Icon::ArrowDown, "Sort ascending") } else { (Icon::ArrowUp, "Sort descending") };
    if widgets::icon_button(ui, icon, name).clicked() {
        query.descending = !query.descending;
    }
}

fn export_ui(ui: &mut Ui, run: &Run, actions: &mut Vec<Action>) {
    let button = Button::new("Export").min_size(egui::vec2(0.0, theme::CONTROL));
    let menu = |ui: &mut Ui| {
        MenuButton::from_button(button).ui(ui, |ui| {
            for kind in ExportKind::ALL {
                if ui.button(kind.label()).clicked() {
                    actions.push(Action::Ask(Ask::Export(kind)));
                    ui.close();
                }
            }
        })
    };
    let enabled = !run.results.is_empty();
    let (response, _) = ui.add_enabled_ui(enabled, menu).inner;
    response.widget_info(|| WidgetInfo::labeled(Role::Button, enabled, "Export"));
}
