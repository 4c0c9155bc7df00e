//! Linear layer on the last axis, with bias, residual and activation applied while the rows are in the cache.

mod backward;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::gemm::{Epilogue, Matrix, multiply, tiled};
use super::residual::activate_sum;
use super::{Activation, Face, elements, face, is_tracked, metal, output, with_elements, work};

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
    work::product(x.elem_count() / inputs.max(1), inputs, outputs);
    match face("linear", x) {
        Face::Composed => return composed(x, weight, bias, activation, residual),
        Face::Metal => return metal::linear(x, weight, bias, activation, residual),
        Face::Cpu => {}
    }
    if is_tracked(&[x, weight, bias]) || residual.is_some_and(Tensor::track_op) {
        let y = x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, backward::Tracked)?;
        return activate_sum(y, residual, activation);
    }
    let residual = residual.map(Tensor::contiguous).transpose()?;
    let op = Linear { activation, residual };
    x.contiguous()?.apply_op3_no_bwd(&weight.contiguous()?, &bias.contiguous()?, &op)
}

struct Linear {
    activation: Activation,
    residual: Option<Tensor>,
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (inputs, outputs) = weight_layout.shape().dims2()?;
        let mut shape = x_layout.dims().to_vec();
        let bias = elements(bias, bias_layout)?;
        if shape.last() != Some(&inputs) || bias.len() != outputs {
            candle_core::bail!("linear of {inputs} inputs was given shape {shape:?} and {} biases", bias.len());
        }
        shape.pop();
        shape.push(outputs);
        let shape = Shape::from(shape);
        if self.residual.as_ref().is_some_and(|residual| residual.shape() != &shape) {
            candle_core::bail!("linear was given a residual of another shape than {shape:?}");
        }
        let (x, weight) = (elements(x, x_layout)?, elements(weight, weight_layout)?);
        let weight = Matrix::row_major(weight, inputs, outputs);
        let result = with_elements(self.residual.as_slice(), |residual| {
            let epilogue = Epilogue { bias, residual: residual.first().copied(), activation: self.activation };
            Ok(tiled(shape.elem_count() / outputs.max(1), usize::MAX, &epilogue, |tile, first_row, rows| {
                let rows = Matrix::row_major(&x[first_row * inputs..][..rows * inputs], rows, inputs);
                multiply(tile, outputs, rows, weight, 1.0);
            }))
        })?;
        Ok(output(result, shape))
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
