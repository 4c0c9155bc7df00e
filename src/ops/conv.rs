//! Dense convolution: a 1×1 window is one matrix product, any other gathers tiles of windows (im2col) under a byte cap.

mod backward;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::composed::Windows;
use super::gemm::{Epilogue, Matrix, multiply, tiled};
use super::residual::activate_sum;
use super::window::{Geometry, Padding, Window};
use super::{Activation, Face, elements, face, is_tracked, linear, metal, output, scratch, with_elements, work};

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
    work::product(geometry.positions(), window.kernel * window.kernel * inputs, outputs);
    match face {
        Face::Composed => return composed(x, weight, bias, window, activation, residual),
        Face::Metal => return metal::conv(x, weight, bias, window, activation, residual),
        Face::Cpu => {}
    }
    if is_tracked(&[x, weight, bias]) || residual.is_some_and(Tensor::track_op) {
        let op = backward::Tracked { window };
        return activate_sum(
            x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)?,
            residual,
            activation,
        );
    }
    let residual = residual.map(Tensor::contiguous).transpose()?;
    let op = Conv { window, activation, residual };
    x.contiguous()?.apply_op3_no_bwd(&weight.contiguous()?, &bias.contiguous()?, &op)
}

struct Conv {
    window: Window,
    activation: Activation,
    residual: Option<Tensor>,
}

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        "conv"
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
        let shape = Shape::from((geometry.batch, geometry.out_height, geometry.out_width, outputs));
        if self.residual.as_ref().is_some_and(|residual| residual.shape() != &shape) {
            candle_core::bail!("conv was given a residual of another shape than {shape:?}");
        }
        let (x, weight) = (elements(x, x_layout)?, elements(weight, weight_layout)?);
        let depth = kernel * kernel * inputs;
        let weight = Matrix::row_major(weight, depth, outputs);
        let rows = geometry.positions();
        let max_rows = scratch::MAX_BYTES / size_of::<f32>() / depth.max(1);
        let result = with_elements(self.residual.as_slice(), |residual| {
            let epilogue = Epilogue { bias, residual: residual.first().copied(), activation: self.activation };
            Ok(tiled(rows, max_rows, &epilogue, |tile, first_row, rows| {
                scratch::with(rows * depth, |windows| {
                    gather(x, &geometry, first_row, windows);
                    multiply(tile, outputs, Matrix::row_major(windows, rows, depth), weight, 1.0);
                });
            }))
        })?;
        Ok(output(result, shape))
    }
}

/// Writes one row of `(kernel, kernel, channels)` input values per output position, from position `first` on.
fn gather(x: &[f32], geometry: &Geometry, first: usize, windows: &mut [f32]) {
    let Geometry { window: Window { kernel, .. }, height, width, channels, out_height, out_width, .. } = *geometry;
    for (index, row) in windows.chunks_exact_mut(kernel * kernel * channels).enumerate() {
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
