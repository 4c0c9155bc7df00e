//! The linear layer alone, with its gradients: two matrix products and a sum.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use crate::ops::backward::{column_sums, gradient, read};
use crate::ops::packed::{PackedMatrix, Unit, linear_rows};
use crate::ops::products::{row_gradients, weight_gradients};
use crate::ops::{Activation, elements, output};

/// `x · weight + bias`.
pub struct Tracked;

impl CustomOp3 for Tracked {
    fn name(&self) -> &'static str {
        "tracked-linear"
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
        let (inputs, outputs) = weight_layout.shape().dims2()?;
        let mut shape = x_layout.dims().to_vec();
        let bias = elements(bias, bias_layout)?;
        if shape.pop() != Some(inputs) || bias.len() != outputs {
            candle_core::bail!("linear of {inputs} inputs was given {:?} and {} biases", x_layout.dims(), bias.len());
        }
        shape.push(outputs);
        let weight = PackedMatrix::scaled(elements(weight, weight_layout)?, outputs, None);
        Ok(output(linear_rows(elements(x, x_layout)?, &weight, bias, Activation::None, None, Unit::Tiles), shape))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (inputs, outputs) = weight.dims2()?;
        read([x, weight, &upstream.contiguous()?], |[rows, weights, upstream]| {
            let of_x = x.track_op().then(|| gradient(row_gradients(upstream, weights, outputs), x));
            let of_weight = weight.track_op().then(|| gradient(of_weight(rows, upstream, [inputs, outputs]), weight));
            let of_bias = bias.track_op().then(|| gradient(column_sums(upstream, outputs), bias));
            Ok((of_x.transpose()?, of_weight.transpose()?, of_bias.transpose()?))
        })
    }
}

/// The gradients of `x`, the weight and the bias of a linear layer without an activation on the CPU, given that of its
/// result.
pub fn linear_backward(x: &Tensor, weight: &Tensor, upstream: &Tensor) -> Result<[Tensor; 3]> {
    let (inputs, outputs) = weight.dims2()?;
    let (rows, upstream) = (x.elem_count() / inputs.max(1), upstream.contiguous()?);
    if x.dims().last() != Some(&inputs) || upstream.elem_count() != rows * outputs {
        candle_core::bail!("a linear gradient of {:?} for {:?} and {inputs} inputs", upstream.dims(), x.dims());
    }
    read([x, weight, &upstream], |[rows, weights, upstream]| {
        let of_x = gradient(row_gradients(upstream, weights, outputs), x)?;
        let of_bias = Tensor::from_vec(column_sums(upstream, outputs), outputs, x.device())?;
        Ok([of_x, gradient(of_weight(rows, upstream, [inputs, outputs]), weight)?, of_bias])
    })
}

fn of_weight(rows: &[f32], upstream: &[f32], [inputs, outputs]: [usize; 2]) -> Vec<f32> {
    weight_gradients(upstream, [inputs, outputs], |first, _, add| add(&rows[first * inputs..], inputs))
}
