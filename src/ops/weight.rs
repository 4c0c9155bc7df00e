//! The weight of a linear layer or convolution, in whatever form it is multiplied from.

use candle_core::{Result, Tensor};

use super::blocks::{self, BlockMatrix};
use super::packed::{self, ConvWeight, PackedMatrix, TileWeight, WinogradWeight};
use super::quantized::{self, QuantizedMatrix};
use super::watched::WatchedWeight;
use super::{Activation, Face, Window, face, is_tracked};

#[derive(Debug)]
pub enum Weight {
    /// `(inputs, outputs)`, or `(kernel, kernel, inputs, outputs)` of a convolution: on any device, and for training.
    Plain(Tensor),
    /// For inference on the CPU.
    Packed(PackedMatrix),
    /// The same of windows of 3×3, in the order of Winograd's filtering.
    Winograd(WinogradWeight),
    /// For inference on the CPU in 8 or 4 bits.
    Quantized(QuantizedMatrix),
    /// In 8 or 4 bits for inference on Metal, where windows are of one pixel.
    Blocks(BlockMatrix),
    /// Any of these, with an account of what it is multiplied with.
    Watched(WatchedWeight),
}

impl Weight {
    /// `activation(x · weight + bias + residual)`, as [`super::linear`].
    pub fn linear(
        &self,
        x: &Tensor,
        bias: &Tensor,
        activation: Activation,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        match self {
            Self::Plain(weight) => super::linear(x, weight, bias, activation, residual),
            Self::Packed(weight) => packed::linear(x, weight, bias, activation, residual),
            Self::Winograd(_) => candle_core::bail!("a weight of windows of 3×3 is no linear layer's"),
            Self::Quantized(weight) if has_integers(x, bias) => {
                quantized::linear(x, weight, bias, activation, residual)
            }
            Self::Quantized(weight) => quantized::composed::linear(x, weight, bias, activation, residual),
            Self::Blocks(weight) => blocks::linear(x, weight, bias, activation, residual),
            Self::Watched(weight) => weight.linear(x, bias, activation, residual),
        }
    }

    /// `activation(convolution(x) + bias + residual)`, as [`super::conv`].
    pub fn conv(
        &self,
        x: &Tensor,
        bias: &Tensor,
        window: Window,
        activation: Activation,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        match self {
            Self::Plain(weight) => super::conv(x, weight, bias, window, activation, residual),
            Self::Packed(weight) if window == Window::centered(1, 1) => {
                packed::linear(x, weight, bias, activation, residual)
            }
            Self::Packed(weight) => packed::conv(x, weight, bias, window, activation, residual),
            Self::Winograd(_) if (window.kernel, window.stride) != (3, 1) => {
                candle_core::bail!("a weight of windows of 3×3 a pixel apart does not fit {window:?}")
            }
            Self::Winograd(weight) => packed::conv(x, weight, bias, window, activation, residual),
            Self::Quantized(weight) if has_integers(x, bias) => {
                quantized::conv(x, weight, bias, window, activation, residual)
            }
            Self::Quantized(weight) => quantized::composed::conv(x, weight, bias, window, activation, residual),
            Self::Blocks(weight) => blocks::conv(x, weight, bias, window, activation, residual),
            Self::Watched(weight) => weight.conv(x, bias, window, activation, residual),
        }
    }
}

impl Weight {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Plain(weight) => (weight.elem_count() * weight.dtype().size_in_bytes()) as u64,
            Self::Packed(weight) => weight.bytes() as u64,
            Self::Winograd(weight) => weight.bytes() as u64,
            Self::Quantized(weight) => weight.bytes() as u64,
            Self::Blocks(weight) => weight.bytes(),
            Self::Watched(weight) => weight.weight.bytes(),
        }
    }

    /// Its inputs, those of all places of a window together, and its outputs.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Plain(weight) => {
                let outputs = weight.dims().last().copied().unwrap_or(1);
                [weight.elem_count() / outputs.max(1), outputs]
            }
            Self::Packed(weight) => [weight.depth(), weight.columns()],
            Self::Winograd(weight) => weight.shape(),
            Self::Quantized(weight) => [weight.depth(), weight.columns()],
            Self::Blocks(weight) => weight.shape(),
            Self::Watched(weight) => weight.weight.shape(),
        }
    }

    /// The weight itself where products with it are computed a tile of rows at a time: none of training or another device.
    pub fn in_tiles(&self, x: &Tensor, bias: &Tensor) -> Option<&dyn TileWeight> {
        match self {
            Self::Packed(weight) => Some(weight),
            Self::Quantized(weight) if has_integers(x, bias) && weight.segments() == 1 => Some(weight),
            _ => None,
        }
    }

    /// The weight itself where images are coded between the layers: quantized, for inference on the CPU.
    pub fn in_bytes(&self, bias: &Tensor) -> Option<&QuantizedMatrix> {
        match self {
            Self::Quantized(weight) if has_integers(bias, bias) => Some(weight),
            _ => None,
        }
    }
}

/// Whether a product with a quantized weight is one of integers: those have no gradient, not even for the bias.
fn has_integers(x: &Tensor, bias: &Tensor) -> bool {
    face("quantized", x) == Face::Cpu && !is_tracked(&[x, bias])
}
