//! ResNet 18 to 152 and the wide ones; timm and torchvision share their names.

mod learn;
mod outline;

use candle_core::{DType, Tensor};

use super::features::Features;
use super::input_ranges::InputRanges;
use super::layers::{Conv, DEFAULT_MOMENTUM, Head, HeadStep, Layer, PooledHead};
use super::learn::{Learn, TrainedConv};
use super::outline::LearnOutline;
use super::source::{BatchNorm, Source};
use super::{Block, ModelError, Phase};
use crate::memory::Outline;
use crate::ops::outline as told;
use crate::ops::{self, Activation, Bottleneck, KnownRanges, Narrow, Padding, Window};

const EPSILON: f32 = 1e-5;

#[derive(Debug, Clone, PartialEq)]
pub struct ResNet {
    pub depths: [usize; 4],
    /// Three convolutions per block (1×1, 3×3, 1×1) instead of two.
    pub bottleneck: bool,
    /// Channels inside the first stage's bottlenecks: 64, or 128 for the wide ones.
    pub width: usize,
}

impl ResNet {
    pub fn features(&self) -> usize {
        if self.bottleneck { 2048 } else { 512 }
    }

    pub fn blocks(&self, head: &[HeadStep], source: &mut Source) -> Result<Vec<Block>, ModelError> {
        let stem = conv(source, ["conv1", "bn1"], 7, 2, 3, 64, Activation::Relu)?;
        let pool = Window { kernel: 3, stride: 2, padding: Padding::Each(1) };
        let mut blocks = vec![source.block("stem", Stem { conv: stem, pool })];
        let mut inputs = 64;
        for stage in 0..4 {
            for index in 0..self.depths[stage] {
                let name = format!("layer{}.{index}", stage + 1);
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let mut block = self.block(&name, stage, stride, inputs, source)?;
                let next = if index + 1 < self.depths[stage] { (stage + 1, index + 1) } else { (stage + 2, 0) };
                block.known =
                    block.known_ranges(&source.input_ranges, &name, &format!("layer{}.{}", next.0, next.1))?;
                inputs = self.outputs(stage);
                blocks.push(source.block(name, block));
            }
        }
        let head = Head::load(source, head)?;
        blocks.push(source.block("head", PooledHead { norm_first: None, norm: None, hidden: None, head }));
        Ok(blocks)
    }

    fn outputs(&self, stage: usize) -> usize {
        if self.bottleneck { 256 << stage } else { 64 << stage }
    }

    fn block(
        &self,
        name: &str,
        stage: usize,
        stride: usize,
        inputs: usize,
        source: &mut Source,
    ) -> Result<Residual, ModelError> {
        let (outputs, inner) = (self.outputs(stage), self.width << stage);
        let [first, second] = ["conv1", "conv2"].map(|conv| format!("{name}.{conv}"));
        let first = source.inner(&first, inner);
        let second = if self.bottleneck { source.inner(&second, inner) } else { outputs };
        let mut part = |conv_name: &str, norm: &str, kernel, stride, inputs, outputs| {
            let names = [&*format!("{name}.{conv_name}"), &*format!("{name}.{norm}")];
            conv(source, names, kernel, stride, inputs, outputs, Activation::Relu)
        };
        let convs = if self.bottleneck {
            vec![
                part("conv1", "bn1", 1, 1, inputs, first)?,
                part("conv2", "bn2", 3, stride, first, second)?,
                part("conv3", "bn3", 1, 1, second, outputs)?,
            ]
        } else {
            vec![part("conv1", "bn1", 3, stride, inputs, first)?, part("conv2", "bn2", 3, 1, first, second)?]
        };
        let shortcut = if stride > 1 || inputs != outputs {
            let shortcut = part("downsample.0", "downsample.1", 1, stride, inputs, outputs)?;
            Some(Conv { activation: Activation::None, ..shortcut })
        } else {
            None
        };
        Ok(Residual { convs, shortcut, known: None })
    }
}

fn conv(
    source: &mut Source,
    [name, norm]: [&str; 2],
    kernel: usize,
    stride: usize,
    inputs: usize,
    outputs: usize,
    activation: Activation,
) -> Result<Conv, ModelError> {
    let norm = BatchNorm { name: norm.to_owned(), epsilon: EPSILON, momentum: DEFAULT_MOMENTUM };
    let window = Window::centered(kernel, stride);
    let (weighted, norm) = source.conv(name, Some(&norm), window, inputs, outputs)?;
    Ok(Conv { weighted, norm, window, activation })
}

struct Stem {
    conv: Conv,
    pool: Window,
}

impl Layer for Stem {
    fn learn(&self, xs: &Tensor) -> Option<&dyn Learn> {
        (TrainedConv::dense(&self.conv).is_some() && ops::has_backward(xs)).then_some(self)
    }

    fn forward(&self, xs: Tensor, phase: Phase) -> candle_core::Result<Tensor> {
        match self.conv.in_bytes() {
            Some(layer) if xs.dtype() == DType::F32 => ops::conv_max_pool(&xs, layer, self.pool),
            _ => ops::max_pool(&self.conv.forward(&xs, phase)?, self.pool),
        }
    }

    fn outline(&self, xs: Outline) -> candle_core::Result<Outline> {
        match self.conv.in_bytes() {
            Some(_) if !xs.tally().place().is_metal => {
                told::conv_max_pool(&xs, self.conv.window, self.conv.outputs(), self.pool)
            }
            _ => told::max_pool(&self.conv.forward_outline(&xs)?, self.pool),
        }
    }

    fn learn_outline(&self) -> Option<&dyn LearnOutline> {
        TrainedConv::dense(&self.conv).is_some().then_some(self)
    }
}

/// Convolutions around which the input passes; the last one's activation comes after the sum.
struct Residual {
    convs: Vec<Conv>,
    shortcut: Option<Conv>,
    known: Option<KnownRanges>,
}

impl Layer for Residual {
    fn learn(&self, xs: &Tensor) -> Option<&dyn Learn> {
        let all = self.convs.iter().chain(&self.shortcut).all(|conv| TrainedConv::dense(conv).is_some());
        (all && ops::has_backward(xs)).then_some(self)
    }

    fn pass(&self, features: Features) -> candle_core::Result<Features> {
        let Some(block) = self.bottleneck() else {
            return Ok(Features::Plain(self.forward(features.into_tensor()?, Phase::Evaluate)?.detach()));
        };
        let (first, images) = (&self.convs[0], features.into_coded()?);
        let narrow = match first.in_bytes() {
            Some(layer) => ops::narrow(&images, layer, &block)?,
            None => Narrow::new(first.forward(&images.tensor()?, Phase::Evaluate)?)?,
        };
        Ok(Features::Coded(ops::bottleneck(images, narrow, block)?))
    }

    fn forward(&self, xs: Tensor, phase: Phase) -> candle_core::Result<Tensor> {
        let (last, first) = self.convs.split_last().expect("a block has convolutions");
        let mut hidden = xs.clone();
        for conv in first {
            hidden = conv.forward(&hidden, phase)?;
        }
        let xs = if let Some(shortcut) = &self.shortcut { shortcut.forward(&xs, phase)? } else { xs };
        last.forward_with(&hidden, Some(&xs), phase)
    }

    fn outline(&self, xs: Outline) -> candle_core::Result<Outline> {
        if self.bottleneck().is_some() && !xs.tally().place().is_metal {
            let images = xs.in_16_bits();
            drop(xs);
            let narrow = self.convs[0].forward_outline(&images)?;
            let passed = self.shortcut.is_none().then(|| images.clone());
            return told::bottleneck(passed, narrow, self.convs[1].window, self.convs[2].outputs());
        }
        let (last, first) = self.convs.split_last().expect("a block has convolutions");
        let mut hidden = xs.clone();
        for conv in first {
            hidden = conv.forward_outline(&hidden)?;
        }
        let xs = if let Some(shortcut) = &self.shortcut { shortcut.forward_outline(&xs)? } else { xs };
        last.outline_with(&hidden, Some(&xs))
    }

    fn learn_outline(&self) -> Option<&dyn LearnOutline> {
        let all = self.convs.iter().chain(&self.shortcut).all(|conv| TrainedConv::dense(conv).is_some());
        all.then_some(self)
    }
}

impl Residual {
    /// What is known of a bottleneck's images beforehand, where `name` is what the block is called, and `next` the one after
    /// it. Nothing where a sum might overflow, which no byte would tell.
    fn known_ranges(&self, ranges: &InputRanges, name: &str, next: &str) -> candle_core::Result<Option<KnownRanges>> {
        let (Some(block), Some(first)) = (self.bottleneck(), self.convs[0].in_bytes()) else { return Ok(None) };
        let most = |block: &str, conv: &str| ranges.most(&format!("{block}.{conv}.weight"));
        let (Some(narrow), Some(middle)) = (most(name, "conv2"), most(name, "conv3")) else { return Ok(None) };
        for layer in [first, block.windows, block.widening].into_iter().chain(block.shortcut) {
            if !ops::is_near(layer)? {
                return Ok(None);
            }
        }
        Ok(Some(KnownRanges { narrow, middle, result: most(next, "conv1") }))
    }

    /// What follows a bottleneck's first convolution, where that computes with bytes.
    fn bottleneck(&self) -> Option<Bottleneck<'_>> {
        let [_, windows, widening] = self.convs.as_slice() else { return None };
        let shortcut = match &self.shortcut {
            Some(shortcut) => Some(shortcut.in_bytes()?),
            None => None,
        };
        Some(Bottleneck { windows: windows.in_bytes()?, widening: widening.in_bytes()?, shortcut, known: self.known })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Result};

    use super::*;
    use crate::models::{Precision, RandomWeights};

    /// A block of each stage, and two of the second.
    fn blocks(source: &mut Source) -> Vec<Block> {
        let network = ResNet { depths: [1, 2, 1, 1], bottleneck: true, width: 64 };
        let classes = HeadStep::Linear { name: "fc".to_owned(), inputs: 2048, outputs: 10, bias: true };
        network.blocks(&[classes], source).unwrap()
    }

    fn weights() -> RandomWeights {
        let mut source = Source::asking().unwrap();
        blocks(&mut source);
        RandomWeights::named(source.asked().tensors)
    }

    /// Values of images of 64 pixels' sides.
    fn pixels() -> Result<Tensor> {
        Tensor::from_vec(crate::models::made_up_pixels(3, 64), (3, 64, 64, 3), &Device::Cpu)
    }

    fn logits(blocks: &[Block]) -> Vec<f32> {
        let mut features = Features::Plain(pixels().unwrap());
        for block in blocks {
            features = block.pass(features).unwrap();
        }
        features.into_tensor().unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Off by what rounding costs, which is about what it costs with the range of each image.
    #[test]
    fn with_known_ranges_the_answers_are_nearly_the_same() {
        let weights = weights();
        let mut watching = Source::watching(&weights, &Device::Cpu).unwrap();
        let exact = logits(&blocks(&mut watching));
        let ranges = InputRanges::watched(&watching.layers, &watching.inputs.unwrap());
        let rounded = |input_ranges: InputRanges| {
            let mut source = Source::new(&weights, Precision::Int8, &Device::Cpu).unwrap();
            source.input_ranges = input_ranges;
            logits(&blocks(&mut source))
        };
        let (own, known) = (rounded(InputRanges::default()), rounded(ranges));
        let off = |logits: &[f32]| logits.iter().zip(&exact).map(|(one, other)| (one - other).powi(2)).sum::<f32>();
        let scale = exact.iter().map(|logit| logit.powi(2)).sum::<f32>();
        assert!(own != known, "ranges change what bytes stand for");
        assert!(off(&own) < 1e-3 * scale && off(&known) < 4e-3 * scale, "{} {} {scale}", off(&own), off(&known));
    }

    /// What a layer is given is what the one before gives, of the last one of a block the next block's.
    #[test]
    fn ranges_are_those_of_the_layers_that_files_name() {
        let weights = weights();
        let mut source = Source::new(&weights, Precision::Int8, &Device::Cpu).unwrap();
        let name = |block: &str, conv: &str| format!("layer2.{block}.{conv}.weight");
        source.input_ranges = [
            (name("0", "conv2"), [0.0, 1.0]),
            (name("0", "conv3"), [0.0, 2.0]),
            (name("1", "conv1"), [0.0, 3.0]),
            (name("1", "conv2"), [0.0, 4.0]),
        ]
        .into_iter()
        .collect();
        let network = ResNet { depths: [1, 2, 1, 1], bottleneck: true, width: 64 };
        let mut block = |name: &str| network.block(name, 1, 1, 512, &mut source).unwrap();
        let [first, second] = ["layer2.0", "layer2.1"].map(&mut block);
        let known = |block: &Residual, name, next| block.known_ranges(&source.input_ranges, name, next).unwrap();
        let expected = KnownRanges { narrow: 1.0, middle: 2.0, result: Some(3.0) };
        assert_eq!(known(&first, "layer2.0", "layer2.1"), Some(expected));
        assert_eq!(known(&first, "layer2.0", "layer3.0"), Some(KnownRanges { result: None, ..expected }));
        assert_eq!(known(&second, "layer2.1", "layer3.0"), None, "one range alone");
    }
}
