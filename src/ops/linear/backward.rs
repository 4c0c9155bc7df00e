//! The linear layer alone, with its gradients: two matrix products and a sum.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use crate::ops::backward::{column_sums, gradient, read};
use crate::ops::packed::{PackedMatrix, linear_rows};
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
        Ok(output(linear_rows(elements(x, x_layout)?, &weight, bias, Activation::None, None), shape))
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
            let of_weight = weight.track_op().then(|| {
                let sums =
                    weight_gradients(upstream, [inputs, outputs], |first, _, add| add(&rows[first * inputs..], inputs));
                gradient(sums, weight)
            });
            let of_bias = bias.track_op().then(|| gradient(column_sums(upstream, outputs), bias));
            Ok((of_x.transpose()?, of_weight.transpose()?, of_bias.transpose()?))
        })
    }
}
