//! Pools: the maximum of a sliding window, and the mean of a whole image.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::window::{Geometry, Window};
use super::{elements, output, vectorized};

/// The largest value of each window, per channel; padding never wins.
///
/// `x` has shape `(n, h, w, channels)`, the result `(n, h', w', channels)`.
pub fn max_pool(x: &Tensor, window: Window) -> Result<Tensor> {
    x.contiguous()?.apply_op1_no_bwd(&MaxPool { window })
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
            vectorized(|| max_row(image, &geometry, index % out_height, row));
        });
        Ok(output(result, (batch, out_height, out_width, channels)))
    }
}

#[inline(always)]
fn max_row(image: &[f32], geometry: &Geometry, y: usize, row: &mut [f32]) {
    let Geometry { width, channels, .. } = *geometry;
    let (first_y, window_rows) = geometry.rows(y);
    for (column, largest) in row.chunks_exact_mut(channels).enumerate() {
        let (first_x, window_columns) = geometry.columns(column);
        for image_y in first_y..first_y + window_rows.len() {
            for image_x in first_x..first_x + window_columns.len() {
                let values = &image[(image_y * width + image_x) * channels..][..channels];
                for (largest, &value) in largest.iter_mut().zip(values) {
                    // Not f32::max, which would hide a NaN.
                    *largest = if value <= *largest { *largest } else { value };
                }
            }
        }
    }
}

/// The mean over height and width: `(n, h, w, channels)` to `(n, channels)`.
pub fn global_average_pool(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1_no_bwd(&GlobalAveragePool)
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
            vectorized(|| {
                for pixel in image.chunks_exact(channels) {
                    means.iter_mut().zip(pixel).for_each(|(mean, value)| *mean += value);
                }
                means.iter_mut().for_each(|mean| *mean *= scale);
            });
        });
        Ok(output(result, (batch, channels)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Padding;
    use crate::ops::testing::{assert_close, to_nchw, to_nhwc, views};

    /// Pads with the smallest value by hand, then takes the maximum over shifted views.
    fn composed(x: &Tensor, window: Window) -> Result<Tensor> {
        let geometry = window.over(x.dims())?;
        let x = to_nchw(&(x + 100.0)?)?;
        let reach = |outputs: usize| (outputs - 1) * window.stride + window.kernel;
        let (rows, columns) = (reach(geometry.out_height), reach(geometry.out_width));
        let x = x
            .pad_with_zeros(2, geometry.top, rows.saturating_sub(geometry.height + geometry.top))?
            .pad_with_zeros(3, geometry.left, columns.saturating_sub(geometry.width + geometry.left))?;
        let pick = |outputs: usize, shift: usize| -> Result<Tensor> {
            let indices: Vec<u32> = (0..outputs).map(|index| (index * window.stride + shift) as u32).collect();
            Tensor::new(indices, x.device())
        };
        let mut largest: Option<Tensor> = None;
        for dy in 0..window.kernel {
            for dx in 0..window.kernel {
                let shifted = x.index_select(&pick(geometry.out_height, dy)?, 2)?;
                let shifted = shifted.index_select(&pick(geometry.out_width, dx)?, 3)?;
                largest = Some(match largest {
                    Some(largest) => largest.maximum(&shifted)?,
                    None => shifted,
                });
            }
        }
        to_nhwc(&(largest.expect("the window has elements") - 100.0)?)
    }

    #[test]
    fn max_pool_equals_its_composed_form() -> Result<()> {
        for padding in [Padding::Each(1), Padding::Each(0), Padding::Ceil] {
            for x in views(&[2, 9, 12, 5])? {
                let window = Window { kernel: 3, stride: 2, padding };
                assert_close(&max_pool(&x, window)?, &composed(&x, window)?, 2e-5)?;
            }
        }
        Ok(())
    }

    #[test]
    fn max_pool_of_negative_values_ignores_padding_and_keeps_nan() -> Result<()> {
        let window = Window { kernel: 3, stride: 2, padding: Padding::Each(1) };
        let x = Tensor::full(-5f32, (1, 4, 4, 1), &candle_core::Device::Cpu)?;
        assert_eq!(max_pool(&x, window)?.flatten_all()?.to_vec1::<f32>()?, [-5.0; 4]);
        let x = Tensor::full(f32::NAN, (1, 2, 2, 1), &candle_core::Device::Cpu)?;
        assert!(max_pool(&x, window)?.flatten_all()?.to_vec1::<f32>()?[0].is_nan());
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
