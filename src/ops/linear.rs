//! Linear layer on the last axis, with bias, residual and activation applied while the rows are in the cache.

mod backward;

use candle_core::{Result, Tensor};

use super::packed::{self, PackedMatrix};
use super::residual::activate_sum;
use super::{Activation, Face, face, is_tracked, metal, work};

pub use backward::linear_backward;

/// `activation(x · weight + bias + residual)`.
///
/// `x` has shape `(…, inputs)`, `weight` `(inputs, outputs)`, `bias` `(outputs)`; the result and `residual` have shape
/// `(…, outputs)`.
pub fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (inputs, outputs) = weight.dims2()?;
    let face = face("linear", x);
    if face == Face::Cpu && !is_tracked(&[x, weight, bias]) && !residual.is_some_and(Tensor::track_op) {
        return packed::linear(x, &PackedMatrix::from_tensor(weight)?, bias, activation, residual);
    }
    work::product(x.elem_count() / inputs.max(1), inputs, outputs);
    match face {
        Face::Composed => composed(x, weight, bias, activation, residual),
        Face::Metal => metal::linear(x, weight, bias, activation, residual),
        Face::Cpu => {
            let y = x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, backward::Tracked)?;
            activate_sum(y, residual, activation)
        }
    }
}

/// The same composed of candle operations.
pub(crate) fn composed(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let y = x.contiguous()?.broadcast_matmul(&weight.contiguous()?)?.broadcast_add(bias)?;
    let y = if let Some(residual) = residual { (y + residual)? } else { y };
    activation.composed(&y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, assert_gradients, random, views};

    #[test]
    fn equals_its_composed_form() -> Result<()> {
        for (rows, inputs, outputs) in [(1, 1, 1), (7, 5, 3), (300, 33, 65), (49, 130, 17)] {
            for x in views(&[2, rows, inputs])? {
                let (weight, bias) = (random(&[inputs, outputs], 2)?, random(&[outputs], 3)?);
                for residual in [None, Some(random(&[2, rows, outputs], 4)?)] {
                    let ours = linear(&x, &weight, &bias, Activation::Gelu, residual.as_ref())?;
                    let oracle = composed(&x, &weight, &bias, Activation::Gelu, residual.as_ref())?;
                    assert_close(&ours, &oracle, 2e-5)?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn gradients_are_right() -> Result<()> {
        for (rows, inputs, outputs) in [(1, 1, 1), (7, 5, 3), (150, 33, 21)] {
            let (x, y) = ([2, rows, inputs], [2, rows, outputs]);
            let shapes: [&[usize]; 3] = [&x, &[inputs, outputs], &[outputs]];
            assert_gradients(&shapes, |args| linear(&args[0], &args[1], &args[2], Activation::None, None))?;
            let shapes: [&[usize]; 4] = [&x, &[inputs, outputs], &[outputs], &y];
            assert_gradients(&shapes, |args| linear(&args[0], &args[1], &args[2], Activation::Gelu, Some(&args[3])))?;
        }
        Ok(())
    }

    #[test]
    fn wrong_lengths_are_errors() -> Result<()> {
        let (x, weight) = (random(&[2, 5], 1)?, random(&[4, 3], 2)?);
        assert!(linear(&x, &weight, &random(&[3], 3)?, Activation::None, None).is_err());
        let x = random(&[2, 4], 1)?;
        let residual = random(&[1, 3], 4)?;
        assert!(linear(&x, &weight, &random(&[3], 3)?, Activation::None, Some(&residual)).is_err());
        Ok(())
    }
}
