//! Depthwise convolution: each channel with its own window. Rows in parallel, channels in vector registers.

mod backward;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::composed::Windows;
use super::residual::activate_sum;
use super::window::{Geometry, Padding, Window};
use super::{Activation, elements, has_kernel, is_tracked, output, vectorized, work};

/// `activation(depthwise convolution(x) + bias)`.
///
/// `x` has shape `(n, h, w, channels)`, `weight` `(kernel, kernel, channels)`, `bias` `(channels)`; the result has
/// shape `(n, h', w', channels)`. Windows that hang over the end ([`Padding::Ceil`]) are an error.
pub fn depthwise(x: &Tensor, weight: &Tensor, bias: &Tensor, window: Window, activation: Activation) -> Result<Tensor> {
    if window.padding == Padding::Ceil {
        candle_core::bail!("a convolution's windows lie inside its padded input");
    }
    let geometry = window.over(x.dims())?;
    work::product(geometry.positions(), window.kernel * window.kernel, geometry.channels);
    if !has_kernel(x) {
        return composed(x, weight, bias, window, activation);
    }
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    if is_tracked(&[&x, &weight, &bias]) {
        return activate_sum(x.apply_op3(&weight, &bias, backward::Tracked { window })?, None, activation);
    }
    x.apply_op3_no_bwd(&weight, &bias, &Depthwise { window, activation })
}

/// The same composed of candle operations: one product per place of the window.
pub(crate) fn composed(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    window: Window,
    activation: Activation,
) -> Result<Tensor> {
    let windows = Windows::new(x, window, 0.0)?;
    let mut sum: Option<Tensor> = None;
    for (row, column) in windows.places() {
        let weight = weight.narrow(0, row, 1)?.narrow(1, column, 1)?.flatten_all()?;
        let product = windows.at(row, column)?.broadcast_mul(&weight)?;
        sum = Some(if let Some(sum) = sum { (sum + product)? } else { product });
    }
    let Some(sum) = sum else { candle_core::bail!("a window has at least one place") };
    activation.composed(&sum.broadcast_add(bias)?)
}

struct Depthwise {
    window: Window,
    activation: Activation,
}

impl CustomOp3 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise"
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
        let Geometry { batch, channels, out_height, out_width, .. } = geometry;
        let bias = elements(bias, bias_layout)?;
        if weight_layout.dims() != [self.window.kernel, self.window.kernel, channels] || bias.len() != channels {
            candle_core::bail!("depthwise weight {:?} does not fit {channels} channels", weight_layout.dims());
        }
        let (x, weight) = (elements(x, x_layout)?, elements(weight, weight_layout)?);
        let mut result = vec![0.0; batch * out_height * out_width * channels];
        let row_length = (out_width * channels).max(1);
        result.par_chunks_mut(row_length).enumerate().for_each(|(index, row)| {
            let image = &x[index / out_height * geometry.height * geometry.width * channels..];
            let row_of = Row { image, weight, bias, geometry, y: index % out_height };
            vectorized(|| row_of.compute(row));
            self.activation.apply(row);
        });
        Ok(output(result, (batch, out_height, out_width, channels)))
    }
}

/// One output row of one image.
struct Row<'a> {
    image: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    geometry: Geometry,
    y: usize,
}

/// Neighbouring outputs computed together share each weight that is loaded.
const PIXELS: usize = 4;

impl Row<'_> {
    #[inline(always)]
    fn compute(&self, row: &mut [f32]) {
        let channels = self.geometry.channels;
        let (wide, eighth) = (channels / 16 * 16, channels / 8 * 8);
        (0..wide).step_by(16).for_each(|channel| self.lanes::<16>(row, channel));
        (wide..eighth).step_by(8).for_each(|channel| self.lanes::<8>(row, channel));
        (eighth..channels).for_each(|channel| self.lanes::<1>(row, channel));
    }

    /// The whole row for `LANES` channels from `channel` on.
    #[inline(always)]
    fn lanes<const LANES: usize>(&self, row: &mut [f32], channel: usize) {
        let Geometry { window, width, left, out_width, .. } = self.geometry;
        // The outputs whose windows lie inside the image's width.
        let first_inner = left.div_ceil(window.stride).min(out_width);
        let inner = (width + left + window.stride).saturating_sub(window.kernel) / window.stride;
        let end_inner = inner.clamp(first_inner, out_width);
        let groups_end = first_inner + (end_inner - first_inner) / PIXELS * PIXELS;
        (0..first_inner).for_each(|x| self.pixels::<LANES, 1>(row, channel, x));
        (first_inner..groups_end).step_by(PIXELS).for_each(|x| self.pixels::<LANES, PIXELS>(row, channel, x));
        (groups_end..out_width).for_each(|x| self.pixels::<LANES, 1>(row, channel, x));
    }

    /// `COUNT` neighbouring outputs from column `x` on, which share the window columns of the first.
    #[inline(always)]
    fn pixels<const LANES: usize, const COUNT: usize>(&self, row: &mut [f32], channel: usize, x: usize) {
        let Geometry { window, width, channels, .. } = self.geometry;
        let (first_y, window_rows) = self.geometry.rows(self.y);
        let (first_x, window_columns) = self.geometry.columns(x);
        let mut sums = [lanes::<LANES>(&self.bias[channel..]); COUNT];
        for (offset, window_row) in window_rows.enumerate() {
            let from = ((first_y + offset) * width + first_x) * channels + channel;
            let weights = (window_row * window.kernel + window_columns.start) * channels + channel;
            for column in 0..window_columns.len() {
                let weight = lanes::<LANES>(&self.weight[weights + column * channels..]);
                for (pixel, sum) in sums.iter_mut().enumerate() {
                    let input = lanes::<LANES>(&self.image[from + (column + pixel * window.stride) * channels..]);
                    for lane in 0..LANES {
                        sum[lane] += input[lane] * weight[lane];
                    }
                }
            }
        }
        for (pixel, sum) in sums.iter().enumerate() {
            row[(x + pixel) * channels + channel..][..LANES].copy_from_slice(sum);
        }
    }
}

#[inline(always)]
fn lanes<const LANES: usize>(values: &[f32]) -> [f32; LANES] {
    *values.first_chunk().expect("channels are counted in whole lanes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, assert_gradients, candle_conv, random, views};

    #[test]
    fn equals_candles_own_and_its_composed_form() -> Result<()> {
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (7, 2)] {
            for padding in [Padding::Each(kernel / 2), Padding::Same, Padding::Each(0)] {
                for (height, width, channels) in [(7, 7, 3), (8, 13, 16), (9, 11, 43)] {
                    let window = Window { kernel, stride, padding };
                    let (weight, bias) = (random(&[kernel, kernel, channels], 2)?, random(&[channels], 3)?);
                    for x in views(&[2, height, width, channels])? {
                        let ours = depthwise(&x, &weight, &bias, window, Activation::HardSwish)?;
                        let oracle = candle_conv(&x, &weight.unsqueeze(2)?, &bias, window, channels)?;
                        let oracle = Activation::HardSwish.composed(&oracle)?;
                        assert_close(&ours, &oracle, 1e-5)?;
                        let composed = composed(&x, &weight, &bias, window, Activation::HardSwish)?;
                        assert_close(&composed, &oracle, 1e-5)?;
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn an_image_smaller_than_the_window_is_padded() -> Result<()> {
        let (x, weight, bias) = (random(&[1, 2, 1, 8], 1)?, random(&[7, 7, 8], 2)?, random(&[8], 3)?);
        let window = Window::centered(7, 1);
        let oracle = candle_conv(&x, &weight.unsqueeze(2)?, &bias, window, 8)?;
        assert_close(&depthwise(&x, &weight, &bias, window, Activation::None)?, &oracle, 1e-5)
    }

    #[test]
    fn gradients_are_right() -> Result<()> {
        for (kernel, stride, padding, channels) in [
            (3, 1, Padding::Each(1), 43),
            (3, 2, Padding::Each(1), 16),
            (3, 2, Padding::Same, 9),
            (5, 1, Padding::Same, 8),
            (5, 2, Padding::Each(2), 27),
            (7, 1, Padding::Each(3), 19),
            (7, 2, Padding::Each(0), 3),
            (2, 1, Padding::Same, 5),
        ] {
            let window = Window { kernel, stride, padding };
            let shapes: [&[usize]; 3] = [&[2, 8, 11, channels], &[kernel, kernel, channels], &[channels]];
            assert_gradients(&shapes, |args| depthwise(&args[0], &args[1], &args[2], window, Activation::Silu))?;
        }
        let shapes: [&[usize]; 3] = [&[1, 2, 1, 4], &[7, 7, 4], &[4]];
        assert_gradients(&shapes, |args| {
            depthwise(&args[0], &args[1], &args[2], Window::centered(7, 1), Activation::None)
        })
    }
}
