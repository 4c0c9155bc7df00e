//! Linear layer with a quantized weight: tiles of rows in parallel, or of columns when there are few rows.

use std::mem::MaybeUninit;

use candle_core::{Result, Shape, Tensor};
use rayon::prelude::*;

use super::activations::{Code, encode_rows};
use super::matrix::QuantizedMatrix;
use super::product::{Product, Residual};
use super::row_bytes::SLACK;
use crate::ops::packed::{FEW_ROWS, Line, Rows, Start, Target, Tile, TileWeight, lines, tile_rows};
use crate::ops::{Activation, filled, scratch, with_elements, work};

/// `activation(x · weight + bias + residual)`, each row of `x` rounded to bytes.
///
/// `x` has shape `(…, inputs)`, `bias` `(outputs)`; the result and `residual` have shape `(…, outputs)`.
pub fn linear(
    x: &Tensor,
    weight: &QuantizedMatrix,
    bias: &Tensor,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (inputs, outputs) = (weight.depth(), weight.columns());
    let mut shape = x.dims().to_vec();
    if shape.pop() != Some(inputs) || weight.segments() != 1 || bias.elem_count() != outputs {
        candle_core::bail!("linear of {inputs} inputs was given shape {:?} and {:?} biases", x.dims(), bias.dims());
    }
    shape.push(outputs);
    let shape = Shape::from(shape);
    if residual.is_some_and(|residual| residual.shape() != &shape) {
        candle_core::bail!("linear was given a residual of another shape than {shape:?}");
    }
    let rows = x.elem_count() / inputs.max(1);
    work::product(rows, inputs, outputs);
    with_elements([x, bias].into_iter().chain(residual), |elements| {
        let bias = lines(elements[1]);
        let layer = Layer { x: elements[0], weight, bias: &bias, residual: elements.get(2).copied(), activation };
        let write = |space: &mut [MaybeUninit<f32>]| {
            if rows <= FEW_ROWS {
                return layer.with_product(0, rows, |product| product.write_shared(Target::new(space, outputs)));
            }
            let tile = tile_rows(rows, usize::MAX);
            space.par_chunks_mut((tile * outputs).max(1)).enumerate().for_each(|(index, space)| {
                let count = space.len() / outputs;
                layer.with_product(index * tile, count, |product| product.write(Target::new(space, outputs)));
            });
        };
        // SAFETY: the products fill their targets, which are all of the space.
        unsafe { filled(shape, write) }
    })
}

impl TileWeight for QuantizedMatrix {
    fn shape(&self) -> (usize, usize) {
        (self.depth(), self.columns())
    }

    fn multiply(&self, tile: &Tile, target: Target) {
        let Tile { rows, bias, residual, activation, is_shared, .. } = *tile;
        let layer = Layer { x: rows, weight: self, bias, residual, activation };
        layer.with_product(0, target.rows, |product| {
            if is_shared { product.write_shared(target) } else { product.write(target) }
        });
    }
}

struct Layer<'a> {
    x: &'a [f32],
    weight: &'a QuantizedMatrix,
    bias: &'a [Line],
    residual: Option<&'a [f32]>,
    activation: Activation,
}

impl Layer<'_> {
    /// Calls `compute` with the product of `count` rows.
    fn with_product(&self, first_row: usize, count: usize, compute: impl FnOnce(&Product)) {
        let Self { x, weight, bias, residual, activation } = *self;
        let (inputs, outputs) = (weight.depth(), weight.columns());
        let mut codes = vec![Code::default(); count];
        scratch::with_bytes(0, count * inputs + SLACK, |_, bytes| {
            encode_rows(&x[first_row * inputs..][..count * inputs], inputs, bytes, &mut codes);
            let residual = Residual::floats(residual.map(|residual| &residual[first_row * outputs..]));
            let whole = Product::whole(Rows::dense(bytes, count, inputs), &codes, weight, Start::Bias(bias));
            compute(&Product { residual, activation, ..whole });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::quantized::composed;
    use crate::ops::quantized::testing::weights;
    use crate::ops::testing::{assert_close, random, views};

    #[test]
    fn equals_the_layer_of_rounded_rows_and_weights() -> Result<()> {
        for (rows, inputs, outputs) in [(1, 1, 1), (7, 5, 3), (300, 33, 65), (49, 300, 17), (32, 8, 100)] {
            for weight in weights(inputs, outputs)? {
                for x in views(&[2, rows, inputs])? {
                    let bias = random(&[outputs], 3)?;
                    for residual in [None, Some(random(&[2, rows, outputs], 4)?)] {
                        let ours = linear(&x, &weight, &bias, Activation::HardSwish, residual.as_ref())?;
                        let oracle = composed::linear(&x, &weight, &bias, Activation::HardSwish, residual.as_ref())?;
                        assert_close(&ours, &oracle, 5e-5)?;
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_row_has_the_same_result_in_any_company() -> Result<()> {
        let (x, bias) = (random(&[700, 40], 1)?, random(&[24], 3)?);
        for weight in weights(40, 24)? {
            let together = linear(&x, &weight, &bias, Activation::Gelu, None)?;
            for (first, count) in [(0, 1), (5, 70), (699, 1)] {
                let alone = linear(&x.narrow(0, first, count)?, &weight, &bias, Activation::Gelu, None)?;
                assert_eq!(alone.to_vec2::<f32>()?, together.narrow(0, first, count)?.to_vec2::<f32>()?);
            }
        }
        Ok(())
    }

    #[test]
    fn values_that_are_not_finite_stay_visible_in_their_row() -> Result<()> {
        let mut values = vec![1.0; 8];
        values[5] = f32::INFINITY;
        let x = Tensor::from_vec(values, (2, 4), &candle_core::Device::Cpu)?;
        for weight in weights(4, 3)? {
            for activation in [Activation::None, Activation::Relu, Activation::Relu6] {
                let result = linear(&x, &weight, &random(&[3], 3)?, activation, None)?.to_vec2::<f32>()?;
                assert!(result[0].iter().all(|value| value.is_finite()), "{activation:?}");
                assert!(result[1].iter().all(|value| value.is_nan()), "{activation:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn wrong_lengths_are_errors() -> Result<()> {
        let weight = &weights(4, 3)?[0];
        assert!(linear(&random(&[2, 5], 1)?, weight, &random(&[3], 3)?, Activation::None, None).is_err());
        let (x, residual) = (random(&[2, 4], 1)?, random(&[1, 3], 4)?);
        assert!(linear(&x, weight, &random(&[3], 3)?, Activation::None, Some(&residual)).is_err());
        Ok(())
    }
}
