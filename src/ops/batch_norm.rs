//! Batch norm over the last axis: with the statistics of the batch while training, with given ones otherwise.

pub mod learning;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::backward::{add, gradient, read, rows_per_task, sum_in_order};
use super::{elements, has_kernel, output};

/// What running averages are made of, `(channels)` each.
#[derive(Debug, Clone)]
pub struct BatchStatistics {
    pub mean: Tensor,
    /// With the divisor `values - 1`, as PyTorch averages it.
    pub unbiased_variance: Tensor,
}

/// `(x - mean) / sqrt(variance + epsilon) · weight + bias` with given statistics, to which no gradient flows.
///
/// `x` has shape `(…, channels)`, the others `(channels)`.
pub fn batch_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    epsilon: f32,
) -> Result<Tensor> {
    let (mean, variance) = (mean.detach(), variance.detach());
    if !has_kernel("batch-norm", x) {
        return normalized(&x.broadcast_sub(&mean)?, weight, bias, &variance, epsilon);
    }
    let (mean, variance) = (mean.to_vec1()?, variance.to_vec1()?);
    BatchNorm::new(mean, variance, epsilon, false).apply(x, weight, bias)
}

/// The same with the mean and biased variance of `x` itself over all axes but the last.
///
/// Fails when there is but one value per channel, whose variance is unknown.
pub fn batch_norm_of_batch(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f32,
) -> Result<(Tensor, BatchStatistics)> {
    let channels = x.dims().last().copied().unwrap_or(0);
    let values = values_per_channel(x)?;
    let unbiased = values as f64 / (values - 1) as f64;
    if !has_kernel("batch-norm", x) {
        return composed_of_batch(x, weight, bias, epsilon, unbiased);
    }
    let x = x.contiguous()?;
    let (mean, variance) = read([&x], |[values]| Ok(statistics(values, channels)))?;
    let statistics = BatchStatistics {
        mean: Tensor::from_slice(&mean, channels, x.device())?,
        unbiased_variance: (Tensor::from_slice(&variance, channels, x.device())? * unbiased)?,
    };
    Ok((BatchNorm::new(mean, variance, epsilon, true).apply(&x, weight, bias)?, statistics))
}

/// How many values a channel has, more than one.
fn values_per_channel(x: &Tensor) -> Result<usize> {
    let values = x.elem_count() / x.dims().last().copied().unwrap_or(0).max(1);
    if values < 2 {
        candle_core::bail!("batch norm needs more than one value per channel to train on, not shape {:?}", x.dims());
    }
    Ok(values)
}

fn composed_of_batch(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    epsilon: f32,
    unbiased: f64,
) -> Result<(Tensor, BatchStatistics)> {
    let rows = x.flatten_to(x.rank() - 2)?;
    let mean = rows.mean(0)?;
    let variance = rows.broadcast_sub(&mean)?.sqr()?.mean(0)?;
    let result = normalized(&x.broadcast_sub(&mean)?, weight, bias, &variance, epsilon)?;
    Ok((result, BatchStatistics { mean: mean.detach(), unbiased_variance: (variance.detach() * unbiased)? }))
}

/// The rest of the composed form.
fn normalized(centered: &Tensor, weight: &Tensor, bias: &Tensor, variance: &Tensor, epsilon: f32) -> Result<Tensor> {
    let deviation = (variance + f64::from(epsilon))?.sqrt()?;
    centered.broadcast_div(&deviation)?.broadcast_mul(weight)?.broadcast_add(bias)
}

/// The mean and biased variance of each column, in one pass: chunks that stay in the cache, combined in order (Chan, Golub
/// and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances").
fn statistics(values: &[f32], channels: usize) -> (Vec<f32>, Vec<f32>) {
    let wide = learning::widened(&vec![0.0; channels]).len();
    let parts = values.par_chunks(rows_per_task(wide) * wide).map(|values| {
        let share = channels as f32 / values.len() as f32;
        let mut sums = vec![0.0; wide];
        vectorized!(|| values.chunks(wide).for_each(|row| add(&mut sums, row)));
        let means: Vec<f32> = learning::narrowed(&sums, channels).iter().map(|sum| sum * share).collect();
        let wide_means = learning::widened(&means);
        let mut squares = vec![0.0; wide];
        vectorized!(|| {
            for row in values.chunks(wide) {
                for ((square, value), mean) in squares.iter_mut().zip(row).zip(&wide_means) {
                    *square += (value - mean) * (value - mean);
                }
            }
        });
        (values.len() / channels, means, learning::narrowed(&squares, channels))
    });
    let (mut count, mut means, mut squares) = (0.0, vec![0.0; channels], vec![0.0; channels]);
    for (others, other_means, other_squares) in parts.collect::<Vec<_>>() {
        let others = others as f64;
        let all = count + others;
        for channel in 0..channels {
            let apart = f64::from(other_means[channel]) - means[channel];
            means[channel] += apart * others / all;
            squares[channel] += f64::from(other_squares[channel]) + apart * apart * count * others / all;
        }
        count = all;
    }
    let variances = squares.into_iter().map(|square| (square / count) as f32);
    (means.into_iter().map(|mean| mean as f32).collect(), variances.collect())
}

struct BatchNorm {
    mean: Vec<f32>,
    /// One over the deviation.
    scale: Vec<f32>,
    /// The statistics are those of the input, and change with it.
    of_batch: bool,
}

impl BatchNorm {
    fn new(mean: Vec<f32>, variance: Vec<f32>, epsilon: f32, of_batch: bool) -> Self {
        let scale = variance.into_iter().map(|variance| 1.0 / (variance + epsilon).sqrt()).collect();
        Self { mean, scale, of_batch }
    }

    fn apply(self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, self)
    }

    /// The gradients of weight and bias.
    fn sums(&self, inputs: &[f32], upstream: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let channels = self.mean.len();
        let chunk = (rows_per_task(channels) * channels).max(1);
        let parts = inputs.par_chunks(chunk).zip(upstream.par_chunks(chunk)).map(|(inputs, upstream)| {
            let (mut of_weight, mut of_bias) = (vec![0.0; channels], vec![0.0; channels]);
            vectorized!(|| {
                for (inputs, upstream) in inputs.chunks_exact(channels).zip(upstream.chunks_exact(channels)) {
                    add(&mut of_bias, upstream);
                    for channel in 0..channels {
                        let normal = (inputs[channel] - self.mean[channel]) * self.scale[channel];
                        of_weight[channel] += upstream[channel] * normal;
                    }
                }
            });
            (of_weight, of_bias)
        });
        let (of_weight, of_bias): (Vec<_>, Vec<_>) = parts.unzip();
        (sum_in_order(of_weight, channels), sum_in_order(of_bias, channels))
    }

    /// The gradient of the input, given those of weight and bias.
    fn input_gradient(
        &self,
        inputs: &[f32],
        upstream: &[f32],
        weights: &[f32],
        [of_weight, of_bias]: [&[f32]; 2],
    ) -> Vec<f32> {
        let channels = weights.len();
        // gradient = upstream · factor + input · slope + offset; mean and variance follow the input.
        let share = if self.of_batch { channels as f32 / inputs.len() as f32 } else { 0.0 };
        let factors: Vec<f32> = weights.iter().zip(&self.scale).map(|(weight, scale)| weight * scale).collect();
        let (mut slopes, mut offsets) = (vec![0.0; channels], vec![0.0; channels]);
        for channel in 0..channels {
            slopes[channel] = -factors[channel] * self.scale[channel] * of_weight[channel] * share;
            offsets[channel] = -factors[channel] * of_bias[channel] * share;
        }
        let chunk = (rows_per_task(channels) * channels).max(1);
        let mut result = upstream.to_vec();
        result.par_chunks_mut(chunk).zip(inputs.par_chunks(chunk)).for_each(|(gradients, inputs)| {
            vectorized!(|| {
                for (gradients, inputs) in gradients.chunks_exact_mut(channels).zip(inputs.chunks_exact(channels)) {
                    for channel in 0..channels {
                        let centered = inputs[channel] - self.mean[channel];
                        gradients[channel] =
                            gradients[channel] * factors[channel] + centered * slopes[channel] + offsets[channel];
                    }
                }
            });
        });
        result
    }
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch-norm"
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
        let (weights, bias) = (elements(weight, weight_layout)?, elements(bias, bias_layout)?);
        let channels = weights.len();
        let fits = x_layout.dims().last() == Some(&channels);
        if !fits || [bias.len(), self.mean.len(), self.scale.len()] != [channels; 3] {
            candle_core::bail!("batch norm of {channels} channels was given shape {:?}", x_layout.dims());
        }
        let factors: Vec<f32> = weights.iter().zip(&self.scale).map(|(weight, scale)| weight * scale).collect();
        let mut result = elements(x, x_layout)?.to_vec();
        result.par_chunks_mut((rows_per_task(channels) * channels).max(1)).for_each(|rows| {
            vectorized!(|| {
                for row in rows.chunks_exact_mut(channels) {
                    for channel in 0..channels {
                        row[channel] = (row[channel] - self.mean[channel]) * factors[channel] + bias[channel];
                    }
                }
            });
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
            let (of_weight, of_bias) = self.sums(inputs, upstream);
            let of_x = x
                .track_op()
                .then(|| gradient(self.input_gradient(inputs, upstream, weights, [&of_weight, &of_bias]), x));
            let of_x = of_x.transpose()?;
            let of_weight = weight.track_op().then(|| gradient(of_weight, weight));
            let of_bias = bias.track_op().then(|| gradient(of_bias, bias));
            Ok((of_x, of_weight.transpose()?, of_bias.transpose()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::ops::testing::{assert_close, assert_gradients, random, views};

    #[test]
    fn kernels_equal_the_composed_form() -> Result<()> {
        for channels in [1, 5, 37] {
            let (weight, bias) = (random(&[channels], 1)?, random(&[channels], 2)?);
            let (mean, variance) = (random(&[channels], 3)?, (random(&[channels], 4)? + 1.5)?);
            for x in views(&[3, 5, 7, channels])? {
                let x = (x + 4.0)?;
                let oracle = normalized(&x.broadcast_sub(&mean)?, &weight, &bias, &variance, 1e-5)?;
                assert_close(&batch_norm(&x, &weight, &bias, &mean, &variance, 1e-5)?, &oracle, 1e-5)?;
                let (ours, statistics) = batch_norm_of_batch(&x, &weight, &bias, 1e-5)?;
                let (oracle, expected) = composed_of_batch(&x, &weight, &bias, 1e-5, 105.0 / 104.0)?;
                assert_close(&ours, &oracle, 2e-5)?;
                assert_close(&statistics.mean, &expected.mean, 1e-5)?;
                assert_close(&statistics.unbiased_variance, &expected.unbiased_variance, 1e-5)?;
            }
        }
        Ok(())
    }

    #[test]
    fn statistics_are_those_of_pytorch() -> Result<()> {
        // torch.nn.functional.batch_norm(x, mean, var, training=True, momentum=1) of these rows.
        let x = Tensor::new(&[[1f32, 2.0], [3.0, 2.0], [8.0, 5.0]], &candle_core::Device::Cpu)?;
        let ones = Tensor::ones(2, DType::F32, x.device())?;
        let (y, statistics) = batch_norm_of_batch(&x, &ones, &ones.zeros_like()?, 1e-5)?;
        assert_close(&statistics.mean, &Tensor::new(&[4f32, 3.0], x.device())?, 1e-6)?;
        assert_close(&statistics.unbiased_variance, &Tensor::new(&[13f32, 3.0], x.device())?, 1e-6)?;
        assert_close(&y.get(0)?, &Tensor::new(&[-1.019_049f32, -0.707_105], x.device())?, 1e-5)
    }

    #[test]
    fn one_value_per_channel_is_an_error() -> Result<()> {
        let one = random(&[1, 4], 1)?;
        let weight = random(&[4], 2)?;
        assert!(batch_norm_of_batch(&one, &weight, &weight, 1e-5).is_err());
        Ok(())
    }

    #[test]
    fn gradients_are_right() -> Result<()> {
        for channels in [1, 5, 37] {
            let shapes: [&[usize]; 3] = [&[3, 5, 4, channels], &[channels], &[channels]];
            assert_gradients(&shapes, |args| {
                let x = (&args[0] * 3.0)?;
                Ok(batch_norm_of_batch(&x, &args[1], &args[2], 1e-5)?.0)
            })?;
            assert_gradients(&shapes, |args| {
                let like = |x: Tensor| x.to_dtype(args[0].dtype());
                let (mean, variance) = (random(&[channels], 3)?, (random(&[channels], 4)? + 1.5)?);
                batch_norm(&args[0], &args[1], &args[2], &like(mean)?, &like(variance)?, 1e-5)
            })?;
        }
        Ok(())
    }
}
