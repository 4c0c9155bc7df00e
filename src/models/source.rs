//! Where a network's builder gets its tensors: it names each with its shape, and gets it in NHWC order, batch norm folded.
//! Without weights behind it a source notes what is asked for, which is how a file is recognised, and hands out tensors that
//! have shapes and no memory, of which an outline of the network is made. A source for training folds nothing from some
//! block on, and keeps a list of the variables that it hands out.

mod fold;
mod weighted;
mod weights;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};

use super::inner::{InnerLayer, Widths};
use super::input_ranges::InputRanges;
use super::layer_weight::{LayerWeight, Shift};
use super::layers::Layer;
use super::parameter::{Parameter, TrainableNorm};
use super::{Block, ModelError, Precision, is_learnable};
use crate::checkpoint::{TensorInfo, TensorKind};
use crate::memory::F32;
use crate::ops::{self, LayerInputs, WatchedWeight, Weight, Window};

use fold::{Fold, scale_of};
pub use weights::Weights;

/// True for tensors that no network needs at inference: counters of batch norm and of PyTorch's `AveragedModel`.
pub fn is_ignorable(name: &str) -> bool {
    name.ends_with("num_batches_tracked") || name == "n_averaged"
}

/// A weight or scale, and its bias or shift.
pub type Affine = (Tensor, Tensor);

/// The weight of a linear layer or convolution, and its bias.
pub type Weighted = (Weight, Tensor);

/// A batch norm, which is folded into the convolution before it unless it trains.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    pub name: String,
    pub epsilon: f32,
    /// The share of a batch in the running statistics.
    pub momentum: f64,
}

/// Bytes of values that are read, and of what is held of them after.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub read: u64,
    pub held: u64,
}

/// What a network is made of, in the order of use.
pub struct Asked {
    /// Names and shapes.
    pub tensors: Vec<(String, Vec<usize>)>,
    pub inner: Vec<InnerLayer>,
}

/// Hands out tensors, one read at a time.
pub struct Source<'a> {
    weights: Option<&'a dyn Weights>,
    held: HashMap<&'a str, &'a TensorInfo>,
    asked: Vec<(String, Vec<usize>)>,
    /// Of inner layers that are narrower than published.
    widths: Widths,
    inner: Vec<InnerLayer>,
    /// How many of these, and of what is learned and running, belong to finished blocks.
    in_blocks: [usize; 3],
    /// Bytes of what was handed out since the last finished block, as they lie in memory, and before.
    bytes: Cell<u64>,
    bytes_before: u64,
    /// What is read and what is held of it, in bytes and in order.
    loads: RefCell<Vec<Load>>,
    /// Whether a batch norm that trains was handed out since the last finished block.
    trains_norms: Cell<bool>,
    /// A single zero, which any shape can be a view of.
    placeholder: Tensor,
    /// The first block that trains; none for inference.
    first_trained: Option<usize>,
    finished_blocks: usize,
    pub learned: Vec<Parameter>,
    pub running: Vec<Parameter>,
    /// Every weight of a convolution or linear layer that does not train.
    pub layers: Vec<LayerWeight>,
    /// What these are given, where that is watched.
    pub inputs: Option<Vec<LayerInputs>>,
    /// What is known of the inputs of layers.
    pub input_ranges: InputRanges,
    /// Of what does not train.
    precision: Precision,
    /// Where tensors are made.
    device: Device,
}

impl<'a> Source<'a> {
    pub fn new(weights: &'a dyn Weights, precision: Precision, device: &Device) -> Result<Self, ModelError> {
        // In seven bits a range of all photos would be too coarse for one.
        let input_ranges = if ops::codes_in_8_bits() { weights.input_ranges() } else { InputRanges::default() };
        Ok(Self {
            weights: Some(weights),
            input_ranges,
            ..Self::outlining(weights.tensors(), None, precision, device)?
        })
    }

    /// A source for the outline of a network that computes on `device`, from block `first_trained` on trained, of these tensors
    /// if there are any yet.
    pub fn outlining(
        tensors: &'a [TensorInfo],
        first_trained: Option<usize>,
        precision: Precision,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let held = tensors.iter().filter(|tensor| tensor.kind == TensorKind::Weight);
        let held = held.map(|tensor| (tensor.name.as_str(), tensor)).collect();
        Ok(Self { held, first_trained, precision, device: device.clone(), ..Self::asking()? })
    }

    /// The same for a network whose blocks train, but for the first `frozen` ones.
    pub fn training(weights: &'a dyn Weights, frozen: usize, device: &Device) -> Result<Self, ModelError> {
        Ok(Self { first_trained: Some(frozen), ..Self::new(weights, Precision::F32, device)? })
    }

    /// The same for a network whose layers are watched.
    pub fn watching(weights: &'a dyn Weights, device: &Device) -> Result<Self, ModelError> {
        Ok(Self { inputs: Some(Vec::new()), ..Self::new(weights, Precision::F32, device)? })
    }

    /// A source that holds nothing: its tensors have shapes and no memory.
    pub fn asking() -> Result<Self, ModelError> {
        Ok(Self {
            weights: None,
            held: HashMap::new(),
            asked: Vec::new(),
            widths: Widths::new(),
            inner: Vec::new(),
            in_blocks: [0; 3],
            bytes: Cell::new(0),
            bytes_before: 0,
            loads: RefCell::default(),
            trains_norms: Cell::new(false),
            placeholder: Tensor::zeros(1, DType::F32, &Device::Cpu)?,
            first_trained: None,
            finished_blocks: 0,
            learned: Vec::new(),
            running: Vec::new(),
            layers: Vec::new(),
            inputs: None,
            input_ranges: InputRanges::default(),
            precision: Precision::F32,
            device: Device::Cpu,
        })
    }

    /// The same for a network whose inner layers are of these widths.
    pub fn with_widths(self, widths: &Widths) -> Self {
        Self { widths: widths.clone(), ..self }
    }

    /// How many channels `layer` makes that nothing outside of its block sees; `published` unless they are fewer here.
    pub fn inner(&mut self, layer: &str, published: usize) -> usize {
        let channels = self.widths.get(layer).copied().unwrap_or(published);
        self.inner.push(InnerLayer { block: self.finished_blocks, layer: layer.to_owned(), channels, published });
        channels
    }

    /// A block of all that was asked for since the block before.
    pub fn block(&mut self, name: impl Into<String>, layer: impl Layer + 'static) -> Block {
        self.finished_blocks += 1;
        let [asked, learned, running] = self.in_blocks;
        let elements = |(_, shape): &(String, Vec<usize>)| shape.iter().product::<usize>();
        let asked = &self.asked[asked..];
        let weights = asked.iter().map(elements).sum();
        let learnable = asked.iter().filter(|(name, _)| is_learnable(name)).map(elements).sum();
        self.in_blocks = [self.asked.len(), self.learned.len(), self.running.len()];
        let (learned, running) = (learned..self.learned.len(), running..self.running.len());
        let bytes = self.bytes.take();
        self.bytes_before += bytes;
        let looks_at_all = self.trains_norms.take();
        let (name, layer) = (name.into(), Box::new(layer));
        Block { name, weights, learnable, bytes, learned, running, looks_at_all, layer }
    }

    /// True while the tensors of a block are variables.
    fn trains(&self) -> bool {
        self.first_trained.is_some_and(|first| self.finished_blocks >= first)
    }

    /// Every tensor asked for, with its shape as in the file, and every inner layer.
    pub fn asked(self) -> Asked {
        Asked { tensors: self.asked, inner: self.inner }
    }

    /// Elements in the file's order, `neutral` where the file has none that fit, nothing when only asking.
    fn values(&mut self, name: &str, shape: &[usize], neutral: f32) -> Result<Option<Vec<f32>>, ModelError> {
        self.ask(name, shape);
        self.read(name, shape, neutral)
    }

    fn ask(&mut self, name: &str, shape: &[usize]) {
        self.asked.push((name.to_owned(), shape.to_vec()));
    }

    fn holds(&self, name: &str, shape: &[usize]) -> bool {
        self.held.get(name).is_some_and(|held| same_shape(&held.shape, shape))
    }

    fn read(&self, name: &str, shape: &[usize], neutral: f32) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(weights) = self.weights else { return Ok(None) };
        if !self.holds(name, shape) {
            return Ok(Some(vec![neutral; shape.iter().product()]));
        }
        let values = weights.read_f32(name)?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(ModelError::NotFinite { tensor: name.to_owned() });
        }
        Ok(Some(values))
    }

    fn tensor(&self, values: Option<Vec<f32>>, shape: &[usize]) -> Result<Tensor, ModelError> {
        let elements = shape.iter().product::<usize>();
        self.count(F32 * elements as u64, elements);
        match values {
            Some(values) => Ok(Tensor::from_vec(values, shape, &self.device)?),
            None => Ok(self.placeholder.broadcast_as(shape)?),
        }
    }

    /// Notes bytes that are handed out, for which so many values were read.
    fn count(&self, bytes: u64, read: usize) {
        self.bytes.set(self.bytes.get() + bytes);
        self.loads.borrow_mut().push(Load { read: F32 * read as u64, held: bytes });
    }

    /// Bytes of all that was handed out, as it lies in memory.
    pub fn total_bytes(&self) -> u64 {
        self.bytes_before + self.bytes.get()
    }

    /// How the network is read.
    pub fn loads(&self) -> Vec<Load> {
        self.loads.take()
    }

    /// A tensor that is learned, `name` in the file: a variable when its block trains.
    ///
    /// `turned` are its outputs, inputs and positions when the file has them in this order and `values` reversed.
    fn learned(
        &mut self,
        name: &str,
        values: Option<Vec<f32>>,
        file_shape: &[usize],
        turned: Option<([usize; 3], &[usize])>,
    ) -> Result<Tensor, ModelError> {
        let shape = turned.map_or(file_shape, |(_, shape)| shape);
        match values {
            Some(values) if self.trains() => {
                let parameter = self.parameter(name, values, file_shape, shape, turned.map(|(axes, _)| axes))?;
                let tensor = parameter.var.as_tensor().clone();
                self.learned.push(parameter);
                Ok(tensor)
            }
            values => self.tensor(values, shape),
        }
    }

    /// A variable in place of the file's tensor `name`.
    fn parameter(
        &self,
        name: &str,
        values: Vec<f32>,
        file_shape: &[usize],
        shape: &[usize],
        turned: Option<[usize; 3]>,
    ) -> Result<Parameter, ModelError> {
        let elements = shape.iter().product::<usize>();
        self.count(F32 * elements as u64, elements);
        let held = self.held.get(name).map(|held| held.shape.as_slice()).filter(|held| same_shape(held, file_shape));
        let var = Var::from_vec(values, shape, &self.device)?;
        Ok(Parameter { name: name.to_owned(), var, shape: held.unwrap_or(file_shape).to_vec(), turned })
    }

    /// A tensor exactly as the file holds it.
    pub fn plain(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let values = self.values(name, shape, 0.0)?;
        self.learned(name, values, shape, None)
    }

    /// Scale and shift of a norm: `name.weight` and `name.bias`, each `(channels)`.
    pub fn norm(&mut self, name: &str, channels: usize) -> Result<Affine, ModelError> {
        let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
        let values = self.values(&weight, &[channels], 1.0)?;
        Ok((self.learned(&weight, values, &[channels], None)?, self.plain(&bias, &[channels])?))
    }

    /// A batch norm as scale and shift.
    pub fn batch_norm(&mut self, norm: &BatchNorm, channels: usize) -> Result<Affine, ModelError> {
        let fold = self.fold(Some(norm), "", channels)?;
        let (scale, shift) = fold.unzip();
        Ok((self.tensor(scale.flatten(), &[channels])?, self.tensor(shift, &[channels])?))
    }

    /// A batch norm of its own, when its block trains.
    pub fn trainable_norm(&mut self, norm: &BatchNorm, channels: usize) -> Result<Option<TrainableNorm>, ModelError> {
        if !self.trains() {
            return Ok(None);
        }
        self.trains_norms.set(true);
        let (weight, bias) = self.norm(&norm.name, channels)?;
        let mut running = |part: &str, neutral: f32| -> Result<Var, ModelError> {
            let name = format!("{}.{part}", norm.name);
            let Some(values) = self.values(&name, &[channels], neutral)? else {
                self.count(F32 * channels as u64, channels);
                return Ok(Var::from_tensor(&self.placeholder)?);
            };
            let parameter = self.parameter(&name, values, &[channels], &[channels], None)?;
            self.running.push(parameter.clone());
            Ok(parameter.var)
        };
        let (mean, variance) = (running("running_mean", 0.0)?, running("running_var", 1.0)?);
        let BatchNorm { epsilon, momentum, .. } = *norm;
        Ok(Some(TrainableNorm { weight, bias, mean, variance, epsilon, momentum }))
    }

    /// A convolution without groups: a depth of `kernel · kernel · inputs`, and `(outputs)`.
    ///
    /// With a batch norm the file has no bias for it. A norm that trains is not folded in but returned.
    pub fn conv(
        &mut self,
        name: &str,
        norm: Option<&BatchNorm>,
        window: Window,
        inputs: usize,
        outputs: usize,
    ) -> Result<(Weighted, Option<TrainableNorm>), ModelError> {
        let kernel = window.kernel;
        let file_shape = [outputs, inputs, kernel, kernel];
        let axes = [outputs, inputs, kernel * kernel];
        if self.trains() {
            let (weight, bias, norm) = self.apart(name, norm, &file_shape, axes, &[kernel, kernel, inputs, outputs])?;
            return Ok(((Weight::Plain(weight), bias), norm));
        }
        let weight = format!("{name}.weight");
        self.ask(&weight, &file_shape);
        let shift = match norm {
            Some(norm) => Shift::Mean(format!("{}.running_mean", norm.name)),
            None => Shift::Bias(format!("{name}.bias")),
        };
        let fold = self.fold(norm, name, outputs)?;
        let shape = [kernel, kernel, inputs, outputs];
        let weighted = self.weighted((&weight, &file_shape), fold, axes, &shape, window)?;
        Ok((self.noted(weighted, &weight, axes, shift), None))
    }

    /// A convolution with a group per channel: `(kernel, kernel, channels)` and `(channels)`; norms as for [`Self::conv`].
    pub fn depthwise(
        &mut self,
        name: &str,
        norm: Option<&BatchNorm>,
        kernel: usize,
        channels: usize,
    ) -> Result<(Affine, Option<TrainableNorm>), ModelError> {
        let (file_shape, shape) = ([channels, 1, kernel, kernel], [kernel, kernel, channels]);
        let axes = [channels, 1, kernel * kernel];
        if self.trains() {
            let (weight, bias, norm) = self.apart(name, norm, &file_shape, axes, &shape)?;
            return Ok(((weight, bias), norm));
        }
        let weight = self.values(&format!("{name}.weight"), &file_shape, 0.0)?;
        let fold = self.fold(norm, name, channels)?;
        let (Some(weight), Some((scale, shift))) = (weight, fold) else {
            return Ok(((self.tensor(None, &shape)?, self.tensor(None, &[channels])?), None));
        };
        let turned = turned(&weight, axes, &scale);
        Ok(((self.tensor(Some(turned), &shape)?, self.tensor(Some(shift), &[channels])?), None))
    }

    /// A convolution's weight and bias, and its norm: each a variable of its own.
    fn apart(
        &mut self,
        name: &str,
        norm: Option<&BatchNorm>,
        file_shape: &[usize],
        axes: [usize; 3],
        shape: &[usize],
    ) -> Result<(Tensor, Tensor, Option<TrainableNorm>), ModelError> {
        let (weight_name, outputs) = (format!("{name}.weight"), axes[0]);
        let weight = self.values(&weight_name, file_shape, 0.0)?;
        let weight = weight.map(|weight| turned(&weight, axes, &None));
        let weight = self.learned(&weight_name, weight, file_shape, Some((axes, shape)))?;
        match norm {
            Some(norm) => Ok((weight, no_bias(outputs, &self.device)?, self.trainable_norm(norm, outputs)?)),
            None => Ok((weight, self.plain(&format!("{name}.bias"), &[outputs])?, None)),
        }
    }

    /// A linear layer; `bias` says whether the file has one.
    pub fn linear(&mut self, name: &str, inputs: usize, outputs: usize, bias: bool) -> Result<Weighted, ModelError> {
        let bias = bias.then(|| format!("{name}.bias"));
        Ok(self.linear_named(&format!("{name}.weight"), bias.as_deref(), &[outputs, inputs], None)?.0)
    }

    /// A 1×1 convolution with a bias, which computes what a linear layer does.
    pub fn pointwise(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<Weighted, ModelError> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        Ok(self.linear_named(&weight, Some(&bias), &[outputs, inputs, 1, 1], None)?.0)
    }

    /// A linear layer or 1×1 convolution with its tensors' whole names and its weight's shape in files, its outputs multiplied
    /// by `scale` (ConvNeXt's layer scale).
    ///
    /// A weight of the other form is taken too. A scale that trains is not folded in but returned.
    pub fn linear_named(
        &mut self,
        weight: &str,
        bias: Option<&str>,
        file_shape: &[usize],
        scale: Option<&str>,
    ) -> Result<(Weighted, Option<Tensor>), ModelError> {
        let (outputs, inputs) = (file_shape[0], file_shape[1]);
        let axes = [outputs, inputs, 1];
        self.ask(weight, file_shape);
        if self.trains() {
            let weights = self.read(weight, file_shape, 0.0)?.map(|weights| turned(&weights, axes, &None));
            let weight = self.learned(weight, weights, file_shape, Some((axes, &[inputs, outputs])))?;
            let bias = match bias {
                Some(bias) => self.plain(bias, &[outputs])?,
                None => no_bias(outputs, &self.device)?,
            };
            let scale = scale.map(|scale| {
                let values = self.values(scale, &[outputs], 1.0)?;
                self.learned(scale, values, &[outputs], None)
            });
            return Ok(((Weight::Plain(weight), bias), scale.transpose()?));
        }
        let shift = bias.map_or(Shift::None, |bias| Shift::Bias(bias.to_owned()));
        let bias = match bias {
            Some(bias) => self.values(bias, &[outputs], 0.0)?,
            None => self.weights.map(|_| vec![0.0; outputs]),
        };
        let scale = scale.map(|scale| self.values(scale, &[outputs], 1.0)).transpose()?.flatten();
        let bias = bias.map(|mut bias| {
            bias.iter_mut().zip(scale.iter().flatten()).for_each(|(bias, scale)| *bias *= scale);
            bias
        });
        let fold = bias.map(|bias| (scale, bias));
        let window = Window::centered(1, 1);
        let weighted = self.weighted((weight, file_shape), fold, axes, &[inputs, outputs], window)?;
        Ok((self.noted(weighted, weight, axes, shift), None))
    }

    /// Notes the weight of a layer, and watches it where that is wanted.
    fn noted(&mut self, (weight, bias): Weighted, name: &str, axes: [usize; 3], shift: Shift) -> Weighted {
        self.layers.push(LayerWeight { name: name.to_owned(), axes, block: self.finished_blocks, shift });
        let Some(watched) = &mut self.inputs else { return (weight, bias) };
        let inputs = LayerInputs::default();
        watched.push(inputs.clone());
        (Weight::Watched(WatchedWeight { weight: Box::new(weight), inputs }), bias)
    }
}

/// A weight of shape `[outputs, inputs, positions]` as `[positions, inputs, outputs]`, its outputs scaled.
fn turned(weight: &[f32], [outputs, inputs, positions]: [usize; 3], scale: &Option<Vec<f32>>) -> Vec<f32> {
    let mut turned = Vec::with_capacity(weight.len());
    for place in 0..positions * inputs {
        let (position, input) = (place / inputs, place % inputs);
        let of_output = |output| weight[(output * inputs + input) * positions + position] * scale_of(scale, output);
        turned.extend((0..outputs).map(of_output));
    }
    turned
}

/// In place of a bias that the file does not have; it does not train.
fn no_bias(outputs: usize, device: &Device) -> Result<Tensor, ModelError> {
    Ok(Tensor::zeros(outputs, DType::F32, device)?)
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
