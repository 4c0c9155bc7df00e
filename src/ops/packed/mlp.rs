//! Layer norm, widening layer, activation and narrowing layer in one pass over tiles of rows. The wide rows between the
//! two layers, the largest of a network, exist for one tile and a share of their columns at a time, and never leave the
//! cache.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::linear::tile_rows;
use super::matrix::{Line, PANEL, PackedMatrix, lines};
use super::operands::{Rows, Start, Target};
use super::product::{Product, Unit};
use crate::ops::backward::add;
use crate::ops::layer_norm::normalize;
use crate::ops::{Activation, filled, scratch, with_elements, work};

/// Wide columns computed at a time: enough to keep the kernel busy, few enough to stay in the cache beside the tile.
pub const WIDE: usize = 16 * PANEL;

/// The layers of [`mlp`], each as weight and bias.
#[derive(Clone, Copy)]
pub struct Mlp<'a, W = PackedMatrix> {
    /// Layer norm: `(channels)` both.
    pub norm: &'a (Tensor, Tensor),
    pub epsilon: f32,
    /// `(channels, hidden)` and `(hidden)`.
    pub expand: (&'a W, &'a Tensor),
    pub activation: Activation,
    /// `(hidden, channels)` and `(channels)`.
    pub project: (&'a W, &'a Tensor),
}

/// `residual + project(activation(expand(layer norm(x))))`; `x`, `residual` and the result have shape `(…, channels)`.
pub fn mlp(x: &Tensor, layers: &Mlp, residual: &Tensor) -> Result<Tensor> {
    let Mlp { norm, epsilon, expand: (expand, hidden_bias), project: (project, bias), .. } = *layers;
    let (channels, hidden) = (expand.depth(), expand.columns());
    let fits = x.dims().last() == Some(&channels)
        && (project.depth(), project.columns()) == (hidden, channels)
        && [&norm.0, &norm.1, bias].iter().all(|tensor| tensor.elem_count() == channels)
        && hidden_bias.elem_count() == hidden;
    if !fits || x.shape() != residual.shape() {
        candle_core::bail!("mlp of {channels} channels was given {:?} and {:?}", x.dims(), residual.dims());
    }
    let shape = x.shape();
    let unit = Unit::for_rows(shape.elem_count() / (channels * shape.dims()[0]).max(1));
    // Both layers have as many weights.
    work::product(2 * x.elem_count() / channels.max(1), channels, hidden);
    with_elements([x, residual, &norm.0, &norm.1, hidden_bias, bias], |elements| {
        let [x, residual, weight, shift, hidden_bias, bias] = *elements else { unreachable!("six tensors were given") };
        let hidden_bias = lines(hidden_bias);
        let tile = tile_rows(x.len() / channels, scratch::MAX_BYTES / size_of::<f32>() / (channels + WIDE));
        // SAFETY: each tile begins as a copy of its residual.
        unsafe {
            filled(shape, |space| {
                space.par_chunks_mut(tile * channels).enumerate().for_each(|(index, space)| {
                    let first = index * tile * channels;
                    let sums = space.write_copy_of_slice(&residual[first..][..space.len()]);
                    let rows = sums.len() / channels;
                    scratch::with(rows * (channels + WIDE), |scratch| {
                        let (normed, wide) = scratch.split_at_mut(rows * channels);
                        normed.copy_from_slice(&x[first..][..rows * channels]);
                        vectorized!(|| {
                            sums.chunks_exact_mut(channels).for_each(|row| add(row, bias));
                            normed.chunks_exact_mut(channels).for_each(|row| normalize(row, weight, shift, epsilon));
                        });
                        accumulate(layers, normed, wide, &hidden_bias, sums, unit);
                    });
                });
            })
        }
    })
}

/// Adds `project(activation(expand(normed)))` to `sums`, a share of the wide columns after the other.
fn accumulate(layers: &Mlp, normed: &[f32], wide: &mut [f32], hidden_bias: &[Line], sums: &mut [f32], unit: Unit) {
    let (expand, project) = (layers.expand.0, layers.project.0);
    let (channels, hidden) = (expand.depth(), expand.columns());
    let rows = normed.len() / channels;
    for first in (0..hidden).step_by(WIDE) {
        let width = WIDE.min(hidden - first);
        let wide = &mut wide[..rows * width];
        let product = Product {
            rows: Rows::dense(normed, rows, channels),
            weight: expand,
            depth: 0..channels,
            panels: first / PANEL..(first + width).div_ceil(PANEL),
            start: Start::Bias(hidden_bias),
            residual: None,
            activation: layers.activation,
            unit,
        };
        product.write(Target::holding(wide, width));
        let product = Product {
            rows: Rows::dense(wide, rows, width),
            weight: project,
            depth: first..first + width,
            panels: 0..project.panels(),
            start: Start::Result,
            residual: None,
            activation: Activation::None,
            unit,
        };
        product.write(Target::holding(sums, channels));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, random, views};
    use crate::ops::{layer_norm, linear};

    #[test]
    fn equals_its_composed_form() -> Result<()> {
        for (rows, channels, hidden) in [(1, 4, 16), (300, 24, 96), (7, 40, 300)] {
            let pair = |inputs: usize, outputs: usize, seed| -> Result<(Tensor, Tensor)> {
                Ok((random(&[inputs, outputs], seed)?, random(&[outputs], seed + 1)?))
            };
            let (expand, project) = (pair(channels, hidden, 1)?, pair(hidden, channels, 3)?);
            let norm = (random(&[channels], 5)?, random(&[channels], 6)?);
            let (wide, narrow) = (PackedMatrix::from_tensor(&expand.0)?, PackedMatrix::from_tensor(&project.0)?);
            let layers = Mlp {
                norm: &norm,
                epsilon: 1e-6,
                expand: (&wide, &expand.1),
                activation: Activation::Gelu,
                project: (&narrow, &project.1),
            };
            for x in views(&[2, rows, channels])? {
                let residual = random(x.dims(), 7)?;
                let hidden = layer_norm::composed(&x, &norm.0, &norm.1, 1e-6)?;
                let hidden = linear::composed(&hidden, &expand.0, &expand.1, Activation::Gelu, None)?;
                let oracle = linear::composed(&hidden, &project.0, &project.1, Activation::None, Some(&residual))?;
                assert_close(&mlp(&x, &layers, &residual)?, &oracle, 1e-4)?;
            }
        }
        Ok(())
    }
}
