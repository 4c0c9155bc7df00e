//! Global response norm of ConvNeXt V2: channels compete by their norm over the image.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{elements, output, vectorized};

/// From the ConvNeXt V2 reference code.
const EPSILON: f32 = 1e-6;

/// `x + weight · x · norm / (mean of norms + ε) + bias`, where `norm` is a channel's L2 norm over height and width.
///
/// `x` has shape `(n, h, w, channels)`, `weight` and `bias` `(channels)`.
pub fn global_response_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op3_no_bwd(&weight.contiguous()?, &bias.contiguous()?, &GlobalResponseNorm)
}

struct GlobalResponseNorm;

impl CustomOp3 for GlobalResponseNorm {
    fn name(&self) -> &'static str {
        "global-response-norm"
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
        let (_, height, width, channels) = x_layout.shape().dims4()?;
        let (weight, bias) = (elements(weight, weight_layout)?, elements(bias, bias_layout)?);
        if weight.len() != channels || bias.len() != channels {
            candle_core::bail!("global response norm of {} channels was given {channels}", weight.len());
        }
        let mut result = elements(x, x_layout)?.to_vec();
        result.par_chunks_mut((height * width * channels).max(1)).for_each(|image| {
            let scales = scales(image, width * channels, weight);
            image.par_chunks_mut(width * channels).for_each(|row| {
                vectorized(|| {
                    for pixel in row.chunks_exact_mut(channels) {
                        for ((value, scale), bias) in pixel.iter_mut().zip(&scales).zip(bias) {
                            *value = *value * scale + bias;
                        }
                    }
                });
            });
        });
        Ok(output(result, x_layout.shape()))
    }
}

/// What each channel of one image is multiplied by. Rows are summed in parallel, then in their order.
fn scales(image: &[f32], row_length: usize, weight: &[f32]) -> Vec<f32> {
    let channels = weight.len();
    let squares_of_rows: Vec<Vec<f32>> = image.par_chunks(row_length).map(|row| squares(row, channels)).collect();
    let mut norms = vec![0.0; channels];
    for squares in &squares_of_rows {
        norms.iter_mut().zip(squares).for_each(|(norm, square)| *norm += square);
    }
    norms.iter_mut().for_each(|norm| *norm = norm.sqrt());
    let mean = norms.iter().sum::<f32>() / channels as f32 + EPSILON;
    norms.iter().zip(weight).map(|(norm, weight)| 1.0 + weight * norm / mean).collect()
}

/// The sum of squares of each channel.
fn squares(row: &[f32], channels: usize) -> Vec<f32> {
    let mut squares = vec![0.0; channels];
    vectorized(|| {
        for pixel in row.chunks_exact(channels) {
            squares.iter_mut().zip(pixel).for_each(|(square, value)| *square += value * value);
        }
    });
    squares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, random, views};

    #[test]
    fn equals_its_composed_form() -> Result<()> {
        for x in views(&[3, 5, 7, 21])? {
            let (weight, bias) = (random(&[21], 1)?, random(&[21], 2)?);
            let norms = x.sqr()?.sum_keepdim((1, 2))?.sqrt()?;
            let ratios = norms.broadcast_div(&(norms.mean_keepdim(3)? + f64::from(EPSILON))?)?;
            let scaled = x.broadcast_mul(&ratios)?.broadcast_mul(&weight)?.broadcast_add(&bias)?;
            assert_close(&global_response_norm(&x, &weight, &bias)?, &(x + scaled)?, 1e-5)?;
        }
        Ok(())
    }
}
