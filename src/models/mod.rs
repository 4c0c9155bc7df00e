//! Networks as lists of blocks, in NHWC, and which of them a checkpoint holds.

use candle_core::Tensor;

use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::images::transform::Transform;

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
    /// One sentence: by which names and shapes it was recognised.
    pub recognised_by: String,
}

impl Architecture {
    /// The transform this architecture's published weights were evaluated with.
    pub fn default_transform(&self) -> Transform {
        todo!()
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

/// What loading did, by tensor name.
#[derive(Debug, Clone, Default)]
pub struct LoadReport {
    pub matched: Vec<String>,
    pub missing: Vec<String>,
    pub unexpected: Vec<String>,
    pub reshaped: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("stub")]
    Stub,
}

/// One unit of a network: the stem, a residual block, the head.
pub struct Block {
    /// `stem`, `stages.2.blocks.5`, `head`.
    pub name: String,
}

/// A network ready for inference: batch norm folded, weights in NHWC order.
pub struct Network {
    pub architecture: Architecture,
    pub blocks: Vec<Block>,
    /// Learnable parameters of the checkpoint's network (before folding).
    pub parameters: u64,
}

impl Network {
    /// Logits of shape `(n, classes)` for pixels of shape `(n, height, width, 3)`.
    pub fn forward(&self, _pixels: &Tensor) -> Result<Tensor, ModelError> {
        todo!()
    }
}

pub fn detect(_tensors: &[TensorInfo]) -> Result<Architecture, ModelError> {
    todo!()
}

pub fn build(
    _checkpoint: &Checkpoint,
    _architecture: &Architecture,
    _strictness: Strictness,
) -> Result<(Network, LoadReport), ModelError> {
    todo!()
}
