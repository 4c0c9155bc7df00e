//! The linear layer alone, with its gradients: two matrix products and a sum.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::Linear;
use crate::ops::Activation;
use crate::ops::backward::{column_sums, gradient, read};
use crate::ops::gemm::{Matrix, multiply};

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
        let op = Linear { activation: Activation::None, residual: None };
        op.cpu_fwd(x, x_layout, weight, weight_layout, bias, bias_layout)
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
            let count = upstream.len() / outputs.max(1);
            let upstream_rows = Matrix::row_major(upstream, count, outputs);
            let of_x = x.track_op().then(|| {
                let weights = Matrix::row_major(weights, inputs, outputs).transposed();
                gradient(by_rows(upstream_rows, weights), x)
            });
            let of_weight = weight.track_op().then(|| {
                let rows = Matrix::row_major(rows, count, inputs).transposed();
                gradient(by_rows(rows, upstream_rows), weight)
            });
            let of_bias = bias.track_op().then(|| gradient(column_sums(upstream, outputs), bias));
            Ok((of_x.transpose()?, of_weight.transpose()?, of_bias.transpose()?))
        })
    }
}

/// `left · right`, a range of the result's rows per task: every element is one sum in one order.
fn by_rows(left: Matrix, right: Matrix) -> Vec<f32> {
    // Few, because each packs the whole right factor; more than threads, so that none waits long for the last.
    let tasks = 2 * rayon::current_num_threads();
    let share = left.rows.div_ceil(tasks).max(1);
    let mut result = vec![0.0; left.rows * right.columns];
    result.par_chunks_mut((share * right.columns).max(1)).enumerate().for_each(|(index, part)| {
        let rows = part.len() / right.columns;
        let left = Matrix { elements: &left.elements[index * share * left.row_stride..], rows, ..left };
        multiply(part, right.columns, left, right, 1.0);
    });
    result
}
