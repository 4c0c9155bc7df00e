//! What a training step does to its variables, in place: no weight has a second copy while it moves.
//!
//! The composed forms make copies. A variable owns its memory; what is no whole variable is refused.

use candle_core::{CpuStorage, DType, InplaceOp2, InplaceOp3, Layout, MetalStorage, Result, Tensor, Var};
use rayon::prelude::*;

use super::backward::{read, sum_pairs};
use super::metal::{self, programs};
use super::{Face, elements, face};

/// Elements of one task.
const CHUNK: usize = 16 << 10;

/// `target = keep · target + share · values`: sums of gradients, momentum, moving averages, steps.
pub fn blend(target: &Var, keep: f64, values: &Tensor, share: f64) -> Result<()> {
    if face("update", target) == Face::Composed {
        return target.set(&(target.as_detached_tensor().affine(keep, 0.0)? + values.affine(share, 0.0)?)?);
    }
    target.as_tensor().inplace_op2(&values.contiguous()?, &Blend { keep: keep as f32, share: share as f32 })
}

struct Blend {
    keep: f32,
    share: f32,
}

impl InplaceOp2 for Blend {
    fn name(&self) -> &'static str {
        "blend"
    }

    fn cpu_fwd(&self, target: &mut CpuStorage, to: &Layout, values: &CpuStorage, from: &Layout) -> Result<()> {
        let Self { keep, share } = *self;
        each(target_elements(target, to)?, elements(values, from)?, |targets, values| {
            for (target, value) in targets.iter_mut().zip(values) {
                *target = keep * *target + share * value;
            }
        })
    }

    fn metal_fwd(&self, target: &mut MetalStorage, to: &Layout, values: &MetalStorage, from: &Layout) -> Result<()> {
        let program = programs::blend(to.shape().elem_count(), self.keep, self.share)?;
        metal::execute_in_place(&program, (target, to), &[(values, from)])
    }
}

/// The running first and second moments of a gradient that AdamW steps by.
#[derive(Debug, Clone, Copy)]
pub struct Moments {
    pub betas: [f64; 2],
}

/// `first = β₁ first + (1 − β₁) g`, `second = β₂ second + (1 − β₂) g²` for `g = scale · gradient`.
///
/// `moments` has shape `(2, n)`, the gradient `n` elements, the scale one: it clips gradients, whose length only the device
/// may know.
pub fn follow_moments(moments: &Var, gradient: &Tensor, scale: &Tensor, settings: Moments) -> Result<()> {
    if face("update", moments) == Face::Composed {
        let [first, second] = settings.betas;
        let gradient = gradient.flatten_all()?.broadcast_mul(&scale.to_dtype(gradient.dtype())?.flatten_all()?)?;
        let (one, two) = (moments.as_detached_tensor().get(0)?, moments.as_detached_tensor().get(1)?);
        let one = (one.affine(first, 0.0)? + gradient.affine(1.0 - first, 0.0)?)?;
        let two = (two.affine(second, 0.0)? + gradient.sqr()?.affine(1.0 - second, 0.0)?)?;
        return moments.set(&Tensor::stack(&[one, two], 0)?);
    }
    moments.as_tensor().inplace_op3(&gradient.contiguous()?, &scale.to_dtype(DType::F32)?, &settings)
}

impl InplaceOp3 for Moments {
    fn name(&self) -> &'static str {
        "follow-moments"
    }

    fn cpu_fwd(
        &self,
        moments: &mut CpuStorage,
        to: &Layout,
        gradient: &CpuStorage,
        from: &Layout,
        scale: &CpuStorage,
        scale_from: &Layout,
    ) -> Result<()> {
        let gradient = elements(gradient, from)?;
        let moments = target_elements(moments, to)?;
        if moments.len() != 2 * gradient.len() {
            candle_core::bail!("{} moments do not fit {} gradients", moments.len(), gradient.len());
        }
        let &[scale] = elements(scale, scale_from)? else { candle_core::bail!("a gradient has one scale") };
        let [first, second] = self.betas.map(|beta| beta as f32);
        let (firsts, seconds) = moments.split_at_mut(gradient.len());
        let tasks = firsts.par_chunks_mut(CHUNK).zip(seconds.par_chunks_mut(CHUNK)).zip(gradient.par_chunks(CHUNK));
        tasks.for_each(|((firsts, seconds), gradients)| {
            vectorized!(|| for ((one, two), gradient) in firsts.iter_mut().zip(seconds).zip(gradients) {
                let gradient = scale * gradient;
                *one = first * *one + (1.0 - first) * gradient;
                *two = second * *two + (1.0 - second) * gradient * gradient;
            });
        });
        Ok(())
    }

    fn metal_fwd(
        &self,
        moments: &mut MetalStorage,
        to: &Layout,
        gradient: &MetalStorage,
        from: &Layout,
        scale: &MetalStorage,
        scale_from: &Layout,
    ) -> Result<()> {
        let program = programs::follow_moments(from.shape().elem_count(), *self)?;
        metal::execute_in_place(&program, (moments, to), &[(gradient, from), (scale, scale_from)])
    }
}

/// One step of AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization"), in PyTorch's order of operations.
#[derive(Debug, Clone, Copy)]
pub struct AdamStep {
    pub learning_rate: f64,
    pub weight_decay: f64,
    pub epsilon: f64,
    /// `1 − β₁ᵗ` and `1 − β₂ᵗ` for step `t`, from 1.
    pub corrections: [f64; 2],
}

impl AdamStep {
    /// What the weight is multiplied by, what the first moment is, and the divisor of the second's root.
    pub(super) fn factors(&self) -> [f64; 3] {
        let decayed = 1.0 - self.learning_rate * self.weight_decay;
        [decayed, self.learning_rate / self.corrections[0], self.corrections[1].sqrt()]
    }
}

/// Moves a weight of `n` elements by its moments `(2, n)`.
pub fn descend(weight: &Var, moments: &Var, step: AdamStep) -> Result<()> {
    if face("update", weight) == Face::Composed {
        let [decayed, rate, root] = step.factors();
        let moments = moments.as_detached_tensor();
        let divisor = moments.get(1)?.sqrt()?.affine(1.0 / root, step.epsilon)?;
        let change = moments.get(0)?.affine(rate, 0.0)?.div(&divisor)?.reshape(weight.shape())?;
        return weight.set(&(weight.as_detached_tensor().affine(decayed, 0.0)? - change)?);
    }
    weight.as_tensor().inplace_op2(moments.as_tensor(), &step)
}

impl InplaceOp2 for AdamStep {
    fn name(&self) -> &'static str {
        "descend"
    }

    fn cpu_fwd(&self, weight: &mut CpuStorage, to: &Layout, moments: &CpuStorage, from: &Layout) -> Result<()> {
        let weight = target_elements(weight, to)?;
        let moments = elements(moments, from)?;
        if moments.len() != 2 * weight.len() {
            candle_core::bail!("{} moments do not fit {} weights", moments.len(), weight.len());
        }
        let [decayed, rate, root] = self.factors().map(|factor| factor as f32);
        let epsilon = self.epsilon as f32;
        let (firsts, seconds) = moments.split_at(weight.len());
        let tasks = weight.par_chunks_mut(CHUNK).zip(firsts.par_chunks(CHUNK)).zip(seconds.par_chunks(CHUNK));
        tasks.for_each(|((weights, firsts), seconds)| {
            vectorized!(|| for ((weight, first), second) in weights.iter_mut().zip(firsts).zip(seconds) {
                *weight = decayed * *weight - rate * (first / (second.sqrt() / root + epsilon));
            });
        });
        Ok(())
    }

    fn metal_fwd(&self, weight: &mut MetalStorage, to: &Layout, moments: &MetalStorage, from: &Layout) -> Result<()> {
        let program = programs::descend(to.shape().elem_count(), *self)?;
        metal::execute_in_place(&program, (weight, to), &[(moments, from)])
    }
}

/// The sum of the squares of all elements of `tensors`, one at least, as a scalar on their device: nothing waits for it. On
/// a CPU it is f64, elsewhere of the tensors' type.
pub fn sum_of_squares(tensors: &[&Tensor]) -> Result<Tensor> {
    let Some(first) = tensors.first() else { candle_core::bail!("there is nothing to sum") };
    match face("update", first) {
        Face::Cpu => {
            let sum = tensors.iter().map(|values| squares_on_cpu(values)).sum::<Result<f64>>()?;
            Tensor::new(sum, first.device())
        }
        Face::Metal => metal::squares(tensors)?.sum_all(),
        Face::Composed => {
            let sums = tensors.iter().map(|values| values.sqr()?.sum_all());
            Tensor::stack(&sums.collect::<Result<Vec<_>>>()?, 0)?.sum_all()
        }
    }
}

fn squares_on_cpu(values: &Tensor) -> Result<f64> {
    read([&values.contiguous()?], |[values]| {
        let square = |part: &[f32]| vectorized!(|| sum_pairs(part, part, |one, other| one * other));
        let parts: Vec<f32> = values.par_chunks(CHUNK).map(square).collect();
        Ok(parts.into_iter().map(f64::from).sum())
    })
}

/// The elements of a variable, to be written.
fn target_elements<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => candle_core::bail!("only contiguous f32 variables are updated in place"),
    }
}

/// Calls `compute` with chunks of both, in parallel.
fn each(targets: &mut [f32], values: &[f32], compute: impl Fn(&mut [f32], &[f32]) + Sync) -> Result<()> {
    if targets.len() != values.len() {
        candle_core::bail!("{} values do not fit {} targets", values.len(), targets.len());
    }
    let tasks = targets.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
    tasks.for_each(|(targets, values)| vectorized!(|| compute(targets, values)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::ops::testing::{assert_close, random};

    /// Two chunks and a rest.
    const LENGTH: usize = 2 * CHUNK + 37;

    #[test]
    fn a_blend_is_that_of_its_definition_for_views_too() -> Result<()> {
        let target = Var::from_tensor(&random(&[3, LENGTH], 1)?)?;
        let values = random(&[LENGTH, 3], 2)?.t()?;
        let oracle = (target.as_detached_tensor().affine(0.3, 0.0)? + values.affine(-0.7, 0.0)?)?;
        blend(&target, 0.3, &values, -0.7)?;
        assert_close(&target, &oracle, 1e-6)?;
        assert!(blend(&target, 1.0, &random(&[3], 1)?, 1.0).is_err());
        Ok(())
    }

    #[test]
    fn ten_steps_of_adamw_follow_the_definition_in_f64() -> Result<()> {
        let (betas, rate, decay, epsilon) = ([0.9, 0.999], 1e-2, 0.05, 1e-8);
        let weight = Var::from_tensor(&random(&[LENGTH], 3)?)?;
        let moments = Var::zeros((2, LENGTH), DType::F32, &Device::Cpu)?;
        let mut exact: Vec<[f64; 3]> =
            weight.to_vec1::<f32>()?.iter().map(|&weight| [f64::from(weight), 0.0, 0.0]).collect();
        for step in 1..=10 {
            let gradient = random(&[LENGTH], 10 + step)?;
            let corrections = betas.map(|beta: f64| 1.0 - beta.powi(step as i32));
            follow_moments(&moments, &gradient, &Tensor::new(0.5_f32, &Device::Cpu)?, Moments { betas })?;
            descend(&weight, &moments, AdamStep { learning_rate: rate, weight_decay: decay, epsilon, corrections })?;
            for ([weight, first, second], gradient) in exact.iter_mut().zip(gradient.to_vec1::<f32>()?) {
                let gradient = 0.5 * f64::from(gradient);
                *first = betas[0] * *first + (1.0 - betas[0]) * gradient;
                *second = betas[1] * *second + (1.0 - betas[1]) * gradient * gradient;
                let change = (*first / corrections[0]) / ((*second / corrections[1]).sqrt() + epsilon);
                *weight -= rate * (change + decay * *weight);
            }
        }
        for (ours, [exact, ..]) in weight.to_vec1::<f32>()?.into_iter().zip(exact) {
            assert!((f64::from(ours) - exact).abs() < 1e-5, "{ours} instead of {exact}");
        }
        Ok(())
    }

    #[test]
    fn the_composed_forms_do_the_same() -> Result<()> {
        // Where there is no kernel, as for f64, they run.
        let run = |of_type: DType| -> Result<Vec<f64>> {
            let gradient = random(&[LENGTH], 4)?.to_dtype(of_type)?;
            let weight = Var::from_tensor(&random(&[LENGTH], 5)?.to_dtype(of_type)?)?;
            let moments = Var::zeros((2, LENGTH), of_type, &Device::Cpu)?;
            let step = AdamStep { learning_rate: 0.1, weight_decay: 0.1, epsilon: 1e-8, corrections: [0.1, 0.001] };
            follow_moments(&moments, &gradient, &Tensor::new(2_f32, &Device::Cpu)?, Moments { betas: [0.9, 0.999] })?;
            descend(&weight, &moments, step)?;
            blend(&weight, 0.9, &gradient, 0.1)?;
            weight.to_dtype(DType::F64)?.to_vec1()
        };
        for (one, other) in run(DType::F32)?.into_iter().zip(run(DType::F64)?) {
            assert!((one - other).abs() < 1e-5, "{one} and {other}");
        }
        Ok(())
    }

    #[test]
    fn squares_are_summed_over_all_chunks() -> Result<()> {
        let (values, more) = (random(&[LENGTH], 6)?, random(&[3, 5], 7)?.t()?);
        let exact: f64 = values.to_vec1::<f32>()?.iter().map(|&value| f64::from(value).powi(2)).sum();
        let sum = |tensors: &[&Tensor]| sum_of_squares(tensors)?.to_scalar::<f64>();
        assert!((sum(&[&values])? - exact).abs() < 1e-5 * exact);
        let of_both = exact + more.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        assert!((sum(&[&values, &more])? - of_both).abs() < 1e-5 * of_both);
        // Composed, as for f64.
        let [values, more] = [values.to_dtype(DType::F64)?, more.to_dtype(DType::F64)?];
        assert!((sum(&[&values, &more])? - of_both).abs() < 1e-5 * of_both);
        assert!(sum(&[]).is_err());
        Ok(())
    }
}
