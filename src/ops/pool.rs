//! Pools: the maximum of a sliding window, and the mean of a whole image.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::backward::{gradient, read};
use super::composed::Windows;
use super::window::{Geometry, Window};
use super::{Face, elements, face, metal, output, scratch};

/// The largest value of each window, per channel; padding never wins.
///
/// `x` has shape `(n, h, w, channels)`, the result `(n, h', w', channels)`.
pub fn max_pool(x: &Tensor, window: Window) -> Result<Tensor> {
    match face("max-pool", x) {
        Face::Composed => return composed(x, window),
        Face::Metal => return metal::max_pool(x, window),
        Face::Cpu => {}
    }
    x.contiguous()?.apply_op1(MaxPool { window })
}

/// The same composed of candle operations.
pub(crate) fn composed(x: &Tensor, window: Window) -> Result<Tensor> {
    let windows = Windows::new(x, window, f32::NEG_INFINITY)?;
    let mut largest = windows.at(0, 0)?;
    for (row, column) in windows.places().skip(1) {
        let value = windows.at(row, column)?;
        // A NaN differs from itself.
        let wins = (value.gt(&largest)? + value.ne(&value)?)?;
        largest = wins.where_cond(&value, &largest)?;
    }
    Ok(largest)
}

struct MaxPool {
    window: Window,
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max-pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let geometry = self.window.over(layout.dims())?;
        let Geometry { batch, height, width, channels, out_height, out_width, .. } = geometry;
        let x = elements(x, layout)?;
        let mut result = vec![f32::NEG_INFINITY; batch * out_height * out_width * channels];
        result.par_chunks_mut((out_width * channels).max(1)).enumerate().for_each(|(index, row)| {
            let image = &x[index / out_height * height * width * channels..];
            max_row(image, 0, &geometry, index % out_height, row);
        });
        Ok(output(result, (batch, out_height, out_width, channels)))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        max_pool_backward(x, self.window, upstream).map(Some)
    }
}

/// The gradient of `x` on the CPU, given that of its pool.
pub fn max_pool_backward(x: &Tensor, window: Window, upstream: &Tensor) -> Result<Tensor> {
    let geometry = window.over(x.dims())?;
    let Geometry { height, width, channels, out_height, out_width, .. } = geometry;
    read([x, &upstream.contiguous()?], |[inputs, upstream]| {
        let mut result = vec![0.0; inputs.len()];
        // Windows overlap, so an image is one task.
        let image = (height * width * channels).max(1);
        let tasks = result.par_chunks_mut(image).zip(inputs.par_chunks(image));
        tasks.zip(upstream.par_chunks((out_height * out_width * channels).max(1))).for_each(
            |((gradients, image), upstream)| {
                vectorized!(|| to_first_maxima(gradients, image, upstream, &geometry));
            },
        );
        gradient(result, x)
    })
}

/// Adds each output's gradient to the first largest value of its window, as PyTorch does.
#[inline(always)]
fn to_first_maxima(gradients: &mut [f32], image: &[f32], upstream: &[f32], geometry: &Geometry) {
    let Geometry { width, channels, out_width, .. } = *geometry;
    let (mut largest, mut places) = (vec![0.0; channels], vec![0; channels]);
    for (index, upstream) in upstream.chunks_exact(channels).enumerate() {
        let (first_y, rows) = geometry.rows(index / out_width);
        let (first_x, columns) = geometry.columns(index % out_width);
        let pixels = (0..rows.len() * columns.len())
            .map(|place| ((first_y + place / columns.len()) * width + first_x + place % columns.len()) * channels);
        for (place, pixel) in pixels.clone().enumerate() {
            let values = &image[pixel..][..channels];
            for ((largest, best), value) in largest.iter_mut().zip(&mut places).zip(values) {
                let wins = place == 0 || *value > *largest || value.is_nan();
                *largest = if wins { *value } else { *largest };
                *best = if wins { place as u32 } else { *best };
            }
        }
        for (place, pixel) in pixels.enumerate() {
            let gradients = gradients[pixel..][..channels].iter_mut();
            for ((gradient, best), upstream) in gradients.zip(&places).zip(upstream) {
                *gradient += if *best == place as u32 { *upstream } else { 0.0 };
            }
        }
    }
}

/// Takes the largest values of the windows of output row `y` into `row`, which holds smaller ones. The `image` may lack rows
/// before `first_held`.
pub fn max_row(image: &[f32], first_held: usize, geometry: &Geometry, y: usize, row: &mut [f32]) {
    let Geometry { width, channels, .. } = *geometry;
    let (first_y, window_rows) = geometry.rows(y);
    let image_row = |y: usize| &image[(y - first_held) * width * channels..][..width * channels];
    // Windows share their columns: the largest value of each is found once.
    scratch::with(width * channels, |columns| {
        vectorized!(|| {
            columns.fill(f32::NEG_INFINITY);
            for y in first_y..first_y + window_rows.len() {
                take_larger(columns, image_row(y));
            }
            for (column, largest) in row.chunks_exact_mut(channels).enumerate() {
                let (first_x, window_columns) = geometry.columns(column);
                for x in first_x..first_x + window_columns.len() {
                    take_larger(largest, &columns[x * channels..][..channels]);
                }
            }
        });
    });
}

#[inline(always)]
fn take_larger(largest: &mut [f32], values: &[f32]) {
    for (largest, &value) in largest.iter_mut().zip(values) {
        // Not f32::max, which would hide a NaN.
        *largest = if value > *largest || value.is_nan() { value } else { *largest };
    }
}

/// The mean over height and width: `(n, h, w, channels)` to `(n, channels)`.
pub fn global_average_pool(x: &Tensor) -> Result<Tensor> {
    match face("global-average-pool", x) {
        Face::Composed => return x.mean((1, 2)),
        Face::Metal => return metal::global_average_pool(x),
        Face::Cpu => {}
    }
    x.contiguous()?.apply_op1(GlobalAveragePool)
}

struct GlobalAveragePool;

impl CustomOp1 for GlobalAveragePool {
    fn name(&self) -> &'static str {
        "global-average-pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, height, width, channels) = layout.shape().dims4()?;
        let x = elements(x, layout)?;
        let mut result = vec![0.0; batch * channels];
        let image = height * width * channels;
        let scale = 1.0 / (height * width) as f32;
        result.par_chunks_mut(channels.max(1)).zip(x.par_chunks(image.max(1))).for_each(|(means, image)| {
            vectorized!(|| {
                for pixel in image.chunks_exact(channels) {
                    means.iter_mut().zip(pixel).for_each(|(mean, value)| *mean += value);
                }
                means.iter_mut().for_each(|mean| *mean *= scale);
            });
        });
        Ok(output(result, (batch, channels)))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        let (_, height, width, channels) = x.dims4()?;
        read([&upstream.contiguous()?], |[upstream]| {
            let mut result = vec![0.0; x.elem_count()];
            let scale = 1.0 / (height * width) as f32;
            result.par_chunks_mut((width * channels).max(1)).enumerate().for_each(|(row, pixels)| {
                let upstream = &upstream[row / height * channels..][..channels];
                vectorized!(|| {
                    for pixel in pixels.chunks_exact_mut(channels) {
                        pixel.iter_mut().zip(upstream).for_each(|(value, upstream)| *value = upstream * scale);
                    }
                });
            });
            gradient(result, x).map(Some)
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::ops::Padding;
    use crate::ops::testing::{assert_close, assert_gradients, to_nchw, to_nhwc, views};

    #[test]
    fn max_pool_equals_its_composed_form_and_candles_own() -> Result<()> {
        for padding in [Padding::Each(1), Padding::Each(0), Padding::Ceil] {
            for x in views(&[2, 9, 12, 5])? {
                let window = Window { kernel: 3, stride: 2, padding };
                assert_close(&max_pool(&x, window)?, &composed(&x, window)?, 0.0)?;
            }
        }
        for x in views(&[2, 9, 12, 5])? {
            let window = Window { kernel: 3, stride: 2, padding: Padding::Each(0) };
            let oracle = to_nhwc(&to_nchw(&x)?.max_pool2d_with_stride(3, 2)?)?;
            assert_close(&max_pool(&x, window)?, &oracle, 0.0)?;
        }
        Ok(())
    }

    #[test]
    fn gradients_are_right() -> Result<()> {
        for (kernel, stride, padding) in
            [(3, 2, Padding::Each(1)), (3, 2, Padding::Ceil), (2, 2, Padding::Each(0)), (3, 1, Padding::Each(1))]
        {
            let window = Window { kernel, stride, padding };
            assert_gradients(&[&[2, 7, 10, 5]], |args| max_pool(&args[0], window))?;
        }
        assert_gradients(&[&[3, 5, 4, 19]], |args| global_average_pool(&args[0]))
    }

    #[test]
    fn among_equal_values_the_first_gets_the_gradient() -> Result<()> {
        let window = Window { kernel: 3, stride: 2, padding: Padding::Each(1) };
        let ones = Tensor::ones((1, 4, 4, 1), DType::F32, &Device::Cpu)?;
        for values in [ones.clone(), ones.to_dtype(DType::F64)?] {
            let x = Var::from_tensor(&values)?;
            let gradients = max_pool(&x, window)?.sum_all()?.backward()?;
            let ours = gradients.get(&x).expect("it is tracked").to_dtype(DType::F32)?;
            let rows = [[1., 1., 0., 0.], [1., 1., 0., 0.], [0., 0., 0., 0.], [0., 0., 0., 0.]];
            assert_eq!(ours.reshape((4, 4))?.to_vec2::<f32>()?, rows);
        }
        Ok(())
    }

    #[test]
    fn max_pool_of_negative_values_ignores_padding_and_keeps_nan() -> Result<()> {
        let window = Window { kernel: 3, stride: 2, padding: Padding::Each(1) };
        let x = Tensor::full(-5f32, (1, 4, 4, 1), &Device::Cpu)?;
        assert_eq!(max_pool(&x, window)?.flatten_all()?.to_vec1::<f32>()?, [-5.0; 4]);
        for values in [[f32::NAN, 1.0, 2.0, 3.0], [0.0, 1.0, f32::NAN, 3.0], [0.0, 1.0, 2.0, f32::NAN]] {
            let x = Tensor::from_slice(&values, (1, 2, 2, 1), &Device::Cpu)?;
            assert!(max_pool(&x, window)?.flatten_all()?.to_vec1::<f32>()?[0].is_nan());
            assert!(composed(&x, window)?.flatten_all()?.to_vec1::<f32>()?[0].is_nan());
        }
        Ok(())
    }

    #[test]
    fn global_average_equals_the_mean() -> Result<()> {
        for x in views(&[3, 5, 7, 19])? {
            assert_close(&global_average_pool(&x)?, &x.mean((1, 2))?, 1e-6)?;
        }
        Ok(())
    }
}
