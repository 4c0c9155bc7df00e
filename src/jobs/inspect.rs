//! What a checkpoint holds: architecture, sizes, input transform, and how it was recognised. Reads no tensor.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::checkpoint::{TensorInfo, TensorKind};
use crate::format::error_chain;
use crate::images::transform::Transform;
use crate::predict::{self, Description, ModelSource, TransformOverrides};
use crate::worker::BoxError;

/// Bytes of one kind (weights, optimizer, other) or one element type.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Share {
    pub name: String,
    pub tensors: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Inspection {
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    pub file_bytes: u64,
    /// `pytorch-zip`, `pytorch-legacy`, `safetensors`, `gguf`.
    pub container: String,
    /// `None` when Galley does not know the network; `unknown_because` then says why.
    pub architecture: Option<String>,
    pub title: Option<String>,
    pub unknown_because: Option<String>,
    pub recognised_by: Option<String>,
    pub found_as: String,
    /// Learnable elements: buffers such as running means do not count.
    pub parameters: u64,
    pub classes: Option<usize>,
    pub labels: Vec<String>,
    pub labels_from: Option<String>,
    pub transform: Option<Transform>,
    pub transform_from: Option<String>,
    pub by_kind: Vec<Share>,
    pub by_element: Vec<Share>,
    /// What was found beside or in the file and could not be used.
    pub notices: Vec<String>,
}

/// Fails only when the file is no checkpoint that can be read; an unknown network is part of the answer.
pub fn inspect(path: &Path) -> Result<Inspection, BoxError> {
    inspect_model(&ModelSource::File(path.to_owned()))
}

/// The same for any model source, the starter model included.
pub fn inspect_model(source: &ModelSource) -> Result<Inspection, BoxError> {
    let checkpoint = predict::open(source)?;
    let tensors = checkpoint.tensors();
    let mut inspection = Inspection {
        path: checkpoint.path().to_owned(),
        file_bytes: match source {
            ModelSource::Starter => predict::STARTER.len() as u64,
            ModelSource::File(path) => std::fs::metadata(path)?.len(),
        },
        container: word(&checkpoint.container()),
        architecture: None,
        title: None,
        unknown_because: None,
        recognised_by: None,
        found_as: checkpoint.found_as().to_owned(),
        parameters: parameters(tensors),
        classes: None,
        labels: Vec::new(),
        labels_from: None,
        transform: None,
        transform_from: None,
        by_kind: shares(tensors, |tensor| word(&tensor.kind)),
        by_element: shares(tensors, |tensor| word(&tensor.element)),
        notices: Vec::new(),
    };
    match predict::recognise(&checkpoint) {
        Ok(architecture) => {
            let description = predict::describe(&checkpoint, &architecture, None, &TransformOverrides::default())?;
            inspection.classes = Some(architecture.classes);
            inspection.architecture = Some(architecture.name);
            inspection.title = Some(architecture.title);
            inspection.recognised_by = Some(architecture.recognised_by);
            inspection.take(description);
        }
        Err(error) => inspection.unknown_because = Some(error_chain(&error)),
    }
    Ok(inspection)
}

impl Inspection {
    fn take(&mut self, description: Description) {
        self.labels = description.labels.iter().map(|label| label.to_string()).collect();
        self.labels_from = Some(description.labels_from);
        self.transform = Some(description.transform);
        self.transform_from = Some(description.transform_from);
        self.notices = description.notices;
    }
}

fn parameters(tensors: &[TensorInfo]) -> u64 {
    let is_buffer = |name: &str| {
        let last = name.rsplit('.').next().unwrap_or(name);
        ["running_mean", "running_var", "num_batches_tracked"].contains(&last)
    };
    let weights = tensors.iter().filter(|tensor| tensor.kind == TensorKind::Weight && !is_buffer(&tensor.name));
    weights.map(|tensor| tensor.elements() as u64).sum()
}

/// JSON knows no file names that are not UTF-8; the rest of the answer is worth having all the same.
fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// Tensors and bytes by group, in alphabetical order.
fn shares(tensors: &[TensorInfo], group: impl Fn(&TensorInfo) -> String) -> Vec<Share> {
    let mut groups = BTreeMap::<String, (u64, u64)>::new();
    for tensor in tensors {
        let (count, bytes) = groups.entry(group(tensor)).or_default();
        *count += 1;
        *bytes += tensor.bytes;
    }
    groups.into_iter().map(|(name, (tensors, bytes))| Share { name, tensors, bytes }).collect()
}

/// The name an enum goes by in JSON.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "unknown".to_owned(),
    }
}
