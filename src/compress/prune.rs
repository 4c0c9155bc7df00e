//! Pruning: a network with fewer inner channels, or with weights that are zero.
//!
//! *Structured*: of every layer whose channels only its own block sees (see [`Inner`]), the channels that matter least are taken
//! out of all tensors that have them. What is left is a smaller network, which computes what the whole one computes with those
//! channels at zero. *Unstructured* (see [`sparse`]): single weights become zero, and the network stays as large.

mod saved;
mod scores;
pub mod sparse;
mod taylor;

use std::collections::HashMap;
use std::io;

use crate::checkpoint::{CheckpointError, TensorInfo};
use crate::models::{self, Architecture, Inner, ModelError, Part, Weights};

pub use saved::save;
pub use scores::by_l1;
pub use taylor::Taylor;

/// What product kernels compute together: widths between are as slow as the next multiple.
const STEP: usize = 16;

/// The same for narrow layers, of fewer channels than this, of which much would be taken or left otherwise.
const NARROW: usize = 128;
const NARROW_STEP: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    #[error(
        "{title} has no channels that only one block sees, so none can be taken out. ConvNeXt, MobileNetV2 and V3, EfficientNet, \
         ResNet and ViT have; single weights of any network can be set to zero with --unstructured"
    )]
    NothingInside { title: String },
    #[error("at {ratio} nothing is taken out of {title}: all its layers are too narrow. Choose a larger ratio")]
    NothingTaken { title: String, ratio: f64 },
    #[error("the pruned network would not be recognised as {title}: {reason}")]
    NotRecognised { title: String, reason: String },
    #[error("the tensor {tensor} of shape {shape:?} has no axis of {channels} channels")]
    Shape { tensor: String, shape: Vec<usize>, channels: usize },
    #[error("the checkpoint has no tensor {tensor}")]
    Missing { tensor: String },
    #[error("failed to read the weights")]
    Read(#[from] CheckpointError),
    #[error("failed to write the pruned network")]
    Write(#[from] io::Error),
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// The channels of a layer that stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    pub inner: Inner,
    /// Their numbers, ascending.
    pub kept: Vec<usize>,
}

/// The inner channels of a network; fails when it has none.
pub fn inner_of(architecture: &Architecture) -> Result<Vec<Inner>, PruneError> {
    let inner = architecture.inner()?;
    match inner.is_empty() {
        true => Err(PruneError::NothingInside { title: architecture.title.clone() }),
        false => Ok(inner),
    }
}

/// How many of a layer's channels stay when `ratio` of them is to go: the nearest multiple of 16 (of 8 below 128 channels), and
/// at least one such step.
pub fn kept_width(channels: usize, ratio: f64) -> usize {
    let step = if channels < NARROW { NARROW_STEP } else { STEP };
    let steps = (channels as f64 * (1.0 - ratio) / step as f64).round() as usize;
    (steps.max(1) * step).min(channels)
}

/// In every layer the channels of the highest scores stay; of equal ones the first.
pub fn cuts(inner: Vec<Inner>, scores: &[Vec<f64>], ratio: f64) -> Vec<Cut> {
    let cut = |(inner, scores): (Inner, &Vec<f64>)| {
        let mut kept: Vec<usize> = (0..inner.channels).collect();
        kept.sort_by(|one, other| scores[*other].total_cmp(&scores[*one]));
        kept.truncate(kept_width(inner.channels, ratio));
        kept.sort_unstable();
        Cut { inner, kept }
    };
    inner.into_iter().zip(scores).map(cut).collect()
}

/// The weights of a network without the channels that were cut, each tensor read when it is asked for.
pub struct Pruned<'a> {
    weights: &'a dyn Weights,
    /// Of the network, in the order of use.
    tensors: Vec<TensorInfo>,
    /// What is cut of a tensor, along its axes in the file.
    cuts: HashMap<String, Vec<(usize, Part, &'a Cut)>>,
}

impl<'a> Pruned<'a> {
    /// Fails when the weights are not those of `architecture`, and when what is left would be taken for another network.
    pub fn of(weights: &'a dyn Weights, architecture: &Architecture, cuts: &'a [Cut]) -> Result<Self, PruneError> {
        let mut by_tensor: HashMap<String, Vec<(usize, Part, &Cut)>> = HashMap::new();
        let held: HashMap<&str, &TensorInfo> =
            weights.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let found = |name: &str| held.get(name).copied().ok_or_else(|| PruneError::Missing { tensor: name.to_owned() });
        for cut in cuts {
            for member in &cut.inner.members {
                let axis = axis_in_file(found(&member.tensor)?, member.axis, cut.inner.channels)?;
                by_tensor.entry(member.tensor.clone()).or_default().push((axis, member.part, cut));
            }
        }
        let mut tensors = Vec::new();
        for (name, _) in architecture.tensors()? {
            let mut info = found(&name)?.clone();
            for (axis, _, cut) in by_tensor.get(&name).into_iter().flatten() {
                info.shape[*axis] = cut.kept.len();
            }
            info.bytes = size_of::<f32>() as u64 * info.elements() as u64;
            tensors.push(info);
        }
        let pruned = Self { weights, tensors, cuts: by_tensor };
        pruned.check(architecture)?;
        Ok(pruned)
    }

    /// Whether the tensors that are left will be recognised.
    fn check(&self, architecture: &Architecture) -> Result<(), PruneError> {
        let title = || architecture.title.clone();
        let found = models::detect_with_hint(&self.tensors, Some(&architecture.name))?;
        let report = models::fit(&self.tensors, &found)?;
        if found.name != architecture.name {
            return Err(PruneError::NotRecognised { title: title(), reason: format!("it looks like {}", found.title) });
        }
        match report.is_whole() {
            true => Ok(()),
            false => Err(PruneError::NotRecognised { title: title(), reason: report.misfit() }),
        }
    }
}

/// A file may hold a 1×1 convolution for a linear layer, and more axes of length 1.
fn axis_in_file(held: &TensorInfo, axis: usize, channels: usize) -> Result<usize, PruneError> {
    let shape = &held.shape;
    let is_axis = |axis: &usize| shape.get(*axis) == Some(&channels);
    let axis = Some(axis).filter(is_axis).or_else(|| (0..shape.len()).find(is_axis));
    axis.ok_or_else(|| PruneError::Shape { tensor: held.name.clone(), shape: shape.clone(), channels })
}

impl Weights for Pruned<'_> {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let mut values = self.weights.read_f32(name)?;
        let Some(cuts) = self.cuts.get(name) else { return Ok(values) };
        let held = self.weights.tensors().iter().find(|tensor| tensor.name == name);
        let mut shape = held.map(|held| held.shape.clone()).unwrap_or_default();
        for (axis, part, cut) in cuts {
            values = along(&values, &shape, *axis, &cut.kept);
            shape[*axis] = cut.kept.len();
            if *part == Part::Compares {
                // The mean is then of fewer channels: those at zero counted in it.
                let share = cut.inner.channels as f32 / cut.kept.len() as f32;
                values.iter_mut().for_each(|value| *value *= share);
            }
        }
        Ok(values)
    }
}

/// The elements of a row-major tensor at some places of an axis.
fn along(values: &[f32], shape: &[usize], axis: usize, places: &[usize]) -> Vec<f32> {
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let mut taken = Vec::with_capacity(outer * places.len() * inner);
    for row in 0..outer {
        for place in places {
            let first = (row * shape[axis] + place) * inner;
            taken.extend_from_slice(&values[first..first + inner]);
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_widths_are_multiples_of_what_is_computed_together() {
        let cases = [(160, 112), (320, 224), (1280, 896), (72, 48), (88, 64), (200, 144), (8, 8), (5, 5), (20, 16)];
        for (channels, kept) in cases {
            assert_eq!(kept_width(channels, 0.3), kept, "{channels}");
        }
        assert_eq!(kept_width(640, 0.999), 16);
        assert_eq!(kept_width(100, 0.01), 96);
    }

    #[test]
    fn elements_are_taken_along_any_axis() {
        let values: Vec<f32> = (0..24).map(|value| value as f32).collect();
        assert_eq!(along(&values, &[2, 3, 4], 0, &[1])[..2], [12.0, 13.0]);
        assert_eq!(
            along(&values, &[2, 3, 4], 1, &[0, 2])[4..],
            [8., 9., 10., 11., 12., 13., 14., 15., 20., 21., 22., 23.]
        );
        assert_eq!(along(&values, &[2, 3, 4], 2, &[3]), [3.0, 7.0, 11.0, 15.0, 19.0, 23.0]);
    }

    #[test]
    fn the_highest_scores_stay_in_their_order() {
        let inner = |channels| Inner { block: String::new(), layer: String::new(), channels, members: Vec::new() };
        let scores: Vec<f64> = (0..32).map(|channel| f64::from(channel % 4)).collect();
        let cut = cuts(vec![inner(32)], &[scores], 0.5).remove(0);
        assert_eq!(cut.kept, (0..32).filter(|channel| channel % 4 > 1).collect::<Vec<_>>());
    }
}
