//! Fields for sizes, times and paths, as text: kept when they can be used, explained while they cannot.

use egui::{Align2, TextEdit, Ui};
use lucide_icons::Icon;

use crate::gui::Action;
use crate::gui::settings_actions::SettingsAction;
use crate::gui::theme::{Palette, STEP};
use crate::gui::widgets;
use crate::settings::{MemorySetting, MemorySettings};

const WIDTH: f32 = 220.0;

/// What is being typed, and where: the other fields show the settings.
#[derive(Default)]
pub struct Fields {
    typing: Option<(MemorySetting, String)>,
}

impl Fields {
    /// A field with its name above it. `empty` is what holds when nothing is set.
    pub fn ui(
        &mut self,
        ui: &mut Ui,
        settings: &MemorySettings,
        setting: MemorySetting,
        (name, what, empty): (&str, &str, &str),
        actions: &mut Vec<Action>,
    ) {
        let kept = settings.text(setting);
        let mut text = match &self.typing {
            Some((typed, text)) if *typed == setting => text.clone(),
            _ => kept.clone(),
        };
        ui.add_space(STEP / 2.0);
        let label = ui.label(name).on_hover_text(what);
        let width = if setting == MemorySetting::LightModel { 2.0 * WIDTH } else { WIDTH };
        let edit = TextEdit::singleline(&mut text)
            .id_salt(setting.key())
            .hint_text(empty)
            .desired_width(width)
            .align(Align2::LEFT_CENTER);
        let response = ui.add(edit).labelled_by(label.id).on_hover_text(what);
        let usable = settings.clone().set(setting, &text);
        if response.changed() {
            self.typing = Some((setting, text.clone()));
        }
        if response.lost_focus() && usable.is_ok() {
            self.typing = None;
            if text.trim() != kept {
                actions.push(Action::Settings(SettingsAction::Memory(setting, text)));
            }
        }
        if let Err(reason) = usable {
            let color = Palette::of(ui).error;
            widgets::alert(ui, Icon::CircleAlert, color, &format!("Not kept: {reason}"));
        }
        if std::env::var_os(setting.variable()).is_some_and(|value| !value.is_empty()) {
            widgets::note(ui, format!("{} is set in the environment and wins", setting.variable()));
        }
    }
}
