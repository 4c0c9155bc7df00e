//! Networks of inverted residual blocks (narrow, wide depthwise, narrow): what MobileNets and EfficientNets share.

mod learn;
mod outline;

use candle_core::Tensor;

use super::layers::{Conv, DEFAULT_MOMENTUM, Depthwise, Head, HeadStep, Layer, Linear, PooledHead};
use super::learn::{Learn, TrainedConv};
use super::outline::LearnOutline;
use super::source::{BatchNorm, Source};
use super::{Block, ModelError, Naming, Phase};
use crate::memory::Outline;
use crate::ops::{self, Activation, Gate, Padding, Window};

/// How a family names its tensors, beyond [`Naming`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Style {
    MobileNetV2,
    MobileNetV3,
    EfficientNet,
}

/// A run of blocks that timm and EfficientNet count as one stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    pub blocks: Vec<Unit>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unit {
    pub kernel: usize,
    pub stride: usize,
    pub inputs: usize,
    /// Channels of the depthwise convolution; equal to `inputs`: no 1×1 convolution before it.
    pub expanded: usize,
    pub outputs: usize,
    /// Channels inside squeeze-and-excite.
    pub squeezed: Option<usize>,
    pub activation: Activation,
}

/// `channels` rounded to a multiple of 8, by at most a tenth down (the reference code of MobileNet).
pub fn round_channels(channels: f64) -> usize {
    let rounded = ((channels + 4.0) as usize / 8 * 8).max(8);
    if (rounded as f64) < 0.9 * channels { rounded + 8 } else { rounded }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Inverted {
    pub style: Style,
    pub stem: usize,
    pub stages: Vec<Stage>,
    /// Outputs of the last convolution.
    pub last: usize,
    /// Outputs of MobileNetV3's layer between mean and classifier.
    pub hidden: Option<usize>,
    /// Of the stem and the last convolution.
    pub activation: Activation,
    /// Inside squeeze-and-excite, and its gate.
    pub gate: [Activation; 2],
    pub epsilon: f32,
    /// Padding as TensorFlow does it (weights trained there).
    pub tensorflow: bool,
}

impl Inverted {
    /// Inputs of the classifier as far as `naming` keeps it apart from the body.
    pub fn features(&self, naming: Naming) -> usize {
        match (naming, self.hidden) {
            (Naming::Timm, Some(hidden)) => hidden,
            _ => self.last,
        }
    }

    pub fn blocks(&self, naming: Naming, head: &[HeadStep], source: &mut Source) -> Result<Vec<Block>, ModelError> {
        let [conv, norm] = match naming {
            Naming::Timm => ["conv_stem", "bn1"],
            _ => ["features.0.0", "features.0.1"],
        };
        let window = self.window(3, 2);
        let stem = self.conv(source, conv, norm, window, 3, self.stem, self.activation)?;
        let mut blocks = vec![source.block("stem", stem)];
        let mut place = 1; // index in torchvision's flat lists
        for (stage, units) in self.stages.iter().enumerate() {
            for (index, unit) in units.blocks.iter().enumerate() {
                let names = self.names(naming, stage, index, place, unit);
                let layer = self.unit(&names, unit, source)?;
                blocks.push(source.block(format!("blocks.{stage}.{index}"), layer));
                place += 1;
            }
        }
        let inputs = self.stages.last().and_then(|stage| stage.blocks.last()).map_or(self.stem, |unit| unit.outputs);
        let [conv, norm] = self.last_names(naming, place);
        let last = self.conv(source, &conv, &norm, self.window(1, 1), inputs, self.last, self.activation)?;
        blocks.push(source.block("last", last));
        let hidden = match (naming, self.hidden) {
            (Naming::Timm, Some(hidden)) => Some(Linear {
                weighted: source.pointwise("conv_head", self.last, hidden)?,
                activation: self.activation,
            }),
            _ => None,
        };
        let head = Head::load(source, head)?;
        blocks.push(source.block("head", PooledHead { norm_first: None, norm: None, hidden, head }));
        Ok(blocks)
    }

    fn window(&self, kernel: usize, stride: usize) -> Window {
        let centered = Window::centered(kernel, stride);
        if self.tensorflow && kernel > 1 { Window { padding: Padding::Same, ..centered } } else { centered }
    }

    #[expect(clippy::too_many_arguments, reason = "a convolution has this many parts")]
    fn conv(
        &self,
        source: &mut Source,
        name: &str,
        norm: &str,
        window: Window,
        inputs: usize,
        outputs: usize,
        activation: Activation,
    ) -> Result<Conv, ModelError> {
        let (weighted, norm) = source.conv(name, Some(&self.batch_norm(norm)), window, inputs, outputs)?;
        Ok(Conv { weighted, norm, window, activation })
    }

    fn batch_norm(&self, name: &str) -> BatchNorm {
        // Where epsilon is TensorFlow's, so is the momentum (1 - its 0.99), in torchvision's and timm's code.
        let momentum = if self.epsilon == 1e-3 { 0.01 } else { DEFAULT_MOMENTUM };
        BatchNorm { name: name.to_owned(), epsilon: self.epsilon, momentum }
    }

    fn last_names(&self, naming: Naming, place: usize) -> [String; 2] {
        let stages = self.stages.len();
        match (naming, self.style) {
            (Naming::Timm, Style::MobileNetV3) => ["conv", "bn1"].map(|part| format!("blocks.{stages}.0.{part}")),
            (Naming::Timm, _) => ["conv_head", "bn2"].map(str::to_owned),
            (_, Style::EfficientNet) => ["0", "1"].map(|part| format!("features.{}.{part}", stages + 1)),
            _ => ["0", "1"].map(|part| format!("features.{place}.{part}")),
        }
    }

    fn names(&self, naming: Naming, stage: usize, index: usize, place: usize, unit: &Unit) -> Names {
        let expands = unit.expanded != unit.inputs;
        let torchvision = match self.style {
            Style::MobileNetV2 => format!("features.{place}.conv"),
            Style::MobileNetV3 => format!("features.{place}.block"),
            Style::EfficientNet => format!("features.{}.{index}.block", stage + 1),
        };
        if naming == Naming::Timm {
            return Names::timm(&format!("blocks.{stage}.{index}"), expands);
        }
        // torchvision numbers the layers that are there.
        let mut next = 0..;
        let mut layer = || format!("{torchvision}.{}", next.next().unwrap_or_default());
        let normed = |layer: String| [format!("{layer}.0"), format!("{layer}.1")];
        let expand = expands.then(|| normed(layer()));
        let depthwise = normed(layer());
        let gate = unit.squeezed.map(|_| layer()).unwrap_or_default();
        let project = match self.style {
            // Here convolution and norm are not wrapped.
            Style::MobileNetV2 => [layer(), layer()],
            _ => normed(layer()),
        };
        Names { expand, depthwise, gate: [format!("{gate}.fc1"), format!("{gate}.fc2")], project }
    }

    fn unit(&self, names: &Names, unit: &Unit, source: &mut Source) -> Result<InvertedResidual, ModelError> {
        let Unit { kernel, stride, inputs, expanded, outputs, squeezed, activation } = *unit;
        let pointwise = self.window(1, 1);
        // Without a layer that makes them, the wide channels are the input's.
        let expanded = names.expand.as_ref().map_or(expanded, |[conv, _]| source.inner(conv, expanded));
        let expand = match &names.expand {
            Some([conv, norm]) => Some(self.conv(source, conv, norm, pointwise, inputs, expanded, activation)?),
            None => None,
        };
        let [conv, norm] = &names.depthwise;
        let (affine, norm) = source.depthwise(conv, Some(&self.batch_norm(norm)), kernel, expanded)?;
        let depthwise = Depthwise { affine, norm, window: self.window(kernel, stride), activation };
        let gate = match squeezed {
            Some(squeezed) => Some(Gate {
                reduce: source.pointwise(&names.gate[0], expanded, squeezed)?,
                expand: source.pointwise(&names.gate[1], squeezed, expanded)?,
                inner: self.gate[0],
                outer: self.gate[1],
            }),
            None => None,
        };
        let [conv, norm] = &names.project;
        let project = self.conv(source, conv, norm, pointwise, expanded, outputs, Activation::None)?;
        let shortcut = stride == 1 && inputs == outputs;
        Ok(InvertedResidual { expand, depthwise, gate, project, shortcut })
    }
}

/// Names of one block's layers; convolutions with their norms.
struct Names {
    expand: Option<[String; 2]>,
    depthwise: [String; 2],
    gate: [String; 2],
    project: [String; 2],
}

impl Names {
    fn timm(prefix: &str, expands: bool) -> Self {
        let pair = |parts: [&str; 2]| parts.map(|part| format!("{prefix}.{part}"));
        let gate = pair(["se.conv_reduce", "se.conv_expand"]);
        if expands {
            let (depthwise, project) = (pair(["conv_dw", "bn2"]), pair(["conv_pwl", "bn3"]));
            Self { expand: Some(pair(["conv_pw", "bn1"])), depthwise, gate, project }
        } else {
            Self { expand: None, depthwise: pair(["conv_dw", "bn1"]), gate, project: pair(["conv_pw", "bn2"]) }
        }
    }
}

struct InvertedResidual {
    expand: Option<Conv>,
    depthwise: Depthwise,
    gate: Option<Gate>,
    project: Conv,
    shortcut: bool,
}

impl Layer for InvertedResidual {
    fn is_residual(&self) -> bool {
        self.shortcut
    }

    fn learn(&self, xs: &Tensor) -> Option<&dyn Learn> {
        let is_plain = |conv: &Conv| TrainedConv::dense(conv).is_some();
        let all = self.expand.as_ref().is_none_or(is_plain) && is_plain(&self.project);
        (all && ops::has_backward(xs)).then_some(self)
    }

    fn outline(&self, xs: Outline) -> candle_core::Result<Outline> {
        let shortcut = self.shortcut.then(|| xs.clone());
        let xs = match &self.expand {
            Some(expand) => self.depthwise.outline_after(expand, &xs)?,
            None => self.depthwise.forward_outline(&xs)?,
        };
        match &self.gate {
            Some(_) => self.project.gated_outline(&xs, shortcut.as_ref()),
            None => self.project.outline_with(&xs, shortcut.as_ref()),
        }
    }

    fn learn_outline(&self) -> Option<&dyn LearnOutline> {
        let is_plain = |conv: &Conv| TrainedConv::dense(conv).is_some();
        (self.expand.as_ref().is_none_or(is_plain) && is_plain(&self.project)).then_some(self)
    }

    fn forward(&self, xs: Tensor, phase: Phase) -> candle_core::Result<Tensor> {
        let shortcut = self.shortcut.then(|| xs.clone());
        let xs = match &self.expand {
            Some(expand) => self.depthwise.forward_after(expand, &xs, phase)?,
            None => self.depthwise.forward(&xs, phase)?,
        };
        match &self.gate {
            Some(gate) => self.project.forward_gated(&xs, gate, shortcut.as_ref(), phase),
            None => self.project.forward_with(&xs, shortcut.as_ref(), phase),
        }
    }
}
