//! Operations as they are differentiated on Metal: result and every gradient against the CPU's, which have an oracle of
//! their own. This holds what each gradient is given, besides what its kernels compute.

use candle_core::{Result, Tensor, Var};
use galley::ops::metal::{self, Operation, Read};
use galley::ops::{self, Activation, Padding, Window};

use super::{Random, Shim, assert_equals, tensor};

/// Runs `operation` on random arguments of these shapes, and the CPU's operation of the same name on the same.
fn assert_equals_cpu<const N: usize>(
    shim: &mut Shim,
    operation: Result<Operation>,
    shapes: [&[usize]; N],
    cpu: impl Fn([&Tensor; N]) -> Result<Tensor>,
) -> Result<()> {
    let operation = operation?;
    let mut random = Random(operation.name.len() as u64);
    let values = shapes.map(|shape| random.values(shape.iter().product()));
    let arguments: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
    let variables: Vec<Var> =
        (0..N).map(|index| Var::from_tensor(&tensor(&values[index], shapes[index])?)).collect::<Result<_>>()?;
    let result = cpu(std::array::from_fn(|index| variables[index].as_tensor()))?;
    assert_eq!(result.dims(), operation.shape, "{}", operation.name);
    assert_equals(operation.name, &shim.run(&operation.result, &arguments), &result)?;

    let upstream = random.values(result.elem_count());
    let store = (&result * tensor(&upstream, result.dims())?)?.sum_all()?.backward()?;
    assert_eq!(operation.gradients.len(), N);
    for (index, gradient) in operation.gradients.iter().enumerate() {
        let reads = gradient.reads.iter().map(|read| match read {
            Read::Argument(index) => arguments[*index],
            Read::Upstream => &upstream,
        });
        let ours = shim.run(&gradient.program, &reads.collect::<Vec<_>>());
        let oracle = store.get(&variables[index]).expect("every argument is tracked");
        assert_equals(&format!("{}, gradient {index}", operation.name), &ours, oracle)?;
    }
    Ok(())
}

#[test]
fn operations_and_all_their_gradients_equal_the_cpu() -> Result<()> {
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let shim = &mut shim;
    let x = [2, 9, 11, 5];
    for window in
        [Window::centered(7, 1), Window::centered(3, 2), Window { kernel: 5, stride: 2, padding: Padding::Same }]
    {
        let (geometry, kernel) = (window.over(&x)?, window.kernel);
        let operation = metal::depthwise_operation(&geometry);
        assert_equals_cpu(shim, operation, [&x, &[kernel, kernel, 5], &[5]], |[x, weight, bias]| {
            ops::depthwise(x, weight, bias, window, Activation::None)
        })?;
        let operation = metal::conv_operation(&geometry, 3);
        assert_equals_cpu(shim, operation, [&x, &[kernel, kernel, 5, 3], &[3]], |[x, weight, bias]| {
            ops::conv(x, weight, bias, window, Activation::None, None)
        })?;
        assert_equals_cpu(shim, metal::max_pool_operation(&geometry), [&x], |[x]| ops::max_pool(x, window))?;
    }
    assert_equals_cpu(shim, metal::linear_operation(&x, 7), [&x, &[5, 7], &[7]], |[x, weight, bias]| {
        ops::linear(x, weight, bias, Activation::None, None)
    })?;
    assert_equals_cpu(shim, metal::layer_norm_operation(&x, 1e-5), [&x, &[5], &[5]], |[x, weight, bias]| {
        ops::layer_norm(x, weight, bias, 1e-5)
    })?;
    assert_equals_cpu(shim, metal::global_average_pool_operation(x), [&x], |[x]| ops::global_average_pool(x))?;
    for activation in super::ACTIVATIONS {
        let operation = metal::activation_operation(&x, activation);
        assert_equals_cpu(shim, operation, [&x], |[x]| ops::activate(x, activation))?;
    }
    Ok(())
}
