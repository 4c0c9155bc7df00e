//! Linear layers, activations and layer norm.

use candle_core::{DType, Device, Result, Tensor, Var};
use galley::ops::metal::programs;
use galley::ops::{self, Activation, Weight};

use super::{ACTIVATIONS, Random, Shim, assert_equals, assert_near, tensor};

const CASES: usize = 30;

/// A tracked copy in f64.
fn exact(values: &[f32], shape: &[usize]) -> Result<Var> {
    Var::from_tensor(&tensor(values, shape)?.to_dtype(DType::F64)?)
}

/// candle's gradients of `(result · g)` summed, for each of `arguments`.
fn gradients<const N: usize>(result: &Tensor, g: &Tensor, arguments: [&Var; N]) -> Result<[Tensor; N]> {
    let store = (result * g.to_dtype(DType::F64)?)?.sum_all()?.backward()?;
    Ok(arguments.map(|argument| store.get(argument).expect("it is tracked").clone()))
}

#[test]
fn linear_and_its_gradients_equal_the_cpu() -> Result<()> {
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let mut random = Random(11);
    for case in 0..CASES {
        // Now and then so many rows that the weight's gradient is summed in parts.
        let rows = if case % 5 == 0 { 512 * random.within(1, 5) } else { random.within(1, 70) };
        let (inputs, outputs) = (random.within(1, 20), random.within(1, 20));
        let (activation, with_residual) = (ACTIVATIONS[case % 9], case % 2 == 0);
        let (x, weight) = (random.values(rows * inputs), random.values(inputs * outputs));
        let (bias, residual) = (random.values(outputs), random.values(rows * outputs));
        let program = programs::linear(rows, inputs, outputs, activation, with_residual)?;
        let mut arguments: Vec<&[f32]> = vec![&x, &weight, &bias];
        arguments.extend(with_residual.then_some(residual.as_slice()));
        let ours = shim.run(&program, &arguments);
        let residual = tensor(&residual, &[rows, outputs])?;
        let [x_tensor, weight_tensor] = [tensor(&x, &[rows, inputs])?, tensor(&weight, &[inputs, outputs])?];
        let with = with_residual.then_some(&residual);
        let oracle = ops::linear(&x_tensor, &weight_tensor, &tensor(&bias, &[outputs])?, activation, with)?;
        let name = format!("{rows}, {inputs}, {outputs} {activation:?}");
        assert_equals(&name, &ours, &oracle)?;

        let g = random.values(rows * outputs);
        let [x_exact, weight_exact] = [exact(&x, &[rows, inputs])?, exact(&weight, &[inputs, outputs])?];
        let bias_exact = exact(&bias, &[outputs])?;
        let result = x_exact.matmul(&weight_exact)?.broadcast_add(&bias_exact)?;
        let g_tensor = tensor(&g, &[rows, outputs])?;
        let [gx, gw, gb] = gradients(&result, &g_tensor, [&x_exact, &weight_exact, &bias_exact])?;
        let program = programs::linear_input_gradient(rows, inputs, outputs)?;
        assert_equals(&name, &shim.run(&program, &[&g, &weight]), &gx)?;
        let program = programs::linear_weight_gradient(rows, inputs, outputs)?;
        assert_equals(&name, &shim.run(&program, &[&x, &g]), &gw)?;
        assert_equals(&name, &shim.run(&programs::bias_gradient(rows, outputs)?, &[&g]), &gb)?;
    }
    Ok(())
}

/// The activations in f64, from their definitions.
fn defined(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let gate = (x + 3.0).clamp(0.0, 6.0) / 6.0;
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::Silu => x * sigmoid(x),
        Activation::HardSwish => x * gate,
        Activation::HardSigmoid => gate,
        Activation::Sigmoid => sigmoid(x),
    }
}

/// The error function by Simpson's rule: as smooth as its differences need it.
fn erf(x: f64) -> f64 {
    const INTERVALS: u32 = 1000;
    let step = x / f64::from(INTERVALS);
    let weight = |index: u32| match index {
        0 | INTERVALS => 1.0,
        _ if index % 2 == 1 => 4.0,
        _ => 2.0,
    };
    let sum: f64 = (0..=INTERVALS).map(|index| weight(index) * (-(step * f64::from(index)).powi(2)).exp()).sum();
    sum * step / 3.0 * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn activations_and_their_slopes_follow_from_the_definitions() -> Result<()> {
    const STEP: f64 = 1e-5;
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    // Not at a corner: there is no slope.
    let x: Vec<f32> = (-4000..4000).map(|step| step as f32 * 2.5e-3 + 1e-3).collect();
    let g = Random(12).values(x.len());
    for activation in ACTIVATIONS {
        let (rows, columns) = (x.len() / 8, 8);
        let ours = shim.run(&programs::activation(rows, columns, activation)?, &[&x]);
        let oracle: Vec<f64> = x.iter().map(|&x| defined(activation, f64::from(x))).collect();
        assert_each_near(activation, &ours, &oracle, 2e-6);
        let ours = shim.run(&programs::activation_gradient(rows, columns, activation)?, &[&x, &g]);
        let slope = |x: f64| (defined(activation, x + STEP) - defined(activation, x - STEP)) / (2.0 * STEP);
        let oracle: Vec<f64> = x.iter().zip(&g).map(|(&x, &g)| f64::from(g) * slope(f64::from(x))).collect();
        assert_each_near(activation, &ours, &oracle, 2e-6);
    }
    Ok(())
}

/// Relative above 1 and absolute below.
fn assert_each_near(activation: Activation, ours: &[f32], oracle: &[f64], tolerance: f64) {
    for (a, b) in ours.iter().zip(oracle) {
        assert!((f64::from(*a) - b).abs() <= tolerance * b.abs().max(1.0), "{activation:?}: {a} instead of {b}");
    }
}

#[test]
fn activations_are_finite_far_out_keep_nan_and_have_pytorchs_slopes_at_corners() -> Result<()> {
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let far = [-1e30, -100.0, -88.5, 88.5, 100.0, 1e30, f32::NAN];
    let ones = [1.0; 7];
    for activation in ACTIVATIONS {
        let forward = shim.run(&programs::activation(1, 7, activation)?, &[&far]);
        assert!(forward[..6].iter().all(|value| value.abs() <= 1e30), "{activation:?}: {forward:?}");
        assert!(forward[6].is_nan(), "{activation:?} keeps NaN");
        if activation != Activation::None {
            assert!(forward[..3].iter().all(|value| value.abs() < 1e-6), "{activation:?}: {forward:?}");
        }
        if activation != Activation::GeluTanh {
            // The cube in its slope is beyond single precision at 1e30.
            let slopes = shim.run(&programs::activation_gradient(1, 7, activation)?, &[&far, &ones]);
            assert!(slopes[..6].iter().all(|slope| slope.abs() <= 1.0), "{activation:?}: {slopes:?}");
        }
    }
    // torch.autograd of relu(0), relu6(0, 6), hardswish(-3, 3) and hardsigmoid(-3, 3).
    for (activation, corners, slopes) in [
        (Activation::Relu, [0.0, 0.0], [0.0, 0.0]),
        (Activation::Relu6, [0.0, 6.0], [0.0, 0.0]),
        (Activation::HardSwish, [-3.0, 3.0], [0.0, 1.0]),
        (Activation::HardSigmoid, [-3.0, 3.0], [0.0, 0.0]),
    ] {
        let ours = shim.run(&programs::activation_gradient(1, 2, activation)?, &[&corners, &[1.0, 1.0]]);
        assert_eq!(ours, slopes, "{activation:?}");
    }
    Ok(())
}

#[test]
fn layer_norm_and_its_gradients_equal_the_cpu() -> Result<()> {
    const EPSILON: f32 = 1e-5;
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let mut random = Random(13);
    for case in 0..CASES {
        // Of few channels, all may be nearly equal: then their deviations have few digits.
        let (rows, channels) = (random.within(1, 40), random.within(5, if case % 3 == 0 { 600 } else { 40 }));
        let (x, g) = (random.values(rows * channels), random.values(rows * channels));
        let (weight, bias) = (random.values(channels), random.values(channels));
        let name = format!("{rows}, {channels}");
        let ours = shim.run(&programs::layer_norm(rows, channels, EPSILON)?, &[&x, &weight, &bias]);
        let [x_tensor, g_tensor] = [tensor(&x, &[rows, channels])?, tensor(&g, &[rows, channels])?];
        let [weight_tensor, bias_tensor] = [tensor(&weight, &[channels])?, tensor(&bias, &[channels])?];
        assert_equals(&name, &ours, &ops::layer_norm(&x_tensor, &weight_tensor, &bias_tensor, EPSILON)?)?;

        let [x_exact, weight_exact] = [exact(&x, &[rows, channels])?, exact(&weight, &[channels])?];
        let bias_exact = exact(&bias, &[channels])?;
        let result = layer_norm_by_definition(&x_exact, &weight_exact, &bias_exact, EPSILON)?;
        let [gx, gw, gb] = gradients(&result, &g_tensor, [&x_exact, &weight_exact, &bias_exact])?;
        let program = programs::layer_norm_input_gradient(rows, channels, EPSILON)?;
        assert_equals(&name, &shim.run(&program, &[&x, &weight, &g]), &gx)?;
        let program = programs::layer_norm_weight_gradient(rows, channels, EPSILON)?;
        assert_equals(&name, &shim.run(&program, &[&x, &g]), &gw)?;
        assert_equals(&name, &shim.run(&programs::bias_gradient(rows, channels)?, &[&g]), &gb)?;
    }
    Ok(())
}

fn layer_norm_by_definition(x: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f32) -> Result<Tensor> {
    let centered = x.broadcast_sub(&x.mean_keepdim(1)?)?;
    let deviation = (centered.sqr()?.mean_keepdim(1)? + f64::from(epsilon))?.sqrt()?;
    centered.broadcast_div(&deviation)?.broadcast_mul(weight)?.broadcast_add(bias)
}

#[test]
fn layer_norm_far_from_zero_keeps_its_digits() -> Result<()> {
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let (rows, channels) = (7, 100);
    let x: Vec<f32> = Random(16).values(rows * channels).iter().map(|value| value + 1000.0).collect();
    let (weight, bias) = (vec![1.0; channels], vec![0.0; channels]);
    let ours = shim.run(&programs::layer_norm(rows, channels, 1e-6)?, &[&x, &weight, &bias]);
    let x = exact(&x, &[rows, channels])?;
    let [weight, bias] = [exact(&weight, &[channels])?, exact(&bias, &[channels])?];
    let oracle = layer_norm_by_definition(&x, &weight, &bias, 1e-6)?;
    let oracle = oracle.flatten_all()?.to_vec1::<f64>()?;
    // The mean is known to 1000 / 2^24, a ten-thousandth of the deviations; a variance from squares would be all noise.
    assert!(ours.iter().zip(&oracle).all(|(a, b)| (f64::from(*a) - b).abs() < 5e-4));
    Ok(())
}

#[test]
fn mlp_equals_the_cpu_in_tiles_of_any_size() -> Result<()> {
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let mut random = Random(14);
    for case in 0..CASES {
        let (rows, channels, hidden) = (random.within(1, 30), random.within(2, 20), random.within(1, 40));
        let mut random_tensor = |shape: &[usize]| tensor(&random.values(shape.iter().product()), shape);
        let (x, residual) = (random_tensor(&[rows, channels])?, random_tensor(&[rows, channels])?);
        let norm = (random_tensor(&[channels])?, random_tensor(&[channels])?);
        let (wide, wide_bias) = (random_tensor(&[channels, hidden])?, random_tensor(&[hidden])?);
        let (narrow, narrow_bias) = (random_tensor(&[hidden, channels])?, random_tensor(&[channels])?);
        let tensors = [&x, &residual, &norm.0, &norm.1, &wide, &wide_bias, &narrow, &narrow_bias];
        let values = tensors.map(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
        let values = values.into_iter().collect::<Result<Vec<_>>>()?;
        let max_bytes = random.within(0, rows) * (channels + hidden) * size_of::<f32>();
        let (activation, epsilon) = (ACTIVATIONS[case % 9], 1e-6);
        let program = programs::mlp([rows, channels, hidden], activation, epsilon, max_bytes)?;
        let ours = shim.run(&program, &values.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let (expand, project) = ((Weight::Plain(wide), wide_bias), (Weight::Plain(narrow), narrow_bias));
        let oracle = ops::mlp(&x, &ops::Mlp { norm, epsilon, expand, activation, project }, &residual)?;
        assert_equals(&format!("{rows}, {channels}, {hidden} {activation:?}"), &ours, &oracle)?;
    }
    Ok(())
}

#[test]
fn sums_over_many_rows_are_exact_to_single_precision() -> Result<()> {
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let (rows, columns) = (20_011, 3);
    let g = Random(15).values(rows * columns);
    let ours = shim.run(&programs::bias_gradient(rows, columns)?, &[&g]);
    let oracle =
        Tensor::from_slice(&g, (rows, columns), &Device::Cpu)?.to_dtype(DType::F64)?.sum(0)?.to_vec1::<f64>()?;
    assert_near("sum", &ours, &oracle);
    Ok(())
}
