//! What the Settings page and the rows of loaded models ask for, and what is then done.

use std::path::PathBuf;
use std::time::Instant;

use egui::Context;

use super::pages::settings::DeviceCheck;
use super::{Action, App, theme};
use crate::device::DeviceChoice;
use crate::jobs::doctor;
use crate::jobs::models::ModelKey;
use crate::memory::heap;
use crate::settings::{Look, MemorySetting};

/// A change that is kept at once.
#[derive(Debug)]
pub enum SettingsAction {
    /// What was typed.
    Memory(MemorySetting, String),
    Device(DeviceChoice),
    /// Compares the device again.
    CheckDevice,
    /// What came of it.
    DeviceDiagnosed(Result<String, String>),
    Look(Look),
    /// `None`: Galley's own.
    ModelsFolder(Option<PathBuf>),
    Pin(ModelKey, bool),
    Unload(ModelKey),
    /// Freed memory has been given back.
    Released,
}

impl App {
    pub(super) fn apply_to_settings(&mut self, ctx: &Context, action: SettingsAction) {
        let shelf = &self.places.jobs.models.shelf;
        match action {
            SettingsAction::Memory(setting, text) => match self.settings.memory.set(setting, &text) {
                Ok(()) => self.follow_memory_settings(ctx),
                Err(reason) => self.toasts.error(reason),
            },
            SettingsAction::Device(choice) => {
                self.settings.device = choice;
                self.classify.config.device = choice;
                self.settings_page.check = DeviceCheck::Unasked;
                self.device = None;
                self.check_device(ctx);
            }
            SettingsAction::CheckDevice => self.check_device_again(ctx),
            SettingsAction::DeviceDiagnosed(said) => {
                let failed = |reason| format!("The comparison failed: {reason}");
                self.settings_page.check = DeviceCheck::Done(said.unwrap_or_else(failed));
                // Jobs follow what was found.
                self.check_device(ctx);
            }
            SettingsAction::Look(look) => {
                self.settings.look = look;
                theme::follow(ctx, look);
            }
            // TOML is UTF-8, and could not keep another path.
            SettingsAction::ModelsFolder(Some(folder)) if folder.to_str().is_none() => {
                self.toasts.error("The name of this folder is not UTF-8, so it cannot be kept: choose another one");
            }
            SettingsAction::ModelsFolder(folder) => {
                self.settings.models_folder = folder;
                self.places.jobs.models_folder = self.settings.models_folder();
            }
            SettingsAction::Pin(key, is_pinned) => shelf.set_pinned(&key, is_pinned),
            SettingsAction::Unload(key) => {
                shelf.unload(|other| *other == key);
                self.release(ctx);
            }
            SettingsAction::Released => {}
        }
    }

    fn check_device_again(&mut self, ctx: &Context) {
        self.settings_page.check = DeviceCheck::Running;
        let (choice, folder) = (self.settings.device, self.places.jobs.verdicts.clone());
        self.spawn(ctx, "compare device", move |_| {
            let said = doctor::diagnose(choice, &folder).map(|found| found.summary());
            let said = said.map_err(|error| crate::format::error_chain(&*error));
            Ok(Some(Action::Settings(SettingsAction::DeviceDiagnosed(said))))
        });
    }

    fn follow_memory_settings(&mut self, ctx: &Context) {
        self.places.jobs.models.follow(&self.settings.memory_in_force());
        self.release(ctx);
    }

    /// Unloads models that have been idle for long enough.
    pub(super) fn tidy_models(&mut self, ctx: &Context) {
        let shelf = &self.places.jobs.models.shelf;
        let before = shelf.bytes();
        let due = shelf.tidy(Instant::now());
        if shelf.bytes() < before {
            self.release(ctx);
        }
        if let Some(due) = due {
            ctx.request_repaint_after(due);
        }
    }

    /// Gives what was freed back to the system, which may take longer than a frame.
    fn release(&mut self, ctx: &Context) {
        self.spawn(ctx, "release", |_| {
            heap::release();
            Ok(Some(Action::Settings(SettingsAction::Released)))
        });
    }
}
