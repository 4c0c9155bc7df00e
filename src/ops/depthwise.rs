//! Depthwise convolution: each channel with its own window. Rows in parallel, channels in vector registers.

/// Repeats a block with a constant, so that registers are chosen while compiling.
macro_rules! unroll {
    ($constant:ident in [$($value:literal)*] $block:block) => {
        $({
            const $constant: usize = $value;
            $block
        })*
    };
}

mod backward;

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

pub use backward::{TASK_ROWS, depthwise_backward};

use super::activation::activate_registers;
use super::composed::Windows;
use super::residual::activate_sum;
use super::simd::{load, store};
use super::window::{Geometry, Padding, Window};
use super::{Activation, Face, elements, face, is_tracked, metal, output, work};

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
    match face("depthwise", x) {
        Face::Composed => return composed(x, weight, bias, window, activation),
        Face::Metal => return metal::depthwise(x, weight, bias, window, activation),
        Face::Cpu if kernel_for(window).is_none() => return composed(x, weight, bias, window, activation),
        Face::Cpu => {}
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
        let Some(kernel) = kernel_for(self.window) else {
            candle_core::bail!("there is no depthwise kernel for {:?}", self.window);
        };
        let mut result = Vec::with_capacity(batch * out_height * out_width * channels);
        let space = &mut result.spare_capacity_mut()[..batch * out_height * out_width * channels];
        let row_length = (out_width * channels).max(1);
        space.par_chunks_mut(row_length).enumerate().for_each(|(index, row)| {
            let image = &x[index / out_height * geometry.height * geometry.width * channels..];
            let y = index % out_height;
            kernel(Row { image, held: geometry.height, weight, bias, geometry, y, activation: self.activation }, row);
        });
        // SAFETY: each row has been written whole.
        unsafe { result.set_len(batch * out_height * out_width * channels) };
        Ok(output(result, (batch, out_height, out_width, channels)))
    }
}

/// Computes a row of the output.
pub type Kernel = fn(Row, &mut [MaybeUninit<f32>]);

/// Kernels are compiled for the windows that networks have.
pub fn kernel_for(window: Window) -> Option<Kernel> {
    Some(match (window.kernel, window.stride) {
        (3, 1) => row::<3, 1>,
        (3, 2) => row::<3, 2>,
        (5, 1) => row::<5, 1>,
        (5, 2) => row::<5, 2>,
        (7, 1) => row::<7, 1>,
        (7, 2) => row::<7, 2>,
        _ => return None,
    })
}

/// One output row of one image.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// Its rows, or only those under the window: row `y` lies at place `y % held`.
    pub image: &'a [f32],
    pub held: usize,
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub geometry: Geometry,
    pub y: usize,
    pub activation: Activation,
}

/// Computes every value of `result`, a row of the output.
fn row<const KERNEL: usize, const STRIDE: usize>(row: Row, result: &mut [MaybeUninit<f32>]) {
    let Geometry { width, channels, out_width, .. } = row.geometry;
    assert!(row.image.len() >= row.held * width * channels && result.len() == out_width * channels, "slices are whole");
    assert!(row.weight.len() == KERNEL * KERNEL * channels && row.bias.len() == channels, "weights are whole");
    pulp::Arch::new().dispatch(Write::<KERNEL, STRIDE> { row, result: result.as_mut_ptr().cast() });
}

/// A row whose slices have been checked.
struct Write<'a, const KERNEL: usize, const STRIDE: usize> {
    row: Row<'a>,
    result: *mut f32,
}

impl<const KERNEL: usize, const STRIDE: usize> WithSimd for Write<'_, KERNEL, STRIDE> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Geometry { channels, out_width, .. } = self.row.geometry;
        let lanes = size_of::<S::f32s>() / size_of::<f32>();
        let mut x = 0;
        while x < out_width {
            // SAFETY: `row` has checked the slices; columns are inside them.
            x += unsafe {
                match out_width - x {
                    _ if channels < lanes => self.all_channels::<S, 1, false>(simd, x),
                    14.. if const { S::REGISTER_COUNT >= 32 } => self.all_channels::<S, 14, true>(simd, x),
                    7.. => self.all_channels::<S, 7, true>(simd, x),
                    // The last pixels are computed together with some before them, a second time with the same result.
                    left if out_width >= 7 => left + self.all_channels::<S, 7, true>(simd, out_width - 7) - 7,
                    _ => self.all_channels::<S, 1, true>(simd, x),
                }
            };
        }
    }
}

impl<const KERNEL: usize, const STRIDE: usize> Write<'_, KERNEL, STRIDE> {
    /// `PIXELS` outputs from column `x` on, a register of channels after the other, as they lie in memory. Returns `PIXELS`.
    ///
    /// # Safety
    /// As for [`Self::pixels`]; when `FULL`, there is at least a register of channels.
    #[inline(always)]
    unsafe fn all_channels<S: Simd, const PIXELS: usize, const FULL: bool>(&self, simd: S, x: usize) -> usize {
        let channels = self.row.geometry.channels;
        let lanes = size_of::<S::f32s>() / size_of::<f32>();
        for channel in (0..channels).step_by(lanes) {
            // The last channels, like the last pixels, are computed together with some before them.
            // SAFETY: the caller's promise.
            unsafe { self.pixels::<S, PIXELS, FULL>(simd, channel.min(channels.saturating_sub(lanes)), x) };
        }
        if !self.row.activation.is_immediate() {
            // SAFETY: these pixels have just been written, and nothing else refers to them.
            let values = unsafe { std::slice::from_raw_parts_mut(self.result.add(x * channels), PIXELS * channels) };
            self.row.activation.apply_inlined(values);
        }
        PIXELS
    }

    /// `PIXELS` outputs from column `x` on, for a register of channels from `channel` on, or for the few channels there
    /// are (not `FULL`).
    ///
    /// The weights of a window row stay in registers while each input of the row is loaded once and added to every output
    /// that sees it.
    ///
    /// # Safety
    /// The outputs lie in the row, the channels in the image, and the row's slices have been checked.
    #[inline(always)]
    unsafe fn pixels<S: Simd, const PIXELS: usize, const FULL: bool>(&self, simd: S, channel: usize, x: usize) {
        let Row { image, held, weight, bias, geometry, y, activation } = self.row;
        let Geometry { width, channels, left, .. } = geometry;
        let (first_y, window_rows) = geometry.rows(y);
        let count = if FULL { size_of::<S::f32s>() / size_of::<f32>() } else { channels };
        // SAFETY: here and below: rows, columns and channels lie inside the slices, which the caller has checked.
        let load = |values: &[f32], at: usize| unsafe { load(simd, values.as_ptr().add(at), count) };
        let mut sums = [load(bias, channel); PIXELS];
        for (offset, window_row) in window_rows.enumerate() {
            let from = (first_y + offset) % held * width * channels + channel;
            let weights: [S::f32s; KERNEL] =
                std::array::from_fn(|column| load(weight, (window_row * KERNEL + column) * channels + channel));
            unroll!(INPUT in [
                0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
            ] {
                if const { INPUT < (PIXELS - 1) * STRIDE + KERNEL } {
                    let column = (x * STRIDE + INPUT).wrapping_sub(left);
                    if column < width {
                        let input = load(image, from + column * channels);
                        for pixel in 0..PIXELS {
                            if (pixel * STRIDE..pixel * STRIDE + KERNEL).contains(&INPUT) {
                                sums[pixel] = simd.mul_add_f32s(input, weights[INPUT - pixel * STRIDE], sums[pixel]);
                            }
                        }
                    }
                }
            });
        }
        let mut sums = [[sums]];
        activate_registers(simd, activation, &mut sums);
        let [[sums]] = sums;
        for (pixel, sum) in sums.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { store(simd, self.result.add((x + pixel) * channels + channel), count, sum) };
        }
    }
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
