//! What the Evaluate page asks for, and what is then done: one call per action.

use std::path::PathBuf;

use egui::Context;

use super::actions::Action;
use super::train_actions::Dropped;
use super::{App, Page};
use crate::jobs::brought::Brought;
use crate::jobs::evaluate;
use crate::predict::ModelSource;

/// Why nothing can be evaluated while a run computes.
pub const BUSY: &str = "A run is going on: pause or stop it first";

/// Something about an evaluation that is wanted done.
#[derive(Debug)]
pub enum EvaluateAction {
    /// Judges the model in use on these photos.
    SetPhotos(PathBuf),
    /// Judges the best weights of a run.
    Run(PathBuf),
    /// The same again.
    Start,
    Stop,
    SaveReport(PathBuf),
    ReportSaved(PathBuf),
    OpenReport(PathBuf),
    /// Photos below it count as unsure when they are classified.
    UseThreshold(f64),
}

impl App {
    pub(super) fn apply_to_evaluation(&mut self, ctx: &Context, action: EvaluateAction) {
        match action {
            EvaluateAction::SetPhotos(path) => {
                self.evaluate.set_photos(path);
                self.start_evaluation(ctx);
            }
            EvaluateAction::Run(folder) => {
                self.evaluate.set_run(folder);
                self.start_evaluation(ctx);
            }
            EvaluateAction::Start => self.start_evaluation(ctx),
            EvaluateAction::Stop => self.evaluate.cancel(),
            EvaluateAction::SaveReport(path) => self.save_report(ctx, path),
            EvaluateAction::ReportSaved(path) => self.report_saved(path),
            EvaluateAction::OpenReport(path) => self.open_elsewhere(ctx, path),
            EvaluateAction::UseThreshold(threshold) => self.use_threshold(threshold),
        }
    }

    fn start_evaluation(&mut self, ctx: &Context) {
        self.page = Page::Evaluate;
        // Both would fight for processor and memory.
        if self.train.holds_device() {
            return self.toasts.error(BUSY.to_owned());
        }
        self.evaluate.start(&self.library, self.settings.device, self.places.jobs.clone(), ctx);
    }

    fn save_report(&mut self, ctx: &Context, path: PathBuf) {
        let Some((task, summary)) = self.evaluate.to_save() else { return };
        self.spawn(ctx, "save report", move |job| {
            evaluate::save_report(&task, &summary, &path, job)?;
            Ok(Some(Action::Evaluate(EvaluateAction::ReportSaved(path))))
        });
    }

    fn report_saved(&mut self, path: PathBuf) {
        self.toasts.done(format!("Report written to {}", path.display()));
        if let Some(judged) = &mut self.evaluate.judged {
            judged.report = Some(path);
        }
    }

    fn use_threshold(&mut self, threshold: f64) {
        self.classify.config.threshold = threshold as f32;
        let percent = super::widgets::percent(threshold as f32);
        self.toasts.done(format!("Photos below {percent} now count as unsure on the Classify page"));
    }

    /// What was dropped onto the Evaluate page: labelled photos, or a checkpoint to judge.
    pub(super) fn open_to_evaluate(&mut self, ctx: &Context, brought: &Brought) {
        if let Some(path) = brought.checkpoints.first() {
            self.open_checkpoint(ctx, path);
            self.library.use_model(&ModelSource::File(path.clone()));
            self.page = Page::Evaluate;
        }
        match labelled(brought) {
            Some(path) => {
                self.evaluate.set_photos(path);
                self.start_evaluation(ctx);
            }
            None if brought.checkpoints.is_empty() => self.toasts.error(
                "To evaluate, drop one folder that holds a subfolder of photos for each class, or a .csv or .jsonl table",
            ),
            None => {}
        }
    }
}

/// The one folder or table of labelled photos among what was brought.
pub fn labelled(brought: &Brought) -> Option<PathBuf> {
    match Dropped::of(brought) {
        Dropped::Photos { data, val: None } => Some(data),
        Dropped::Photos { val: Some(_), .. } | Dropped::Nothing => None,
    }
}
