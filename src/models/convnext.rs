//! ConvNeXt V1 and V2 under timm's, torchvision's and the original repository's names.

mod learn;
mod outline;

use candle_core::Tensor;

use super::layers::{Conv, Depthwise, Head, HeadStep, Layer, LayerNorm, PooledHead};
use super::learn::{Learn, TrainedConv};
use super::outline::LearnOutline;
use super::source::{Affine, Source};
use super::{Block, ModelError, Naming, Phase};
use crate::memory::Outline;
use crate::ops::outline::{self as told, Fused};
use crate::ops::{self, Activation, Mlp, Padding, Window};

/// From the reference code, for every norm of the network.
const EPSILON: f32 = 1e-6;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stem {
    /// One 4×4 convolution of stride 4.
    Patch,
    /// Two 3×3 convolutions of stride 2; `middle` channels between them (timm's `_ols`).
    Overlap { middle: usize },
}

#[derive(Debug, Clone, PartialEq)]
pub struct ConvNext {
    pub depths: [usize; 4],
    pub channels: [usize; 4],
    pub stem: Stem,
    /// Global response norm instead of layer scale.
    pub v2: bool,
    /// The last norm comes before the mean over the image (timm's `_hnf`).
    pub head_norm_first: bool,
}

impl ConvNext {
    pub fn features(&self) -> usize {
        self.channels[3]
    }

    pub fn blocks(&self, naming: Naming, head: &[HeadStep], source: &mut Source) -> Result<Vec<Block>, ModelError> {
        let stem = self.stem(naming, source)?;
        let mut blocks = vec![source.block("stem", stem)];
        for stage in 0..4 {
            if stage > 0 {
                let layer = self.downsample(naming, stage, source)?;
                blocks.push(source.block(format!("stages.{stage}.downsample"), layer));
            }
            for index in 0..self.depths[stage] {
                let layer = self.block(naming, stage, index, source)?;
                blocks.push(source.block(format!("stages.{stage}.blocks.{index}"), layer));
            }
        }
        let norm = match naming {
            Naming::Timm if self.head_norm_first => "norm_pre",
            Naming::Timm => "head.norm",
            Naming::Torchvision => "classifier.0",
            Naming::Original => "norm",
        };
        let norm = LayerNorm::load(source, norm, self.features(), EPSILON)?;
        let (norm_first, norm) = if self.head_norm_first { (Some(norm), None) } else { (None, Some(norm)) };
        let head = Head::load(source, head)?;
        blocks.push(source.block("head", PooledHead { norm_first, norm, hidden: None, head }));
        Ok(blocks)
    }

    /// Whether the linear layers are 1×1 convolutions: timm's `conv_mlp`, for what it added to the original's sizes.
    fn has_convolutions(&self, naming: Naming) -> bool {
        naming == Naming::Timm && (self.channels[0] < 96 || self.head_norm_first)
    }

    fn stem(&self, naming: Naming, source: &mut Source) -> Result<Downsample, ModelError> {
        let prefix = match naming {
            Naming::Timm => "stem",
            Naming::Torchvision => "features.0",
            Naming::Original => "downsample_layers.0",
        };
        let outputs = self.channels[0];
        let mut conv = |index: usize, kernel, stride, padding, inputs, outputs| -> Result<Conv, ModelError> {
            let name = format!("{prefix}.{index}");
            let window = Window { kernel, stride, padding: Padding::Each(padding) };
            let (weighted, norm) = source.conv(&name, None, window, inputs, outputs)?;
            Ok(Conv { weighted, norm, window, activation: Activation::None })
        };
        let convs = match self.stem {
            Stem::Patch => vec![conv(0, 4, 4, 0, 3, outputs)?],
            Stem::Overlap { middle } => vec![conv(0, 3, 2, 1, 3, middle)?, conv(1, 3, 2, 1, middle, outputs)?],
        };
        let norm = LayerNorm::load(source, &format!("{prefix}.{}", convs.len()), outputs, EPSILON)?;
        Ok(Downsample { norm_first: None, convs, norm: Some(norm) })
    }

    fn downsample(&self, naming: Naming, stage: usize, source: &mut Source) -> Result<Downsample, ModelError> {
        let prefix = match naming {
            Naming::Timm => format!("stages.{stage}.downsample"),
            Naming::Torchvision => format!("features.{}", 2 * stage),
            Naming::Original => format!("downsample_layers.{stage}"),
        };
        let (inputs, outputs) = (self.channels[stage - 1], self.channels[stage]);
        let norm_first = LayerNorm::load(source, &format!("{prefix}.0"), inputs, EPSILON)?;
        let window = Window { kernel: 2, stride: 2, padding: Padding::Each(0) };
        let (weighted, norm) = source.conv(&format!("{prefix}.1"), None, window, inputs, outputs)?;
        let conv = Conv { weighted, norm, window, activation: Activation::None };
        Ok(Downsample { norm_first: Some(norm_first), convs: vec![conv], norm: None })
    }

    fn block(
        &self,
        naming: Naming,
        stage: usize,
        index: usize,
        source: &mut Source,
    ) -> Result<ConvNextBlock, ModelError> {
        let (prefix, [depthwise, norm, expand, project, scale]) = match naming {
            Naming::Timm => {
                (format!("stages.{stage}.blocks.{index}"), ["conv_dw", "norm", "mlp.fc1", "mlp.fc2", "gamma"])
            }
            Naming::Torchvision => (
                format!("features.{}.{index}", 2 * stage + 1),
                ["block.0", "block.2", "block.3", "block.5", "layer_scale"],
            ),
            Naming::Original => (format!("stages.{stage}.{index}"), ["dwconv", "norm", "pwconv1", "pwconv2", "gamma"]),
        };
        let channels = self.channels[stage];
        let name = |part: &str| format!("{prefix}.{part}");
        let (affine, no_norm) = source.depthwise(&name(depthwise), None, 7, channels)?;
        let window = Window::centered(7, 1);
        let depthwise = Depthwise { affine, norm: no_norm, window, activation: Activation::None };
        let norm = LayerNorm::load(source, &name(norm), channels, EPSILON)?;
        let hidden = source.inner(&name(expand), 4 * channels);
        let expand = match self.has_convolutions(naming) {
            true => source.pointwise(&name(expand), channels, hidden)?,
            false => source.linear(&name(expand), channels, hidden, true)?,
        };
        let response_norm = if self.v2 {
            let [weight, bias] = match naming {
                Naming::Original => ["grn.gamma", "grn.beta"],
                _ => ["mlp.grn.weight", "mlp.grn.bias"],
            };
            let shape = [hidden];
            let mut part = |part: &str| -> Result<Tensor, ModelError> { source.plain(&name(part), &shape) };
            Some((part(weight)?, part(bias)?))
        } else {
            None
        };
        let scale = (!self.v2).then(|| name(scale));
        let (weight, bias) = (name(&format!("{project}.weight")), name(&format!("{project}.bias")));
        let shape = [channels, hidden, 1, 1];
        let shape = if self.has_convolutions(naming) { &shape[..] } else { &shape[..2] };
        let (project, scale) = source.linear_named(&weight, Some(&bias), shape, scale.as_deref())?;
        let mlp = Mlp { norm: norm.affine, epsilon: EPSILON, expand, activation: Activation::Gelu, project };
        Ok(ConvNextBlock { depthwise, mlp, response_norm, scale })
    }
}

/// Norm and convolution in either order: the stem and what lies between stages.
struct Downsample {
    norm_first: Option<LayerNorm>,
    convs: Vec<Conv>,
    norm: Option<LayerNorm>,
}

impl Layer for Downsample {
    fn forward(&self, xs: Tensor, phase: Phase) -> candle_core::Result<Tensor> {
        let xs = if let Some(norm) = &self.norm_first { norm.forward(&xs)? } else { xs };
        let xs = self.convs.iter().try_fold(xs, |xs, conv| conv.forward(&xs, phase))?;
        if let Some(norm) = &self.norm { norm.forward(&xs) } else { Ok(xs) }
    }

    fn learn(&self, xs: &Tensor) -> Option<&dyn Learn> {
        (self.convs.iter().all(|conv| TrainedConv::dense(conv).is_some()) && ops::has_backward(xs)).then_some(self)
    }

    fn outline(&self, xs: Outline) -> candle_core::Result<Outline> {
        let xs = if self.norm_first.is_some() { told::same(&xs) } else { xs };
        let xs = self.convs.iter().try_fold(xs, |xs, conv| conv.forward_outline(&xs))?;
        Ok(if self.norm.is_some() { told::same(&xs) } else { xs })
    }

    fn learn_outline(&self) -> Option<&dyn LearnOutline> {
        self.convs.iter().all(|conv| TrainedConv::dense(conv).is_some()).then_some(self)
    }
}

/// Depthwise 7×7, norm, and a four times wider layer, around which the input passes.
struct ConvNextBlock {
    depthwise: Depthwise,
    mlp: Mlp,
    response_norm: Option<Affine>,
    /// Layer scale that trains; else it lies in `mlp.project`.
    scale: Option<Tensor>,
}

impl Layer for ConvNextBlock {
    fn is_residual(&self) -> bool {
        true
    }

    fn learn(&self, xs: &Tensor) -> Option<&dyn Learn> {
        let is_plain = self.response_norm.is_none() && self.layers().is_some();
        (is_plain && ops::has_backward(xs)).then_some(self)
    }

    fn outline(&self, xs: Outline) -> candle_core::Result<Outline> {
        let hidden = self.depthwise.forward_outline(&xs)?;
        if self.response_norm.is_none() && self.scale.is_none() {
            return Ok(told::mlp(&hidden, &self.mlp));
        }
        let hidden = told::same(&hidden);
        let mut hidden = told::linear(&hidden, &self.mlp.expand.0, Fused::with(self.mlp.activation, false));
        if self.response_norm.is_some() {
            hidden = told::same(&hidden);
        }
        let ys = told::linear(&hidden, &self.mlp.project.0, Fused::with(Activation::None, self.scale.is_none()));
        Ok(if self.scale.is_some() { told::add(&ys) } else { ys })
    }

    fn learn_outline(&self) -> Option<&dyn LearnOutline> {
        (self.response_norm.is_none() && self.layers().is_some()).then_some(self)
    }

    fn forward(&self, xs: Tensor, phase: Phase) -> candle_core::Result<Tensor> {
        let hidden = self.depthwise.forward(&xs, phase)?;
        if self.response_norm.is_none() && self.scale.is_none() {
            return ops::mlp(&hidden, &self.mlp, &xs);
        }
        // The response norm needs the whole image's wide rows at once.
        let Mlp { norm, epsilon, expand, activation, project } = &self.mlp;
        let hidden = ops::layer_norm(&hidden, &norm.0, &norm.1, *epsilon)?;
        let mut hidden = expand.0.linear(&hidden, &expand.1, *activation, None)?;
        if let Some(norm) = &self.response_norm {
            hidden = ops::global_response_norm(&hidden, &norm.0, &norm.1)?;
        }
        let Some(scale) = &self.scale else {
            return project.0.linear(&hidden, &project.1, Activation::None, Some(&xs));
        };
        ops::add_scaled(&xs, &project.0.linear(&hidden, &project.1, Activation::None, None)?, scale)
    }
}
