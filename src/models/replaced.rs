//! A network with another classifier: the last layer of its head made anew for other classes.

use std::ops::Range;

use super::layers::HeadStep;
use super::named::uniform;
use super::source::Weights;
use super::{Architecture, ModelError};
use crate::checkpoint::{Blocks, CheckpointError, ElementType, TensorInfo, TensorKind};

/// The checkpoint's weights, but for a last layer that knows nothing yet.
pub struct NewHead<'a> {
    weights: &'a dyn Weights,
    tensors: Vec<TensorInfo>,
    layer: String,
    inputs: usize,
    seed: u64,
}

/// The same network with a last layer for `classes`: what to build, and from what.
///
/// The layer starts as PyTorch's `nn.Linear` does, from its inputs' number, repeatably by `seed`.
pub fn replace_head<'a>(
    architecture: &Architecture,
    weights: &'a dyn Weights,
    classes: usize,
    seed: u64,
) -> Result<(Architecture, NewHead<'a>), ModelError> {
    let architecture = architecture.with_classes(classes)?;
    let Some(HeadStep::Linear { name, inputs, bias, .. }) = architecture.head.last() else { return Err(no_linear()) };
    let (layer, inputs, has_bias) = (name.clone(), *inputs, *bias);
    let is_kept = |tensor: &&TensorInfo| !belongs(&tensor.name, &layer);
    let mut tensors: Vec<TensorInfo> = weights.tensors().iter().filter(is_kept).cloned().collect();
    // A convolution in the file (SqueezeNet) stays one.
    let ranks = weights.tensors().iter().find(|tensor| tensor.name == format!("{layer}.weight"));
    let ones = ranks.map_or(0, |tensor| tensor.shape.len().saturating_sub(2));
    let mut add = |part: &str, shape: Vec<usize>| {
        let bytes = 4 * shape.iter().product::<usize>() as u64;
        let name = format!("{layer}.{part}");
        tensors.push(TensorInfo { name, element: ElementType::F32, shape, kind: TensorKind::Weight, bytes });
    };
    add("weight", [vec![classes, inputs], vec![1; ones]].concat());
    if has_bias {
        add("bias", vec![classes]);
    }
    Ok((architecture, NewHead { weights, tensors, layer, inputs, seed }))
}

impl Architecture {
    /// The same network with another number of classes.
    pub fn with_classes(&self, classes: usize) -> Result<Self, ModelError> {
        let mut changed = Self { classes, ..self.clone() };
        let Some(HeadStep::Linear { outputs, .. }) = changed.head.last_mut() else { return Err(no_linear()) };
        *outputs = classes;
        Ok(changed)
    }
}

fn no_linear() -> ModelError {
    ModelError::Head { reason: "its last layer is not linear".to_owned() }
}

/// Whether `tensor` is one of the layer's.
fn belongs(tensor: &str, layer: &str) -> bool {
    tensor.strip_prefix(layer).is_some_and(|rest| rest.starts_with('.'))
}

impl Weights for NewHead<'_> {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let Some(info) = self.tensors.iter().find(|info| info.name == name && belongs(name, &self.layer)) else {
            return self.weights.read_f32(name);
        };
        // nn.Linear.reset_parameters: weight and bias uniform within 1 / √inputs.
        let bound = 1.0 / (self.inputs as f32).sqrt();
        let stream = self.seed.wrapping_add(u64::from(name.ends_with("bias")) << 32);
        Ok((0..info.elements() as u64).map(|index| bound * uniform(stream, index)).collect())
    }

    fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Option<Vec<f32>>, CheckpointError> {
        if belongs(name, &self.layer) { Ok(None) } else { self.weights.read_rows(name, rows) }
    }

    fn read_blocks(&self, name: &str) -> Result<Option<Blocks>, CheckpointError> {
        if belongs(name, &self.layer) { Ok(None) } else { self.weights.read_blocks(name) }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::models::{RandomWeights, Strictness, build, named};

    #[test]
    fn a_replaced_head_answers_for_its_classes_and_the_body_is_the_same() -> Result<(), ModelError> {
        for name in ["squeezenet1_1", "mobilenet_v3_small", "convnext_atto", "resnet18"] {
            let architecture = named(name, 1000)?;
            let weights = RandomWeights::of(&architecture)?;
            let (ours, replaced) = replace_head(&architecture, &weights, 7, 1)?;
            assert_eq!(ours.classes, 7);
            let (network, report) = build(&replaced, &ours, Strictness::Strict, &Device::Cpu)?;
            assert!(report.is_whole());
            let (whole, _) = build(&weights, &architecture, Strictness::Strict, &Device::Cpu)?;
            let pixels = candle_core::Tensor::full(0.3f32, (1, 64, 64, 3), &Device::Cpu)?;
            assert_eq!(network.forward(&pixels)?.dims(), [1, 7]);
            let body = |network: &crate::models::Network| -> Result<Vec<f32>, ModelError> {
                let blocks = &network.blocks[..network.blocks.len() - 1];
                let features = blocks.iter().try_fold(pixels.clone(), |xs, block| block.forward(xs))?;
                Ok(features.flatten_all()?.to_vec1::<f32>()?)
            };
            assert_eq!(body(&network)?, body(&whole)?, "{name}");
        }
        Ok(())
    }

    #[test]
    fn a_new_layer_is_within_its_bound_and_repeats_by_its_seed() -> Result<(), ModelError> {
        let architecture = named("resnet18", 10)?;
        let weights = RandomWeights::of(&architecture)?;
        let layer = |seed| -> Result<Vec<f32>, ModelError> {
            let (_, replaced) = replace_head(&architecture, &weights, 3, seed)?;
            Ok([replaced.read_f32("fc.weight")?, replaced.read_f32("fc.bias")?].concat())
        };
        let values = layer(1)?;
        assert_eq!(values.len(), 3 * 512 + 3);
        let bound = 1.0 / 512f32.sqrt();
        assert!(values.iter().all(|value| value.abs() <= bound));
        assert!(values.iter().any(|value| *value > 0.9 * bound) && values.iter().any(|value| *value < -0.9 * bound));
        assert!(values[..3] != values[3 * 512..]);
        assert_eq!(values, layer(1)?);
        assert_ne!(values, layer(2)?);
        Ok(())
    }
}
