//! What a block adds to its shortcut, and the activation after it: the end of a tracked linear layer or convolution.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::backward::{column_sums, gradient, read};
use super::{Activation, activate, elements, has_kernel, output, space, written};

/// Elements of one task.
const CHUNK: usize = 16 << 10;

/// `activation(x + residual)`, one operation after the other: what follows a tracked layer.
pub fn activate_sum(x: Tensor, residual: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
    let x = if let Some(residual) = residual { add(&x, residual)? } else { x };
    if activation == Activation::None { Ok(x) } else { activate(&x, activation) }
}

/// `x + y`, which have one shape.
pub fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if !has_kernel("add", x) {
        return x + y;
    }
    x.contiguous()?.apply_op2(&y.contiguous()?, Add)
}

struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if x_layout.shape() != y_layout.shape() {
            candle_core::bail!("shapes {:?} and {:?} do not add up", x_layout.dims(), y_layout.dims());
        }
        let (x, y) = (elements(x, x_layout)?, elements(y, y_layout)?);
        let mut result = space(x.len());
        let chunks = result.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK).zip(y.par_chunks(CHUNK)));
        chunks.for_each(|(sums, (x, y))| {
            vectorized!(|| for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
                sum.write(x + y);
            });
        });
        // SAFETY: both have as many values as the result.
        Ok(output(unsafe { written(result) }, x_layout.shape()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((x.track_op().then(|| gradient.clone()), y.track_op().then(|| gradient.clone())))
    }
}

/// `residual + x · scale`: ConvNeXt's layer scale, kept apart from the layer before it.
///
/// `residual` and `x` have shape `(…, channels)`, `scale` `(channels)`.
pub fn add_scaled(residual: &Tensor, x: &Tensor, scale: &Tensor) -> Result<Tensor> {
    if !has_kernel("add-scaled", x) {
        return residual + x.broadcast_mul(scale)?;
    }
    residual.contiguous()?.apply_op3(&x.contiguous()?, &scale.contiguous()?, AddScaled)
}

struct AddScaled;

impl CustomOp3 for AddScaled {
    fn name(&self) -> &'static str {
        "add-scaled"
    }

    fn cpu_fwd(
        &self,
        residual: &CpuStorage,
        residual_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, scale) = (elements(x, x_layout)?, elements(scale, scale_layout)?);
        if residual_layout.shape() != x_layout.shape() || x_layout.dims().last() != Some(&scale.len()) {
            candle_core::bail!("{} scales do not fit {:?} and a residual", scale.len(), x_layout.dims());
        }
        let mut result = elements(residual, residual_layout)?.to_vec();
        each_row(&mut result, x, scale.len(), |sums, row| {
            for ((sum, value), scale) in sums.iter_mut().zip(row).zip(scale) {
                *sum += value * scale;
            }
        });
        Ok(output(result, x_layout.shape()))
    }

    fn bwd(
        &self,
        residual: &Tensor,
        x: &Tensor,
        scale: &Tensor,
        _: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let upstream = upstream.contiguous()?;
        let of_x = x.track_op().then(|| {
            read([&upstream, scale], |[upstream, scale]| {
                let mut result = vec![0.0; upstream.len()];
                each_row(&mut result, upstream, scale.len(), |row, upstream| {
                    for ((value, upstream), scale) in row.iter_mut().zip(upstream).zip(scale) {
                        *value = upstream * scale;
                    }
                });
                gradient(result, x)
            })
        });
        let of_scale = scale.track_op().then(|| {
            read([&upstream, x], |[upstream, x]| {
                let mut products = x.to_vec();
                each_row(&mut products, upstream, scale.elem_count(), |row, upstream| {
                    row.iter_mut().zip(upstream).for_each(|(value, upstream)| *value *= upstream);
                });
                gradient(column_sums(&products, scale.elem_count()), scale)
            })
        });
        let of_residual = residual.track_op().then(|| upstream.clone());
        Ok((of_residual, of_x.transpose()?, of_scale.transpose()?))
    }
}

/// Calls `compute` with each row of `result` and of `other`, in parallel.
fn each_row(result: &mut [f32], other: &[f32], columns: usize, compute: impl Fn(&mut [f32], &[f32]) + Sync) {
    let chunk = (CHUNK / columns.max(1) + 1) * columns.max(1);
    result.par_chunks_mut(chunk).zip(other.par_chunks(chunk)).for_each(|(rows, others)| {
        let rows = rows.chunks_exact_mut(columns.max(1)).zip(others.chunks_exact(columns.max(1)));
        vectorized!(|| rows.for_each(|(row, other)| compute(row, other)));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, assert_gradients, random, views};

    #[test]
    fn scaled_sums_equal_their_composed_form() -> Result<()> {
        for x in views(&[2, 3, 5, 21])? {
            let (residual, scale) = (random(&[2, 3, 5, 21], 1)?, random(&[21], 2)?);
            let oracle = (&residual + x.broadcast_mul(&scale)?)?;
            assert_close(&add_scaled(&residual, &x, &scale)?, &oracle, 1e-6)?;
            assert_close(&add(&residual, &x)?, &(&residual + &x)?, 1e-6)?;
        }
        Ok(())
    }

    #[test]
    fn gradients_are_right() -> Result<()> {
        let shape: &[usize] = &[2, 3, 5, 21];
        assert_gradients(&[shape, shape], |args| add(&args[0], &args[1]))?;
        assert_gradients(&[shape, shape, &[21]], |args| add_scaled(&args[0], &args[1], &args[2]))
    }
}
