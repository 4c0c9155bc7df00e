//! Under a model in the list: whether it is loaded, what it takes, when it was last used, and buttons to keep or unload it.

use egui::{Align, Layout, Ui, vec2};
use lucide_icons::Icon;

use crate::format::{bytes, duration};
use crate::gui::Action;
use crate::gui::settings_actions::SettingsAction;
use crate::gui::theme::{Palette, STEP};
use crate::gui::widgets;
use crate::jobs::models::ModelKey;
use crate::memory::shelf::Shelved;
use crate::predict::ModelSource;

const HEIGHT: f32 = 28.0;

/// A line for each form in which the model is loaded: with another precision or transform it is another one.
pub fn rows_ui(ui: &mut Ui, source: &ModelSource, shelved: &[Shelved<ModelKey>], actions: &mut Vec<Action>) {
    for shelved in shelved.iter().filter(|shelved| shelved.key.source == *source) {
        row_ui(ui, shelved, actions, |ui| {
            ui.add_space(24.0);
        });
    }
}

/// A line for one loaded model; `add_name` is drawn before how it stands.
pub fn row_ui(ui: &mut Ui, shelved: &Shelved<ModelKey>, actions: &mut Vec<Action>, add_name: impl FnOnce(&mut Ui)) {
    let size = vec2(ui.available_width() - STEP, HEIGHT);
    ui.allocate_ui_with_layout(size, Layout::right_to_left(Align::Center), |ui| {
        ui.spacing_mut().item_spacing.x = 2.0;
        if !shelved.is_loading {
            buttons_ui(ui, shelved, actions);
        }
        ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
            add_name(ui);
            let color = Palette::of(ui).secondary;
            let text = egui::RichText::new(state(shelved)).small().color(color);
            ui.add(egui::Label::new(text).truncate());
        });
    });
}

fn buttons_ui(ui: &mut Ui, shelved: &Shelved<ModelKey>, actions: &mut Vec<Action>) {
    let mut ask = |action| actions.push(Action::Settings(action));
    if widgets::icon_button(ui, Icon::X, "Unload").clicked() {
        ask(SettingsAction::Unload(shelved.key.clone()));
    }
    let (icon, name) = match shelved.is_pinned {
        true => (Icon::PinOff, "Unpin: may be unloaded"),
        false => (Icon::Pin, "Pin: keep it loaded"),
    };
    if widgets::icon_button(ui, icon, name).clicked() {
        ask(SettingsAction::Pin(shelved.key.clone(), !shelved.is_pinned));
    }
}

fn state(shelved: &Shelved<ModelKey>) -> String {
    let use_of_it = match shelved {
        Shelved { is_loading: true, .. } => return format!("Loading · {}", bytes(shelved.bytes)),
        Shelved { is_in_use: true, .. } => "in use".to_owned(),
        Shelved { last_used, .. } => format!("{} ago", duration(last_used.elapsed())),
    };
    let pinned = if shelved.is_pinned { "Pinned" } else { "Loaded" };
    format!("{pinned} · {} · {use_of_it}", bytes(shelved.bytes))
}
