//! The Settings page: memory, models, device and look. What is changed is kept at once; what cannot be used says why.

mod fields;

use egui::{ScrollArea, Ui};
use lucide_icons::Icon;

use crate::device::{self, DeviceChoice};
use crate::format::bytes;
use crate::gui::Action;
use crate::gui::dialogs::Ask;
use crate::gui::settings_actions::SettingsAction;
use crate::gui::theme::{Palette, STEP};
use crate::gui::widgets::{self, Weight};
use crate::jobs::doctor::Prepared;
use crate::jobs::models::Models;
use crate::memory::{Allowance, Reading};
use crate::settings::{Look, MemorySetting, Settings};
use fields::Fields;

/// What a person is typing.
#[derive(Default)]
pub struct SettingsPage {
    fields: Fields,
    pub check: DeviceCheck,
}

/// A comparison of the device that was asked for here.
#[derive(Default)]
pub enum DeviceCheck {
    #[default]
    Unasked,
    Running,
    /// What came of it, in a sentence.
    Done(String),
}

/// What the page shows of the rest of the window.
pub struct Known<'a> {
    pub models: &'a Models,
    pub reading: Option<&'a Reading>,
    /// None before the device was compared for the first time.
    pub device: Option<&'a Prepared>,
}

const LOOKS: [(Look, &str, &str); 3] = [
    (Look::System, "As the system", "Light or dark, whichever the system is"),
    (Look::Light, "Light", "Always light"),
    (Look::Dark, "Dark", "Always dark"),
];

const DEVICES: [(DeviceChoice, &str, &str); 3] = [
    (DeviceChoice::Auto, "Automatic", "The GPU where there is one that computes rightly, else the processor"),
    (DeviceChoice::Cpu, "Processor", "Always the processor"),
    (DeviceChoice::Metal, "Metal", "Always the GPU of this Mac"),
];

pub fn page_ui(
    ui: &mut Ui,
    page: &mut SettingsPage,
    settings: &Settings,
    known: &Known<'_>,
    actions: &mut Vec<Action>,
) {
    widgets::title(ui, "Settings");
    ui.add_space(STEP);
    ScrollArea::vertical().id_salt("settings").auto_shrink(false).show(ui, |ui| {
        ui.set_max_width(640.0);
        widgets::card(ui, |ui| memory_ui(ui, page, settings, known, actions));
        ui.add_space(STEP);
        widgets::card(ui, |ui| models_ui(ui, page, settings, actions));
        ui.add_space(STEP);
        widgets::card(ui, |ui| {
            widgets::section(ui, "Device");
            if let Some(choice) = choice_ui(ui, settings.device, &DEVICES) {
                actions.push(Action::Settings(SettingsAction::Device(choice)));
            }
            device_ui(ui, settings.device, known.device);
            check_ui(ui, page, known.device, actions);
        });
        ui.add_space(STEP);
        widgets::card(ui, |ui| {
            widgets::section(ui, "Look");
            if let Some(look) = choice_ui(ui, settings.look, &LOOKS) {
                actions.push(Action::Settings(SettingsAction::Look(look)));
            }
        });
    });
}

fn memory_ui(
    ui: &mut Ui,
    page: &mut SettingsPage,
    settings: &Settings,
    &Known { models, reading, .. }: &Known<'_>,
    actions: &mut Vec<Action>,
) {
    widgets::section(ui, "Memory");
    let budget = reading.and_then(|reading| Allowance::default().budget(reading, None));
    let can_give = budget.map_or_else(
        || "What the system can give".to_owned(),
        |budget| format!("What the system can give: {}", bytes(budget.bytes)),
    );
    let mut field = |ui: &mut Ui, setting, name, what, empty: &str| {
        page.fields.ui(ui, &settings.memory, setting, (name, what, empty), actions);
    };
    let what = "The most that Galley takes in all. Jobs that would take more are refused or done in smaller steps";
    field(ui, MemorySetting::Limit, "Memory limit", what, &can_give);
    let what = "Models stay loaded for the next run. Those used longest ago go first when there is no room for another";
    let capacity = models.shelf.limits().capacity.map_or_else(|| "No limit".to_owned(), bytes);
    field(ui, MemorySetting::Shelf, "Models that stay loaded", what, &capacity);
    widgets::note(ui, format!("Loaded now: {} of {capacity}", bytes(models.shelf.bytes())));
    let what = "A model that nobody has used for so long is unloaded: 0 s at once, or never";
    field(ui, MemorySetting::Idle, "Unload after", what, "1 h");
}

fn models_ui(ui: &mut Ui, page: &mut SettingsPage, settings: &Settings, actions: &mut Vec<Action>) {
    widgets::section(ui, "Models");
    let what = "A model that takes more memory is refused before it is read";
    page.fields.ui(ui, &settings.memory, MemorySetting::LargestModel, ("Largest model", what, "No limit"), actions);
    let what = "The checkpoint to use when the chosen one does not fit; the run then says so";
    page.fields.ui(ui, &settings.memory, MemorySetting::LightModel, ("Light model", what, "None"), actions);
    if widgets::button(ui, Weight::Plain, Icon::FolderOpen, "Choose a light model…").clicked() {
        actions.push(Action::Ask(Ask::LightModel));
    }
    let what = "How long a run waits for its model, or never an end to it";
    page.fields.ui(ui, &settings.memory, MemorySetting::LoadTimeout, ("Wait for a model", what, "5 min"), actions);
    ui.add_space(STEP);
    ui.label("Models folder").on_hover_text("Where checkpoints are kept that Galley brings");
    widgets::note(ui, settings.models_folder().display().to_string());
    ui.horizontal(|ui| {
        if widgets::button(ui, Weight::Plain, Icon::FolderOpen, "Choose models folder…").clicked() {
            actions.push(Action::Ask(Ask::ModelsFolder));
        }
        let is_set = settings.models_folder.is_some();
        if is_set && widgets::button(ui, Weight::Quiet, Icon::RotateCcw, "Use Galley's own").clicked() {
            actions.push(Action::Settings(SettingsAction::ModelsFolder(None)));
        }
    });
}

/// What the choice means on this machine.
fn device_ui(ui: &mut Ui, choice: DeviceChoice, known: Option<&Prepared>) {
    // Once it was compared, it may be another one than would be chosen unseen.
    match known.map_or_else(|| device::choose(choice), |known| Ok(known.chosen.clone())) {
        Ok(chosen) => drop(widgets::note(ui, format!("Computes on: {} ({})", chosen.name, chosen.reason))),
        Err(error) => {
            let color = Palette::of(ui).error;
            widgets::alert(ui, Icon::CircleAlert, color, &format!("This cannot be used: {error}"));
        }
    }
}

/// Whether the device computes rightly, as far as that is known.
fn check_ui(ui: &mut Ui, page: &SettingsPage, device: Option<&Prepared>, actions: &mut Vec<Action>) {
    let said = match (&page.check, device) {
        (DeviceCheck::Running, _) | (DeviceCheck::Unasked, None) => "Comparing what it computes…".to_owned(),
        (DeviceCheck::Done(said), _) => said.clone(),
        (DeviceCheck::Unasked, Some(device)) if device.notices.is_empty() => {
            "Compared with slow and exact forms of every operation, forward and backward: it computes rightly"
                .to_owned()
        }
        (DeviceCheck::Unasked, Some(device)) => device.notices.join(". "),
    };
    widgets::note(ui, said);
    ui.add_enabled_ui(!matches!(page.check, DeviceCheck::Running), |ui| {
        let what = "Compares every operation again, as galley doctor does";
        if widgets::button(ui, Weight::Plain, Icon::Stethoscope, "Check again").on_hover_text(what).clicked() {
            actions.push(Action::Settings(SettingsAction::CheckDevice));
        }
    });
}

fn choice_ui<T: PartialEq + Copy>(ui: &mut Ui, current: T, choices: &[(T, &str, &str)]) -> Option<T> {
    let mut clicked = None;
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 4.0;
        for (choice, text, meaning) in choices {
            let response = widgets::toggle(ui, current == *choice, text).on_hover_text(*meaning);
            if response.clicked() && current != *choice {
                clicked = Some(*choice);
            }
        }
    });
    clicked
}
