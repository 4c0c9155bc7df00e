//! A widening 1×1 convolution and the depthwise one after it in one pass. The wide image between them, the largest of a
//! network, exists only as the rows under the window, and never leaves the cache.

use std::mem::MaybeUninit;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::matrix::{Line, lines};
use super::operands::Target;
use super::product::Unit;
use super::tile::{Tile, TileWeight};
use crate::ops::depthwise::{Kernel, Row, kernel_for};
use crate::ops::window::Geometry;
use crate::ops::{Activation, Window, filled, scratch, with_elements, work};

/// Rows that are multiplied at a time, so that the kernel's blocks of rows are full.
const PRODUCT_ROWS: usize = 112;
/// A smaller wide image stays in the second-level cache anyway, and its weights are better read for several images at once.
const MIN_BYTES: usize = 512 << 10;

/// A convolution's weight, bias and activation.
pub type Layer<'a, W> = (&'a W, &'a Tensor, Activation);

/// `depthwise(activation(x · weight + bias))`, or `None` where one pass is of no use.
///
/// `x` has shape `(n, h, w, inputs)`, the first weight `(inputs, channels)`, the second `(kernel, kernel, channels)`; the
/// result has shape `(n, h', w', channels)`.
pub fn expand_depthwise(
    x: &Tensor,
    (expand, expand_bias, inner): Layer<dyn TileWeight + '_>,
    (weight, bias, activation): Layer<Tensor>,
    window: Window,
) -> Result<Option<Tensor>> {
    let (batch, height, width, inputs) = x.dims4()?;
    let (depth, channels) = expand.shape();
    let (Some(kernel), Some(_)) = (kernel_for(window), ring(window, height, width, channels)) else {
        return Ok(None);
    };
    let kept = Kept::new(window, width, channels);
    let fits = depth == inputs
        && weight.dims() == [window.kernel, window.kernel, channels]
        && [expand_bias, bias].iter().all(|bias| bias.elem_count() == channels);
    if !fits {
        return Ok(None);
    }
    let geometry = window.over(&[batch, height, width, channels])?;
    let Geometry { out_height, out_width, .. } = geometry;
    work::product(batch * height * width, inputs, channels);
    work::product(geometry.positions(), window.kernel * window.kernel, channels);
    with_elements([x, expand_bias, weight, bias], |elements| {
        let [x, expand_bias, weight, bias] = *elements else { unreachable!("four tensors were given") };
        let expand_bias = lines(expand_bias);
        let pass =
            Pass { expand, expand_bias: &expand_bias, inner, kept, kernel, unit: Unit::for_rows(height * width) };
        // Parts of an image compute the rows at their border twice.
        let parts = rayon::current_num_threads().div_ceil(batch.max(1));
        let rows = out_height.div_ceil(parts).max(1);
        let row_length = out_width * channels;
        let write = |space: &mut [MaybeUninit<f32>]| {
            let images =
                space.par_chunks_mut((out_height * row_length).max(1)).zip(x.par_chunks(height * width * inputs));
            images.for_each(|(space, image)| {
                space.par_chunks_mut(rows * row_length).enumerate().for_each(|(part, space)| {
                    let y = part * rows;
                    pass.write(
                        image,
                        Row { image: &[], held: kept.rows, weight, bias, geometry, y, activation },
                        space,
                    );
                });
            });
        };
        // SAFETY: the passes write whole rows, which are all of the space.
        unsafe { filled((batch, out_height, out_width, channels), write) }.map(Some)
    })
}

/// Floats of the ring of wide rows where the pass is of use for images of this height and width, and the most rows that are
/// multiplied at a time.
pub fn ring(window: Window, height: usize, width: usize, channels: usize) -> Option<[usize; 2]> {
    let kept = Kept::new(window, width, channels);
    let is_of_use = kernel_for(window).is_some()
        && height * width * channels * size_of::<f32>() > MIN_BYTES
        && kept.length() <= scratch::MAX_BYTES / size_of::<f32>();
    is_of_use.then(|| [kept.length(), kept.step * width])
}

/// The rows of the wide image that are kept, in a ring.
#[derive(Clone, Copy)]
struct Kept {
    rows: usize,
    /// How many are computed at a time; the ring holds a multiple, so that they lie together.
    step: usize,
    row_length: usize,
}

impl Kept {
    fn new(window: Window, width: usize, channels: usize) -> Self {
        let step = PRODUCT_ROWS.div_ceil(width.max(1));
        // The next step may begin when all but one row of the window are there.
        Self { rows: (window.kernel - 1 + step).next_multiple_of(step), step, row_length: width * channels }
    }

    fn length(self) -> usize {
        self.rows * self.row_length
    }
}

struct Pass<'a> {
    expand: &'a dyn TileWeight,
    expand_bias: &'a [Line],
    inner: Activation,
    kept: Kept,
    kernel: Kernel,
    unit: Unit,
}

impl Pass<'_> {
    /// Computes rows of the result from `first` on.
    fn write(&self, image: &[f32], first: Row, space: &mut [MaybeUninit<f32>]) {
        let Geometry { height, channels, out_width, .. } = first.geometry;
        scratch::with(self.kept.length(), |ring| {
            let mut computed = first.geometry.rows(first.y).0 / self.kept.step * self.kept.step;
            for (offset, space) in space.chunks_exact_mut(out_width * channels).enumerate() {
                let row = Row { y: first.y + offset, ..first };
                let (first_row, window_rows) = first.geometry.rows(row.y);
                while computed < first_row + window_rows.len() {
                    let rows = self.kept.step.min(height - computed);
                    self.expand(image, computed, &mut ring[computed % self.kept.rows * self.kept.row_length..], rows);
                    computed += rows;
                }
                (self.kernel)(Row { image: ring, ..row }, space);
            }
        });
    }

    /// Computes `rows` rows of the wide image from `first` on.
    fn expand(&self, image: &[f32], first: usize, wide: &mut [f32], rows: usize) {
        let (inputs, channels) = self.expand.shape();
        let width = self.kept.row_length / channels;
        let tile = Tile {
            rows: &image[first * width * inputs..][..rows * width * inputs],
            bias: self.expand_bias,
            residual: None,
            activation: self.inner,
            unit: self.unit,
            is_shared: false,
        };
        self.expand.multiply(&tile, Target::holding(&mut wide[..rows * self.kept.row_length], channels));
    }
}
