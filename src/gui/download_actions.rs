//! What the part of the Models page that fetches models asks for, and what is then done: one call per action.

use std::path::{Path, PathBuf};

use egui::Context;

use super::actions::Action;
use super::{App, Page, downloads};
use crate::jobs::download::Published;
use crate::predict::ModelSource;

/// Something about a download that is wanted done.
#[derive(Debug)]
pub enum DownloadAction {
    /// What can be fetched, in place of a model's sheet, or no longer.
    Show(bool),
    /// A name of the catalog, or an address.
    Start(String),
    /// One of the catalog that is here.
    Open(&'static Published),
    Cancel,
    /// With the one that was stopped or failed.
    GoOn,
    Dismiss,
    /// The names of the catalog whose files are here.
    Here(Vec<&'static str>),
    Arrived(PathBuf),
}

impl App {
    pub(super) fn apply_to_downloads(&mut self, ctx: &Context, action: DownloadAction) {
        match action {
            DownloadAction::Show(is_open) => {
                self.downloads.is_open = is_open;
                self.look_for_models(ctx);
            }
            DownloadAction::Open(published) => {
                self.open_checkpoint(ctx, &published.path(&self.places.jobs.models_folder))
            }
            DownloadAction::Start(what) => self.downloads.start(what, &self.places.jobs.models_folder, ctx),
            DownloadAction::Cancel => self.downloads.cancel(),
            DownloadAction::GoOn => self.downloads.go_on(&self.places.jobs.models_folder, ctx),
            DownloadAction::Dismiss => self.downloads.current = None,
            DownloadAction::Here(names) => self.downloads.here = names,
            DownloadAction::Arrived(path) => self.model_arrived(ctx, &path),
        }
    }

    /// Offers a model that has arrived: on the list, and selected.
    fn model_arrived(&mut self, ctx: &Context, path: &Path) {
        self.settings.remember_model(path);
        self.library.open(path);
        self.select_model(ctx, &ModelSource::File(path.to_owned()));
        self.look_for_models(ctx);
        if self.page != Page::Models {
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
            self.toasts.done(format!("{name} has arrived: choose it on the Models page"));
        }
    }

    /// Finds out which models of the catalog are here.
    fn look_for_models(&mut self, ctx: &Context) {
        let models = self.places.jobs.models_folder.clone();
        self.spawn(ctx, "look for models", move |_| {
            Ok(Some(Action::Download(DownloadAction::Here(downloads::names_here(&models)))))
        });
    }
}
