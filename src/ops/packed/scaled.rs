//! A linear layer behind a gate: rows are scaled a tile at a time, on their way to the product.

use std::mem::MaybeUninit;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::linear::{FEW_ROWS, tile_rows};
use super::matrix::lines;
use super::operands::Target;
use super::product::Unit;
use super::tile::{Tile, TileWeight};
use crate::ops::{Activation, filled, scratch, with_elements, work};

/// `(x · scales) · weight + bias + residual`.
///
/// `x` has shape `(n, h, w, inputs)`, `scales` `(n, inputs)`, `bias` `(outputs)`; the result and `residual` have shape
/// `(n, h, w, outputs)`.
pub fn linear_scaled(
    x: &Tensor,
    scales: &Tensor,
    weight: &dyn TileWeight,
    bias: &Tensor,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (batch, height, width, inputs) = x.dims4()?;
    let (depth, outputs) = weight.shape();
    let shape = [batch, height, width, outputs];
    let fits = inputs == depth && scales.dims() == [batch, inputs] && bias.elem_count() == outputs;
    if !fits || residual.is_some_and(|residual| residual.dims() != shape) {
        candle_core::bail!("linear of {depth} inputs was given {:?} and {:?}", x.dims(), scales.dims());
    }
    let rows = batch * height * width;
    work::product(rows, inputs, outputs);
    with_elements([x, scales, bias].into_iter().chain(residual), |elements| {
        let (x, scales, bias, residual) = (elements[0], elements[1], lines(elements[2]), elements.get(3).copied());
        let is_shared = rows <= FEW_ROWS;
        let most = scratch::MAX_BYTES / size_of::<f32>() / inputs.max(1);
        let tile = if is_shared { rows } else { tile_rows(rows, most) };
        let write = |space: &mut [MaybeUninit<f32>]| {
            space.par_chunks_mut((tile * outputs).max(1)).enumerate().for_each(|(index, space)| {
                let (first, count) = (index * tile, space.len() / outputs);
                scratch::with_shared(count * inputs, is_shared, |scaled| {
                    for (offset, row) in scaled.chunks_exact_mut(inputs).enumerate() {
                        let image = (first + offset) / (height * width);
                        scale(row, &x[(first + offset) * inputs..], &scales[image * inputs..]);
                    }
                    let tile = Tile {
                        rows: scaled,
                        bias: &bias,
                        residual: residual.map(|residual| &residual[first * outputs..]),
                        activation: Activation::None,
                        unit: Unit::for_rows(height * width),
                        is_shared,
                    };
                    weight.multiply(&tile, Target::new(space, outputs));
                });
            });
        };
        // SAFETY: the products fill their targets, which are all of the space.
        unsafe { filled(&shape, write) }
    })
}

/// The products of the first values with their scales.
fn scale(products: &mut [f32], values: &[f32], scales: &[f32]) {
    vectorized!(|| {
        for ((product, value), scale) in products.iter_mut().zip(values).zip(scales) {
            *product = value * scale;
        }
    });
}
