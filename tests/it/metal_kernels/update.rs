//! What an optimizer does to its variables. Nothing but single operations on single elements, in one order: every bit is
//! the CPU's, whose steps are compared with their definition in f64 elsewhere.

use candle_core::{DType, Device, Result, Tensor, Var};
use galley::ops::metal::programs;
use galley::ops::{self, AdamStep, Moments};

use super::{Random, Shim, tensor};

const CASES: usize = 12;

fn assert_same_bits(case: &str, ours: &[f32], oracle: &Var) -> Result<()> {
    let oracle = oracle.flatten_all()?.to_vec1::<f32>()?;
    assert_eq!(ours.len(), oracle.len(), "{case}");
    for (index, (a, b)) in ours.iter().zip(&oracle).enumerate() {
        assert_eq!(a.to_bits(), b.to_bits(), "{case}, element {index}: {a} instead of {b}");
    }
    Ok(())
}

/// One element, odd numbers of them, and more than one task of the CPU's has.
fn length(random: &mut Random, case: usize) -> usize {
    match case {
        0 => 1,
        _ => 2 * random.within(1, 20_000) + 1,
    }
}

#[test]
fn blending_equals_the_cpu_bit_by_bit() -> Result<()> {
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let mut random = Random(31);
    for (case, (keep, share)) in
        [(0.9, 1.0), (1.0, 0.05), (1.0, -1e-3), (0.999, 0.001)].repeat(3).into_iter().enumerate()
    {
        let length = length(&mut random, case);
        let (target, values) = (random.values(length), random.values(length));
        let program = programs::blend(length, keep as f32, share as f32)?;
        let ours = shim.run_in_place(&program, &[&values], &target);
        let oracle = Var::from_tensor(&tensor(&target, &[length])?)?;
        ops::blend(&oracle, keep, &tensor(&values, &[length])?, share)?;
        assert_same_bits(&format!("{length} elements, {keep} and {share}"), &ours, &oracle)?;
    }
    Ok(())
}

#[test]
fn steps_of_adamw_equal_the_cpus_bit_by_bit() -> Result<()> {
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let mut random = Random(32);
    for case in 0..CASES {
        let length = length(&mut random, case);
        let betas = if case % 2 == 0 { [0.9, 0.999] } else { [0.85, 0.95] };
        let (mut weight, mut moments) = (random.values(length), vec![0.0; 2 * length]);
        let cpu_weight = Var::from_tensor(&tensor(&weight, &[length])?)?;
        let cpu_moments = Var::zeros((2, length), DType::F32, &Device::Cpu)?;
        for step in 1..=3 {
            let gradient = random.values(length);
            let (settings, scale) = (Moments { betas }, 1.0 / step as f32);
            let program = programs::follow_moments(length, settings)?;
            moments = shim.run_in_place(&program, &[&gradient, &[scale]], &moments);
            let scale = Tensor::new(scale, &Device::Cpu)?;
            ops::follow_moments(&cpu_moments, &tensor(&gradient, &[length])?, &scale, settings)?;
            let corrections = betas.map(|beta: f64| 1.0 - beta.powi(step));
            let step = AdamStep { learning_rate: 1e-2, weight_decay: 0.05, epsilon: 1e-8, corrections };
            weight = shim.run_in_place(&programs::descend(length, step)?, &[&moments], &weight);
            ops::descend(&cpu_weight, &cpu_moments, step)?;
        }
        assert_same_bits(&format!("{length} moments"), &moments, &cpu_moments)?;
        assert_same_bits(&format!("{length} weights"), &weight, &cpu_weight)?;
    }
    Ok(())
}

#[test]
fn squares_are_summed_for_each_of_many_tensors() -> Result<()> {
    let Some(mut shim) = Shim::start() else { return Ok(()) };
    let mut random = Random(33);
    // One element, fewer than threads, more than threads, and all threads' same share.
    let lengths = [1, 3, 63, 65, 4095, 4096, 2 * random.within(2500, 30_000) + 1];
    let inputs = lengths.map(|length| random.values(length));
    let program = programs::square_sums(&lengths)?;
    let ours = shim.run(&program, &inputs.each_ref().map(Vec::as_slice));
    for (input, sums) in inputs.iter().zip(ours.chunks_exact(program.output[1])) {
        let exact: f64 = input.iter().map(|&value| f64::from(value).powi(2)).sum();
        let sum: f64 = sums.iter().map(|&sum| f64::from(sum)).sum();
        // Each number is a sum of up to 64 sums of up to 15 squares, in single precision.
        assert!((sum - exact).abs() <= 1e-6 * exact, "{} elements: {sum} instead of {exact}", input.len());
        let tensor = tensor(input, &[input.len()])?;
        let sum: f64 = ops::sum_of_squares(&[&tensor])?.to_scalar()?;
        assert!((sum - exact).abs() <= 1e-6 * exact);
    }
    let sums = shim.run(&programs::square_sums(&[5])?, &[&[1.0, f32::NAN, 0.0, 2.0, 3.0]]);
    assert!(sums.iter().any(|sum| sum.is_nan()), "no gradient that is no number goes unseen");
    Ok(())
}
