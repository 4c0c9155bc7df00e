//! What pages ask for, and what is then done: one call per action.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use egui::Context;

pub use super::compress_actions::CompressAction;
use super::dialogs::{self, Ask};
pub use super::download_actions::DownloadAction;
pub use super::evaluate_actions::EvaluateAction;
use super::library::Sheet;
pub use super::memory_actions::MemoryAction;
use super::settings_actions::SettingsAction;
pub use super::train_actions::TrainAction;
use super::{App, Page};
use crate::export::{ExportOptions, ExportSummary, ExportTarget};
use crate::format;
use crate::jobs::brought::Brought;
use crate::jobs::doctor::{self, Prepared};
use crate::jobs::export;
use crate::jobs::inspect::{self, Inspection};
use crate::predict::ModelSource;

/// Something a page, a dialog or a finished task wants done.
#[derive(Debug)]
pub enum Action {
    Show(Page),
    Ask(Ask),
    /// Sorts paths that were dropped, then opens them.
    LookAt(Vec<PathBuf>),
    Hovering(Vec<PathBuf>, Brought),
    Open(Brought),
    OpenCheckpoint(PathBuf),
    SelectModel(ModelSource),
    Inspected(ModelSource, Result<Box<Inspection>, String>),
    UseModel(ModelSource),
    ForgetModel(ModelSource),
    SetLabels(ModelSource, Option<PathBuf>),
    AddInputs(Vec<PathBuf>),
    RemoveInput(PathBuf),
    Start,
    /// Classifies what was refused because it is predicted not to fit.
    RunAnyway,
    SetPaused(bool),
    Cancel,
    Export(ExportTarget),
    Exported(ExportTarget, ExportSummary),
    /// The device that computes, and what a person should know about it.
    DeviceChecked(Prepared),
    SettingsSaved(Result<(), String>),
    /// Shows a file in the file manager.
    Reveal(PathBuf),
    /// Shows a photo large over the window, as far as the system can.
    Preview(PathBuf),
    Failed(String),
    Train(TrainAction),
    Evaluate(EvaluateAction),
    Compress(CompressAction),
    Memory(MemoryAction),
    Settings(SettingsAction),
    Download(DownloadAction),
}

impl App {
    pub(super) fn apply(&mut self, ctx: &Context, action: Action) {
        match action {
            Action::Show(page) => self.show(ctx, page),
            Action::Ask(ask) => self.ask(ctx, ask),
            Action::LookAt(paths) => self.look_at(ctx, paths),
            Action::Hovering(paths, sorted) => self.hovering(paths, sorted),
            Action::Open(brought) => self.open(ctx, brought),
            Action::OpenCheckpoint(path) => self.open_checkpoint(ctx, &path),
            Action::SelectModel(source) => self.select_model(ctx, &source),
            Action::Inspected(source, result) => self.inspected(&source, result),
            Action::UseModel(source) => self.library.use_model(&source),
            Action::ForgetModel(source) => self.forget_model(&source),
            Action::SetLabels(source, labels) => self.set_labels(&source, labels),
            Action::AddInputs(paths) => self.classify.add_inputs(paths),
            Action::RemoveInput(path) => self.classify.inputs.retain(|input| *input != path),
            Action::Start => self.start(ctx),
            Action::RunAnyway => self.classify.run_anyway(self.places.jobs.clone(), ctx),
            Action::SetPaused(paused) => self.classify.set_paused(paused),
            Action::Cancel => self.cancel(),
            Action::Export(target) => self.export(ctx, target),
            Action::Exported(target, summary) => self.toasts.done(exported(&target, summary)),
            Action::DeviceChecked(device) => self.device = Some(device),
            Action::SettingsSaved(saved) => self.settings_saved(saved),
            Action::Reveal(path) => self.reveal(ctx, path),
            Action::Preview(photo) => self.preview(&photo),
            Action::Failed(reason) => self.toasts.error(reason),
            Action::Train(action) => self.apply_to_training(ctx, action),
            Action::Evaluate(action) => self.apply_to_evaluation(ctx, action),
            Action::Compress(action) => self.apply_to_compression(ctx, action),
            Action::Memory(action) => self.apply_to_memory(ctx, action),
            Action::Settings(action) => self.apply_to_settings(ctx, action),
            Action::Download(action) => self.apply_to_downloads(ctx, action),
        }
    }

    fn show(&mut self, ctx: &Context, page: Page) {
        self.page = page;
        if page == Page::Models && !self.downloads.is_open {
            let selected = self.library.selected().source.clone();
            self.select_model(ctx, &selected);
        }
        if page == Page::Train {
            self.read_runs(ctx);
        }
        if page == Page::Memory {
            self.read_peaks(ctx);
        }
    }

    fn ask(&mut self, ctx: &Context, ask: Ask) {
        let (chosen, asked) = (dialogs::open(ask, self.system.window.as_deref()), Instant::now());
        self.spawn(ctx, "dialog", move |_| {
            let action = pollster::block_on(chosen);
            // Nobody closes a dialog this fast: there was none.
            if action.is_none() && cfg!(target_os = "linux") && asked.elapsed() < Duration::from_millis(300) {
                return Err(
                    "no file dialog answered; drop the files onto the window, or install xdg-desktop-portal".into()
                );
            }
            Ok(action)
        });
    }

    fn look_at(&mut self, ctx: &Context, paths: Vec<PathBuf>) {
        self.hover = Default::default();
        self.spawn(ctx, "look at files", move |_| Ok(Some(Action::Open(Brought::sort(paths)))));
    }

    fn hovering(&mut self, paths: Vec<PathBuf>, sorted: Brought) {
        if self.hover.paths == paths {
            self.hover.sorted = Some(sorted);
        }
    }

    /// Stops what the page in sight is doing.
    fn cancel(&mut self) {
        match self.page {
            Page::Train => self.train.stop(),
            Page::Evaluate => self.evaluate.cancel(),
            Page::Compress => self.compress.cancel(),
            Page::Models if self.downloads.is_active() => self.downloads.cancel(),
            Page::Models | Page::Classify | Page::Memory | Page::Settings => self.classify.cancel(),
        }
    }

    /// Opens what a person brought: checkpoints first, so that photos of the same drop are classified with the first.
    fn open(&mut self, ctx: &Context, mut brought: Brought) {
        if let Some(missing) = missing(&std::mem::take(&mut brought.missing)) {
            self.toasts.error(missing);
            if brought == Brought::default() {
                return;
            }
        }
        if self.page == Page::Train {
            return self.open_to_train(ctx, &brought);
        }
        if self.page == Page::Evaluate {
            return self.open_to_evaluate(ctx, &brought);
        }
        if self.page == Page::Compress {
            return self.open_to_compress(ctx, &brought);
        }
        for path in brought.checkpoints.iter().rev() {
            self.open_checkpoint(ctx, path);
        }
        let inputs = brought.inputs();
        if !inputs.is_empty() {
            if let Some(path) = brought.checkpoints.first() {
                self.library.use_model(&ModelSource::File(path.clone()));
            }
            self.page = Page::Classify;
            self.classify.replace_inputs(inputs);
            self.start(ctx);
        }
        if let Some(left_out) = left_out(&brought) {
            self.toasts.error(left_out);
        }
    }

    pub(super) fn open_checkpoint(&mut self, ctx: &Context, path: &Path) {
        self.page = Page::Models;
        self.settings.remember_model(path);
        self.library.open(path);
        self.select_model(ctx, &ModelSource::File(path.to_owned()));
    }

    pub(super) fn select_model(&mut self, ctx: &Context, source: &ModelSource) {
        self.downloads.is_open = false;
        self.library.select(source);
        let model = self.library.selected_mut();
        if matches!(model.sheet, Sheet::Unread) {
            model.sheet = Sheet::Reading;
            let source = model.source.clone();
            self.spawn(ctx, "inspect", move |_| {
                let read = inspect::inspect_model(&source).map(Box::new).map_err(|error| format::error_chain(&*error));
                Ok(Some(Action::Inspected(source, read)))
            });
        }
    }

    fn inspected(&mut self, source: &ModelSource, result: Result<Box<Inspection>, String>) {
        if let Some(model) = self.library.get_mut(source) {
            model.sheet = result.map_or_else(Sheet::Failed, Sheet::Read);
        }
    }

    fn forget_model(&mut self, source: &ModelSource) {
        self.library.forget(source);
        if let ModelSource::File(path) = source {
            self.settings.recent_models.retain(|recent| recent != path);
        }
    }

    fn set_labels(&mut self, source: &ModelSource, labels: Option<PathBuf>) {
        if let Some(model) = self.library.get_mut(source) {
            model.labels = labels;
        }
    }

    /// Starts the run, or lets the one that is going on take the new photos in when it ends.
    fn start(&mut self, ctx: &Context) {
        if self.classify.is_running() {
            self.classify.restart_when_done();
            return;
        }
        self.classify.inputs.iter().for_each(|path| self.settings.remember_folder(path));
        (self.settings.top_k, self.settings.batch_size) = (self.classify.config.top_k, self.classify.config.batch_size);
        self.library.configure(&mut self.classify.config);
        self.classify.start(self.places.jobs.clone(), ctx);
    }

    fn export(&mut self, ctx: &Context, target: ExportTarget) {
        let Some(run) = &self.classify.run else { return };
        let classes = run.model.as_ref().map_or(usize::MAX, |model| model.classes);
        let options = ExportOptions { top_k: run.config.top_k.min(classes), threshold: run.results.threshold() };
        let results = run.results.clone();
        self.spawn(ctx, "export", move |job| {
            let rows = (0..results.len()).map(|index| results.row(index).expect("the index is below the length"));
            let summary = export::export(rows, &target, options, job)?;
            Ok(Some(Action::Exported(target, summary)))
        });
    }

    /// Compares the device with the CPU at its first use, so that no run has to wait for it.
    pub(super) fn check_device(&mut self, ctx: &Context) {
        let (choice, folder) = (self.classify.config.device, self.places.jobs.verdicts.clone());
        self.spawn(ctx, "check device", move |job| {
            Ok(Some(Action::DeviceChecked(doctor::prepare(choice, &folder, job)?)))
        });
    }

    pub(super) fn spawn<F>(&mut self, ctx: &Context, name: &str, work: F)
    where
        F: FnOnce(&crate::worker::JobContext) -> Result<Option<Action>, crate::worker::BoxError> + Send + 'static,
    {
        if let Err(error) = self.tasks.start(ctx, name, work) {
            self.toasts.error(format!("No thread could be started: {error}"));
        }
    }

    fn settings_saved(&mut self, saved: Result<(), String>) {
        self.is_saving = false;
        if let Err(reason) = saved {
            self.toasts.error(reason);
        }
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Programs for photos hand over names of files they have not written.
fn missing(paths: &[PathBuf]) -> Option<String> {
    let what = match paths {
        [] => return None,
        [one] => format!("{} is not there", name(one)),
        [first, rest @ ..] => {
            let rest = format::counted(rest.len() as u64, "other file");
            format!("{} and {rest} are not there", name(first))
        }
    };
    Some(format!("{what}. Photos that are shown by another program have to be exported from it first"))
}

fn left_out(brought: &Brought) -> Option<String> {
    match brought.unknown.as_slice() {
        [] => None,
        [one] => Some(format!("Galley cannot open {}. It opens folders, photos and checkpoints", name(one))),
        [first, rest @ ..] => {
            let rest = format::counted(rest.len() as u64, "other file");
            Some(format!("Galley cannot open {} and {rest}. It opens folders, photos and checkpoints", name(first)))
        }
    }
}

fn exported(target: &ExportTarget, summary: ExportSummary) -> String {
    let mut text = match target {
        ExportTarget::Csv(path) | ExportTarget::JsonLines(path) => {
            format!("{} written to {}", format::counted(summary.rows, "row"), path.display())
        }
        ExportTarget::SortedFolders(path) => {
            format!("{} copied into folders in {}", format::counted(summary.copied, "photo"), path.display())
        }
    };
    if summary.missing > 0 {
        let were = if summary.missing == 1 { "was" } else { "were" };
        text += &format!("; {} {were} gone", format::counted(summary.missing, "photo"));
    }
    text
}
