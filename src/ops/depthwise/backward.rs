//! The depthwise convolution alone, with its gradients.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Depthwise, depthwise};
use crate::ops::Activation;
use crate::ops::backward::{column_sums, gradient, read, sum_in_order};
use crate::ops::simd::{load, store};
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
            read([x, &upstream], |[inputs, upstream]| gradient(weight_gradient(inputs, upstream, geometry)?, weight))
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
        Ok((gradient(weight_gradient(inputs, values, geometry)?, weight)?, of_bias))
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

#[inline(always)]
fn lanes<const LANES: usize>(values: &[f32]) -> [f32; LANES] {
    *values.first_chunk().expect("channels are counted in whole lanes")
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
fn weight_gradient(x: &[f32], upstream: &[f32], geometry: Geometry) -> Result<Vec<f32>> {
    let Geometry { window, batch, height, width, channels, out_height, out_width, .. } = geometry;
    let sum = match (window.kernel, window.stride) {
        (3, 1) => Rows::sum::<3, 1>,
        (3, 2) => Rows::sum::<3, 2>,
        (5, 1) => Rows::sum::<5, 1>,
        (5, 2) => Rows::sum::<5, 2>,
        (7, 1) => Rows::sum::<7, 1>,
        (7, 2) => Rows::sum::<7, 2>,
        _ => candle_core::bail!("there is no depthwise kernel for {window:?}"),
    };
    let tasks_per_image = out_height.div_ceil(TASK_ROWS);
    let parts = (0..batch * tasks_per_image).into_par_iter().map(|task| {
        let image = task / tasks_per_image;
        let first = task % tasks_per_image * TASK_ROWS;
        let (image_length, result_length) = (height * width * channels, out_height * out_width * channels);
        sum(Rows {
            image: &x[image * image_length..][..image_length],
            upstream: &upstream[image * result_length..][..result_length],
            geometry,
            rows: first..out_height.min(first + TASK_ROWS),
        })
    });
    Ok(sum_in_order(parts.collect(), window.kernel * window.kernel * channels))
}

/// Some output rows of one image.
struct Rows<'a> {
    image: &'a [f32],
    upstream: &'a [f32],
    geometry: Geometry,
    rows: std::ops::Range<usize>,
}

impl Rows<'_> {
    /// `upstream · input`, summed for each place of the window.
    fn sum<const KERNEL: usize, const STRIDE: usize>(self) -> Vec<f32> {
        let mut sums = vec![0.0; KERNEL * KERNEL * self.geometry.channels];
        pulp::Arch::new().dispatch(Sum::<KERNEL, STRIDE> { rows: self, sums: &mut sums });
        sums
    }
}

/// Rows whose slices are whole, and zeros for the sums.
struct Sum<'a, const KERNEL: usize, const STRIDE: usize> {
    rows: Rows<'a>,
    sums: &'a mut [f32],
}

impl<const KERNEL: usize, const STRIDE: usize> WithSimd for Sum<'_, KERNEL, STRIDE> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let channels = self.rows.geometry.channels;
        let lanes = size_of::<S::f32s>() / size_of::<f32>();
        for channel in (0..channels).step_by(lanes) {
            if channels < lanes {
                self.channels::<S, false>(simd, 0);
            } else {
                // The last channels are summed together with some before them, a second time with the same result.
                self.channels::<S, true>(simd, channel.min(channels - lanes));
            }
        }
    }
}

impl<const KERNEL: usize, const STRIDE: usize> Sum<'_, KERNEL, STRIDE> {
    /// All places of the window for a register of channels from `channel` on, or for the few there are (not `FULL`).
    ///
    /// An output row after the other, so that it and the rows it sees stay in the first-level cache.
    #[inline(always)]
    fn channels<S: Simd, const FULL: bool>(&mut self, simd: S, channel: usize) {
        let Rows { image, upstream, geometry, rows } = &self.rows;
        let Geometry { width, channels, out_width, .. } = *geometry;
        let mut totals = [[simd.splat_f32s(0.0); KERNEL]; KERNEL];
        for y in rows.clone() {
            let (first_y, window_rows) = geometry.rows(y);
            let upstream = &upstream[y * out_width * channels..][..out_width * channels];
            for (offset, window_row) in window_rows.enumerate() {
                let image = &image[(first_y + offset) * width * channels..][..width * channels];
                let row = RowPair { image, upstream, geometry, channel };
                // SAFETY: both are whole rows, which have these channels.
                unsafe { row.add::<S, KERNEL, STRIDE, FULL>(simd, &mut totals[window_row]) };
            }
        }
        let count = if FULL { size_of::<S::f32s>() / size_of::<f32>() } else { channels };
        for (place, total) in totals.as_flattened().iter().enumerate() {
            let sums = &mut self.sums[place * channels + channel..][..count];
            // SAFETY: so many values.
            unsafe { store(simd, sums.as_mut_ptr(), count, *total) };
        }
    }
}

/// A row of the result, and one of the input that a row of the window sees from there.
struct RowPair<'a> {
    image: &'a [f32],
    upstream: &'a [f32],
    geometry: &'a Geometry,
    channel: usize,
}

impl RowPair<'_> {
    /// Adds to the sums of a row of the window, which stay in registers.
    ///
    /// # Safety
    /// Both rows must be whole and have a register of channels from `channel` on, or, when not `FULL`, no more than one.
    #[inline(always)]
    unsafe fn add<S: Simd, const KERNEL: usize, const STRIDE: usize, const FULL: bool>(
        &self,
        simd: S,
        totals: &mut [S::f32s; KERNEL],
    ) {
        let out_width = self.geometry.out_width;
        let (mut sums, mut x) = (*totals, 0);
        while x < out_width {
            // SAFETY: the caller's promise, and so many outputs are left.
            x += unsafe {
                match out_width - x {
                    7.. => self.pixels::<S, 7, KERNEL, STRIDE, FULL>(simd, &mut sums, x),
                    _ => self.pixels::<S, 1, KERNEL, STRIDE, FULL>(simd, &mut sums, x),
                }
            };
        }
        *totals = sums;
    }

    /// Adds the products of `PIXELS` outputs from column `x` on. Returns `PIXELS`.
    ///
    /// These outputs stay in registers while each input that they see is loaded once.
    ///
    /// # Safety
    /// As for [`Self::add`], and the outputs lie in the row.
    #[inline(always)]
    unsafe fn pixels<S: Simd, const PIXELS: usize, const KERNEL: usize, const STRIDE: usize, const FULL: bool>(
        &self,
        simd: S,
        sums: &mut [S::f32s; KERNEL],
        x: usize,
    ) -> usize {
        let Geometry { width, channels, left, .. } = *self.geometry;
        let count = if FULL { size_of::<S::f32s>() / size_of::<f32>() } else { channels };
        // SAFETY: here and below: columns and channels lie inside the rows, as the caller promises.
        let load = |row: &[f32], column: usize| unsafe {
            load(simd, row.as_ptr().add(column * channels + self.channel), count)
        };
        let upstream: [S::f32s; PIXELS] = std::array::from_fn(|pixel| load(self.upstream, x + pixel));
        unroll!(INPUT in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18] {
            if const { INPUT < (PIXELS - 1) * STRIDE + KERNEL } {
                let column = (x * STRIDE + INPUT).wrapping_sub(left);
                if column < width {
                    let input = load(self.image, column);
                    for (pixel, upstream) in upstream.into_iter().enumerate() {
                        if (pixel * STRIDE..pixel * STRIDE + KERNEL).contains(&INPUT) {
                            let place = INPUT - pixel * STRIDE;
                            sums[place] = simd.mul_add_f32s(input, upstream, sums[place]);
                        }
                    }
                }
            }
        });
        PIXELS
    }
}
