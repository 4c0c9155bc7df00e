//! Runs every Metal kernel, compiled as C++, over its whole grid: forward against the CPU's operations, backward against
//! plain loops and candle's autodiff in f64, on random odd shapes.

mod operations;
mod rows;
mod shim;
mod update;
mod windows;

use std::collections::BTreeSet;

use candle_core::{Device, Result, Tensor};
use galley::ops::metal::{Step, programs};
use galley::ops::{Activation, AdamStep, Moments};

use shim::Shim;

pub const ACTIVATIONS: [Activation; 9] = [
    Activation::None,
    Activation::Relu,
    Activation::Relu6,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Silu,
    Activation::HardSwish,
    Activation::HardSigmoid,
    Activation::Sigmoid,
];

/// Seeded numbers.
pub struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// From `low` to `high`, both included.
    pub fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.next() as usize % (high - low + 1)
    }

    /// Values in [-1, 1).
    pub fn values(&mut self, length: usize) -> Vec<f32> {
        (0..length).map(|_| self.next() as f32 / (1u64 << 30) as f32 - 1.0).collect()
    }
}

fn tensor(values: &[f32], shape: &[usize]) -> Result<Tensor> {
    Tensor::from_slice(values, shape, &Device::Cpu)
}

/// Differences are those of single precision, measured by the largest element.
fn assert_near(case: &str, ours: &[f32], oracle: &[f64]) {
    assert_eq!(ours.len(), oracle.len(), "{case}");
    let scale = oracle.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
    for (index, (a, b)) in ours.iter().zip(oracle).enumerate() {
        assert!((f64::from(*a) - b).abs() <= 1e-5 * scale, "{case}, element {index}: {a} instead of {b}");
    }
}

fn assert_equals(case: &str, ours: &[f32], oracle: &Tensor) -> Result<()> {
    let oracle = oracle.to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    assert_near(case, ours, &oracle);
    Ok(())
}

#[test]
fn every_kernel_is_part_of_a_program_and_so_of_these_tests() -> Result<()> {
    let window = galley::ops::Window::centered(3, 2);
    let geometry = window.over(&[1, 8, 8, 4])?;
    let none = Activation::None;
    let programs = [
        programs::linear(3, 4, 5, none, false)?,
        programs::linear_weight_gradient(3, 4, 5)?,
        programs::bias_gradient(3, 4)?,
        programs::activation(3, 4, none)?,
        programs::activation_gradient(3, 4, none)?,
        programs::layer_norm(3, 4, 1e-6)?,
        programs::layer_norm_input_gradient(3, 4, 1e-6)?,
        programs::layer_norm_weight_gradient(3, 4, 1e-6)?,
        programs::depthwise(&geometry, none)?,
        programs::depthwise_input_gradient(&geometry)?,
        programs::depthwise_weight_gradient(&geometry)?,
        programs::conv_input_gradient(&geometry, 5, 1)?,
        programs::conv_weight_gradient(&geometry, 5, 1)?,
        programs::max_pool(&geometry)?,
        programs::max_pool_gradient(&geometry)?,
        programs::global_average_pool([1, 2, 3, 4])?,
        programs::global_average_pool_gradient([1, 2, 3, 4])?,
        programs::blend(3, 0.9, 0.1)?,
        programs::follow_moments(3, Moments { betas: [0.9; 2] })?,
        programs::descend(3, AdamStep { learning_rate: 1.0, weight_decay: 0.0, epsilon: 1e-8, corrections: [1.0; 2] })?,
        programs::square_sums(&[3, 4])?,
    ];
    let launched = programs.iter().flat_map(|program| &program.steps).filter_map(|step| match step {
        Step::Launch(launch) => Some(launch.kernel),
        Step::Product(_) => None,
    });
    assert_eq!(launched.collect::<BTreeSet<_>>(), shim::kernel_names().into_iter().collect());
    Ok(())
}

#[test]
fn a_program_for_no_elements_or_too_many_is_an_error() {
    assert!(programs::activation(0, 4, Activation::Relu).is_err());
    assert!(programs::activation(1 << 20, 1 << 11, Activation::Relu).is_err());
    assert!(programs::activation((1 << 20) - 1, 1 << 11, Activation::Relu).is_ok());
}
