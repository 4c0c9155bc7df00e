//! Networks as lists of blocks, in NHWC, and which of them a checkpoint holds.

mod catalog;
mod convnext;
mod detect;
mod efficientnet;
mod features;
mod head;
mod initial;
mod inner;
mod input_ranges;
mod inverted;
mod lanes;
mod layer_weight;
mod layers;
mod learn;
mod measure;
mod mobilenet;
mod named;
mod outline;
mod parameter;
mod precision;
mod replaced;
mod resnet;
mod source;
mod squeezenet;
mod strangers;
mod vit;

use std::ops::Range;

use candle_core::{Device, Tensor};

use crate::checkpoint::{CheckpointError, TensorInfo, TensorKind};
use crate::format;
use crate::images::transform::Transform;
use crate::memory::Outline;
use crate::ops::LayerInputs;
use catalog::Family;
use features::Features;
use inner::Widths;
use layers::{HeadStep, Layer};
use source::Source;

pub use catalog::KNOWN;
pub use detect::{detect, detect_with_hint};
pub use initial::InitialWeights;
pub use inner::{Inner, Member, Part};
pub use input_ranges::InputRanges;
pub use layer_weight::{LayerWeight, Shift, TINY, rounds};
pub use learn::{Backward, Found, Learn};
pub use measure::{BlockCost, Trial, forward_operations, made_up_pixels};
pub use named::{Lighter, RandomWeights, lighter, named};
pub use outline::{Back, LearnOutline, NetworkOutline};
pub use parameter::Parameter;
pub use precision::Precision;
pub use replaced::{NewHead, replace_head};
pub use source::Weights;

/// Whose names a checkpoint's tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    Timm,
    Torchvision,
    /// The repository of the ConvNeXt papers.
    Original,
}

impl Naming {
    pub fn name(self) -> &'static str {
        match self {
            Self::Timm => "timm",
            Self::Torchvision => "torchvision",
            Self::Original => "original",
        }
    }
}

/// A network family and its variant, with everything needed to build it, found from tensor names and shapes alone.
#[derive(Debug, Clone)]
pub struct Architecture {
    /// As timm or torchvision call it: `convnext_atto`, `mobilenet_v3_small`.
    pub name: String,
    /// For people: `ConvNeXt Atto`.
    pub title: String,
    pub classes: usize,
    /// Whose key names the file uses: `timm`, `torchvision`, `original`.
    pub naming: &'static str,
    /// One sentence: by which names and shapes it was recognised, and what had to be assumed.
    pub recognised_by: String,
    /// What the file does not say and was assumed, a sentence each, for people.
    pub assumptions: Vec<String>,
    scheme: Naming,
    family: Family,
    head: Vec<HeadStep>,
    /// Of its blocks, where they are narrower than published.
    widths: Widths,
}

impl Architecture {
    /// The names of its blocks, from stem to head.
    pub fn block_names(&self) -> Result<Vec<String>, ModelError> {
        let blocks = self.blocks(Source::asking()?)?.0;
        Ok(blocks.into_iter().map(|block| block.name).collect())
    }

    /// Names and shapes of the tensors the network is made of, in the order of use.
    pub fn tensors(&self) -> Result<Vec<(String, Vec<usize>)>, ModelError> {
        Ok(inner::ask(&self.family, self.scheme, &self.head, &self.widths)?.tensors)
    }

    /// Builds the network, or asks for its tensors.
    fn blocks<'a>(&self, source: Source<'a>) -> Result<(Vec<Block>, Source<'a>), ModelError> {
        let mut source = source.with_widths(&self.widths);
        Ok((self.family.blocks(self.scheme, &self.head, &mut source)?, source))
    }

    /// The weights of its convolutions and linear layers, in the order of use; none of depthwise convolutions.
    pub fn layers(&self) -> Result<Vec<LayerWeight>, ModelError> {
        Ok(self.blocks(Source::asking()?)?.1.layers)
    }

    /// The transform this architecture's published weights were evaluated with.
    pub fn default_transform(&self) -> Transform {
        catalog::transform(&self.name, self.scheme)
    }
}

/// How well the file must fit the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strictness {
    #[default]
    Strict,
    /// Load what fits and report the rest; refuses when under half of the weights match.
    Lenient,
    /// The same without that refusal.
    LenientWhatever,
}

/// How a checkpoint becomes a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loading {
    pub strictness: Strictness,
    pub precision: Precision,
}

impl From<Strictness> for Loading {
    fn from(strictness: Strictness) -> Self {
        Self { strictness, ..Self::default() }
    }
}

/// What loading did, by tensor name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    pub matched: Vec<String>,
    /// The network needs them and the file lacks them: kept neutral (norms at one, all else at zero).
    pub missing: Vec<String>,
    /// In the file, and of no use to this network.
    pub unexpected: Vec<String>,
    /// In the file with another shape than the network's: not used, kept neutral.
    pub reshaped: Vec<String>,
}

impl LoadReport {
    /// Tensors the network needs.
    pub fn expected(&self) -> usize {
        self.matched.len() + self.missing.len() + self.reshaped.len()
    }

    /// True when every tensor of the file and of the network found its counterpart.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.reshaped.is_empty()
    }

    /// Everything that did not fit, in words, with the first names of each kind.
    pub fn misfit(&self) -> String {
        let kinds =
            [("missing", &self.missing), ("of another shape", &self.reshaped), ("unexpected", &self.unexpected)];
        let kinds = kinds.iter().filter(|(_, names)| !names.is_empty());
        let text = kinds.map(|(kind, names)| format!("{} {kind} ({})", names.len(), first_names(names)));
        text.collect::<Vec<_>>().join(", ")
    }
}

/// The first three names.
fn first_names(names: &[String]) -> String {
    let more = if names.len() > 3 { ", …" } else { "" };
    names.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ") + more
}

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("unknown network{}: its tensors are {layers}. Galley knows {KNOWN}", .looks_like.map(|kind| format!(", {kind}")).unwrap_or_default())]
    Unknown { looks_like: Option<&'static str>, layers: String },
    #[error("there is no network of the name {name}; near names are {near}")]
    NoSuchName { name: String, near: String },
    #[error(
        "this {title} has no classifier: no tensor begins with {root}. Choose a checkpoint that was saved with its head"
    )]
    NoHead { title: String, root: &'static str },
    #[error("the classifier cannot be rebuilt from its tensors: {reason}")]
    Head { reason: String },
    #[error(
        "this checkpoint does not fit {title}: of {} tensors, {}. Load it leniently to use what is there",
        .report.expected(), .report.misfit()
    )]
    Misfit { title: String, report: Box<LoadReport> },
    #[error(
        "only {} of the {} tensors of {title} are in this checkpoint: {}. Its answers would mean nothing",
        .report.matched.len(), .report.expected(), .report.misfit()
    )]
    TooFew { title: String, report: Box<LoadReport> },
    #[error(
        "the tensor {tensor} holds values that are no numbers (NaN or infinity). The checkpoint is damaged or its training diverged"
    )]
    NotFinite { tensor: String },
    #[error("failed to read the weights")]
    Read(#[from] CheckpointError),
    #[error("failed to compute the network")]
    Compute(#[from] candle_core::Error),
}

/// One unit of a network: the stem, a residual block, the head.
pub struct Block {
    /// `stem`, `stages.2.blocks.5`, `head`.
    pub name: String,
    /// Elements of its tensors.
    pub weights: usize,
    /// Those of them that can be learned: all but running statistics.
    pub learnable: usize,
    /// Bytes of its tensors as they are held.
    pub bytes: u64,
    /// Its part of [`Network::learned`].
    pub learned: Range<usize>,
    /// Its part of [`Network::running`].
    pub running: Range<usize>,
    /// Whether it has batch norms that train: then an image's result depends on its batch.
    pub looks_at_all: bool,
    layer: Box<dyn Layer>,
}

/// What a forward pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Batch norms use the statistics of the batch, which move the running ones, and every step is kept for backward.
    Train,
    /// The same once more for a batch that the running statistics have followed already.
    TrainAgain,
    /// Batch norms use their running statistics, and nothing is kept.
    Evaluate,
}

impl Block {
    /// True when the output is the input plus what the block computes from it.
    pub fn is_residual(&self) -> bool {
        self.layer.is_residual()
    }

    /// The block's output. Takes its input, which is freed as soon as it is used.
    pub fn forward(&self, xs: Tensor) -> Result<Tensor, ModelError> {
        Ok(self.pass(Features::Plain(xs))?.into_tensor()?)
    }

    fn pass(&self, features: Features) -> Result<Features, ModelError> {
        Ok(self.layer.pass(features)?)
    }

    /// The block as one that takes its gradients itself, if it can for this input.
    pub fn learn(&self, xs: &Tensor) -> Option<&dyn Learn> {
        self.layer.learn(xs)
    }

    /// What [`Self::forward`] allocates.
    pub fn outline(&self, xs: Outline) -> candle_core::Result<Outline> {
        self.layer.outline(xs)
    }

    /// What the block allocates as one that takes its gradients itself, on the CPU.
    pub fn learn_outline(&self) -> Option<&dyn LearnOutline> {
        self.layer.learn_outline()
    }

    pub fn forward_in(&self, phase: Phase, xs: Tensor) -> Result<Tensor, ModelError> {
        let ys = self.layer.forward(xs, phase)?;
        Ok(if phase == Phase::Evaluate { ys.detach() } else { ys })
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A network with its weights in NHWC order.
///
/// For inference batch norm and layer scale are folded. While training they are not, but in frozen blocks.
#[derive(Debug)]
pub struct Network {
    pub architecture: Architecture,
    pub blocks: Vec<Block>,
    /// Learnable parameters of the checkpoint's network (before folding).
    pub parameters: u64,
    /// Bytes of its weights as they lie in memory: packed, quantized, or plain.
    pub bytes: u64,
    /// Every tensor that trains, in the order of use; none for inference.
    pub learned: Vec<Parameter>,
    /// The running statistics of the batch norms that train.
    pub running: Vec<Parameter>,
}

impl Network {
    /// Logits of shape `(n, classes)` for pixels of shape `(n, height, width, 3)`.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor, ModelError> {
        self.forward_in(Phase::Evaluate, pixels)
    }

    /// All that training moves: what it learns, then the running statistics.
    pub fn moving(&self) -> impl Iterator<Item = &Parameter> {
        self.learned.iter().chain(&self.running)
    }

    pub fn forward_in(&self, phase: Phase, pixels: &Tensor) -> Result<Tensor, ModelError> {
        if phase == Phase::Evaluate {
            return self.features(self.blocks.len(), pixels);
        }
        self.blocks.iter().try_fold(pixels.clone(), |xs, block| block.forward_in(phase, xs))
    }

    /// What the first `blocks` blocks make of the pixels when nothing trains.
    pub fn features(&self, blocks: usize, pixels: &Tensor) -> Result<Tensor, ModelError> {
        let blocks = &self.blocks[..blocks];
        if blocks.is_empty() {
            return Ok(pixels.clone());
        }
        match lanes::forward(blocks, pixels)? {
            Some(features) => Ok(features),
            None => {
                let first = Features::Plain(pixels.clone());
                Ok(blocks.iter().try_fold(first, |features, block| block.pass(features))?.into_tensor()?)
            }
        }
    }
}

/// Learnable parameters among a file's weights: all but the running statistics of batch norms.
pub fn parameters(tensors: &[TensorInfo]) -> u64 {
    let weights = tensors.iter().filter(|tensor| tensor.kind == TensorKind::Weight && is_learnable(&tensor.name));
    weights.map(|tensor| tensor.elements() as u64).sum()
}

fn is_learnable(name: &str) -> bool {
    !source::is_ignorable(name) && !name.ends_with("running_mean") && !name.ends_with("running_var")
}

/// Reads the weights, one tensor at a time, into a network; memory peaks at the network plus one tensor.
///
/// The report says what fitted. Strict loading fails unless everything did.
pub fn build(
    weights: &dyn Weights,
    architecture: &Architecture,
    loading: impl Into<Loading>,
    device: &Device,
) -> Result<(Network, LoadReport), ModelError> {
    let Loading { strictness, precision } = loading.into();
    let (network, report, _) = build_from(Source::new(weights, precision, device)?, weights, architecture, strictness)?;
    Ok((network, report))
}

/// The same in f32, every layer watched: also returns what each of [`Architecture::layers`] is given.
pub fn build_watched(
    weights: &dyn Weights,
    architecture: &Architecture,
    device: &Device,
) -> Result<(Network, Vec<LayerInputs>), ModelError> {
    let source = Source::watching(weights, device)?;
    let (network, _, inputs) = build_from(source, weights, architecture, Strictness::Strict)?;
    Ok((network, inputs))
}

/// The same for training: variables, listed in the network, from block `frozen` on. The blocks before it stay as for
/// inference: no gradient flows into them, and their batch norms keep their statistics.
pub fn build_trainable(
    weights: &dyn Weights,
    architecture: &Architecture,
    strictness: Strictness,
    frozen: usize,
    device: &Device,
) -> Result<(Network, LoadReport), ModelError> {
    let source = Source::training(weights, frozen, device)?;
    let (network, report, _) = build_from(source, weights, architecture, strictness)?;
    Ok((network, report))
}

/// Also returns what the network's layers are given, where that is watched.
fn build_from(
    source: Source,
    weights: &dyn Weights,
    architecture: &Architecture,
    strictness: Strictness,
) -> Result<(Network, LoadReport, Vec<LayerInputs>), ModelError> {
    let asked = architecture.tensors()?;
    let fit = detect::compare(weights.tensors(), &asked);
    let title = || architecture.title.clone();
    // Refused before anything is read.
    if strictness == Strictness::Strict && !fit.is_whole() {
        return Err(ModelError::Misfit { title: title(), report: Box::new(fit) });
    }
    if strictness != Strictness::LenientWhatever && 2 * fit.matched.len() < fit.expected() {
        return Err(ModelError::TooFew { title: title(), report: Box::new(fit) });
    }
    let (blocks, source) = architecture.blocks(source)?;
    let learnable = asked.iter().filter(|(name, _)| is_learnable(name));
    let parameters = learnable.map(|(_, shape)| shape.iter().product::<usize>() as u64).sum();
    let bytes = source.total_bytes();
    let Source { learned, running, inputs, .. } = source;
    let network = Network { architecture: architecture.clone(), blocks, parameters, bytes, learned, running };
    Ok((network, fit, inputs.unwrap_or_default()))
}

/// The bytes that [`build`] will need for the network's weights, found without reading one. A file's blocks may turn out to
/// take a little less.
pub fn weigh(
    tensors: &[TensorInfo],
    architecture: &Architecture,
    precision: Precision,
    device: &Device,
) -> Result<u64, ModelError> {
    Ok(architecture.outline(tensors, None, precision, device)?.bytes())
}

/// What loading would report, found without reading a weight.
pub fn fit(tensors: &[TensorInfo], architecture: &Architecture) -> Result<LoadReport, ModelError> {
    Ok(detect::compare(tensors, &architecture.tensors()?))
}

/// `12 tensors`, for messages.
fn tensor_count(tensors: usize) -> String {
    format::counted(tensors as u64, "tensor")
}
