//! Batch norm while it trains, with the activation after it: nothing but the input is kept, and both directions read it
//! twice.

use std::mem::MaybeUninit;

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::{BatchStatistics, statistics};
use crate::ops::backward::{read, rows_per_task, sum_in_order};
use crate::ops::{Activation, space, written};

/// What a batch was normalised by, per channel.
#[derive(Debug, Clone)]
pub struct Normal {
    mean: Vec<f32>,
    /// One over the deviation.
    scale: Vec<f32>,
}

pub struct Gradients {
    pub x: Tensor,
    pub weight: Tensor,
    pub bias: Tensor,
    /// Of what was added before the activation, whether anything was or not.
    pub residual: Tensor,
}

/// The norm's own weight and bias, and what follows it.
#[derive(Clone, Copy)]
pub struct Layers<'a> {
    /// `(channels)` both.
    pub weight: &'a Tensor,
    pub bias: &'a Tensor,
    pub epsilon: f32,
    pub activation: Activation,
}

/// `activation(batch norm(x) + residual)` with the statistics of the batch.
///
/// `x`, `residual` and the result have shape `(…, channels)`. Fails when there is but one value per channel.
pub fn forward(x: &Tensor, layers: Layers, residual: Option<&Tensor>) -> Result<(Tensor, Normal, BatchStatistics)> {
    let channels = layers.weight.elem_count();
    let count = super::values_per_channel(x)?;
    if x.dims().last() != Some(&channels) || residual.is_some_and(|residual| residual.shape() != x.shape()) {
        candle_core::bail!("batch norm of {channels} channels was given shape {:?}", x.dims());
    }
    read([x, layers.weight, layers.bias, residual.unwrap_or(x)], |[values, weight, bias, added]| {
        let (mean, variance) = statistics(values, channels);
        let unbiased = count as f32 / (count - 1) as f32;
        let of_batch = BatchStatistics {
            mean: Tensor::from_slice(&mean, channels, &Device::Cpu)?,
            unbiased_variance: Tensor::from_iter(variance.iter().map(|variance| variance * unbiased), &Device::Cpu)?,
        };
        let scale = variance.into_iter().map(|variance| 1.0 / (variance + layers.epsilon).sqrt()).collect();
        let normal = Normal { mean, scale };
        let affine = Affine::new(&normal, weight, bias);
        let mut result = space(values.len());
        let chunk = normal.chunk();
        let tasks = result.par_chunks_mut(chunk).zip(values.par_chunks(chunk).zip(added.par_chunks(chunk)));
        tasks.for_each(|(result, (values, added))| {
            affine.apply(result, values, residual.map(|_| added), layers.activation);
        });
        // SAFETY: each task writes its chunk.
        Ok((Tensor::from_vec(unsafe { written(result) }, x.shape(), &Device::Cpu)?, normal, of_batch))
    })
}

/// The gradients of [`forward`], given that of its result.
pub fn backward(
    x: &Tensor,
    normal: &Normal,
    layers: Layers,
    residual: Option<&Tensor>,
    upstream: &Tensor,
) -> Result<Gradients> {
    let upstream = upstream.contiguous()?;
    let tensors = [x, layers.weight, layers.bias, residual.unwrap_or(x), &upstream];
    let (of_x, inner, sums) = read(tensors, |[values, weights, bias, added, upstream]| {
        if layers.activation == Activation::None {
            let sums = normal.sums(values, upstream);
            return Ok((normal.input_gradient(values, upstream, weights, &sums), None, sums));
        }
        let affine = Affine::new(normal, weights, bias);
        let chunk = normal.chunk();
        let mut inner = space(values.len());
        let inputs = values.par_chunks(chunk).zip(added.par_chunks(chunk)).zip(upstream.par_chunks(chunk));
        let parts = inner.par_chunks_mut(chunk).zip(inputs).map(|(inner, ((values, added), upstream))| {
            let inner = affine.slopes(inner, upstream, values, residual.map(|_| added), layers.activation);
            normal.chunk_sums(values, inner)
        });
        let sums = in_order(parts.collect(), weights.len());
        // SAFETY: each task writes its chunk.
        let inner = unsafe { written(inner) };
        Ok((normal.input_gradient(values, &inner, weights, &sums), Some(inner), sums))
    })?;
    let [of_weight, of_bias] = sums;
    let tensor = |values: Vec<f32>, like: &Tensor| Tensor::from_vec(values, like.shape(), &Device::Cpu);
    Ok(Gradients {
        x: tensor(of_x, x)?,
        weight: tensor(of_weight, layers.weight)?,
        bias: tensor(of_bias, layers.bias)?,
        residual: inner.map_or(Ok(upstream), |inner| tensor(inner, x))?,
    })
}

/// The sums of tasks, for weight and bias.
fn in_order(parts: Vec<[Vec<f32>; 2]>, channels: usize) -> [Vec<f32>; 2] {
    let (of_weight, of_bias): (Vec<_>, Vec<_>) = parts.into_iter().map(|[weight, bias]| (weight, bias)).unzip();
    [sum_in_order(of_weight, channels), sum_in_order(of_bias, channels)]
}

impl Normal {
    /// Values of one task: whole widened rows.
    fn chunk(&self) -> usize {
        let wide = widened(&self.mean).len();
        rows_per_task(wide) * wide
    }

    /// The gradients of weight and bias, given that of the norm's result.
    fn sums(&self, values: &[f32], upstream: &[f32]) -> [Vec<f32>; 2] {
        let chunks = values.par_chunks(self.chunk()).zip(upstream.par_chunks(self.chunk()));
        in_order(chunks.map(|(values, upstream)| self.chunk_sums(values, upstream)).collect(), self.mean.len())
    }

    fn chunk_sums(&self, values: &[f32], upstream: &[f32]) -> [Vec<f32>; 2] {
        let (means, scales) = (widened(&self.mean), widened(&self.scale));
        let wide = means.len();
        let (mut of_weight, mut of_bias) = (vec![0.0; wide], vec![0.0; wide]);
        vectorized!(|| {
            for (values, upstream) in values.chunks(wide).zip(upstream.chunks(wide)) {
                let sums = of_weight.iter_mut().zip(&mut of_bias).zip(means.iter().zip(&scales));
                for (((of_weight, of_bias), (mean, scale)), (value, upstream)) in sums.zip(values.iter().zip(upstream))
                {
                    *of_weight += upstream * (value - mean) * scale;
                    *of_bias += upstream;
                }
            }
        });
        [of_weight, of_bias].map(|sums| narrowed(&sums, self.mean.len()))
    }

    /// The gradient of the input, given those of weight and bias: mean and variance follow the input.
    fn input_gradient(
        &self,
        values: &[f32],
        upstream: &[f32],
        weights: &[f32],
        [of_weight, of_bias]: &[Vec<f32>; 2],
    ) -> Vec<f32> {
        // gradient = upstream · factor + value · slope + offset
        let share = weights.len() as f32 / values.len() as f32;
        let factors: Vec<f32> = weights.iter().zip(&self.scale).map(|(weight, scale)| weight * scale).collect();
        let slope = |channel: usize| -factors[channel] * self.scale[channel] * of_weight[channel] * share;
        let slopes: Vec<f32> = (0..weights.len()).map(slope).collect();
        let offset = |channel: usize| -factors[channel] * of_bias[channel] * share;
        let offsets: Vec<f32> = (0..weights.len()).map(offset).collect();
        let [factors, slopes, offsets, means] = [&factors, &slopes, &offsets, &self.mean].map(|values| widened(values));
        let (wide, chunk) = (factors.len(), self.chunk());
        let mut result = space(values.len());
        let inputs = values.par_chunks(chunk).zip(upstream.par_chunks(chunk));
        result.par_chunks_mut(chunk).zip(inputs).for_each(|(result, (values, upstream))| {
            vectorized!(|| {
                let rows = result.chunks_mut(wide).zip(values.chunks(wide).zip(upstream.chunks(wide)));
                for (result, (values, upstream)) in rows {
                    let constants = factors.iter().zip(&slopes).zip(offsets.iter().zip(&means));
                    let inputs = values.iter().zip(upstream);
                    for ((result, (value, upstream)), ((factor, slope), (offset, mean))) in
                        result.iter_mut().zip(inputs).zip(constants)
                    {
                        result.write(upstream * factor + (value - mean) * slope + offset);
                    }
                }
            });
        });
        // SAFETY: values and upstream are as long as the result.
        unsafe { written(result) }
    }
}

/// Norm, weight and bias as `(value - mean) · factor + bias` per channel. The mean is taken away first: where it is many
/// deviations large, `value · factor + offset` would lose what tells values apart.
struct Affine {
    means: Vec<f32>,
    factors: Vec<f32>,
    bias: Vec<f32>,
}

/// Values that are worked on at once, in the first-level cache.
const SPAN: usize = 1024;

impl Affine {
    fn new(normal: &Normal, weights: &[f32], bias: &[f32]) -> Self {
        let factors: Vec<f32> = weights.iter().zip(&normal.scale).map(|(weight, scale)| weight * scale).collect();
        let [means, factors, bias] = [&normal.mean, &factors, bias].map(widened);
        Self { means, factors, bias }
    }

    fn wide(&self) -> usize {
        self.factors.len()
    }

    /// Writes `activation((values − mean) · factor + bias + residual)`.
    fn apply(&self, result: &mut [MaybeUninit<f32>], values: &[f32], residual: Option<&[f32]>, activation: Activation) {
        let span = self.span();
        vectorized!(|| {
            for (index, (result, values)) in result.chunks_mut(span).zip(values.chunks(span)).enumerate() {
                let result = result.write_copy_of_slice(values);
                self.before_activation(result, residual.map(|residual| &residual[index * span..]));
                activation.apply_inlined(result);
            }
        });
    }

    /// Writes `upstream` times the slopes of the activation of what became of `values`.
    fn slopes<'a>(
        &self,
        result: &'a mut [MaybeUninit<f32>],
        upstream: &[f32],
        values: &[f32],
        residual: Option<&[f32]>,
        activation: Activation,
    ) -> &'a [f32] {
        let span = self.span();
        let mut inner = vec![0.0; span.min(values.len())];
        vectorized!(|| {
            let spans = upstream.chunks(span).zip(values.chunks(span));
            for (index, (result, (upstream, values))) in result.chunks_mut(span).zip(spans).enumerate() {
                let inner = &mut inner[..values.len()];
                inner.copy_from_slice(values);
                self.before_activation(inner, residual.map(|residual| &residual[index * span..]));
                activation.multiply_by_slope_inlined(result.write_copy_of_slice(upstream), inner);
            }
        });
        // SAFETY: every span has been written.
        unsafe { result.assume_init_ref() }
    }

    #[inline(always)]
    fn before_activation(&self, values: &mut [f32], residual: Option<&[f32]>) {
        for values in values.chunks_mut(self.wide()) {
            let constants = self.means.iter().zip(&self.factors).zip(&self.bias);
            for (value, ((mean, factor), bias)) in values.iter_mut().zip(constants) {
                *value = (*value - mean) * factor + bias;
            }
        }
        if let Some(residual) = residual {
            values.iter_mut().zip(residual).for_each(|(value, residual)| *value += residual);
        }
    }

    fn span(&self) -> usize {
        (SPAN / self.wide()).max(1) * self.wide()
    }
}

/// One value per channel, repeated for several rows: loops over a few channels only are not worth a vector.
pub fn widened(values: &[f32]) -> Vec<f32> {
    const LEAST: usize = 64;
    values.repeat((LEAST / values.len().max(1)).max(1))
}

/// The sums of what belongs to each channel.
pub fn narrowed(values: &[f32], channels: usize) -> Vec<f32> {
    let mut sums = vec![0.0; channels];
    values.chunks_exact(channels.max(1)).for_each(|row| crate::ops::backward::add(&mut sums, row));
    sums
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::*;
    use crate::ops::testing::{assert_close, random};
    use crate::ops::{activate_sum, batch_norm_of_batch, gradients_of};

    #[test]
    fn equals_norm_sum_and_activation_one_after_the_other() -> Result<()> {
        for (channels, rows) in [(1, 9), (5, 700), (24, 3), (130, 301)] {
            for activation in [Activation::None, Activation::Relu, Activation::HardSwish, Activation::Silu] {
                for has_residual in [false, true] {
                    check(&[2, rows, channels], activation, has_residual)?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_mean_of_many_deviations_hides_no_difference() -> Result<()> {
        let x = (random(&[50, 3], 1)? + 1000.0)?;
        let (weight, bias) = (random(&[3], 2)?, random(&[3], 3)?);
        let layers = Layers { weight: &weight, bias: &bias, epsilon: 1e-5, activation: Activation::None };
        let ours = forward(&x, layers, None)?.0.to_dtype(DType::F64)?;
        let [x, weight, bias] = [&x, &weight, &bias].map(|tensor| tensor.to_dtype(DType::F64));
        let oracle = batch_norm_of_batch(&x?, &weight?, &bias?, 1e-5)?.0;
        // The mean itself is rounded, which moves all values alike.
        let errors = (ours - oracle)?;
        let apart = errors.broadcast_sub(&errors.narrow(0, 0, 1)?)?.abs()?.max_all()?.to_scalar::<f64>()?;
        assert!(apart < 1e-6, "{apart}");
        Ok(())
    }

    fn check(shape: &[usize], activation: Activation, has_residual: bool) -> Result<()> {
        let channels = shape[2];
        let x = Var::from_tensor(&((random(shape, 1)? * 3.0)? + 2.0)?)?;
        let (weight, bias) = (Var::from_tensor(&random(&[channels], 2)?)?, Var::from_tensor(&random(&[channels], 3)?)?);
        let added = Var::from_tensor(&random(shape, 4)?)?;
        let residual = has_residual.then_some(added.as_tensor());
        let (normed, expected) = batch_norm_of_batch(&x, &weight, &bias, 1e-5)?;
        let oracle = activate_sum(normed, residual, activation)?;
        let layers = Layers { weight: &weight, bias: &bias, epsilon: 1e-5, activation };
        let (ours, normal, statistics) = forward(&x, layers, residual)?;
        assert_close(&ours, &oracle, 2e-5)?;
        assert_close(&statistics.mean, &expected.mean, 1e-6)?;
        assert_close(&statistics.unbiased_variance, &expected.unbiased_variance, 1e-5)?;
        let upstream = random(shape, 5)?;
        let gradients = gradients_of(&oracle, &upstream)?;
        let ours = backward(&x, &normal, layers, residual, &upstream)?;
        let mut pairs = vec![(&x, &ours.x), (&weight, &ours.weight), (&bias, &ours.bias)];
        pairs.extend(residual.map(|_| (&added, &ours.residual)));
        for (var, ours) in pairs {
            let oracle = gradients.get(var).unwrap();
            let largest = oracle.abs()?.max_all()?.to_scalar::<f32>()?;
            assert_close(ours, oracle, 2e-5 * largest.max(1.0))?;
        }
        Ok(())
    }
}
