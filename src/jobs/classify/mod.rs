//! Classifies photos: scan → decode pool → bounded queue → batches → journal rows, in a fixed order.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::device::DeviceChoice;
use crate::models::Strictness;
use crate::predict::{ModelSource, Row, TransformOverrides};
use crate::worker::{BoxError, Events, Job, JobContext};

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
    /// Below this probability of the best class a photo is "unsure"; 0 turns that off.
    pub threshold: f32,
    /// Predict anew also what the journal holds.
    pub fresh: bool,
    /// Keep every photo's logits (implies `fresh`).
    pub logits: bool,
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
            threshold: 0.0,
            fresh: false,
            logits: false,
        }
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
}

/// The loaded model, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSummary {
    pub name: String,
    pub title: String,
    pub classes: usize,
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

/// Runs on the calling thread. Rows are in the journal before they are sent as events.
pub fn classify(
    _config: &ClassifyConfig,
    _journal: &std::path::Path,
    _ctx: &JobContext,
    _on_event: &mut dyn FnMut(ClassifyEvent) -> Result<(), BoxError>,
) -> Result<ClassifySummary, BoxError> {
    todo!()
}

/// The same as a job on its own thread. `wake` is called whenever there is something to see.
pub fn start(
    config: ClassifyConfig,
    journal: PathBuf,
    wake: impl Fn() + Send + Sync + 'static,
) -> std::io::Result<ClassifyJob> {
    Job::start("classify", wake, move |ctx, events: &Events<ClassifyEvent>| {
        classify(&config, &journal, ctx, &mut |event| Ok(events.send(event)?))
    })
}
