//! SqueezeNet 1.0 and 1.1, torchvision's names.

mod learn;
mod outline;

use candle_core::Tensor;

use super::layers::{Conv, HeadStep, Layer, Linear};
use super::learn::{Learn, TrainedConv};
use super::outline::LearnOutline;
use super::source::Source;
use super::{Block, ModelError, Phase};
use crate::memory::Outline;
use crate::ops::outline as told;
use crate::ops::{self, Activation, Padding, Window};

/// Squeezed and expanded channels (each of two) of the eight fire modules.
const FIRES: [(usize, usize); 8] =
    [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)];

#[derive(Debug, Clone, PartialEq)]
pub struct SqueezeNet {
    /// 1.1: a smaller stem, and pools that come earlier.
    pub version_1_1: bool,
}

impl SqueezeNet {
    pub fn features(&self) -> usize {
        512
    }

    pub fn blocks(&self, head: &[HeadStep], source: &mut Source) -> Result<Vec<Block>, ModelError> {
        let (kernel, outputs) = if self.version_1_1 { (3, 64) } else { (7, 96) };
        let stem = conv(source, "features.0", kernel, 2, 0, 3, outputs)?;
        let mut blocks = vec![source.block("stem", Stem(stem))];
        // Index in torchvision's Sequential: pools take a place of their own.
        let (mut place, pools) = if self.version_1_1 { (3, [1, 3]) } else { (3, [2, 6]) };
        let mut inputs = outputs;
        for (index, (squeezed, expanded)) in FIRES.into_iter().enumerate() {
            let name = format!("features.{place}");
            let pooled = pools.contains(&index);
            let fire = Fire::load(source, &name, inputs, squeezed, expanded, pooled)?;
            blocks.push(source.block(name, fire));
            inputs = 2 * expanded;
            place += if pooled { 2 } else { 1 };
        }
        if let [HeadStep::Linear { name, inputs, outputs, bias }] = head {
            let (weight, bias) = (format!("{name}.weight"), bias.then(|| format!("{name}.bias")));
            let (weighted, _) = source.linear_named(&weight, bias.as_deref(), &[*outputs, *inputs, 1, 1], None)?;
            blocks.push(source.block("head", ClassMaps(Linear { weighted, activation: Activation::Relu })));
        } else if !head.is_empty() {
            return Err(ModelError::Head { reason: "SqueezeNet's classifier is one 1×1 convolution".to_owned() });
        }
        Ok(blocks)
    }
}

fn conv(
    source: &mut Source,
    name: &str,
    kernel: usize,
    stride: usize,
    padding: usize,
    inputs: usize,
    outputs: usize,
) -> Result<Conv, ModelError> {
    let window = Window { kernel, stride, padding: Padding::Each(padding) };
    let (weighted, norm) = source.conv(name, None, window, inputs, outputs)?;
    Ok(Conv { weighted, norm, window, activation: Activation::Relu })
}

const POOL: Window = Window { kernel: 3, stride: 2, padding: Padding::Ceil };

struct Stem(Conv);

impl Layer for Stem {
    fn learn(&self, xs: &Tensor) -> Option<&dyn Learn> {
        (TrainedConv::dense(&self.0).is_some() && ops::has_backward(xs)).then_some(self)
    }

    fn forward(&self, xs: Tensor, phase: Phase) -> candle_core::Result<Tensor> {
        ops::max_pool(&self.0.forward(&xs, phase)?, POOL)
    }

    fn outline(&self, xs: Outline) -> candle_core::Result<Outline> {
        told::max_pool(&self.0.forward_outline(&xs)?, POOL)
    }

    fn learn_outline(&self) -> Option<&dyn LearnOutline> {
        TrainedConv::dense(&self.0).is_some().then_some(self)
    }
}

/// A narrow 1×1 convolution, then 1×1 and 3×3 ones side by side; some are followed by a pool.
struct Fire {
    squeeze: Conv,
    expand_1x1: Conv,
    expand_3x3: Conv,
    pooled: bool,
}

impl Fire {
    fn load(
        source: &mut Source,
        name: &str,
        inputs: usize,
        squeezed: usize,
        expanded: usize,
        pooled: bool,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            squeeze: conv(source, &format!("{name}.squeeze"), 1, 1, 0, inputs, squeezed)?,
            expand_1x1: conv(source, &format!("{name}.expand1x1"), 1, 1, 0, squeezed, expanded)?,
            expand_3x3: conv(source, &format!("{name}.expand3x3"), 3, 1, 1, squeezed, expanded)?,
            pooled,
        })
    }
}

impl Layer for Fire {
    fn learn(&self, xs: &Tensor) -> Option<&dyn Learn> {
        let convs = [&self.squeeze, &self.expand_1x1, &self.expand_3x3];
        (convs.iter().all(|conv| TrainedConv::dense(conv).is_some()) && ops::has_backward(xs)).then_some(self)
    }

    fn forward(&self, xs: Tensor, phase: Phase) -> candle_core::Result<Tensor> {
        let squeezed = self.squeeze.forward(&xs, phase)?;
        drop(xs);
        let xs =
            Tensor::cat(&[self.expand_1x1.forward(&squeezed, phase)?, self.expand_3x3.forward(&squeezed, phase)?], 3)?;
        if self.pooled { ops::max_pool(&xs, POOL) } else { Ok(xs) }
    }

    fn outline(&self, xs: Outline) -> candle_core::Result<Outline> {
        let squeezed = self.squeeze.forward_outline(&xs)?;
        drop(xs);
        let parts = [self.expand_1x1.forward_outline(&squeezed)?, self.expand_3x3.forward_outline(&squeezed)?];
        let xs = told::join_channels(&parts[0], &parts[1]);
        drop(parts);
        if self.pooled { told::max_pool(&xs, POOL) } else { Ok(xs) }
    }

    fn learn_outline(&self) -> Option<&dyn LearnOutline> {
        let convs = [&self.squeeze, &self.expand_1x1, &self.expand_3x3];
        convs.iter().all(|conv| TrainedConv::dense(conv).is_some()).then_some(self)
    }
}

/// One map per class; a class's logit is the mean of its map.
struct ClassMaps(Linear);

impl Layer for ClassMaps {
    fn forward(&self, xs: Tensor, _: Phase) -> candle_core::Result<Tensor> {
        ops::global_average_pool(&self.0.forward(&xs)?)
    }

    fn outline(&self, xs: Outline) -> candle_core::Result<Outline> {
        Ok(told::global_average_pool(&self.0.outline(&xs)))
    }
}
