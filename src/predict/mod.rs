//! A classifier: network, labels and input transform. A batch in, the most likely classes out.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::images::Picture;
use crate::images::transform::{Interpolation, Transform};
use crate::models::{Network, Strictness};

/// Which model to use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelSource {
    /// The small network embedded in the program.
    #[default]
    Starter,
    File(PathBuf),
}

/// The parts of the input transform that a person set; what is `None` comes from the checkpoint or its architecture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TransformOverrides {
    pub resize: Option<crate::images::transform::Resize>,
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
    pub labels: Arc<[Arc<str>]>,
    /// Where the labels come from, in words: "labels.txt beside the checkpoint".
    pub labels_from: String,
    pub transform: Transform,
    /// Where the transform comes from, in words.
    pub transform_from: String,
}

#[derive(Debug, thiserror::Error)]
pub enum PredictError {
    #[error("stub")]
    Stub,
}

impl Classifier {
    /// Logits per picture, each of length `classes`, in order.
    pub fn logits(&self, _inputs: &[Vec<f32>]) -> Result<Vec<Vec<f32>>, PredictError> {
        todo!()
    }

    pub fn input(&self, picture: &Picture) -> Vec<f32> {
        self.transform.apply(picture)
    }
}

/// Opens, recognises and builds: the one way from a model source to a classifier.
pub fn load(
    _source: &ModelSource,
    _labels: Option<&std::path::Path>,
    _overrides: &TransformOverrides,
    _strictness: Strictness,
) -> Result<Classifier, PredictError> {
    todo!()
}

/// The `k` most likely classes, best first. Equal scores keep class order, so runs are repeatable.
pub fn top_k(_logits: &[f32], _labels: &[Arc<str>], _k: usize) -> Vec<Prediction> {
    todo!()
}

#[allow(dead_code)]
fn transform_of(_checkpoint: &Checkpoint) {}
