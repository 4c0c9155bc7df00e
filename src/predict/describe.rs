//! What a checkpoint says about itself, or what its folder says: names of classes and the input transform. Reads no
//! tensor.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::{PredictError, TransformOverrides, input, labels};
use crate::checkpoint::{Checkpoint, Container};
use crate::format::error_chain;
use crate::images::transform::Transform;
use crate::models::{self, Architecture, ModelError};

/// Where labels come from that are none.
pub const NO_NAMES: &str = "numbers, because no names were found";

/// No configuration is this long.
const MAX_CONFIG_BYTES: u64 = 16_000_000;

/// Labels and transform, each with where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// One name per class.
    pub labels: Arc<[Arc<str>]>,
    /// Where the labels come from, in words: "labels.txt beside the checkpoint".
    pub labels_from: String,
    pub transform: Transform,
    /// Where the transform comes from, in words.
    pub transform_from: String,
    /// What was found and could not be used, a sentence each.
    pub notices: Vec<String>,
}

/// Finds labels and transform. A chosen label file must fit; anything else that does not fit becomes a notice.
pub fn describe(
    checkpoint: &Checkpoint,
    architecture: &Architecture,
    chosen_labels: Option<&Path>,
    overrides: &TransformOverrides,
) -> Result<Description, PredictError> {
    let mut notices = architecture.assumptions.clone();
    let config = config_beside(checkpoint, architecture, &mut notices);
    let (labels, labels_from) = match chosen_labels {
        Some(path) => (chosen(path, architecture.classes)?, format!("{}, chosen by you", file_name(path))),
        None => found(checkpoint, config.as_ref(), architecture.classes, &mut notices),
    };
    let (transform, mut transform_from) = transform(checkpoint, config.as_ref(), architecture, &mut notices);
    let (transform, set) = input::overridden(transform, overrides)?;
    if !set.is_empty() {
        transform_from = format!("{transform_from}; {} set by you", set.join(", "));
    }
    let labels = labels.into_iter().map(Arc::from).collect();
    Ok(Description { labels, labels_from, transform, transform_from, notices })
}

/// Which network a checkpoint holds. Where its tensors cannot tell, the name in its metadata or `config.json` decides.
pub fn recognise(checkpoint: &Checkpoint) -> Result<Architecture, ModelError> {
    let own = ["architecture", "arch"].iter().find_map(|key| checkpoint.metadata().get(*key)?.as_str());
    let path = checkpoint.path().with_file_name("config.json");
    let has_config = checkpoint.container() == Container::Safetensors && checkpoint.path().is_file();
    // A damaged configuration is reported where the transform is looked for in it.
    let config = has_config.then(|| read_config(&path).ok()).flatten();
    let beside = config.as_ref().and_then(|config| config.get("architecture")?.as_str());
    models::detect_with_hint(checkpoint.tensors(), own.or(beside))
}

fn chosen(path: &Path, classes: usize) -> Result<Vec<String>, PredictError> {
    let names = labels::read(path)?;
    if names.len() != classes {
        return Err(PredictError::LabelCount { path: path.to_owned(), names: names.len(), classes });
    }
    Ok(names)
}

/// The first names that fit, of: the checkpoint's metadata, `config.json`, label files beside the checkpoint.
fn found(
    checkpoint: &Checkpoint,
    config: Option<&Value>,
    classes: usize,
    notices: &mut Vec<String>,
) -> (Vec<String>, String) {
    let inside = labels::find(|key| checkpoint.metadata().get(key))
        .map(|(key, names)| (Ok(names), format!("the checkpoint ({key})")));
    let in_config = config
        .and_then(|config| labels::find(|key| config.get(key)))
        .map(|(key, names)| (Ok(names), format!("config.json beside the checkpoint ({key})")));
    let files = labels::beside(checkpoint.path()).into_iter();
    let in_files = files.map(|path| (labels::read(&path), format!("{} beside the checkpoint", file_name(&path))));
    for (names, from) in inside.into_iter().chain(in_config).chain(in_files) {
        let reason = match names {
            Ok(names) if names.len() == classes => return (names, from),
            Ok(names) => format!("there are {}, and the model knows {}", count(names.len()), count(classes)),
            Err(error) => error_chain(&error),
        };
        notices.push(format!("The class names in {from} were not used: {reason}"));
    }
    ((0..classes).map(|class| format!("class {class}")).collect(), NO_NAMES.to_owned())
}

fn transform(
    checkpoint: &Checkpoint,
    config: Option<&Value>,
    architecture: &Architecture,
    notices: &mut Vec<String>,
) -> (Transform, String) {
    let default = architecture.default_transform();
    let own = checkpoint.metadata().get("transform").map(own_transform);
    let timm = || config.and_then(|config| input::transform_from_timm(config, &default));
    let candidates = [(own, "the checkpoint's metadata"), (timm(), "config.json beside the checkpoint")];
    for (candidate, from) in candidates {
        match candidate {
            Some(Ok(transform)) => return (transform, from.to_owned()),
            Some(Err(reason)) => notices.push(format!("The transform in {from} was not used: {reason}")),
            None => {}
        }
    }
    (default, format!("the default of {}", architecture.title))
}

/// Galley's own metadata: a [`Transform`] as JSON, or as text that holds it.
fn own_transform(value: &Value) -> Result<Transform, String> {
    let transform = match value {
        Value::String(text) => serde_json::from_str(text),
        value => serde_json::from_value(value.clone()),
    };
    let transform: Transform = transform.map_err(|error| error.to_string())?;
    transform.check().map_err(|error| error.to_string())?;
    Ok(transform)
}

/// The `config.json` that timm and transformers put beside `model.safetensors`. Beside another file it counts only when
/// it names the same architecture, because a folder may hold several checkpoints.
fn config_beside(checkpoint: &Checkpoint, architecture: &Architecture, notices: &mut Vec<String>) -> Option<Value> {
    let path = checkpoint.path().with_file_name("config.json");
    // The starter model has no file, hence nothing beside it.
    if !checkpoint.path().is_file() || !path.is_file() {
        return None;
    }
    let config = match read_config(&path) {
        Ok(config) => config,
        Err(error) => {
            notices.push(format!("config.json beside the checkpoint was not used: {error}"));
            return None;
        }
    };
    let named = config.get("architecture").and_then(Value::as_str);
    let same_name = named.is_some_and(|name| name.split('.').next() == Some(architecture.name.as_str()));
    let is_its_file = checkpoint.container() == Container::Safetensors
        && (named.is_none() || file_name(checkpoint.path()).starts_with("model."));
    let is_ours = same_name || is_its_file;
    if let Some(name) = named.filter(|_| !is_ours) {
        notices.push(format!("config.json beside the checkpoint was not used: it names {name}"));
    }
    is_ours.then_some(config)
}

fn read_config(path: &Path) -> std::io::Result<Value> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_CONFIG_BYTES).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn count(value: usize) -> String {
    crate::format::count(value as u64)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
