//! Dense convolution: a 1×1 window is one matrix product, any other gathers tiles of windows (im2col) under a byte cap.

mod backward;

pub use backward::{as_convolution, conv_backward};

use candle_core::{Result, Tensor};

use super::composed::Windows;
use super::packed;
use super::residual::activate_sum;
use super::window::{Padding, Window};
use super::{Activation, Face, face, is_tracked, linear, metal, with_elements, work};

/// `activation(convolution(x) + bias + residual)`.
///
/// `x` has shape `(n, h, w, inputs)`, `weight` `(kernel, kernel, inputs, outputs)`, `bias` `(outputs)`; the result and
/// `residual` have shape `(n, h', w', outputs)`. Windows that hang over the end ([`Padding::Ceil`]) are an error.
pub fn conv(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    window: Window,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    if window.padding == Padding::Ceil {
        candle_core::bail!("a convolution's windows lie inside its padded input");
    }
    let (_, _, inputs, outputs) = weight.dims4()?;
    let face = face("conv", x);
    if face != Face::Composed && window == Window::centered(1, 1) {
        return linear(x, &weight.reshape((inputs, outputs))?, bias, activation, residual);
    }
    let geometry = window.over(x.dims())?;
    if face == Face::Cpu && !is_tracked(&[x, weight, bias]) && !residual.is_some_and(Tensor::track_op) {
        let weight = with_elements([weight], |elements| Ok(packed::passing(elements[0], window, [inputs, outputs])))?;
        return packed::conv(x, &*weight, bias, window, activation, residual);
    }
    work::product(geometry.positions(), window.kernel * window.kernel * inputs, outputs);
    match face {
        Face::Composed => composed(x, weight, bias, window, activation, residual),
        Face::Metal => metal::conv(x, weight, bias, window, activation, residual),
        Face::Cpu => {
            let op = backward::Tracked { window };
            let y = x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)?;
            activate_sum(y, residual, activation)
        }
    }
}

/// The same composed of candle operations: a matrix product per place of the window.
pub(crate) fn composed(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    window: Window,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let windows = Windows::new(x, window, 0.0)?;
    let (_, _, inputs, outputs) = weight.dims4()?;
    let mut sum: Option<Tensor> = None;
    for (row, column) in windows.places() {
        let values = windows.at(row, column)?;
        let weight = weight.narrow(0, row, 1)?.narrow(1, column, 1)?.reshape((inputs, outputs))?;
        let (n, height, width, _) = values.dims4()?;
        let product = values.reshape(((), inputs))?.matmul(&weight)?.reshape((n, height, width, outputs))?;
        sum = Some(if let Some(sum) = sum { (sum + product)? } else { product });
    }
    let Some(sum) = sum else { candle_core::bail!("a window has at least one place") };
    let y = sum.broadcast_add(bias)?;
    activation.composed(&if let Some(residual) = residual { (y + residual)? } else { y })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, assert_gradients, candle_conv, conv_windows, random, views};

    #[test]
    fn equals_candles_own_and_its_composed_form() -> Result<()> {
        for window in conv_windows() {
            for x in views(&[2, 9, 12, 5])? {
                let weight = random(&[window.kernel, window.kernel, 5, 6], 2)?;
                let bias = random(&[6], 3)?;
                let oracle = candle_conv(&x, &weight, &bias, window, 1)?;
                let ours = conv(&x, &weight, &bias, window, Activation::None, None)?;
                assert_close(&ours, &oracle, 2e-5)?;
                assert_close(&composed(&x, &weight, &bias, window, Activation::None, None)?, &oracle, 2e-5)?;
                let residual = random(oracle.dims(), 4)?;
                let ours = conv(&x, &weight, &bias, window, Activation::Relu, Some(&residual))?;
                assert_close(&ours, &(oracle + residual)?.relu()?, 2e-5)?;
            }
        }
        Ok(())
    }

    #[test]
    fn gradients_are_right() -> Result<()> {
        let each = |kernel, stride, padding| Window { kernel, stride, padding: Padding::Each(padding) };
        let same = |kernel, stride| Window { kernel, stride, padding: Padding::Same };
        for window in
            [each(1, 1, 0), each(1, 2, 0), each(4, 4, 0), each(3, 2, 1), each(7, 2, 3), same(3, 2), same(3, 1)]
        {
            let dims = window.over(&[2, 9, 12, 5])?;
            let y = [2, dims.out_height, dims.out_width, 6];
            let shapes: [&[usize]; 4] = [&[2, 9, 12, 5], &[window.kernel, window.kernel, 5, 6], &[6], &y];
            assert_gradients(&shapes, |args| {
                conv(&args[0], &args[1], &args[2], window, Activation::Silu, Some(&args[3]))
            })?;
        }
        Ok(())
    }

    /// Wide enough for Winograd's filtering, where a machine has that.
    #[test]
    fn gradients_of_wide_windows_are_right() -> Result<()> {
        let each = Padding::Each;
        for (height, width, padding) in
            [(5, 6, each(1)), (4, 4, each(0)), (3, 2, each(2)), (2, 3, each(3)), (3, 5, Padding::Same)]
        {
            let window = Window { kernel: 3, stride: 1, padding };
            let dims = window.over(&[2, height, width, 33])?;
            let y = [2, dims.out_height, dims.out_width, 35];
            let shapes: [&[usize]; 4] = [&[2, height, width, 33], &[3, 3, 33, 35], &[35], &y];
            assert_gradients(&shapes, |args| {
                conv(&args[0], &args[1], &args[2], window, Activation::Silu, Some(&args[3]))
            })?;
        }
        Ok(())
    }

    #[test]
    fn one_image_is_shared_by_all_threads() -> Result<()> {
        let window = Window::centered(3, 2);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(5).build().map_err(candle_core::Error::wrap)?;
        let shapes: [&[usize]; 3] = [&[1, 11, 6, 3], &[3, 3, 3, 4], &[4]];
        pool.install(|| {
            assert_gradients(&shapes, |args| conv(&args[0], &args[1], &args[2], window, Activation::None, None))
        })
    }

    #[test]
    fn an_image_smaller_than_the_window_is_an_error() -> Result<()> {
        let (x, weight, bias) = (random(&[1, 3, 3, 2], 1)?, random(&[7, 7, 2, 2], 2)?, random(&[2], 3)?);
        let window = Window { kernel: 7, stride: 2, padding: Padding::Each(0) };
        assert!(conv(&x, &weight, &bias, window, Activation::None, None).is_err());
        Ok(())
    }
}
