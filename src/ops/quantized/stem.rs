//! A convolution and the pool after it in one pass: the image between the two, the largest of a network, is there a band of
//! rows at a time.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::bottleneck::{CodedLayer, multiply};
use super::conv::Coded;
use super::product::Residual;
use crate::ops::packed::{ImageTile, Start, Target, lines};
use crate::ops::pool::max_row;
use crate::ops::{Padding, Window, scratch, with_elements, work};

/// Positions of the pool that are computed together. Rows of the convolution at the border of two bands are computed twice.
const BAND: usize = 448;

/// `max_pool(activation(convolution(x) + bias))`, both as on their own.
///
/// `x` has shape `(n, h, w, inputs)`, the result `(n, h', w', outputs)`.
pub fn conv_max_pool(x: &Tensor, layer: CodedLayer, pool: Window) -> Result<Tensor> {
    let (weight, bias, window, _) = layer;
    let geometry = window.over(x.dims())?;
    let outputs = weight.columns();
    let fits = weight.depth() == window.kernel.pow(2) * geometry.channels && weight.segments() == window.kernel;
    if !fits || bias.elem_count() != outputs || window.padding == Padding::Ceil {
        candle_core::bail!("conv weight of depth {} does not fit input {:?}", weight.depth(), x.dims());
    }
    let (batch, height, width) = (geometry.batch, geometry.out_height, geometry.out_width);
    let pooled = pool.over(&[batch, height, width, outputs])?;
    let shape = (batch, pooled.out_height, pooled.out_width, outputs);
    work::product(geometry.positions(), weight.depth(), outputs);
    with_elements([x, bias], |elements| {
        let coded = Coded::images(&geometry, elements[0]);
        let bias = lines(elements[1]);
        let row = pooled.out_width * outputs;
        let rows = BAND.div_ceil(pooled.out_width);
        let mut result = vec![f32::NEG_INFINITY; pooled.positions() * outputs];
        result.par_chunks_mut(pooled.out_height * row).enumerate().for_each(|(image, result)| {
            result.par_chunks_mut(rows * row).enumerate().for_each(|(band, result)| {
                let pooled_rows = band * rows..band * rows + result.len() / row;
                let y = pooled.rows(pooled_rows.start).0;
                let (last, in_last) = pooled.rows(pooled_rows.end - 1);
                let tile = ImageTile { image, images: 1, y, rows: last + in_last.len() - y };
                scratch::with(tile.rows * width * outputs, |held| {
                    let target = Target::holding(held, outputs);
                    multiply(layer, coded.windows(&tile), Start::Bias(&bias), Residual::None, target, false);
                    for (y, row) in pooled_rows.zip(result.chunks_exact_mut(row)) {
                        max_row(held, tile.y, &pooled, y, row);
                    }
                });
            });
        });
        Tensor::from_vec(result, shape, x.device())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::quantized::QuantizedMatrix;
    use crate::ops::quantized::conv::conv;
    use crate::ops::testing::{assert_close, random, views};
    use crate::ops::{Activation, max_pool};

    #[test]
    fn one_pass_equals_one_operation_after_the_other() -> Result<()> {
        let plain = random(&[7 * 7 * 3, 18], 2)?.to_vec2::<f32>()?;
        let weight = QuantizedMatrix::new([7, 21], 18, |row, column| plain[row][column]);
        let (window, bias) = (Window::centered(7, 2), random(&[18], 3)?);
        for padding in [Padding::Each(1), Padding::Each(0), Padding::Ceil] {
            let pool = Window { kernel: 3, stride: 2, padding };
            // One band, and several of many rows or of few.
            for shape in [[3, 21, 18, 3], [2, 90, 90, 3], [1, 40, 1000, 3]] {
                for x in views(&shape)? {
                    let ours = conv_max_pool(&x, (&weight, &bias, window, Activation::Relu), pool)?;
                    let oracle = max_pool(&conv(&x, &weight, &bias, window, Activation::Relu, None)?, pool)?;
                    assert_close(&ours, &oracle, 0.0)?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_weight_of_another_image_is_an_error() -> Result<()> {
        let weight = QuantizedMatrix::new([3, 9], 2, |_, _| 1.0);
        let layer = (&weight, &random(&[2], 3)?, Window::centered(3, 2), Activation::None);
        assert!(conv_max_pool(&random(&[1, 9, 9, 4], 1)?, layer, Window::centered(3, 2)).is_err());
        Ok(())
    }
}
