//! The layers blocks are made of: weights with the operation that uses them.

use candle_core::Tensor;

use super::features::Features;
use super::learn::{Backward, Learn, TrainedConv};
use super::outline::LearnOutline;
use super::parameter::TrainableNorm;
use super::source::{Affine, BatchNorm, Source, Weighted};
use super::{ModelError, Phase};
use crate::memory::Outline;
use crate::ops::outline::{self, Fused};
use crate::ops::{self, Activation, CodedLayer, Gate, Window};

/// What a block does to its input.
pub trait Layer: Send + Sync {
    /// Takes its input, so that it can be freed as soon as it is used.
    fn forward(&self, xs: Tensor, phase: Phase) -> candle_core::Result<Tensor>;

    /// The same for inference, from layer to layer in whatever form they compute.
    fn pass(&self, features: Features) -> candle_core::Result<Features> {
        Ok(Features::Plain(self.forward(features.into_tensor()?, Phase::Evaluate)?.detach()))
    }

    /// True when the output is the input plus what the layer computes from it.
    fn is_residual(&self) -> bool {
        false
    }

    /// The layer as one that takes its gradients itself, if it can for this input.
    fn learn(&self, _xs: &Tensor) -> Option<&dyn Learn> {
        None
    }

    /// What [`Self::forward`] allocates.
    fn outline(&self, xs: Outline) -> candle_core::Result<Outline>;

    /// What the layer allocates that [`Self::learn`] returns on the CPU.
    fn learn_outline(&self) -> Option<&dyn LearnOutline> {
        None
    }
}

/// A dense convolution, batch norm folded in unless it trains.
pub struct Conv {
    pub weighted: Weighted,
    pub norm: Option<TrainableNorm>,
    pub window: Window,
    pub activation: Activation,
}

impl Conv {
    pub fn forward(&self, xs: &Tensor, phase: Phase) -> candle_core::Result<Tensor> {
        self.forward_with(xs, None, phase)
    }

    /// `activation(conv(xs) + residual)`.
    pub fn forward_with(&self, xs: &Tensor, residual: Option<&Tensor>, phase: Phase) -> candle_core::Result<Tensor> {
        let (weight, bias) = &self.weighted;
        let Some(norm) = &self.norm else {
            return weight.conv(xs, bias, self.window, self.activation, residual);
        };
        let ys = norm.forward(&weight.conv(xs, bias, self.window, Activation::None, None)?, phase)?;
        ops::activate_sum(ys, residual, self.activation)
    }

    /// The convolution as a layer of coded images, when it computes with bytes.
    pub fn in_bytes(&self) -> Option<CodedLayer<'_>> {
        let (weight, bias) = &self.weighted;
        let weight = if self.norm.is_none() { weight.in_bytes(bias)? } else { return None };
        Some((weight, bias, self.window, self.activation))
    }

    /// The convolution as one that takes its gradients itself.
    pub fn trained(&self) -> candle_core::Result<TrainedConv<'_>> {
        TrainedConv::dense(self).ok_or_else(|| candle_core::Error::msg("this convolution does not train"))
    }

    /// What follows a gate: a 1×1 convolution without an activation.
    pub fn forward_gated(
        &self,
        xs: &Tensor,
        gate: &Gate,
        residual: Option<&Tensor>,
        phase: Phase,
    ) -> candle_core::Result<Tensor> {
        if self.norm.is_some() {
            return self.forward_with(&ops::squeeze_excite(xs, gate)?, residual, phase);
        }
        ops::project_gated(xs, gate, &self.weighted.0, &self.weighted.1, residual)
    }
}

impl Layer for Conv {
    fn forward(&self, xs: Tensor, phase: Phase) -> candle_core::Result<Tensor> {
        self.forward(&xs, phase)
    }

    fn learn(&self, xs: &Tensor) -> Option<&dyn Learn> {
        (TrainedConv::dense(self).is_some() && ops::has_backward(xs)).then_some(self)
    }

    fn outline(&self, xs: Outline) -> candle_core::Result<Outline> {
        self.forward_outline(&xs)
    }

    fn learn_outline(&self) -> Option<&dyn LearnOutline> {
        TrainedConv::dense(self).is_some().then_some(self)
    }
}

impl Learn for Conv {
    fn keep(&self, xs: &Tensor, phase: Phase) -> candle_core::Result<(Tensor, Box<dyn Backward + '_>)> {
        let (ys, kept) = self.trained()?.keep(xs, None, phase)?;
        Ok((ys, Box::new(kept)))
    }
}

/// A depthwise convolution, batch norm folded in unless it trains.
pub struct Depthwise {
    pub affine: Affine,
    pub norm: Option<TrainableNorm>,
    pub window: Window,
    pub activation: Activation,
}

impl Depthwise {
    pub fn forward(&self, xs: &Tensor, phase: Phase) -> candle_core::Result<Tensor> {
        let (weight, bias) = &self.affine;
        let Some(norm) = &self.norm else {
            return ops::depthwise(xs, weight, bias, self.window, self.activation);
        };
        let ys = norm.forward(&ops::depthwise(xs, weight, bias, self.window, Activation::None)?, phase)?;
        ops::activate_sum(ys, None, self.activation)
    }

    /// What follows `expand`, a 1×1 convolution.
    pub fn forward_after(&self, expand: &Conv, xs: &Tensor, phase: Phase) -> candle_core::Result<Tensor> {
        if expand.norm.is_some() || self.norm.is_some() {
            return self.forward(&expand.forward(xs, phase)?, phase);
        }
        let (wide, affine) = (&expand.weighted, &self.affine);
        let wide = (&wide.0, &wide.1, expand.activation);
        ops::expand_depthwise(xs, wide, (&affine.0, &affine.1, self.activation), self.window)
    }
}

pub struct Linear {
    pub weighted: Weighted,
    pub activation: Activation,
}

impl Linear {
    pub fn forward(&self, xs: &Tensor) -> candle_core::Result<Tensor> {
        self.forward_with(xs, None)
    }

    /// `activation(linear(xs) + residual)`.
    pub fn forward_with(&self, xs: &Tensor, residual: Option<&Tensor>) -> candle_core::Result<Tensor> {
        self.weighted.0.linear(xs, &self.weighted.1, self.activation, residual)
    }

    /// What [`Self::forward`] allocates.
    pub fn outline(&self, xs: &Outline) -> Outline {
        outline::linear(xs, &self.weighted.0, Fused::with(self.activation, false))
    }
}

pub struct LayerNorm {
    pub affine: Affine,
    pub epsilon: f32,
}

impl LayerNorm {
    pub fn load(source: &mut Source, name: &str, channels: usize, epsilon: f32) -> Result<Self, ModelError> {
        Ok(Self { affine: source.norm(name, channels)?, epsilon })
    }

    pub fn forward(&self, xs: &Tensor) -> candle_core::Result<Tensor> {
        ops::layer_norm(xs, &self.affine.0, &self.affine.1, self.epsilon)
    }
}

/// One step of a classifier's head.
#[derive(Debug, Clone, PartialEq)]
pub enum HeadStep {
    Linear { name: String, inputs: usize, outputs: usize, bias: bool },
    BatchNorm { name: String, features: usize },
    LayerNorm { name: String, features: usize },
    Activation(Activation),
}

/// From features `(n, features)` to logits `(n, classes)`.
pub struct Head(Vec<HeadLayer>);

enum HeadLayer {
    Linear(Linear),
    BatchNorm(Affine),
    TrainableNorm(TrainableNorm),
    LayerNorm(LayerNorm),
    Activation(Activation),
}

/// PyTorch's default for batch norm and layer norm: a head's file does not say.
const DEFAULT_EPSILON: f32 = 1e-5;
/// PyTorch's default for batch norm.
pub const DEFAULT_MOMENTUM: f64 = 0.1;

impl Head {
    pub fn load(source: &mut Source, steps: &[HeadStep]) -> Result<Self, ModelError> {
        let layer = |step: &HeadStep| {
            Ok(match step {
                HeadStep::Linear { name, inputs, outputs, bias } => HeadLayer::Linear(Linear {
                    weighted: source.linear(name, *inputs, *outputs, *bias)?,
                    activation: Activation::None,
                }),
                HeadStep::BatchNorm { name, features } => {
                    let norm = BatchNorm { name: name.clone(), epsilon: DEFAULT_EPSILON, momentum: DEFAULT_MOMENTUM };
                    match source.trainable_norm(&norm, *features)? {
                        Some(norm) => HeadLayer::TrainableNorm(norm),
                        None => HeadLayer::BatchNorm(source.batch_norm(&norm, *features)?),
                    }
                }
                HeadStep::LayerNorm { name, features } => {
                    HeadLayer::LayerNorm(LayerNorm::load(source, name, *features, DEFAULT_EPSILON)?)
                }
                HeadStep::Activation(activation) => HeadLayer::Activation(*activation),
            })
        };
        Ok(Self(steps.iter().map(layer).collect::<Result<_, ModelError>>()?))
    }

    pub fn forward(&self, xs: Tensor, phase: Phase) -> candle_core::Result<Tensor> {
        self.0.iter().try_fold(xs, |xs, layer| match layer {
            HeadLayer::Linear(linear) => linear.forward(&xs),
            HeadLayer::BatchNorm((scale, shift)) => xs.broadcast_mul(scale)?.broadcast_add(shift),
            HeadLayer::TrainableNorm(norm) => norm.forward(&xs, phase),
            HeadLayer::LayerNorm(norm) => norm.forward(&xs),
            HeadLayer::Activation(activation) => ops::activate(&xs, *activation),
        })
    }

    /// What [`Self::forward`] allocates.
    pub fn outline(&self, xs: Outline) -> Outline {
        self.0.iter().fold(xs, |xs, layer| match layer {
            HeadLayer::Linear(linear) => linear.outline(&xs),
            _ => outline::same(&xs),
        })
    }
}

/// Mean over the image, optional norm, then the classifier.
pub struct PooledHead {
    /// Before the mean (ConvNeXt's `head_norm_first`).
    pub norm_first: Option<LayerNorm>,
    pub norm: Option<LayerNorm>,
    /// MobileNetV3's layer between the mean and the classifier.
    pub hidden: Option<Linear>,
    pub head: Head,
}

impl Layer for PooledHead {
    fn forward(&self, xs: Tensor, phase: Phase) -> candle_core::Result<Tensor> {
        let xs = if let Some(norm) = &self.norm_first { norm.forward(&xs)? } else { xs };
        let xs = ops::global_average_pool(&xs)?;
        let xs = if let Some(norm) = &self.norm { norm.forward(&xs)? } else { xs };
        let xs = if let Some(hidden) = &self.hidden { hidden.forward(&xs)? } else { xs };
        self.head.forward(xs, phase)
    }

    fn outline(&self, xs: Outline) -> candle_core::Result<Outline> {
        let xs = if self.norm_first.is_some() { outline::same(&xs) } else { xs };
        let xs = outline::global_average_pool(&xs);
        let xs = if self.norm.is_some() { outline::same(&xs) } else { xs };
        let xs = if let Some(hidden) = &self.hidden { hidden.outline(&xs) } else { xs };
        Ok(self.head.outline(xs))
    }
}
