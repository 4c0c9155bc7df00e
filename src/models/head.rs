//! Reads the shape of a classifier's head from its tensors: one linear layer, or the `Sequential` somebody put there.

use std::collections::{BTreeMap, HashSet};

use super::catalog::Family;
use super::layers::HeadStep;
use super::{ModelError, Naming};
use crate::checkpoint::{TensorInfo, TensorKind};
use crate::ops::Activation;

/// A head found in a file.
#[derive(Debug, PartialEq)]
pub struct Found {
    pub steps: Vec<HeadStep>,
    pub classes: usize,
    /// Activations have no tensors: one was assumed.
    pub assumed_relu: bool,
}

/// The layers whose tensors begin with `root` and are none of `body`'s; none when there are no such tensors.
pub fn parse(
    tensors: &[TensorInfo],
    root: &str,
    body: &[(String, Vec<usize>)],
    family: &Family,
    naming: Naming,
) -> Result<Option<Found>, ModelError> {
    let body: HashSet<&str> = body.iter().map(|(name, _)| name.as_str()).collect();
    let mut layers: BTreeMap<Vec<Place>, Parts> = BTreeMap::new();
    for tensor in tensors {
        let Some(rest) = tensor.name.strip_prefix(root).filter(|rest| rest.starts_with('.')) else { continue };
        if tensor.kind != TensorKind::Weight || body.contains(tensor.name.as_str()) {
            continue;
        }
        let (path, part) = rest.rsplit_once('.').unwrap_or(("", rest));
        let places = path.split('.').filter(|part| !part.is_empty()).map(Place::of).collect();
        let parts = layers.entry(places).or_insert_with(|| Parts { name: format!("{root}{path}"), ..Parts::default() });
        match part {
            "weight" => parts.weight = Some(tensor.shape.clone()),
            "bias" => parts.has_bias = true,
            "running_mean" => parts.has_statistics = true,
            _ => {}
        }
    }
    if layers.is_empty() {
        return Ok(None);
    }
    // A file keeps names, not their order of use: numbers tell it, words with a norm among them may not.
    let is_named = |place: &&Vec<Place>| matches!(place.last(), Some(Place::Word(_)));
    let has_norm = layers.values().any(|parts| parts.weight.as_ref().is_some_and(|weight| weight.len() == 1));
    if has_norm && layers.keys().filter(is_named).count() > 1 {
        let names: Vec<&str> = layers.values().map(|parts| parts.name.as_str()).collect();
        return refuse(format!("its layers have no numbers, so their order is unknown: {}", names.join(", ")));
    }
    assemble(layers, family, naming).map(Some)
}

/// One component of a name; numbers come before words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Index(usize),
    Word(String),
}

impl Place {
    fn of(part: &str) -> Self {
        part.parse().map_or_else(|_| Self::Word(part.to_owned()), Self::Index)
    }
}

#[derive(Debug, Default)]
struct Parts {
    name: String,
    weight: Option<Vec<usize>>,
    has_bias: bool,
    has_statistics: bool,
}

fn refuse<T>(reason: String) -> Result<T, ModelError> {
    Err(ModelError::Head { reason })
}

fn assemble(layers: BTreeMap<Vec<Place>, Parts>, family: &Family, naming: Naming) -> Result<Found, ModelError> {
    let mut features = family.features(naming);
    let mut found = Found { steps: Vec::new(), classes: 0, assumed_relu: false };
    let layers: Vec<(Vec<Place>, Parts)> = layers.into_iter().collect();
    // True from a linear layer until its activation is placed.
    let mut open = false;
    for (index, (place, parts)) in layers.iter().enumerate() {
        if open && index > 0 && leaves_room(&layers[index - 1].0, place) {
            let (activation, assumed) = activation_after(family, naming, &found.steps);
            found.steps.push(HeadStep::Activation(activation));
            found.assumed_relu |= assumed;
            open = false;
        }
        let name = parts.name.clone();
        let Some(weight) = &parts.weight else { return refuse(format!("{name} has no weight")) };
        let weight: Vec<usize> = match weight.as_slice() {
            [outputs, inputs, 1, 1] => vec![*outputs, *inputs],
            other => other.to_vec(),
        };
        match *weight.as_slice() {
            [outputs, inputs] if inputs == features => {
                found.steps.push(HeadStep::Linear { name, inputs, outputs, bias: parts.has_bias });
                (features, found.classes, open) = (outputs, outputs, true);
            }
            [length] if length == features && parts.has_statistics => {
                found.steps.push(HeadStep::BatchNorm { name, features });
            }
            [length] if length == features => found.steps.push(HeadStep::LayerNorm { name, features }),
            _ => return refuse(format!("{name}.weight has shape {weight:?}, and {features} features come in")),
        }
    }
    match found.steps.iter().rposition(|step| matches!(step, HeadStep::Linear { .. })) {
        Some(last) if last + 1 == found.steps.len() => Ok(found),
        _ => refuse("its last layer is not linear".to_owned()),
    }
}

/// True when a layer without tensors fits between two places of a `Sequential`.
fn leaves_room(before: &[Place], after: &[Place]) -> bool {
    match (before, after) {
        ([front @ .., Place::Index(one)], [other @ .., Place::Index(two)]) if front == other => *two > one + 1,
        _ => true,
    }
}

/// What follows a linear layer that is not the last. torchvision's MobileNetV3 has its own there; else ReLU is assumed.
fn activation_after(family: &Family, naming: Naming, steps: &[HeadStep]) -> (Activation, bool) {
    if let (Family::Inverted(net), Naming::Torchvision, [HeadStep::Linear { outputs, .. }]) = (family, naming, steps)
        && net.hidden == Some(*outputs)
    {
        return (net.activation, false);
    }
    (Activation::Relu, true)
}
