//! Classifies photos: scan → decode pool → bounded queue → batches → journal rows, in a fixed order.

mod progress;
mod run;
mod scan;
mod stream;

use std::path::PathBuf;

pub use stream::{Answer, Echo, StreamEvent, StreamSummary, stream};

use serde::{Deserialize, Serialize};

pub(super) use self::run::look_ahead;
use self::run::{Gone, Run};
pub(super) use self::scan::photos_in;
use crate::device::{Chosen, DeviceChoice};
use crate::format::{count, counted, error_chain};
use crate::jobs::Places;
use crate::jobs::admission::{DoesNotFit, MemoryChoice};
use crate::jobs::doctor::{self, Prepared};
use crate::jobs::inference::ToLoad;
use crate::jobs::models::{self, ModelLoan, in_place_of};
use crate::jobs::peaks::Predicted;
use crate::journal::Journal;
use crate::memory::heap;
use crate::predict::{Classifier, Loading, ModelSource, Precision, Row, Strictness, TransformOverrides};
use crate::worker::{BoxError, Events, Job, JobContext, Progress};

/// Everything a classify run is told: the command line's flags, the page's fields, the journal's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassifyConfig {
    pub model: ModelSource,
    pub labels: Option<PathBuf>,
    /// Folders (walked to any depth) and photos.
    pub inputs: Vec<PathBuf>,
    pub top_k: usize,
    pub batch_size: usize,
    /// Computing and decoding threads; 0: one per core.
    pub threads: usize,
    pub device: DeviceChoice,
    pub transform: TransformOverrides,
    /// Whether a checkpoint that does not fit its network is refused.
    pub strictness: Strictness,
    /// What the network's weights are held in.
    pub precision: Precision,
    /// Below this probability of the best class a photo is "unsure"; 0 turns that off.
    pub threshold: f32,
    /// Predict anew also what the journal holds.
    pub fresh: bool,
    /// Keep every photo's logits (implies `fresh`).
    pub logits: bool,
    pub memory: MemoryChoice,
}

impl Default for ClassifyConfig {
    fn default() -> Self {
        Self {
            model: ModelSource::Starter,
            labels: None,
            inputs: Vec::new(),
            top_k: 5,
            batch_size: 8,
            threads: 0,
            device: DeviceChoice::Auto,
            transform: TransformOverrides::default(),
            strictness: Strictness::Strict,
            precision: Precision::Stored,
            threshold: 0.0,
            fresh: false,
            logits: false,
            memory: MemoryChoice::default(),
        }
    }
}

impl ClassifyConfig {
    fn to_load(&self) -> ToLoad<'_> {
        ToLoad {
            model: &self.model,
            labels: self.labels.as_deref(),
            transform: &self.transform,
            loading: Loading { strictness: self.strictness, precision: self.precision },
            batch_size: self.batch_size,
            threads: self.threads,
            mode: "classify",
            choice: self.memory,
        }
    }

    /// Labels and transform were chosen for the other model.
    fn with_light(self, model: ModelSource) -> Self {
        Self { model, labels: None, transform: TransformOverrides::default(), ..self }
    }
}

/// What a running classification tells.
#[derive(Debug, Clone)]
pub enum ClassifyEvent {
    /// The model is loaded.
    Model(ModelSummary),
    /// The next rows, in the order of the run; `resumed` ones came from the journal.
    Rows { rows: Vec<Row>, resumed: bool },
    /// Something a person should know ("lenient: 3 tensors missing").
    Notice(String),
    /// The same about the device, which the window says beside its pages.
    DeviceNotice(String),
}

/// The loaded model, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSummary {
    pub name: String,
    pub title: String,
    pub classes: usize,
    pub parameters: u64,
    /// What its weights take in memory.
    pub bytes: u64,
    pub labels: std::sync::Arc<[std::sync::Arc<str>]>,
    pub labels_from: String,
    pub transform: crate::images::transform::Transform,
    pub transform_from: String,
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClassifySummary {
    pub run: i64,
    pub photos: u64,
    pub ok: u64,
    pub skipped: u64,
    /// How many rows came from the journal.
    pub resumed: u64,
    pub seconds: f64,
}

pub type ClassifyJob = Job<ClassifySummary, ClassifyEvent>;

/// Why a run cannot start or go on, where a person can help.
#[derive(Debug, thiserror::Error)]
pub enum ClassifyError {
    #[error("choose at least one folder or photo")]
    NoInput,
    #[error("there is no file or folder of this name: {}", .0.display())]
    Missing(PathBuf),
    #[error("the {0} must be at least 1")]
    Zero(&'static str),
    #[error("the threshold must be between 0 and 1, not {0}")]
    Threshold(f32),
    #[error("the model changed while it was read; run again: {}", .0.display())]
    ModelChanged(PathBuf),
    #[error("the model, its labels or its configuration changed while Galley was answering; start it again: {0}")]
    Replaced(String),
    #[error("no photos found (Galley reads JPEG, PNG, WebP, GIF, BMP and TIFF): {}", .0.display())]
    NoPhotos(PathBuf),
}

/// Runs on the calling thread. Rows are in the journal before they are sent as events.
pub fn classify(
    config: &ClassifyConfig,
    places: &Places,
    ctx: &JobContext,
    on_event: &mut dyn FnMut(ClassifyEvent) -> Result<(), BoxError>,
) -> Result<ClassifySummary, BoxError> {
    check(config)?;
    let Prepared { chosen, notices: device_notices } = doctor::prepare(config.device, &places.verdicts, ctx)?;
    for notice in device_notices {
        on_event(ClassifyEvent::DeviceNotice(notice))?;
    }
    ctx.report(Progress { phase: "Reading model".to_owned(), ..Progress::default() });
    let journal = Journal::open(&places.journal)?;
    let Lent { config, classifier, predicted } = lend(config, &chosen, places, ctx, on_event)?;
    let left = predicted.as_ref().map_or(u64::MAX, |predicted| predicted.left);
    let lend_again = || config.to_load().lend_again(config.device, places, ctx);
    let run = Run::start(&config, journal, classifier, &lend_again, left, ctx, on_event)?;
    let Gone { summary, most_at_once, highest, released } = run.go();
    // With fewer photos at once, what was taken says nothing about what was predicted.
    let comparable = predicted.filter(|_| most_at_once >= config.batch_size);
    if let Some(Err(error)) = comparable.map(|predicted| predicted.record(highest, &places.journal)) {
        on_event(ClassifyEvent::Notice(format!("What the run took was not noted: {}", error_chain(&error))))?;
    }
    // The window lives on after a run: its footprint should not stay at the run's peak.
    heap::release();
    let summary = summary?;
    released?;
    Ok(summary)
}

/// A model, and what is to be done with it.
struct Lent {
    /// With the light model not quite what was asked for.
    config: ClassifyConfig,
    classifier: ModelLoan,
    /// None when nothing could be foreseen.
    predicted: Option<Predicted>,
}

/// The model, once there is memory for it and its batches. What is known of both is told.
fn lend(
    config: &ClassifyConfig,
    chosen: &Chosen,
    places: &Places,
    ctx: &JobContext,
    on_event: &mut dyn FnMut(ClassifyEvent) -> Result<(), BoxError>,
) -> Result<Lent, BoxError> {
    let admit = |config: &ClassifyConfig| config.to_load().admit(Predicted::config_of(config), chosen, places);
    let mut config = config.clone();
    let (predicted, notice) = match admit(&config) {
        Ok(admitted) => admitted,
        Err(error) => {
            let light = places.models.instead_of(&config.model);
            let (Some(refused), Some(light)) = (error.downcast_ref::<DoesNotFit>(), light) else { return Err(error) };
            on_event(ClassifyEvent::Notice(in_place_of(&config.model.name(), &refused.reason(), &light)))?;
            config = config.with_light(light);
            admit(&config)?
        }
    };
    if let Some(notice) = notice {
        on_event(ClassifyEvent::Notice(notice))?;
    }
    predicted.iter().for_each(|predicted| ctx.expect(&predicted.items));
    let models::Lent { classifier, instead } = places.models.lend(&config.to_load().wanted(), chosen, ctx)?;
    if let Some((light, notice)) = instead {
        config = config.with_light(light);
        on_event(ClassifyEvent::Notice(notice))?;
    }
    for notice in notices(&classifier) {
        on_event(ClassifyEvent::Notice(notice))?;
    }
    on_event(ClassifyEvent::Model(summary_of(&classifier)))?;
    Ok(Lent { config, classifier, predicted })
}

fn check(config: &ClassifyConfig) -> Result<(), ClassifyError> {
    if config.inputs.is_empty() {
        return Err(ClassifyError::NoInput);
    }
    if let Some(missing) = config.inputs.iter().find(|input| input.symlink_metadata().is_err()) {
        return Err(ClassifyError::Missing(missing.clone()));
    }
    check_numbers(config)
}

fn check_numbers(config: &ClassifyConfig) -> Result<(), ClassifyError> {
    for (number, name) in [(config.batch_size, "batch size"), (config.top_k, "number of classes per photo")] {
        if number == 0 {
            return Err(ClassifyError::Zero(name));
        }
    }
    if !(0.0..=1.0).contains(&config.threshold) {
        return Err(ClassifyError::Threshold(config.threshold));
    }
    Ok(())
}

fn notices(classifier: &Classifier) -> Vec<String> {
    let mut notices = classifier.description.notices.clone();
    let report = &classifier.load_report;
    for (names, what) in [
        (&report.missing, "missing in the file (kept neutral: norms at 1, the rest at 0)"),
        (&report.reshaped, "of another shape in the file (kept neutral)"),
        (&report.unexpected, "in the file and not in the network (left out)"),
    ] {
        if !names.is_empty() {
            let tensors = counted(names.len() as u64, "tensor");
            notices.push(format!("Lenient: {tensors} {what}: {}", names.join(", ")));
        }
    }
    if !report.is_whole() {
        let (matched, expected) = (report.matched.len() as u64, report.expected() as u64);
        notices.push(format!("Lenient: {} of {} matched", count(matched), counted(expected, "tensor")));
    }
    notices
}

fn summary_of(classifier: &Classifier) -> ModelSummary {
    let Classifier { network, description, .. } = classifier;
    ModelSummary {
        name: network.architecture.name.clone(),
        title: network.architecture.title.clone(),
        classes: network.architecture.classes,
        parameters: network.parameters,
        bytes: network.bytes,
        labels: description.labels.clone(),
        labels_from: description.labels_from.clone(),
        transform: description.transform,
        transform_from: description.transform_from.clone(),
    }
}

/// The same as a job on its own thread. `wake` is called whenever there is something to see.
pub fn start(
    config: ClassifyConfig,
    places: Places,
    wake: impl Fn() + Send + Sync + 'static,
) -> std::io::Result<ClassifyJob> {
    Job::start("classify", wake, move |ctx, events: &Events<ClassifyEvent>| {
        classify(&config, &places, ctx, &mut |event| Ok(events.send(event)?))
    })
}
