//! Layer norm over the last axis.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::backward::{self, read, rows_per_task, sum_in_order, sum_pairs};
use super::{Face, elements, face, metal, output};

/// `(x - mean) / sqrt(variance + epsilon) · weight + bias`, with the mean and biased variance of the last axis.
///
/// `x` has shape `(…, channels)`, `weight` and `bias` `(channels)`.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f32) -> Result<Tensor> {
    match face("layer-norm", x) {
        Face::Composed => return composed(x, weight, bias, epsilon),
        Face::Metal => return metal::layer_norm(x, weight, bias, epsilon),
        Face::Cpu => {}
    }
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, LayerNorm { epsilon })
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
            vectorized!(|| rows.chunks_exact_mut(channels).for_each(|row| normalize(row, weight, bias, self.epsilon)));
        });
        Ok(output(result, x_layout.shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        read([x, weight, &upstream.contiguous()?], |[inputs, weights, upstream]| {
            // Becomes the gradient of `x`; without one only its sums are of use.
            let mut result = upstream.to_vec();
            let (of_weight, of_bias) = rows_backward(&mut result, inputs, weights, self.epsilon);
            let of_x = x.track_op().then(|| backward::gradient(result, x)).transpose()?;
            let sums =
                |sums, argument: &Tensor| argument.track_op().then(|| backward::gradient(sums, argument)).transpose();
            Ok((of_x, sums(of_weight, weight)?, sums(of_bias, bias)?))
        })
    }
}

/// The gradients of `x`, the weight and the bias of [`layer_norm`] on the CPU, given that of its result.
pub fn layer_norm_backward(x: &Tensor, weight: &Tensor, epsilon: f32, upstream: &Tensor) -> Result<[Tensor; 3]> {
    read([x, weight, &upstream.contiguous()?], |[inputs, weights, upstream]| {
        let mut result = upstream.to_vec();
        let (of_weight, of_bias) = rows_backward(&mut result, inputs, weights, epsilon);
        let of_bias = backward::gradient(of_bias, weight)?;
        Ok([backward::gradient(result, x)?, backward::gradient(of_weight, weight)?, of_bias])
    })
}

/// Turns the gradients of normalised rows into those of the rows; returns those of weight and bias.
pub fn rows_backward(gradients: &mut [f32], inputs: &[f32], weights: &[f32], epsilon: f32) -> (Vec<f32>, Vec<f32>) {
    let channels = weights.len();
    let chunk = (rows_per_task(channels) * channels).max(1);
    let parts = gradients.par_chunks_mut(chunk).zip(inputs.par_chunks(chunk)).map(|(gradients, inputs)| {
        let mut of_weight = vec![0.0; channels];
        let mut of_bias = vec![0.0; channels];
        vectorized!(|| {
            let rows = gradients.chunks_exact_mut(channels).zip(inputs.chunks_exact(channels));
            rows.for_each(|(gradients, inputs)| {
                backward_row(gradients, inputs, weights, epsilon, &mut of_weight, &mut of_bias);
            });
        });
        (of_weight, of_bias)
    });
    let (of_weight, of_bias): (Vec<_>, Vec<_>) = parts.unzip();
    (sum_in_order(of_weight, channels), sum_in_order(of_bias, channels))
}

/// Turns the gradient of a normalised row into that of the row, and adds to those of weight and bias.
#[inline(always)]
fn backward_row(
    gradients: &mut [f32],
    inputs: &[f32],
    weights: &[f32],
    epsilon: f32,
    of_weight: &mut [f32],
    of_bias: &mut [f32],
) {
    let length = inputs.len() as f32;
    let (mean, scale) = statistics(inputs, epsilon);
    for (index, gradient) in gradients.iter_mut().enumerate() {
        of_weight[index] += *gradient * (inputs[index] - mean) * scale;
        of_bias[index] += *gradient;
        *gradient *= weights[index];
    }
    let product = sum_pairs(gradients, inputs, |gradient, input| gradient * (input - mean) * scale) / length;
    let sum = sum(gradients, |gradient| gradient) / length;
    for (gradient, input) in gradients.iter_mut().zip(inputs) {
        *gradient = (*gradient - sum - (input - mean) * scale * product) * scale;
    }
}

/// The mean of a row, and one over its deviation.
#[inline(always)]
fn statistics(row: &[f32], epsilon: f32) -> (f32, f32) {
    let scale = 1.0 / row.len() as f32;
    let mean = sum(row, |value| value) * scale;
    let variance = sum(row, |value| (value - mean) * (value - mean)) * scale;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

/// One row in place.
#[inline(always)]
pub fn normalize(row: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let (mean, scale) = statistics(row, epsilon);
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

/// The same composed of candle operations.
pub(crate) fn composed(x: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f32) -> Result<Tensor> {
    let axis = x.rank() - 1;
    let centered = x.broadcast_sub(&x.mean_keepdim(axis)?)?;
    let variance = centered.sqr()?.mean_keepdim(axis)?;
    centered.broadcast_div(&(variance + f64::from(epsilon))?.sqrt()?)?.broadcast_mul(weight)?.broadcast_add(bias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, assert_gradients, random, views};

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

    #[test]
    fn gradients_are_right() -> Result<()> {
        for channels in [5, 16, 37] {
            let shapes: [&[usize]; 3] = [&[2, 3, 7, channels], &[channels], &[channels]];
            assert_gradients(&shapes, |args| layer_norm(&args[0], &args[1], &args[2], 1e-5))?;
        }
        Ok(())
    }
}
