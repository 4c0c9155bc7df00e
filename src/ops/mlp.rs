//! Norm, widening layer, activation and narrowing layer in one pass over tiles of rows: the wide rows between the two
//! layers, the largest of a network, exist for one tile at a time and never leave the cache.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::gemm::{Epilogue, Matrix, multiply, tiled};
use super::layer_norm::normalize;
use super::{
    Activation, elements, has_kernel, is_tracked, layer_norm, linear, output, scratch, vectorized, with_elements, work,
};

/// The layers of [`mlp`], each as weight and bias.
#[derive(Debug, Clone)]
pub struct Mlp {
    /// Layer norm: `(channels)` both.
    pub norm: (Tensor, Tensor),
    pub epsilon: f32,
    /// `(channels, hidden)` and `(hidden)`.
    pub expand: (Tensor, Tensor),
    pub activation: Activation,
    /// `(hidden, channels)` and `(channels)`.
    pub project: (Tensor, Tensor),
}

/// `residual + project(activation(expand(layer norm(x))))`; `x`, `residual` and the result have shape `(…, channels)`.
pub fn mlp(x: &Tensor, layers: &Mlp, residual: &Tensor) -> Result<Tensor> {
    if x.shape() != residual.shape() {
        candle_core::bail!("mlp was given a residual of shape {:?} for {:?}", residual.dims(), x.dims());
    }
    let Mlp { norm, expand, project, .. } = layers;
    let tensors = [&norm.0, &norm.1, &expand.0, &expand.1, &project.0, &project.1, residual];
    if !has_kernel(x) || is_tracked(&tensors) || x.track_op() {
        let normed = layer_norm(x, &norm.0, &norm.1, layers.epsilon)?;
        let wide = linear(&normed, &expand.0, &expand.1, layers.activation, None)?;
        return linear(&wide, &project.0, &project.1, Activation::None, Some(residual));
    }
    let (channels, hidden) = expand.0.dims2()?;
    // Both layers have as many weights.
    work::product(2 * x.elem_count() / channels.max(1), channels, hidden);
    let mut contiguous = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        contiguous.push(tensor.contiguous()?);
    }
    let op = Fused { tensors: contiguous, epsilon: layers.epsilon, activation: layers.activation };
    x.contiguous()?.apply_op1_no_bwd(&op)
}

struct Fused {
    tensors: Vec<Tensor>,
    epsilon: f32,
    activation: Activation,
}

impl CustomOp1 for Fused {
    fn name(&self) -> &'static str {
        "mlp"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = elements(x, layout)?;
        let result = with_elements(&self.tensors, |tensors| match *tensors {
            [weight, bias, expand, hidden_bias, project, project_bias, residual] => {
                let (channels, hidden) = (weight.len(), hidden_bias.len());
                let fits = layout.dims().last() == Some(&channels)
                    && [expand.len(), project.len()] == [channels * hidden; 2]
                    && [bias.len(), project_bias.len()] == [channels; 2];
                if !fits {
                    candle_core::bail!("mlp of {channels} channels was given shape {:?}", layout.dims());
                }
                let expand = Matrix::row_major(expand, channels, hidden);
                let project = Matrix::row_major(project, hidden, channels);
                let inner = Epilogue { bias: hidden_bias, residual: None, activation: self.activation };
                let outer = Epilogue { bias: project_bias, residual: Some(residual), activation: Activation::None };
                let max_rows = scratch::MAX_BYTES / size_of::<f32>() / (channels + hidden);
                Ok(tiled(x.len() / channels, max_rows, &outer, |tile, first_row, rows| {
                    scratch::with(rows * (channels + hidden), |space| {
                        let (normed, wide) = space.split_at_mut(rows * channels);
                        normed.copy_from_slice(&x[first_row * channels..][..rows * channels]);
                        vectorized(|| {
                            let rows = normed.chunks_exact_mut(channels);
                            rows.for_each(|row| normalize(row, weight, bias, self.epsilon));
                        });
                        multiply(wide, hidden, Matrix::row_major(normed, rows, channels), expand, 1.0);
                        inner.finish(wide, 0);
                        multiply(tile, channels, Matrix::row_major(wide, rows, hidden), project, 1.0);
                    });
                }))
            }
            _ => candle_core::bail!("mlp takes seven tensors"),
        })?;
        Ok(output(result, layout.shape()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, assert_gradients, random, views};
    use crate::ops::{layer_norm, linear};

    #[test]
    fn equals_its_composed_form() -> Result<()> {
        for (rows, channels, hidden) in [(1, 3, 5), (7, 16, 64), (600, 40, 160)] {
            let layers = Mlp {
                norm: (random(&[channels], 1)?, random(&[channels], 2)?),
                epsilon: 1e-6,
                expand: (random(&[channels, hidden], 3)?, random(&[hidden], 4)?),
                activation: Activation::Gelu,
                project: (random(&[hidden, channels], 5)?, random(&[channels], 6)?),
            };
            for x in views(&[2, rows, channels])? {
                let residual = random(&[2, rows, channels], 7)?;
                let normed = layer_norm::composed(&x, &layers.norm.0, &layers.norm.1, 1e-6)?;
                let (weight, bias) = &layers.expand;
                let wide = linear::composed(&normed, weight, bias, Activation::Gelu, None)?;
                let (weight, bias) = &layers.project;
                let oracle = linear::composed(&wide, weight, bias, Activation::None, Some(&residual))?;
                assert_close(&mlp(&x, &layers, &residual)?, &oracle, 1e-4)?;
            }
        }
        Ok(())
    }

    #[test]
    fn gradients_are_right() -> Result<()> {
        let x: &[usize] = &[2, 7, 6];
        let shapes: [&[usize]; 8] = [x, &[6], &[6], &[6, 19], &[19], &[19, 6], &[6], x];
        assert_gradients(&shapes, |args| {
            let pair = |first: usize| (args[first].clone(), args[first + 1].clone());
            let (norm, expand, project) = (pair(1), pair(3), pair(5));
            mlp(&args[0], &Mlp { norm, epsilon: 1e-6, expand, activation: Activation::Gelu, project }, &args[7])
        })
    }

    #[test]
    fn wrong_lengths_are_errors() -> Result<()> {
        let layers = Mlp {
            norm: (random(&[4], 1)?, random(&[4], 2)?),
            epsilon: 1e-6,
            expand: (random(&[4, 8], 3)?, random(&[8], 4)?),
            activation: Activation::Gelu,
            project: (random(&[8, 4], 5)?, random(&[4], 6)?),
        };
        let x = random(&[2, 5], 7)?;
        assert!(mlp(&x, &layers, &x).is_err());
        assert!(mlp(&random(&[2, 4], 7)?, &layers, &x).is_err());
        Ok(())
    }
}
