//! Layer norm over the last axis.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{elements, output, vectorized};

/// `(x - mean) / sqrt(variance + epsilon) · weight + bias`, with the mean and biased variance of the last axis.
///
/// `x` has shape `(…, channels)`, `weight` and `bias` `(channels)`.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f32) -> Result<Tensor> {
    x.contiguous()?.apply_op3_no_bwd(&weight.contiguous()?, &bias.contiguous()?, &LayerNorm { epsilon })
}

struct LayerNorm {
    epsilon: f32,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
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
        let (weight, bias) = (elements(weight, weight_layout)?, elements(bias, bias_layout)?);
        let channels = weight.len();
        if x_layout.dims().last() != Some(&channels) || bias.len() != channels {
            candle_core::bail!("layer norm of {channels} channels was given shape {:?}", x_layout.dims());
        }
        let mut result = elements(x, x_layout)?.to_vec();
        let rows_per_task = (16 << 10) / channels.max(1) + 1;
        result.par_chunks_mut((rows_per_task * channels).max(1)).for_each(|rows| {
            vectorized(|| rows.chunks_exact_mut(channels).for_each(|row| normalize(row, weight, bias, self.epsilon)));
        });
        Ok(output(result, x_layout.shape()))
    }
}

/// One row in place.
#[inline(always)]
pub fn normalize(row: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let scale = 1.0 / row.len() as f32;
    let mean = sum(row, |value| value) * scale;
    let variance = sum(row, |value| (value - mean) * (value - mean)) * scale;
    let scale = 1.0 / (variance + epsilon).sqrt();
    for ((value, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
        *value = (*value - mean) * scale * weight + bias;
    }
}

/// The sum of a function of each value, in sixteen lanes: a fixed order that vectorises.
#[inline(always)]
pub fn sum(values: &[f32], function: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += function(*value);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|value| function(*value)).sum::<f32>()
}

#[cfg(test)]
pub(crate) fn composed(x: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f64) -> Result<Tensor> {
    let axis = x.rank() - 1;
    let centered = x.broadcast_sub(&x.mean_keepdim(axis)?)?;
    let variance = centered.sqr()?.mean_keepdim(axis)?;
    centered.broadcast_div(&(variance + epsilon)?.sqrt()?)?.broadcast_mul(weight)?.broadcast_add(bias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, random, views};

    #[test]
    fn equals_its_composed_form() -> Result<()> {
        for channels in [1, 5, 16, 40, 97] {
            let (weight, bias) = (random(&[channels], 2)?, random(&[channels], 3)?);
            for x in views(&[2, 3, 7, channels])? {
                let x = (x + 3.0)?;
                assert_close(&layer_norm(&x, &weight, &bias, 1e-6)?, &composed(&x, &weight, &bias, 1e-6)?, 2e-5)?;
            }
        }
        Ok(())
    }
}
