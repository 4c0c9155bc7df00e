//! The same layers composed of candle operations, from the same rounded rows and weights. No gradient passes through.

use candle_core::{DType, Device, Result, Tensor};

use super::activations::SHARE;
use super::matrix::QuantizedMatrix;
use crate::ops::composed::{at_least, at_most};
use crate::ops::{Activation, Window, conv as convolution, linear as product};

pub fn linear(
    x: &Tensor,
    weight: &QuantizedMatrix,
    bias: &Tensor,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let weight = weight.dequantized()?.to_dtype(x.dtype())?;
    product::composed(&rounded(x, x.rank() - 1)?, &weight, bias, activation, residual)
}

pub fn conv(
    x: &Tensor,
    weight: &QuantizedMatrix,
    bias: &Tensor,
    window: Window,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let Window { kernel, .. } = window;
    let shape = (kernel, kernel, weight.depth() / kernel.pow(2), weight.columns());
    let weight = weight.dequantized()?.reshape(shape)?.to_dtype(x.dtype())?;
    let kept = if kernel == 1 { x.rank() - 1 } else { 1 };
    convolution::composed(&rounded(x, kept)?, &weight, bias, window, activation, residual)
}

/// `x` rounded to as many values as a byte has on this machine, evenly apart and 0 among them: by the range of its values at
/// each place along the first `kept` axes.
pub fn rounded(x: &Tensor, kept: usize) -> Result<Tensor> {
    let rows = x.detach().flatten_from(kept)?;
    let least = at_most(&rows.min_keepdim(kept)?, 0.0)?;
    let most = at_least(&rows.max_keepdim(kept)?, 0.0)?;
    // The kernel's own steps: the last digit decides on a value halfway between two.
    let share = f64::from(*SHARE);
    let scale = ((most * share)? - (&least * share)?)?;
    // A row of zeros has no scale; any will do.
    let per_scale = (&scale + scale.eq(0.0)?.to_dtype(scale.dtype())?)?.recip()?;
    let zero = (least * &per_scale)?.neg()?;
    let zero = nearest(&zero)?;
    let places = nearest(&rows.broadcast_mul(&per_scale)?.broadcast_add(&zero)?)?;
    at_most(&at_least(&places, 0.0)?, 255.0)?.broadcast_sub(&zero)?.broadcast_mul(&scale)?.reshape(x.shape())
}

/// Integers, of two as near the even one: beyond 1.5·2²³, or 1.5·2⁵² in f64, there are no others.
fn nearest(x: &Tensor) -> Result<Tensor> {
    let large = if x.dtype() == DType::F64 { 6_755_399_441_055_744.0 } else { 12_582_912.0 };
    (x + large)? - large
}

impl QuantizedMatrix {
    /// The values of all elements, of shape `(depth, columns)`.
    pub fn dequantized(&self) -> Result<Tensor> {
        let (depth, columns) = (self.depth(), self.columns());
        let values = (0..depth * columns).map(|index| self.value(index / columns, index % columns)).collect();
        Tensor::from_vec::<_, f32>(values, (depth, columns), &Device::Cpu)
    }
}
