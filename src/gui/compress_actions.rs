//! What the Compress page asks for, and what is then done: one call per action.

use std::path::PathBuf;

use egui::Context;

use super::actions::Action;
use super::evaluate_actions::{BUSY, labelled};
use super::{App, Page};
use crate::compress::Report;
use crate::compress::quantize::Bits;
use crate::jobs::brought::Brought;
use crate::jobs::compress::{Size, variants_of};
use crate::predict::ModelSource;

/// Something about compressing that is wanted done.
#[derive(Debug)]
pub enum CompressAction {
    /// Photos to compare models on; none is no comparison.
    SetPhotos(Option<PathBuf>),
    /// Photos that a pruned network learns from; none is no repair.
    SetRepairPhotos(Option<PathBuf>),
    Start,
    /// Makes an 8-bit copy of the model that did not fit, and classifies with it.
    QuantizeAndClassify,
    /// The same again, saved whatever it loses.
    SaveAnyway,
    Stop,
    /// The smaller models of this one that were found.
    VariantsRead(ModelSource, Vec<Report>),
    Use(PathBuf),
    OpenReport(PathBuf),
}

impl App {
    pub(super) fn apply_to_compression(&mut self, ctx: &Context, action: CompressAction) {
        match action {
            CompressAction::SetPhotos(path) => self.compress.photos = path,
            CompressAction::SetRepairPhotos(path) => self.compress.repair_photos = path,
            CompressAction::Start => self.start_compressing(ctx, false),
            CompressAction::QuantizeAndClassify => {
                self.compress.choose(Size::Bits(Bits::Q8_0));
                self.compress.begin_plainly();
                self.compress.then_classify = true;
                self.start_compressing(ctx, false);
            }
            CompressAction::SaveAnyway => self.start_compressing(ctx, true),
            CompressAction::Stop => self.compress.cancel(),
            CompressAction::VariantsRead(source, variants) => self.compress.show_variants(source, variants),
            CompressAction::Use(path) => self.use_variant(ctx, path),
            CompressAction::OpenReport(path) => self.open_elsewhere(ctx, path),
        }
    }

    fn start_compressing(&mut self, ctx: &Context, save_anyway: bool) {
        self.page = Page::Compress;
        // Both would fight for processor and memory.
        if self.train.holds_device() {
            return self.toasts.error(BUSY.to_owned());
        }
        let model = self.library.used();
        self.compress.start((model, self.settings.device, save_anyway), self.places.jobs.clone(), ctx);
    }

    /// Looks for smaller models of the one in use, as long as another one's are shown.
    pub(super) fn follow_variants(&mut self, ctx: &Context) {
        let source = &self.library.used().source;
        if self.page != Page::Compress || !self.compress.asks_for_variants(source) {
            return;
        }
        let (source, folder) = (source.clone(), self.places.jobs.models_folder.clone());
        self.spawn(ctx, "smaller models", move |_| {
            let variants = variants_of(&source, &folder);
            Ok(Some(Action::Compress(CompressAction::VariantsRead(source, variants))))
        });
    }

    /// What to do with a smaller model that is there now.
    pub(super) fn follow_compression(&mut self, ctx: &Context) {
        let Some(report) = self.compress.poll() else { return };
        self.settings.remember_model(&report.output);
        if std::mem::take(&mut self.compress.then_classify) {
            self.use_variant(ctx, report.output);
            self.page = Page::Classify;
            self.request(Action::Start);
        }
    }

    fn use_variant(&mut self, ctx: &Context, path: PathBuf) {
        let source = ModelSource::File(path.clone());
        self.settings.remember_model(&path);
        self.library.open(&path);
        self.select_model(ctx, &source);
        self.library.use_model(&source);
        self.toasts.done(format!("{} is used from now on", self.library.used().name()));
    }

    /// What was dropped onto the Compress page: a checkpoint to make smaller, or photos to compare on.
    pub(super) fn open_to_compress(&mut self, ctx: &Context, brought: &Brought) {
        if let Some(path) = brought.checkpoints.first() {
            self.open_checkpoint(ctx, path);
            self.library.use_model(&ModelSource::File(path.clone()));
            self.page = Page::Compress;
        }
        match labelled(brought) {
            Some(path) => self.compress.photos = Some(path),
            None if brought.checkpoints.is_empty() => {
                self.toasts.error("To compress, drop a checkpoint, or one folder of photos to compare the results on");
            }
            None => {}
        }
    }
}
