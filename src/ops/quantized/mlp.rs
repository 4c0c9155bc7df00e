//! Layer norm, widening layer, activation and narrowing layer in one pass over tiles of rows, as in
//! [`crate::ops::packed::mlp`]: the wide rows exist for one tile and a share of their columns at a time, each share of a
//! row rounded to bytes by its own range.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::activations::{Code, encode_rows};
use super::matrix::{PART, QuantizedMatrix};
use super::product::{Product, Residual};
use super::row_bytes::SLACK;
use crate::ops::backward::add;
use crate::ops::layer_norm::normalize;
use crate::ops::packed::{Line, Mlp, PANEL, Rows, Start, Target, lines, tile_rows};
use crate::ops::{Activation, filled, scratch, vectorized, with_elements, work};

/// Wide columns computed at a time: enough to keep the kernel busy, few enough to stay in the cache beside the tile.
pub const WIDE: usize = PART;

/// `residual + project(activation(expand(layer norm(x))))`; `x`, `residual` and the result have shape `(…, channels)`.
pub fn mlp(x: &Tensor, layers: &Mlp<QuantizedMatrix>, residual: &Tensor) -> Result<Tensor> {
    let Mlp { norm, epsilon, expand: (expand, hidden_bias), project: (project, bias), .. } = *layers;
    let (channels, hidden) = (expand.depth(), expand.columns());
    let fits = x.dims().last() == Some(&channels)
        && (project.depth(), project.columns()) == (hidden, channels)
        && (expand.segments(), project.segments()) == (1, 1)
        && [&norm.0, &norm.1, bias].iter().all(|tensor| tensor.elem_count() == channels)
        && hidden_bias.elem_count() == hidden;
    if !fits || x.shape() != residual.shape() {
        candle_core::bail!("mlp of {channels} channels was given {:?} and {:?}", x.dims(), residual.dims());
    }
    let shape = x.shape();
    // Both layers have as many weights.
    work::product(2 * x.elem_count() / channels.max(1), channels, hidden);
    with_elements([x, residual, &norm.0, &norm.1, hidden_bias, bias], |elements| {
        let [x, residual, weight, shift, hidden_bias, bias] = *elements else { unreachable!("six tensors were given") };
        let hidden_bias = lines(hidden_bias);
        let tile = tile_rows(x.len() / channels, scratch::MAX_BYTES / (2 * channels + 5 * WIDE));
        // SAFETY: each tile begins as a copy of its residual.
        unsafe {
            filled(shape, |space| {
                space.par_chunks_mut(tile * channels).enumerate().for_each(|(index, space)| {
                    let first = index * tile * channels;
                    let x = &x[first..][..space.len()];
                    let sums = space.write_copy_of_slice(&residual[first..][..space.len()]);
                    let rows = sums.len() / channels;
                    let bytes = rows * (channels + WIDE) + 2 * SLACK;
                    scratch::with_bytes(channels + rows * WIDE, bytes, |floats, bytes| {
                        let (normed, wide) = floats.split_at_mut(channels);
                        let (narrow_bytes, wide_bytes) = bytes.split_at_mut(rows * channels + SLACK);
                        let mut codes = vec![Code::default(); rows];
                        vectorized(
                            #[inline(always)]
                            || {
                                sums.chunks_exact_mut(channels).for_each(|row| add(row, bias));
                                let rows = x.chunks_exact(channels).zip(narrow_bytes.chunks_exact_mut(channels));
                                for ((x, bytes), code) in rows.zip(&mut codes) {
                                    normed.copy_from_slice(x);
                                    normalize(normed, weight, shift, epsilon);
                                    encode_rows(normed, channels, bytes, std::slice::from_mut(code));
                                }
                            },
                        );
                        accumulate(layers, (narrow_bytes, &codes), (wide, wide_bytes), &hidden_bias, sums);
                    });
                });
            })
        }
    })
}

/// Adds `project(activation(expand(normed)))` to `sums`, a share of the wide columns after the other.
fn accumulate(
    layers: &Mlp<QuantizedMatrix>,
    (normed, codes): (&[u8], &[Code]),
    (wide, wide_bytes): (&mut [f32], &mut [u8]),
    hidden_bias: &[Line],
    sums: &mut [f32],
) {
    let (expand, project) = (layers.expand.0, layers.project.0);
    let (channels, hidden) = (expand.depth(), expand.columns());
    let rows = codes.len();
    let mut wide_codes = vec![Code::default(); rows];
    for first in (0..hidden).step_by(WIDE) {
        let width = WIDE.min(hidden - first);
        let wide = &mut wide[..rows * width];
        let product = Product {
            rows: Rows::dense(normed, rows, channels),
            codes,
            weight: expand,
            depth: 0..channels,
            panels: first / PANEL..(first + width).div_ceil(PANEL),
            start: Start::Bias(hidden_bias),
            residual: Residual::None,
            activation: layers.activation,
        };
        product.write(Target::holding(wide, width));
        encode_rows(wide, width, wide_bytes, &mut wide_codes);
        let product = Product {
            rows: Rows::dense(wide_bytes, rows, width),
            codes: &wide_codes,
            weight: project,
            depth: first..first + width,
            panels: 0..project.panels(),
            start: Start::Result,
            residual: Residual::None,
            activation: Activation::None,
        };
        product.write(Target::holding(sums, channels));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::quantized::activate::activate;
    use crate::ops::quantized::activations::range;
    use crate::ops::quantized::composed::rounded;
    use crate::ops::quantized::testing::weights;
    use crate::ops::testing::{random, views};
    use crate::ops::{layer_norm, linear};

    #[test]
    fn equals_the_layers_of_rounded_rows_and_weights() -> Result<()> {
        for (rows, channels, hidden) in [(1, 4, 16), (300, 24, 96), (7, 40, 300), (20, 12, 700)] {
            for (expand, project) in weights(channels, hidden)?.into_iter().zip(weights(hidden, channels)?) {
                for activation in [Activation::Relu, Activation::Gelu] {
                    let (norm, biases) = ((random(&[channels], 5)?, random(&[channels], 6)?), random(&[hidden], 7)?);
                    let bias = random(&[channels], 8)?;
                    let layers = Mlp {
                        norm: &norm,
                        epsilon: 1e-6,
                        expand: (&expand, &biases),
                        activation,
                        project: (&project, &bias),
                    };
                    for x in views(&[2, rows, channels])? {
                        let residual = random(x.dims(), 7)?;
                        let ours = mlp(&x, &layers, &residual)?;
                        let normed = rounded(&layer_norm::composed(&x, &norm.0, &norm.1, 1e-6)?, 2)?;
                        let wide = linear::composed(&normed, &expand.dequantized()?, &biases, Activation::None, None)?;
                        let mut values = wide.flatten_all()?.to_vec1::<f32>()?;
                        activate(activation, &mut values);
                        let wide = Tensor::from_vec(values, wide.shape(), wide.device())?;
                        let shares = (0..hidden)
                            .step_by(WIDE)
                            .map(|first| rounded(&wide.narrow(2, first, WIDE.min(hidden - first))?, 2));
                        // Weights are within ±1: a step of a normed value moves every wide one, and each of those a result.
                        let step = |x: &Tensor| Ok::<_, candle_core::Error>(range(&x.flatten_all()?.to_vec1::<f32>()?));
                        let [narrow_step, wide_step] =
                            [step(&normed)?, step(&wide)?].map(|range| range.coder().code.scale);
                        let most = 1.2 * narrow_step * hidden as f32 + 2.0 * wide_step;
                        let wide = Tensor::cat(&shares.collect::<Result<Vec<_>>>()?, 2)?;
                        let narrow = project.dequantized()?;
                        let oracle = linear::composed(&wide, &narrow, &bias, Activation::None, Some(&residual))?;
                        assert_nearly_all_close(&ours, &oracle, most)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The last bit of a sum decides to which byte a value halfway between two goes. That is rare, and moves a result by no
    /// more than `most`.
    fn assert_nearly_all_close(ours: &Tensor, oracle: &Tensor, most: f32) -> Result<()> {
        let differences = (ours - oracle)?.abs()?.flatten_all()?.to_vec1::<f32>()?;
        let far = differences.iter().filter(|difference| **difference > 2e-4).count();
        assert!(far <= differences.len() / 20, "{far} of {} differ", differences.len());
        let largest = differences.iter().copied().fold(0.0, f32::max);
        assert!(largest <= most, "{largest} is more than {most}");
        Ok(())
    }
}
