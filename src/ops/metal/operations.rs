//! The operations that have Metal kernels: on shapes, with the programs of result and gradients; on tensors, as the
//! operation of the same name computes on Metal.

use candle_core::{Result, Tensor};

use super::operation::{Gradient, Operation, Read};
use super::program::Program;
use super::{MAX_BYTES, norm, rows, run, windows};
use crate::ops::mlp::Mlp;
use crate::ops::residual::activate_sum;
use crate::ops::window::{Geometry, Window};
use crate::ops::{Activation, is_tracked, work};

const X: Read = Read::Argument(0);
const WEIGHT: Read = Read::Argument(1);

fn gradient(program: Result<Program>, reads: &[Read]) -> Result<Gradient> {
    Ok(Gradient { program: program?, reads: reads.to_vec() })
}

/// Number of rows and their length.
fn rows_of(dims: &[usize]) -> (usize, usize) {
    let length = dims.last().copied().unwrap_or(1);
    (dims.iter().product::<usize>() / length.max(1), length)
}

/// The convolution alone, of `x`, `weight` and `bias`.
pub fn depthwise_operation(geometry: &Geometry) -> Result<Operation> {
    let Geometry { batch, channels, out_height, out_width, .. } = *geometry;
    Ok(Operation {
        name: "metal-depthwise",
        shape: vec![batch, out_height, out_width, channels],
        result: windows::depthwise(geometry, Activation::None)?,
        gradients: vec![
            gradient(windows::depthwise_input_gradient(geometry), &[WEIGHT, Read::Upstream])?,
            gradient(windows::depthwise_weight_gradient(geometry), &[X, Read::Upstream])?,
            gradient(rows::bias_gradient(batch * out_height * out_width, channels), &[Read::Upstream])?,
        ],
    })
}

/// The convolution alone, of `x`, `weight` and `bias`.
pub fn conv_operation(geometry: &Geometry, outputs: usize) -> Result<Operation> {
    let Geometry { batch, out_height, out_width, .. } = *geometry;
    Ok(Operation {
        name: "metal-conv",
        shape: vec![batch, out_height, out_width, outputs],
        result: windows::conv(geometry, outputs, Activation::None, false, MAX_BYTES)?,
        gradients: vec![
            gradient(windows::conv_input_gradient(geometry, outputs, MAX_BYTES), &[WEIGHT, Read::Upstream])?,
            gradient(windows::conv_weight_gradient(geometry, outputs, MAX_BYTES), &[X, Read::Upstream])?,
            gradient(rows::bias_gradient(batch * out_height * out_width, outputs), &[Read::Upstream])?,
        ],
    })
}

/// `x · weight + bias` for `x` of shape `dims`.
pub fn linear_operation(dims: &[usize], outputs: usize) -> Result<Operation> {
    let (count, inputs) = rows_of(dims);
    Ok(Operation {
        name: "metal-linear",
        shape: with_last(dims, outputs),
        result: rows::linear(count, inputs, outputs, Activation::None, false)?,
        gradients: vec![
            gradient(rows::linear_input_gradient(count, inputs, outputs), &[Read::Upstream, WEIGHT])?,
            gradient(rows::linear_weight_gradient(count, inputs, outputs), &[X, Read::Upstream])?,
            gradient(rows::bias_gradient(count, outputs), &[Read::Upstream])?,
        ],
    })
}

fn with_last(dims: &[usize], length: usize) -> Vec<usize> {
    let mut dims = dims.to_vec();
    dims.pop();
    dims.push(length);
    dims
}

pub fn activation_operation(dims: &[usize], activation: Activation) -> Result<Operation> {
    let (count, length) = rows_of(dims);
    Ok(Operation {
        name: "metal-activation",
        shape: dims.to_vec(),
        result: rows::activation(count, length, activation)?,
        gradients: vec![gradient(rows::activation_gradient(count, length, activation), &[X, Read::Upstream])?],
    })
}

/// Of `x`, `weight` and `bias`.
pub fn layer_norm_operation(dims: &[usize], epsilon: f32) -> Result<Operation> {
    let (count, channels) = rows_of(dims);
    Ok(Operation {
        name: "metal-layer-norm",
        shape: dims.to_vec(),
        result: norm::layer_norm(count, channels, epsilon)?,
        gradients: vec![
            gradient(norm::layer_norm_input_gradient(count, channels, epsilon), &[X, WEIGHT, Read::Upstream])?,
            gradient(norm::layer_norm_weight_gradient(count, channels, epsilon), &[X, Read::Upstream])?,
            gradient(rows::bias_gradient(count, channels), &[Read::Upstream])?,
        ],
    })
}

pub fn max_pool_operation(geometry: &Geometry) -> Result<Operation> {
    let Geometry { batch, channels, out_height, out_width, .. } = *geometry;
    Ok(Operation {
        name: "metal-max-pool",
        shape: vec![batch, out_height, out_width, channels],
        result: windows::max_pool(geometry)?,
        gradients: vec![gradient(windows::max_pool_gradient(geometry), &[X, Read::Upstream])?],
    })
}

/// Of `x` of shape `(batch, height, width, channels)`.
pub fn global_average_pool_operation(dims: [usize; 4]) -> Result<Operation> {
    Ok(Operation {
        name: "metal-global-average-pool",
        shape: vec![dims[0], dims[3]],
        result: windows::global_average_pool(dims)?,
        gradients: vec![gradient(windows::global_average_pool_gradient(dims), &[Read::Upstream])?],
    })
}

fn expect(what: &str, tensor: &Tensor, dims: &[usize]) -> Result<()> {
    if tensor.dims() != dims {
        candle_core::bail!("{what} has shape {:?} where {dims:?} fits", tensor.dims());
    }
    Ok(())
}

fn apply3(operation: Operation, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, operation)
}

pub fn depthwise(x: &Tensor, weight: &Tensor, bias: &Tensor, window: Window, activation: Activation) -> Result<Tensor> {
    let geometry = window.over(x.dims())?;
    expect("a depthwise weight", weight, &[window.kernel, window.kernel, geometry.channels])?;
    expect("a depthwise bias", bias, &[geometry.channels])?;
    if is_tracked(&[x, weight, bias]) {
        return activate_sum(apply3(depthwise_operation(&geometry)?, x, weight, bias)?, None, activation);
    }
    let shape = [geometry.batch, geometry.out_height, geometry.out_width, geometry.channels];
    run(&windows::depthwise(&geometry, activation)?, &[x, weight, bias], &shape)
}

pub fn conv(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    window: Window,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let geometry = window.over(x.dims())?;
    let outputs = bias.elem_count();
    expect("a convolution's weight", weight, &[window.kernel, window.kernel, geometry.channels, outputs])?;
    let shape = [geometry.batch, geometry.out_height, geometry.out_width, outputs];
    if let Some(residual) = residual {
        expect("a convolution's residual", residual, &shape)?;
    }
    if is_tracked(&[x, weight, bias]) || residual.is_some_and(Tensor::track_op) {
        return activate_sum(apply3(conv_operation(&geometry, outputs)?, x, weight, bias)?, residual, activation);
    }
    let program = windows::conv(&geometry, outputs, activation, residual.is_some(), MAX_BYTES)?;
    run(&program, &with(&[x, weight, bias], residual), &shape)
}

fn with<'a>(inputs: &[&'a Tensor], more: Option<&'a Tensor>) -> Vec<&'a Tensor> {
    inputs.iter().copied().chain(more).collect()
}

pub fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let ((count, inputs), outputs) = (rows_of(x.dims()), bias.elem_count());
    expect("a linear weight", weight, &[inputs, outputs])?;
    let shape = with_last(x.dims(), outputs);
    if let Some(residual) = residual {
        expect("a linear layer's residual", residual, &shape)?;
    }
    if is_tracked(&[x, weight, bias]) || residual.is_some_and(Tensor::track_op) {
        return activate_sum(apply3(linear_operation(x.dims(), outputs)?, x, weight, bias)?, residual, activation);
    }
    let program = rows::linear(count, inputs, outputs, activation, residual.is_some())?;
    run(&program, &with(&[x, weight, bias], residual), &shape)
}

pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    x.contiguous()?.apply_op1(activation_operation(x.dims(), activation)?)
}

pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f32) -> Result<Tensor> {
    let (_, channels) = rows_of(x.dims());
    expect("a layer norm's weight", weight, &[channels])?;
    expect("a layer norm's bias", bias, &[channels])?;
    apply3(layer_norm_operation(x.dims(), epsilon)?, x, weight, bias)
}

/// Nothing of it is tracked: tracked, its three layers run one after the other. `wide` and `narrow` are its weights.
pub fn mlp(x: &Tensor, layers: &Mlp, [wide, narrow]: [&Tensor; 2], residual: &Tensor) -> Result<Tensor> {
    let Mlp { norm, epsilon, expand, activation, project } = layers;
    let ((count, channels), hidden) = (rows_of(x.dims()), expand.1.elem_count());
    expect("an mlp's residual", residual, x.dims())?;
    expect("an mlp's first weight", wide, &[channels, hidden])?;
    expect("an mlp's second weight", narrow, &[hidden, channels])?;
    // Both layers have as many weights.
    work::product(2 * count, channels, hidden);
    let program = norm::mlp([count, channels, hidden], *activation, *epsilon, MAX_BYTES)?;
    run(&program, &[x, residual, &norm.0, &norm.1, wide, &expand.1, narrow, &project.1], x.dims())
}

pub fn max_pool(x: &Tensor, window: Window) -> Result<Tensor> {
    x.contiguous()?.apply_op1(max_pool_operation(&window.over(x.dims())?)?)
}

pub fn global_average_pool(x: &Tensor) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    x.contiguous()?.apply_op1(global_average_pool_operation([batch, height, width, channels])?)
}
