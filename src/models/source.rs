//! Where a network's builder gets its tensors: it names each with its shape, and gets it in NHWC order, batch norm folded.
//! Without weights behind it a source only notes what is asked for, which is how a file is recognised.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

use super::ModelError;
use crate::checkpoint::{Checkpoint, CheckpointError, TensorInfo, TensorKind};
use crate::ops::{PackedMatrix, Weight};

/// Tensors by name.
pub trait Weights {
    fn tensors(&self) -> &[TensorInfo];

    /// The elements of `name`, row-major.
    fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError>;
}

impl Weights for Checkpoint {
    fn tensors(&self) -> &[TensorInfo] {
        self.tensors()
    }

    fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        self.read_f32(name)
    }
}

/// True for tensors that no network needs at inference: counters of batch norm and of PyTorch's `AveragedModel`.
pub fn is_ignorable(name: &str) -> bool {
    name.ends_with("num_batches_tracked") || name == "n_averaged"
}

/// A weight or scale, and its bias or shift.
pub type Affine = (Tensor, Tensor);

/// The weight of a linear layer or convolution, and its bias.
pub type Weighted = (Weight, Tensor);

/// A batch norm to fold into the convolution before it.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    pub name: String,
    pub epsilon: f32,
}

/// Hands out tensors, one read at a time.
pub struct Source<'a> {
    weights: Option<&'a dyn Weights>,
    held: HashMap<&'a str, &'a [usize]>,
    asked: Vec<(String, Vec<usize>)>,
    placeholder: Tensor,
}

impl<'a> Source<'a> {
    pub fn new(weights: &'a dyn Weights) -> Result<Self, ModelError> {
        let held = weights.tensors().iter().filter(|tensor| tensor.kind == TensorKind::Weight);
        let held = held.map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect();
        Ok(Self { weights: Some(weights), held, ..Self::asking()? })
    }

    /// A source that holds nothing: its tensors are empty.
    pub fn asking() -> Result<Self, ModelError> {
        let placeholder = Tensor::zeros(0, DType::F32, &Device::Cpu)?;
        Ok(Self { weights: None, held: HashMap::new(), asked: Vec::new(), placeholder })
    }

    /// Every tensor asked for, with its shape as in the file.
    pub fn asked(self) -> Vec<(String, Vec<usize>)> {
        self.asked
    }

    /// Elements in the file's order, `neutral` where the file has none that fit, nothing when only asking.
    fn values(&mut self, name: &str, shape: &[usize], neutral: f32) -> Result<Option<Vec<f32>>, ModelError> {
        self.asked.push((name.to_owned(), shape.to_vec()));
        let Some(weights) = self.weights else { return Ok(None) };
        if !self.held.get(name).is_some_and(|held| same_shape(held, shape)) {
            return Ok(Some(vec![neutral; shape.iter().product()]));
        }
        let values = weights.read_f32(name)?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(ModelError::NotFinite { tensor: name.to_owned() });
        }
        Ok(Some(values))
    }

    fn tensor(&self, values: Option<Vec<f32>>, shape: &[usize]) -> Result<Tensor, ModelError> {
        match values {
            Some(values) => Ok(Tensor::from_vec(values, shape, &Device::Cpu)?),
            None => Ok(self.placeholder.clone()),
        }
    }

    /// A tensor exactly as the file holds it.
    pub fn plain(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let values = self.values(name, shape, 0.0)?;
        self.tensor(values, shape)
    }

    /// Scale and shift of a norm: `name.weight` and `name.bias`, each `(channels)`.
    pub fn norm(&mut self, name: &str, channels: usize) -> Result<Affine, ModelError> {
        let weight = self.values(&format!("{name}.weight"), &[channels], 1.0)?;
        let weight = self.tensor(weight, &[channels])?;
        Ok((weight, self.plain(&format!("{name}.bias"), &[channels])?))
    }

    /// A batch norm as scale and shift.
    pub fn batch_norm(&mut self, norm: &BatchNorm, channels: usize) -> Result<Affine, ModelError> {
        let fold = self.fold(Some(norm), "", channels)?;
        let (scale, shift) = fold.unzip();
        Ok((self.tensor(scale.flatten(), &[channels])?, self.tensor(shift, &[channels])?))
    }

    /// A convolution without groups: a depth of `kernel · kernel · inputs`, and `(outputs)`.
    ///
    /// With a batch norm the file has no bias for it.
    pub fn conv(
        &mut self,
        name: &str,
        norm: Option<&BatchNorm>,
        kernel: usize,
        inputs: usize,
        outputs: usize,
    ) -> Result<Weighted, ModelError> {
        let weight = self.values(&format!("{name}.weight"), &[outputs, inputs, kernel, kernel], 0.0)?;
        let fold = self.fold(norm, name, outputs)?;
        self.weighted(weight, fold, [outputs, inputs, kernel * kernel])
    }

    /// A convolution with a group per channel: `(kernel, kernel, channels)` and `(channels)`.
    pub fn depthwise(
        &mut self,
        name: &str,
        norm: Option<&BatchNorm>,
        kernel: usize,
        channels: usize,
    ) -> Result<Affine, ModelError> {
        let weight = self.values(&format!("{name}.weight"), &[channels, 1, kernel, kernel], 0.0)?;
        let fold = self.fold(norm, name, channels)?;
        let (Some(weight), Some((scale, shift))) = (weight, fold) else {
            return Ok((self.placeholder.clone(), self.placeholder.clone()));
        };
        let positions = kernel * kernel;
        let turned = (0..positions).flat_map(|position| (0..channels).map(move |channel| (position, channel)));
        let scaled = |(position, channel)| weight[channel * positions + position] * scale_of(&scale, channel);
        let turned = turned.map(scaled).collect();
        Ok((self.tensor(Some(turned), &[kernel, kernel, channels])?, self.tensor(Some(shift), &[channels])?))
    }

    /// A linear layer or 1×1 convolution; `bias` says whether the file has one.
    pub fn linear(&mut self, name: &str, inputs: usize, outputs: usize, bias: bool) -> Result<Weighted, ModelError> {
        let bias = bias.then(|| format!("{name}.bias"));
        self.linear_named(&format!("{name}.weight"), bias.as_deref(), inputs, outputs, None)
    }

    /// The same with its tensors' whole names, its outputs multiplied by `scale` (ConvNeXt's layer scale).
    pub fn linear_named(
        &mut self,
        weight: &str,
        bias: Option<&str>,
        inputs: usize,
        outputs: usize,
        scale: Option<&str>,
    ) -> Result<Weighted, ModelError> {
        let weight = self.values(weight, &[outputs, inputs], 0.0)?;
        let bias = match bias {
            Some(bias) => self.values(bias, &[outputs], 0.0)?,
            None => weight.as_ref().map(|_| vec![0.0; outputs]),
        };
        let scale = scale.map(|scale| self.values(scale, &[outputs], 1.0)).transpose()?.flatten();
        let bias = bias.map(|mut bias| {
            bias.iter_mut().zip(scale.iter().flatten()).for_each(|(bias, scale)| *bias *= scale);
            bias
        });
        self.weighted(weight, bias.map(|bias| (scale, bias)), [outputs, inputs, 1])
    }

    /// What a convolution's outputs are multiplied by, and what is added then.
    fn fold(&mut self, norm: Option<&BatchNorm>, conv: &str, channels: usize) -> Result<Option<Fold>, ModelError> {
        let Some(norm) = norm else {
            let bias = self.values(&format!("{conv}.bias"), &[channels], 0.0)?;
            return Ok(bias.map(|bias| (None, bias)));
        };
        let mut part = |part: &str, neutral| self.values(&format!("{}.{part}", norm.name), &[channels], neutral);
        let (weight, bias) = (part("weight", 1.0)?, part("bias", 0.0)?);
        let (mean, variance) = (part("running_mean", 0.0)?, part("running_var", 1.0)?);
        let (Some(mut scale), Some(mut shift), Some(mean), Some(variance)) = (weight, bias, mean, variance) else {
            return Ok(None);
        };
        for (scale, variance) in scale.iter_mut().zip(variance) {
            *scale /= (variance + norm.epsilon).sqrt();
        }
        for ((shift, scale), mean) in shift.iter_mut().zip(&scale).zip(mean) {
            *shift -= mean * scale;
        }
        Ok(Some((Some(scale), shift)))
    }

    /// Scales the outputs of a weight of shape `[outputs, inputs, positions]`; its depth goes over positions, then inputs.
    fn weighted(
        &self,
        weight: Option<Vec<f32>>,
        fold: Option<Fold>,
        [outputs, inputs, positions]: [usize; 3],
    ) -> Result<Weighted, ModelError> {
        let (Some(weight), Some((scale, shift))) = (weight, fold) else {
            return Ok((Weight::Plain(self.placeholder.clone()), self.placeholder.clone()));
        };
        let packed = PackedMatrix::new(inputs * positions, outputs, |step, output| {
            weight[(output * inputs + step % inputs) * positions + step / inputs] * scale_of(&scale, output)
        });
        Ok((Weight::Packed(packed), self.tensor(Some(shift), &[outputs])?))
    }
}

/// Scale (one when none) and shift per output.
type Fold = (Option<Vec<f32>>, Vec<f32>);

fn scale_of(scale: &Option<Vec<f32>>, output: usize) -> f32 {
    scale.as_ref().map_or(1.0, |scale| scale[output])
}

/// Shapes are the same but for axes of length 1: a 1×1 convolution holds what a linear layer holds.
pub fn same_shape(one: &[usize], other: &[usize]) -> bool {
    let long = |shape: &[usize]| shape.iter().copied().filter(|&length| length != 1).collect::<Vec<_>>();
    one == other || long(one) == long(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_no_weights_of_a_network() {
        assert!(is_ignorable("layer1.0.bn1.num_batches_tracked"));
        assert!(is_ignorable("n_averaged"));
        assert!(!is_ignorable("layer1.0.bn1.running_mean"));
    }
}
