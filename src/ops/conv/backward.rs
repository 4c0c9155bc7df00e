//! The convolution alone, with its gradients: matrix products with gathered windows, and windows scattered back.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Conv, gather};
use crate::ops::backward::{add, column_sums, gradient, read, sum_in_order};
use crate::ops::gemm::{Matrix, accumulate, multiply};
use crate::ops::window::{Geometry, Window};
use crate::ops::{Activation, scratch};

/// `convolution(x) + bias`.
pub struct Tracked {
    pub window: Window,
}

impl CustomOp3 for Tracked {
    fn name(&self) -> &'static str {
        "tracked-conv"
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
        let op = Conv { window: self.window, activation: Activation::None, residual: None };
        op.cpu_fwd(x, x_layout, weight, weight_layout, bias, bias_layout)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let geometry = self.window.over(x.dims())?;
        let outputs = bias.elem_count();
        let depth = weight.elem_count() / outputs.max(1);
        read([x, weight, &upstream.contiguous()?], |[inputs, weights, upstream]| {
            let of_x = x.track_op().then(|| {
                let weights = Matrix::row_major(weights, depth, outputs).transposed();
                gradient(input_gradient(upstream, weights, &geometry), x)
            });
            let of_weight = weight.track_op().then(|| {
                let upstream = Matrix::row_major(upstream, upstream.len() / outputs.max(1), outputs);
                gradient(weight_gradient(inputs, upstream, depth, &geometry), weight)
            });
            let of_bias = bias.track_op().then(|| gradient(column_sums(upstream, outputs), bias));
            Ok((of_x.transpose()?, of_weight.transpose()?, of_bias.transpose()?))
        })
    }
}

/// Gathered windows that one task holds at once.
fn max_windows(depth: usize) -> usize {
    (scratch::MAX_BYTES / size_of::<f32>() / depth.max(1)).max(1)
}

/// `weights` is `(outputs, kernel · kernel · channels)`.
///
/// A task owns a band of an image's rows and computes every window that touches it, so no sum depends on its neighbours.
fn input_gradient(upstream: &[f32], weights: Matrix, geometry: &Geometry) -> Vec<f32> {
    let Geometry { batch, height, width, channels, out_height, out_width, .. } = *geometry;
    let mut result = vec![0.0; batch * height * width * channels];
    // Bands share windows at their borders, so an image is cut only when there are too few images.
    let bands = rayon::current_num_threads().div_ceil(batch.max(1)).min(height);
    let band_rows = height.div_ceil(bands);
    let image_upstream = (out_height * out_width * weights.rows).max(1);
    let images = result.par_chunks_mut((height * width * channels).max(1));
    images.zip(upstream.par_chunks(image_upstream)).for_each(|(image, upstream)| {
        image.par_chunks_mut((band_rows * width * channels).max(1)).enumerate().for_each(|(index, pixels)| {
            Band { pixels, first_row: index * band_rows, geometry }.fill(upstream, weights);
        });
    });
    result
}

/// Some rows of one image's gradient.
struct Band<'a> {
    pixels: &'a mut [f32],
    first_row: usize,
    geometry: &'a Geometry,
}

impl Band<'_> {
    fn fill(&mut self, upstream: &[f32], weights: Matrix) {
        let Geometry { window: Window { kernel, stride, .. }, width, channels, top, out_height, out_width, .. } =
            *self.geometry;
        let end_row = self.first_row + self.pixels.len() / (width * channels);
        // Windows from the first whose last row is in the band to the last whose first row is.
        let first = (self.first_row + top + 1).saturating_sub(kernel).div_ceil(stride) * out_width;
        let end = ((end_row - 1 + top) / stride + 1).min(out_height) * out_width;
        let (outputs, depth) = (weights.rows, weights.columns);
        let step = max_windows(depth).min(256);
        for position in (first..end).step_by(step) {
            let count = step.min(end - position);
            scratch::with(count * depth, |windows| {
                let upstream = Matrix::row_major(&upstream[position * outputs..], count, outputs);
                multiply(windows, depth, upstream, weights, 1.0);
                vectorized!(|| self.scatter(windows, depth, position));
            });
        }
    }

    /// Adds windows, the first of which is at `position`, to the pixels they were taken from.
    #[inline(always)]
    fn scatter(&mut self, windows: &[f32], depth: usize, position: usize) {
        let Geometry { window: Window { kernel, .. }, width, channels, out_width, .. } = *self.geometry;
        let rows = self.first_row..self.first_row + self.pixels.len() / (width * channels);
        for (index, window) in windows.chunks_exact(depth).enumerate() {
            let position = position + index;
            let (first_y, window_rows) = self.geometry.rows(position / out_width);
            let (first_x, window_columns) = self.geometry.columns(position % out_width);
            let length = window_columns.len() * channels;
            for (offset, window_row) in window_rows.enumerate() {
                if !rows.contains(&(first_y + offset)) {
                    continue;
                }
                let to = ((first_y + offset - rows.start) * width + first_x) * channels;
                let from = (window_row * kernel + window_columns.start) * channels;
                add(&mut self.pixels[to..to + length], &window[from..from + length]);
            }
        }
    }
}

/// `(kernel · kernel · channels, outputs)`: each task sums over its share of the windows.
fn weight_gradient(x: &[f32], upstream: Matrix, depth: usize, geometry: &Geometry) -> Vec<f32> {
    let (windows, outputs) = (upstream.rows, upstream.columns);
    let share = windows.div_ceil(rayon::current_num_threads()).max(1);
    let parts = (0..windows.div_ceil(share)).into_par_iter().map(|task| {
        let mut sums = vec![0.0; depth * outputs];
        let end = windows.min((task + 1) * share);
        let step = max_windows(depth);
        for first in (task * share..end).step_by(step) {
            let count = step.min(end - first);
            scratch::with(count * depth, |space| {
                gather(x, geometry, first, space);
                let windows = Matrix::row_major(space, count, depth).transposed();
                let upstream = Matrix::row_major(&upstream.elements[first * outputs..], count, outputs);
                accumulate(&mut sums, outputs, windows, upstream);
            });
        }
        sums
    });
    sum_in_order(parts.collect(), depth * outputs)
}
