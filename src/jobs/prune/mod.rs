//! Prunes: a checkpoint becomes a smaller network, or one with zeros, in a new file; afterwards it may learn a little, to repair.

mod photos;
mod place;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use crate::checkpoint::{Checkpoint, ElementType};
use crate::compress::prune::sparse::Zeroing;
use crate::compress::prune::{self as pruning, Cut, PruneError, Pruned};
use crate::device::DeviceChoice;
use crate::jobs::Places;
use crate::jobs::admission::MemoryChoice;
use crate::jobs::train::TrainEvent;
use crate::models::{self, Architecture, ModelError, Weights};
use crate::predict::{self, Description, ModelSource, TransformOverrides};
use crate::worker::{BoxError, Events, Job, JobContext, Progress};

/// What to prune, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct PruneTask {
    pub model: PathBuf,
    /// The new file, a `.safetensors`.
    pub out: PathBuf,
    /// Share of the channels, or of the weights, that goes; above 0 and below 1.
    pub ratio: f64,
    pub what: What,
    pub repair: Option<Repair>,
    pub device: DeviceChoice,
    pub memory: MemoryChoice,
}

/// What is taken out.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Whole channels inside blocks: the network becomes smaller and faster.
    Channels(Ranking),
    /// Single weights, the smallest: the file and the work stay the same.
    Weights,
}

/// By what channels are ranked within their layer.
#[derive(Debug, Clone, PartialEq)]
pub enum Ranking {
    /// The size of the weights that make and take them.
    L1,
    /// What they matter to the loss on the photos of this folder.
    Taylor { on: PathBuf },
}

/// A short training after structured pruning.
#[derive(Debug, Clone, PartialEq)]
pub struct Repair {
    /// A folder of class folders, or a manifest; its classes are the model's.
    pub data: PathBuf,
    pub epochs: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum PruneJobError {
    #[error("the ratio is {0}; choose a share above 0 and below 1, such as 0.3")]
    Ratio(f64),
    #[error(
        "the pruned network would replace the checkpoint it is made from; choose another name than {}", .0.display()
    )]
    Same(PathBuf),
    #[error("the pruned network is written as .safetensors; name it so, not {}", .0.display())]
    Ending(PathBuf),
    #[error("there is no folder for the pruned network: {}", .0.display())]
    NoFolder(PathBuf),
    #[error("a folder has the name that the pruned network is to have: {}", .0.display())]
    IsFolder(PathBuf),
    #[error(
        "{0} weights of this checkpoint are in 8 or 4 bits; pruning needs the float checkpoint they were made from, and the \
         result can be rounded again"
    )]
    Quantized(usize),
    #[error(
        "the classes of these photos ({}) are not those of the model ({}): name the folders like its classes, one for each",
        .0.join(", "), .1.join(", ")
    )]
    OtherClasses(Vec<String>, Vec<String>),
    #[error("none of the photos could be read, so nothing is known about the channels")]
    NoPhotos,
    #[error("zeros would not stay zero while the network learns: repair is for pruned channels")]
    RepairsZeros,
    #[error("the repair was stopped before its end, and nothing was written: {0}")]
    Held(String),
}

/// What a job tells while it goes on.
#[derive(Debug, Clone)]
pub enum PruneEvent {
    Notice(String),
    /// Of the repair.
    Repair(TrainEvent),
}

/// A figure before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Change {
    pub before: u64,
    pub after: u64,
}

/// The inner channels of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerChange {
    /// `stages.2.blocks.5`
    pub block: String,
    /// `stages.2.blocks.5.mlp.fc1`
    pub layer: String,
    #[serde(flatten)]
    pub channels: Change,
}

/// What became of single weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Zeros {
    /// That could have become zero, and that are.
    pub weights: u64,
    pub zeros: u64,
    /// Bytes of the network if it were stored sparse: a bit for each of these weights, and four bytes for all that is not zero.
    pub sparse_bytes: u64,
}

/// What the repair did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Repaired {
    pub epochs: u64,
    /// Of photos to validate with, from 0 to 1; none without such.
    pub top1: Option<f64>,
    pub seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PruneSummary {
    /// For people: `ConvNeXt Atto`.
    pub model: String,
    #[serde(serialize_with = "as_text")]
    pub out: PathBuf,
    pub ratio: f64,
    /// `l1`, `taylor` or `weights`.
    pub by: &'static str,
    /// Photos that channels were ranked on.
    pub photos: u64,
    /// Empty when single weights were pruned.
    pub layers: Vec<LayerChange>,
    /// Learnable elements.
    pub parameters: Change,
    /// Bytes of the network's tensors as a file of 32-bit floats has them.
    pub bytes: Change,
    pub zeros: Option<Zeros>,
    pub repaired: Option<Repaired>,
    pub seconds: f64,
}

pub type PruneJob = Job<PruneSummary, PruneEvent>;

/// Runs on the calling thread. The new file is there as a whole, or not at all.
pub fn prune(
    task: &PruneTask,
    places: &Places,
    ctx: &JobContext,
    on_event: &mut dyn FnMut(PruneEvent) -> Result<(), BoxError>,
) -> Result<PruneSummary, BoxError> {
    let started = Instant::now();
    if !(task.ratio > 0.0 && task.ratio < 1.0) {
        return Err(PruneJobError::Ratio(task.ratio).into());
    }
    if task.what == What::Weights && task.repair.is_some() {
        return Err(PruneJobError::RepairsZeros.into());
    }
    ctx.report(Progress { phase: "Reading the model".to_owned(), ..Progress::default() });
    let original = Original::open(task)?;
    for notice in &original.described.notices {
        on_event(PruneEvent::Notice(notice.clone()))?;
    }
    let summary = match &task.what {
        What::Weights => original.zeroed(task, ctx)?,
        What::Channels(ranking) => original.narrowed(ranking, task, places, ctx, on_event)?,
    };
    Ok(PruneSummary { seconds: started.elapsed().as_secs_f64(), ..summary })
}

/// The same as a job on its own thread. `wake` is called whenever there is something to see.
pub fn start(task: PruneTask, places: Places, wake: impl Fn() + Send + Sync + 'static) -> std::io::Result<PruneJob> {
    Job::start("prune", wake, move |ctx, events: &Events<PruneEvent>| {
        prune(&task, &places, ctx, &mut |event| Ok(events.send(event)?))
    })
}

/// The network before.
struct Original {
    checkpoint: Checkpoint,
    architecture: Architecture,
    described: Description,
}

impl Original {
    fn open(task: &PruneTask) -> Result<Self, BoxError> {
        let checkpoint = predict::open(&ModelSource::File(task.model.clone()))?;
        place::check(&task.out, &checkpoint)?;
        let quantized = checkpoint.tensors().iter().filter(|info| matches!(info.element, ElementType::Quantized(_)));
        match quantized.count() {
            0 => {}
            tensors => return Err(PruneJobError::Quantized(tensors).into()),
        }
        let architecture = predict::recognise(&checkpoint)?;
        let report = models::fit(checkpoint.tensors(), &architecture)?;
        if !report.missing.is_empty() || !report.reshaped.is_empty() {
            return Err(ModelError::Misfit { title: architecture.title.clone(), report: Box::new(report) }.into());
        }
        let described = predict::describe(&checkpoint, &architecture, None, &TransformOverrides::default())?;
        Ok(Self { checkpoint, architecture, described })
    }

    /// With single weights at zero.
    fn zeroed(&self, task: &PruneTask, ctx: &JobContext) -> Result<PruneSummary, BoxError> {
        let whole = Pruned::of(&self.checkpoint, &self.architecture, &[])?;
        let look = || {
            ctx.report(Progress { phase: "Looking for the smallest weights".to_owned(), ..Progress::default() });
            Ok::<_, BoxError>(ctx.check()?)
        };
        let mut zeroing = Zeroing::choose(&whole, &self.architecture, task.ratio, look)?;
        let (weights, zeros) = (zeroing.weights, zeroing.zeros);
        let zeros = Zeros { weights, zeros, sparse_bytes: zeroing.sparse_bytes(whole.tensors()) };
        let about = self.about(json!({"what": "weights", "ratio": task.ratio, "zeros": zeros.zeros}));
        write(&task.out, &whole, &about, ctx, |name, values| zeroing.apply(name, values))?;
        let summary = self.summary(task, &whole)?;
        Ok(PruneSummary { by: "weights", zeros: Some(zeros), ..summary })
    }

    /// With fewer channels.
    fn narrowed(
        &self,
        ranking: &Ranking,
        task: &PruneTask,
        places: &Places,
        ctx: &JobContext,
        on_event: &mut dyn FnMut(PruneEvent) -> Result<(), BoxError>,
    ) -> Result<PruneSummary, BoxError> {
        // Before any work: a wrong folder is known at once.
        for data in photos::folders(ranking, task.repair.as_ref()) {
            photos::check(data, &self.described)?;
        }
        let inner = pruning::inner_of(&self.architecture)?;
        let (by, photos, scores) = match ranking {
            Ranking::L1 => ("l1", 0, pruning::by_l1(&self.checkpoint, &inner)?),
            Ranking::Taylor { on } => {
                let (photos, scores) = photos::taylor(&inner, on, self, task, places, ctx)?;
                ("taylor", photos, scores)
            }
        };
        let cuts = pruning::cuts(inner, &scores, task.ratio);
        if cuts.iter().all(|cut| cut.kept.len() == cut.inner.channels) {
            let (title, ratio) = (self.architecture.title.clone(), task.ratio);
            return Err(PruneError::NothingTaken { title, ratio }.into());
        }
        let pruned = Pruned::of(&self.checkpoint, &self.architecture, &cuts)?;
        let mut about = self.about(json!({"what": "channels", "by": by, "ratio": task.ratio}));
        let summary = PruneSummary { by, photos, layers: layers(&cuts), ..self.summary(task, &pruned)? };
        let Some(repair) = &task.repair else {
            write(&task.out, &pruned, &about, ctx, |_, _| {})?;
            return Ok(summary);
        };
        let folder = tempfile::tempdir()?;
        let narrow = folder.path().join("pruned.safetensors");
        write(&narrow, &pruned, &about, ctx, |_, _| {})?;
        let (repaired, best) = photos::repair(repair, &narrow, folder.path(), task, places, ctx, on_event)?;
        let learned = Checkpoint::open(&best)?;
        let architecture = predict::recognise(&learned)?;
        if let Some(trained_on) = learned.metadata().get("trained_on").and_then(|value| value.as_str()) {
            about.insert("trained_on".to_owned(), trained_on.to_owned());
        }
        // Without what training needs to go on.
        write(&task.out, &Pruned::of(&learned, &architecture, &[])?, &about, ctx, |_, _| {})?;
        Ok(PruneSummary { repaired: Some(repaired), ..summary })
    }

    /// What the new file says of itself.
    fn about(&self, pruned: serde_json::Value) -> BTreeMap<String, String> {
        let Description { labels, has_names, transform, .. } = &self.described;
        let mut about = BTreeMap::from([
            ("architecture".to_owned(), self.architecture.name.clone()),
            ("title".to_owned(), self.architecture.title.clone()),
            ("transform".to_owned(), json!(transform).to_string()),
            ("pruned".to_owned(), pruned.to_string()),
        ]);
        if *has_names {
            about.insert(
                "labels".to_owned(),
                json!(labels.iter().map(|label| &**label).collect::<Vec<_>>()).to_string(),
            );
        }
        if let Some(trained_on) = self.checkpoint.metadata().get("trained_on").and_then(|value| value.as_str()) {
            about.insert("trained_on".to_owned(), trained_on.to_owned());
        }
        about
    }

    /// The figures of the network before and after.
    fn summary(&self, task: &PruneTask, pruned: &Pruned) -> Result<PruneSummary, BoxError> {
        let whole = Pruned::of(&self.checkpoint, &self.architecture, &[])?;
        let change = |figure: &dyn Fn(&Pruned) -> u64| Change { before: figure(&whole), after: figure(pruned) };
        Ok(PruneSummary {
            model: self.architecture.title.clone(),
            out: task.out.clone(),
            ratio: task.ratio,
            by: "",
            photos: 0,
            layers: Vec::new(),
            parameters: change(&|weights| models::parameters(weights.tensors())),
            bytes: change(&|weights| weights.tensors().iter().map(|tensor| tensor.bytes).sum()),
            zeros: None,
            repaired: None,
            seconds: 0.0,
        })
    }
}

fn layers(cuts: &[Cut]) -> Vec<LayerChange> {
    let layer = |Cut { inner, kept }: &Cut| LayerChange {
        block: inner.block.clone(),
        layer: inner.layer.clone(),
        channels: Change { before: inner.channels as u64, after: kept.len() as u64 },
    };
    cuts.iter().map(layer).collect()
}

/// Writes a network tensor by tensor. A canceled job leaves no file.
fn write(
    path: &Path,
    weights: &dyn Weights,
    about: &BTreeMap<String, String>,
    ctx: &JobContext,
    change: impl FnMut(&str, &mut [f32]),
) -> Result<(), BoxError> {
    let total = Some(weights.tensors().len() as u64);
    let done = Cell::new(0);
    let check = || {
        ctx.report(Progress { phase: "Writing".to_owned(), done: done.get(), total, per_second: None });
        done.set(done.get() + 1);
        Ok::<_, BoxError>(ctx.check()?)
    };
    pruning::save(path, weights, about, check, change)
}

/// JSON knows no file names that are not UTF-8; the rest of the answer is worth having all the same.
fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}
