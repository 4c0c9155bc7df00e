//! The depthwise convolution alone, with its gradients.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Depthwise, depthwise};
use crate::ops::Activation;
use crate::ops::backward::{column_sums, gradient, read, sum_in_order};
use crate::ops::window::{Geometry, Padding, Window};

/// `depthwise convolution(x) + bias`.
pub struct Tracked {
    pub window: Window,
}

impl CustomOp3 for Tracked {
    fn name(&self) -> &'static str {
        "tracked-depthwise"
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
        let op = Depthwise { window: self.window, activation: Activation::None };
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
        let upstream = upstream.contiguous()?;
        let of_x = x.track_op().then(|| input_gradient(&upstream, x, &weight.detach(), geometry)).transpose()?;
        let of_weight = weight.track_op().then(|| {
            read([x, &upstream], |[inputs, upstream]| gradient(weight_gradient(inputs, upstream, geometry), weight))
        });
        let of_bias = bias
            .track_op()
            .then(|| read([&upstream], |[upstream]| gradient(column_sums(upstream, geometry.channels), bias)));
        Ok((of_x, of_weight.transpose()?, of_bias.transpose()?))
    }
}

/// The gradients of `x` if it is wanted, the weight and the bias of `depthwise convolution(x) + bias`, which runs as a
/// kernel, given that of the result.
pub fn depthwise_backward(
    x: &Tensor,
    weight: &Tensor,
    window: Window,
    upstream: &Tensor,
    wants_x: bool,
) -> Result<(Option<Tensor>, Tensor, Tensor)> {
    let geometry = window.over(x.dims())?;
    let (x, upstream) = (x.contiguous()?, upstream.contiguous()?);
    let of_x = wants_x.then(|| input_gradient(&upstream, &x, &weight.detach(), geometry)).transpose()?;
    let (of_weight, of_bias) = read([&x, &upstream], |[inputs, values]| {
        let of_bias = Tensor::from_vec(column_sums(values, geometry.channels), geometry.channels, x.device())?;
        Ok((gradient(weight_gradient(inputs, values, geometry), weight)?, of_bias))
    })?;
    Ok((of_x, of_weight, of_bias))
}

/// The gradient of `x`, which is of the weight's turned window where that is a convolution itself.
fn input_gradient(upstream: &Tensor, x: &Tensor, weight: &Tensor, geometry: Geometry) -> Result<Tensor> {
    let Window { kernel, stride, padding } = geometry.window;
    if let Padding::Each(padding) = padding
        && stride == 1
        && padding < kernel
    {
        let turned = read([weight], |[weights]| {
            let places = weights.chunks_exact(geometry.channels.max(1)).rev();
            gradient(places.flatten().copied().collect(), weight)
        })?;
        let no_bias = turned.zeros_like()?.narrow(0, 0, 1)?.narrow(1, 0, 1)?.flatten_all()?;
        let window = Window { kernel, stride, padding: Padding::Each(kernel - 1 - padding) };
        return depthwise(upstream, &turned, &no_bias, window, Activation::None);
    }
    read([upstream, weight], |[upstream, weights]| {
        let Geometry { height, width, channels, .. } = geometry;
        let mut result = vec![0.0; x.elem_count()];
        result.par_chunks_mut((width * channels).max(1)).enumerate().for_each(|(index, row)| {
            let row_of = Row { upstream, weights, geometry, image: index / height, y: index % height };
            vectorized!(|| row_of.compute(row));
        });
        gradient(result, x)
    })
}

/// One row of an image's gradient.
struct Row<'a> {
    upstream: &'a [f32],
    weights: &'a [f32],
    geometry: Geometry,
    image: usize,
    y: usize,
}

impl Row<'_> {
    #[inline(always)]
    fn compute(&self, row: &mut [f32]) {
        let channels = self.geometry.channels;
        for (x, pixel) in row.chunks_exact_mut(channels).enumerate() {
            let wide = channels / 16 * 16;
            (0..wide).step_by(16).for_each(|channel| self.pixel::<16>(pixel, x, channel));
            (wide..channels).for_each(|channel| self.pixel::<1>(pixel, x, channel));
        }
    }

    /// Sums over the windows that hold pixel `x`, for `LANES` channels.
    #[inline(always)]
    fn pixel<const LANES: usize>(&self, pixel: &mut [f32], x: usize, channel: usize) {
        let Geometry { window, channels, top, left, out_height, out_width, .. } = self.geometry;
        let mut sums = [0.0; LANES];
        for (window_row, y) in holders(self.y + top, window, out_height) {
            for (window_column, x) in holders(x + left, window, out_width) {
                let position = (self.image * out_height + y) * out_width + x;
                let upstream = lanes::<LANES>(&self.upstream[position * channels + channel..]);
                let place = window_row * window.kernel + window_column;
                let weight = lanes::<LANES>(&self.weights[place * channels + channel..]);
                for lane in 0..LANES {
                    sums[lane] += upstream[lane] * weight[lane];
                }
            }
        }
        pixel[channel..channel + LANES].copy_from_slice(&sums);
    }
}

/// Along one axis, the windows that hold padded input `place`: place within the window, and index of the window.
#[inline(always)]
fn holders(place: usize, window: Window, outputs: usize) -> impl Iterator<Item = (usize, usize)> {
    let Window { kernel, stride, .. } = window;
    let within = (place % stride..kernel.min(place + 1)).step_by(stride);
    within.map(move |inside| (inside, (place - inside) / stride)).filter(move |(_, output)| *output < outputs)
}

/// Output rows that one task sums: a fixed number, so that sums do not depend on the number of threads.
pub const TASK_ROWS: usize = 16;

/// `(kernel, kernel, channels)`.
fn weight_gradient(x: &[f32], upstream: &[f32], geometry: Geometry) -> Vec<f32> {
    let Geometry { window, batch, height, width, channels, out_height, out_width, .. } = geometry;
    let tasks_per_image = out_height.div_ceil(TASK_ROWS);
    let length = window.kernel * window.kernel * channels;
    let parts = (0..batch * tasks_per_image).into_par_iter().map(|task| {
        let image = task / tasks_per_image;
        let first = task % tasks_per_image * TASK_ROWS;
        let rows = Rows {
            image: &x[image * height * width * channels..],
            upstream: &upstream[image * out_height * out_width * channels..],
            geometry,
            rows: first..out_height.min(first + TASK_ROWS),
        };
        let mut sums = vec![0.0; length];
        vectorized!(|| rows.compute(&mut sums));
        sums
    });
    sum_in_order(parts.collect(), length)
}

/// Some output rows of one image.
struct Rows<'a> {
    image: &'a [f32],
    upstream: &'a [f32],
    geometry: Geometry,
    rows: std::ops::Range<usize>,
}

impl Rows<'_> {
    #[inline(always)]
    fn compute(&self, sums: &mut [f32]) {
        let channels = self.geometry.channels;
        let wide = channels / 16 * 16;
        (0..wide).step_by(16).for_each(|channel| self.lanes::<16>(sums, channel));
        (wide..channels).for_each(|channel| self.lanes::<1>(sums, channel));
    }

    /// All places of the window for `LANES` channels: a row of places at once where registers hold it.
    #[inline(always)]
    fn lanes<const LANES: usize>(&self, sums: &mut [f32], channel: usize) {
        let kernel = self.geometry.window.kernel;
        for row in 0..kernel {
            match kernel {
                3 => self.places::<LANES, 3>(sums, channel, row, 0),
                5 => self.places::<LANES, 5>(sums, channel, row, 0),
                7 => self.places::<LANES, 7>(sums, channel, row, 0),
                _ => (0..kernel).for_each(|column| self.places::<LANES, 1>(sums, channel, row, column)),
            }
        }
    }

    /// `COUNT` places of one row of the window, from `column` on.
    #[inline(always)]
    fn places<const LANES: usize, const COUNT: usize>(
        &self,
        sums: &mut [f32],
        channel: usize,
        row: usize,
        column: usize,
    ) {
        let Geometry { window: Window { kernel, stride, .. }, height, width, channels, top, left, out_width, .. } =
            self.geometry;
        // The outputs for which all these places lie inside the image.
        let first_inner = left.saturating_sub(column).div_ceil(stride).min(out_width);
        let inner = (width + left + stride).saturating_sub(COUNT + column) / stride;
        let end_inner = inner.clamp(first_inner, out_width);
        let mut totals = [[0.0; LANES]; COUNT];
        for y in self.rows.clone() {
            let Some(image_y) = (y * stride + row).checked_sub(top).filter(|y| *y < height) else { continue };
            let image_row = &self.image[image_y * width * channels..];
            let upstream_row = &self.upstream[y * out_width * channels..];
            for x in (0..first_inner).chain(end_inner..out_width) {
                let upstream = lanes::<LANES>(&upstream_row[x * channels + channel..]);
                for (place, total) in totals.iter_mut().enumerate() {
                    let inside = (x * stride + column + place).checked_sub(left).filter(|x| *x < width);
                    let Some(image_x) = inside else { continue };
                    multiply_add(total, &upstream, &image_row[image_x * channels + channel..]);
                }
            }
            for x in first_inner..end_inner {
                let upstream = lanes::<LANES>(&upstream_row[x * channels + channel..]);
                let from = (x * stride + column - left) * channels + channel;
                for (place, total) in totals.iter_mut().enumerate() {
                    multiply_add(total, &upstream, &image_row[from + place * channels..]);
                }
            }
        }
        for (place, total) in totals.iter().enumerate() {
            sums[(row * kernel + column + place) * channels + channel..][..LANES].copy_from_slice(total);
        }
    }
}

#[inline(always)]
fn multiply_add<const LANES: usize>(total: &mut [f32; LANES], upstream: &[f32; LANES], inputs: &[f32]) {
    let inputs = lanes::<LANES>(inputs);
    for lane in 0..LANES {
        total[lane] += upstream[lane] * inputs[lane];
    }
}

#[inline(always)]
fn lanes<const LANES: usize>(values: &[f32]) -> [f32; LANES] {
    *values.first_chunk().expect("channels are counted in whole lanes")
}
