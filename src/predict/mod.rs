//! A classifier: network, labels and input transform. A batch in, the most likely classes out.

mod describe;
mod evaluation;
mod input;
mod labels;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, CheckpointError, TensorInfo};
use crate::device;
use crate::images::Input;
use crate::images::transform::{Interpolation, Resize, Transform, TransformError};
use crate::models::{self, Architecture, LoadReport, ModelError, Network};

pub use describe::{Description, describe, recognise};
pub use evaluation::{Answer, Bin, ClassScore, Evaluation, Judged, ThresholdPoint};
pub use input::overridden;

pub use crate::models::{Loading, Precision, Strictness};

/// The starter model's checkpoint.
pub const STARTER: &[u8] = include_bytes!("../../resources/starter.safetensors");

/// Which model to use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelSource {
    /// The small network embedded in the program.
    #[default]
    Starter,
    File(PathBuf),
}

impl ModelSource {
    /// For messages: the file's path.
    pub fn name(&self) -> String {
        match self {
            Self::Starter => "Starter".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// The parts of the input transform that a person set; what is `None` comes from the checkpoint or its architecture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TransformOverrides {
    pub resize: Option<Resize>,
    pub crop: Option<u32>,
    pub interpolation: Option<Interpolation>,
    pub mean: Option<[f32; 3]>,
    pub std: Option<[f32; 3]>,
}

/// One class and how likely it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    pub index: usize,
    pub label: Arc<str>,
    /// 0–1; all classes of a photo add up to 1.
    pub probability: f32,
}

/// What became of one photo.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub path: PathBuf,
    pub result: RowResult,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RowResult {
    /// The most likely classes, best first; `logits` only when asked for.
    Ok {
        predictions: Vec<Prediction>,
        logits: Option<Vec<f32>>,
    },
    Skipped {
        reason: String,
    },
}

/// A network with everything needed to use it.
pub struct Classifier {
    pub network: Network,
    /// The files the network was read from, with their state just before; none for the starter model.
    files: Vec<(PathBuf, Option<FileState>)>,
    pub description: Description,
    /// Where the network computes.
    device: Device,
    /// What loading did, when it was lenient and left something out.
    pub load_report: LoadReport,
}

#[derive(Debug, thiserror::Error)]
pub enum PredictError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("cannot use the model {}", .path.display())]
    Model { path: PathBuf, source: ModelError },
    #[error("failed to read the class names {}", .path.display())]
    LabelsRead { path: PathBuf, source: std::io::Error },
    #[error("cannot use the class names, because {reason}: {}", .path.display())]
    LabelsFormat { path: PathBuf, reason: String },
    #[error("the model knows {classes} classes and the file names {names}; choose the file that belongs to it: {}", .path.display())]
    LabelCount { path: PathBuf, names: usize, classes: usize },
    #[error("the input transform cannot be used")]
    Transform(#[from] TransformError),
    #[error("the network failed")]
    Forward(#[source] ModelError),
    #[error("the network's input or output has an unexpected shape")]
    Tensor(#[from] candle_core::Error),
}

impl PredictError {
    /// True for what may go well when it is tried once more.
    pub fn is_of_device(&self) -> bool {
        match self {
            Self::Tensor(error) | Self::Forward(ModelError::Compute(error)) => device::is_failure(error),
            _ => false,
        }
    }
}

/// Size and modification time: what changes when a file is written anew.
pub type FileState = (u64, SystemTime);

fn state(path: &Path) -> Option<FileState> {
    let metadata = path.metadata().ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

impl Classifier {
    /// The files the network was read from; none for the starter model.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|(path, _)| path.clone()).collect()
    }

    /// A file that was written since the network was read from it, as a training run does with its best checkpoint.
    pub fn changed_file(&self) -> Option<&Path> {
        self.files.iter().find(|(path, before)| state(path) != *before).map(|(path, _)| path.as_path())
    }

    /// Where the network computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Logits per input, each of length `classes`, in order. Inputs of one size go through the network as one batch.
    pub fn logits(&self, inputs: &[&Input]) -> Result<Vec<Vec<f32>>, PredictError> {
        let mut rows = Vec::with_capacity(inputs.len());
        for same_size in inputs.chunk_by(|a, b| (a.height, a.width) == (b.height, b.width)) {
            rows.extend(device::completed(&self.device, || self.batch_logits(same_size))?);
        }
        Ok(rows)
    }

    /// The same for inputs of one size.
    fn batch_logits(&self, inputs: &[&Input]) -> Result<Vec<Vec<f32>>, PredictError> {
        let batch = pixels(inputs, &self.device)?;
        Ok(self.network.forward(&batch).map_err(PredictError::Forward)?.to_vec2::<f32>()?)
    }
}

/// Inputs of one size as a batch.
pub fn pixels(inputs: &[&Input], device: &Device) -> candle_core::Result<Tensor> {
    let pixels: Vec<f32> = inputs.iter().flat_map(|input| input.pixels.iter().copied()).collect();
    let (height, width) = inputs.first().map_or((0, 0), |input| (input.height, input.width));
    Tensor::from_vec(pixels, (inputs.len(), height, width, 3), device)
}

/// A model whose file has been opened and whose weights have not been read.
pub struct Unloaded {
    checkpoint: Checkpoint,
    files: Vec<(PathBuf, Option<FileState>)>,
    architecture: Architecture,
    description: Description,
}

impl Unloaded {
    /// Opens and recognises, and finds labels and transform: a wrong file should not cost the wait for the weights.
    pub fn open(
        source: &ModelSource,
        labels: Option<&Path>,
        overrides: &TransformOverrides,
    ) -> Result<Self, PredictError> {
        let checkpoint = open(source)?;
        let files = checkpoint.files().into_iter().map(|path| (path.to_owned(), state(path))).collect();
        let unusable = |source| PredictError::Model { path: checkpoint.path().to_owned(), source };
        let architecture = recognise(&checkpoint).map_err(unusable)?;
        let description = describe(&checkpoint, &architecture, labels, overrides)?;
        Ok(Self { checkpoint, files, architecture, description })
    }

    /// All files of the checkpoint; none for the starter model.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// In the order of the network's outputs.
    pub fn labels(&self) -> &[Arc<str>] {
        &self.description.labels
    }

    pub fn transform(&self) -> &Transform {
        &self.description.transform
    }

    /// Those of its file.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.checkpoint.tensors()
    }

    /// The bytes that its weights will take in memory.
    pub fn bytes_needed(&self, precision: Precision, device: &Device) -> Result<u64, PredictError> {
        models::weigh(self.checkpoint.tensors(), &self.architecture, precision, device)
            .map_err(|source| self.unusable(source))
    }

    /// Reads the weights.
    pub fn load(self, loading: impl Into<Loading>, device: &Device) -> Result<Classifier, PredictError> {
        let built = models::build(&self.checkpoint, &self.architecture, loading, device);
        let (network, load_report) = built.map_err(|source| self.unusable(source))?;
        let Self { files, description, .. } = self;
        Ok(Classifier { network, files, description, device: device.clone(), load_report })
    }

    fn unusable(&self, source: ModelError) -> PredictError {
        PredictError::Model { path: self.checkpoint.path().to_owned(), source }
    }
}

/// Opens, recognises and builds: the way from a model source to a classifier, which computes on `device`.
pub fn load(
    source: &ModelSource,
    labels: Option<&Path>,
    overrides: &TransformOverrides,
    loading: impl Into<Loading>,
    device: &Device,
) -> Result<Classifier, PredictError> {
    Unloaded::open(source, labels, overrides)?.load(loading, device)
}

/// Size and modification time of every file that loading a model looks at: where they are the same, so is the model, but
/// for further files that an index names.
pub fn states(source: &ModelSource, labels: Option<&Path>) -> Vec<(PathBuf, Option<FileState>)> {
    let checkpoint = match source {
        ModelSource::Starter => None,
        ModelSource::File(path) => Some(path),
    };
    let beside = checkpoint
        .into_iter()
        .flat_map(|path| labels::beside(path).into_iter().chain([path.with_file_name("config.json")]));
    let named = checkpoint.cloned().into_iter().chain(labels.map(Path::to_owned));
    named.chain(beside).map(|path| (path.clone(), state(&path))).collect()
}

/// Opens the checkpoint of a model source.
pub fn open(source: &ModelSource) -> Result<Checkpoint, CheckpointError> {
    match source {
        ModelSource::Starter => Checkpoint::from_static("the starter model", STARTER),
        ModelSource::File(path) => Checkpoint::open(path),
    }
}

/// The `k` most likely classes, best first. Equal scores keep class order, so runs are repeatable.
///
/// `logits` has shape `(classes,)` and is finite; probabilities are a softmax in f64.
pub fn top_k(logits: &[f32], labels: &[Arc<str>], k: usize) -> Vec<Prediction> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponential = |logit: f32| (f64::from(logit) - f64::from(highest)).exp();
    let sum: f64 = logits.iter().copied().map(exponential).sum();
    let mut classes: Vec<(usize, f32, &Arc<str>)> =
        logits.iter().zip(labels).enumerate().map(|(index, (logit, label))| (index, *logit + 0.0, label)).collect(); // -0 becomes 0
    classes.sort_by(|a, b| b.1.total_cmp(&a.1)); // stable
    let best = classes.into_iter().take(k);
    best.map(|(index, logit, label)| {
        let probability = (exponential(logit) / sum) as f32;
        Prediction { index, label: label.clone(), probability }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(count: usize) -> Vec<Arc<str>> {
        (0..count).map(|index| format!("class {index}").into()).collect()
    }

    #[test]
    fn equal_scores_keep_class_order_and_probabilities_add_up() {
        let best = top_k(&[1.0, 3.0, -2.0, 3.0, 3.0], &labels(5), 9);
        assert_eq!(best.iter().map(|best| best.index).collect::<Vec<_>>(), [1, 3, 4, 0, 2]);
        let sum: f32 = best.iter().map(|best| best.probability).sum();
        assert!((sum - 1.0).abs() < 1e-6);
    }

    #[test]
    fn huge_logits_give_finite_probabilities() {
        let best = top_k(&[3e38, -3e38], &labels(2), 2);
        assert_eq!([best[0].probability, best[1].probability], [1.0, 0.0]);
        // e^1 / (e^1 + 1)
        assert!((top_k(&[1.0, 0.0], &labels(2), 1)[0].probability - 0.731_058_6).abs() < 1e-6);
    }

    #[test]
    fn a_checkpoint_written_after_it_was_read_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("best.safetensors");
        std::fs::write(&path, STARTER).unwrap();
        let source = ModelSource::File(path.clone());
        let overrides = TransformOverrides::default();
        let classifier = load(&source, None, &overrides, Strictness::Strict, &Device::Cpu).unwrap();
        assert_eq!(classifier.changed_file(), None);
        std::fs::write(&path, &STARTER[..STARTER.len() - 1]).unwrap();
        assert_eq!(classifier.changed_file(), Some(path.as_path()));
    }
}
