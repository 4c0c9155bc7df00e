//! The convolution alone, with its gradients: matrix products with gathered windows, and windows scattered back.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::ops::backward::{add, column_sums, gradient, read};
use crate::ops::packed::{
    ConvWeight, PackedMatrix, Product, Rows, Start, Target, Unit, WinogradWeight, apart, lines, passing, suits,
};
use crate::ops::products::{TILE_ROWS, row_gradients, weight_gradients};
use crate::ops::window::{Geometry, Padding, Window};
use crate::ops::{Activation, elements, output, scratch};

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
        let geometry = self.window.over(x_layout.dims())?;
        let (kernel, _, inputs, outputs) = weight_layout.shape().dims4()?;
        let bias = elements(bias, bias_layout)?;
        if kernel != self.window.kernel || inputs != geometry.channels || bias.len() != outputs {
            candle_core::bail!("conv weight {:?} does not fit input {:?}", weight_layout.dims(), x_layout.dims());
        }
        let weight = passing(elements(weight, weight_layout)?, self.window, [inputs, outputs]);
        let result = weight.conv_values(elements(x, x_layout)?, &geometry, bias, Activation::None, None);
        Ok(output(result, (geometry.batch, geometry.out_height, geometry.out_width, outputs)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let wanted = [x, weight, bias].map(Tensor::track_op);
        let [of_x, of_weight, of_bias] = gradients(x, weight, self.window, upstream, wanted)?;
        Ok((of_x, of_weight, of_bias))
    }
}

/// The gradients of `x` if it is wanted, the weight and the bias of `convolution(x) + bias` on the CPU, given the result's.
pub fn conv_backward(
    x: &Tensor,
    weight: &Tensor,
    window: Window,
    upstream: &Tensor,
    wants_x: bool,
) -> Result<(Option<Tensor>, Tensor, Tensor)> {
    match gradients(x, weight, window, upstream, [wants_x, true, true])? {
        [of_x, Some(of_weight), Some(of_bias)] => Ok((of_x, of_weight, of_bias)),
        _ => candle_core::bail!("a gradient that was wanted is there"),
    }
}

/// Those that are wanted of `x`, weight and bias.
fn gradients(
    x: &Tensor,
    weight: &Tensor,
    window: Window,
    upstream: &Tensor,
    wanted: [bool; 3],
) -> Result<[Option<Tensor>; 3]> {
    let geometry = window.over(x.dims())?;
    let (_, _, _, outputs) = weight.dims4()?;
    let depth = weight.elem_count() / outputs.max(1);
    read([&x.contiguous()?, weight, &upstream.contiguous()?], |[inputs, weights, upstream]| {
        let of_x = wanted[0].then(|| {
            if window == Window::centered(1, 1) {
                return gradient(row_gradients(upstream, weights, outputs), x);
            }
            let values = if let Some(over_upstream) = as_convolution(&geometry, outputs) {
                let zeros = vec![0.0; geometry.channels];
                let weights = WinogradWeight::of_gradient(weights, outputs);
                weights.conv_values(upstream, &over_upstream, &zeros, Activation::None, None)
            } else {
                input_gradient(upstream, &PackedMatrix::turned(weights, outputs, None), &geometry)
            };
            gradient(values, x)
        });
        let of_weight = wanted[1].then(|| {
            if window == Window::centered(1, 1) {
                let rows = |first: usize, _, add: &mut dyn FnMut(&[f32], usize)| add(&inputs[first * depth..], depth);
                return gradient(weight_gradients(upstream, [depth, outputs], rows), weight);
            }
            gradient(weight_gradient(inputs, upstream, [depth, outputs], &geometry), weight)
        });
        let of_bias = wanted[2].then(|| Tensor::from_vec(column_sums(upstream, outputs), outputs, x.device()));
        Ok([of_x.transpose()?, of_weight.transpose()?, of_bias.transpose()?])
    })
}

/// The windows over the result's gradient that give the input's, with a weight [`WinogradWeight::of_gradient`], where windows are
/// a pixel apart and that is the faster way.
pub fn as_convolution(geometry: &Geometry, outputs: usize) -> Option<Geometry> {
    let Geometry { window, batch, height, width, channels, top, left, out_height, out_width } = *geometry;
    if !suits(window, outputs, channels) || top != left || top >= window.kernel {
        return None;
    }
    let padding = window.kernel - 1 - top;
    Some(Geometry {
        window: Window { padding: Padding::Each(padding), ..window },
        batch,
        height: out_height,
        width: out_width,
        channels: outputs,
        top: padding,
        left: padding,
        out_height: height,
        out_width: width,
    })
}

/// `weights` is of `outputs` rows and `kernel · kernel · channels` columns.
///
/// A task owns a band of an image's rows and computes every window that touches it, so no sum depends on its neighbours.
fn input_gradient(upstream: &[f32], weights: &PackedMatrix, geometry: &Geometry) -> Vec<f32> {
    let Geometry { batch, height, width, channels, out_height, out_width, .. } = *geometry;
    let mut result = vec![0.0; batch * height * width * channels];
    // Bands share windows at their borders, so an image is cut only when there are too few images.
    let bands = rayon::current_num_threads().div_ceil(batch.max(1)).min(height);
    let band_rows = height.div_ceil(bands);
    let image_upstream = (out_height * out_width * weights.depth()).max(1);
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
    fn fill(&mut self, upstream: &[f32], weights: &PackedMatrix) {
        let Geometry { window: Window { kernel, stride, .. }, width, channels, top, out_height, out_width, .. } =
            *self.geometry;
        let end_row = self.first_row + self.pixels.len() / (width * channels);
        // Windows from the first whose last row is in the band to the last whose first row is.
        let first = (self.first_row + top + 1).saturating_sub(kernel).div_ceil(stride) * out_width;
        let end = ((end_row - 1 + top) / stride + 1).min(out_height) * out_width;
        let (outputs, depth) = (weights.depth(), weights.columns());
        let zeros = lines(&vec![0.0; depth]);
        // More would push the windows out of the cache before they are scattered.
        let step = (scratch::MAX_BYTES / size_of::<f32>() / depth.max(1)).clamp(1, TILE_ROWS);
        for position in (first..end).step_by(step) {
            let count = step.min(end - position);
            scratch::with(count * depth, |windows| {
                let product = Product {
                    rows: Rows::dense(&upstream[position * outputs..][..count * outputs], count, outputs),
                    weight: weights,
                    depth: 0..outputs,
                    panels: 0..weights.panels(),
                    start: Start::Bias(&zeros),
                    residual: None,
                    activation: Activation::None,
                    unit: Unit::Tiles,
                };
                product.write(Target::holding(windows, depth));
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

/// `shape` is `kernel · kernel · channels` by `outputs`.
fn weight_gradient(x: &[f32], upstream: &[f32], shape: [usize; 2], geometry: &Geometry) -> Vec<f32> {
    let stride = apart(shape[0]);
    weight_gradients(upstream, shape, |first, count, add| {
        scratch::with(count * stride, |windows| {
            gather(x, geometry, first, windows, stride);
            add(windows, stride);
        });
    })
}

/// Writes one row of `(kernel, kernel, channels)` input values per output position, from position `first` on; rows are `stride`
/// apart.
fn gather(x: &[f32], geometry: &Geometry, first: usize, windows: &mut [f32], stride: usize) {
    let Geometry { window: Window { kernel, .. }, height, width, channels, out_height, out_width, .. } = *geometry;
    for (index, row) in windows.chunks_exact_mut(stride).enumerate() {
        let row = &mut row[..kernel * kernel * channels];
        let position = first + index;
        let (image, y, column) =
            (position / (out_height * out_width), position / out_width % out_height, position % out_width);
        let (first_y, window_rows) = geometry.rows(y);
        let (first_x, window_columns) = geometry.columns(column);
        if window_rows.len() < kernel || window_columns.len() < kernel {
            row.fill(0.0);
        }
        let length = window_columns.len() * channels;
        for (offset, window_row) in window_rows.enumerate() {
            let from = ((image * height + first_y + offset) * width + first_x) * channels;
            let to = (window_row * kernel + window_columns.start) * channels;
            row[to..to + length].copy_from_slice(&x[from..from + length]);
        }
    }
}
