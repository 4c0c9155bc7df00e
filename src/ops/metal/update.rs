//! Programs of an optimizer's step. The output of an update is a variable that it reads and writes in place.

use candle_core::{Result, Tensor};

use super::parameters::{Rows, Update};
use super::program::Program;
use super::run;
use crate::ops::{AdamStep, Moments};

/// `output = keep · output + share · values`; input `values`.
pub fn blend(length: usize, keep: f32, share: f32) -> Result<Program> {
    update("blend", &[length], length, length, Update { keep, share, ..Update::default() })
}

/// The output is both moments, one behind the other; inputs the gradient of `length` elements, and its scale.
pub fn follow_moments(length: usize, Moments { betas }: Moments) -> Result<Program> {
    let [first, second] = betas.map(|beta| beta as f32);
    let parameters = Update { length: length as u32, first, second, ..Update::default() };
    update("follow_moments", &[length, 1], 2 * length, length, parameters)
}

/// The output is the weight of `length` elements; input both its moments.
pub fn descend(length: usize, step: AdamStep) -> Result<Program> {
    let [decayed, rate, root] = step.factors().map(|factor| factor as f32);
    let epsilon = step.epsilon as f32;
    let parameters = Update { length: length as u32, decayed, rate, root, epsilon, ..Update::default() };
    update("descend", &[2 * length], length, length, parameters)
}

/// One launch over `threads` elements, from inputs to an output of these lengths.
fn update(
    kernel: &'static str,
    inputs: &[usize],
    output: usize,
    threads: usize,
    parameters: Update,
) -> Result<Program> {
    let mut program = Program::default();
    let inputs: Vec<_> = inputs.iter().map(|length| program.input(*length).into()).collect();
    let output = program.output(&[output]);
    program.launch(kernel, parameters, [threads, 1, 1], &inputs, &[output.into()]);
    program.finished()
}

/// For each input, a row of numbers that together are the sum of its squares.
pub fn square_sums(lengths: &[usize]) -> Result<Program> {
    /// Threads that sum one input, and results of it: each pass keeps the GPU busy with short sums.
    const THREADS: usize = 4096;
    const SUMS: usize = 64;
    let mut program = Program::default();
    let sums = program.output(&[lengths.len(), SUMS]);
    let partial = program.scratch(THREADS);
    for (index, &length) in lengths.iter().enumerate() {
        let values = program.input(length);
        let threads = THREADS.min(length);
        let parameters = Rows { slices: threads as u32, ..Rows::new(length, 1) };
        program.launch("square_sums", parameters, [threads, 1, 1], &[values.into()], &[partial.into()]);
        let parameters = Rows { slices: SUMS as u32, ..Rows::new(threads, 1) };
        program.launch("column_sums", parameters, [1, SUMS, 1], &[partial.into()], &[sums.at(index * SUMS)]);
    }
    program.finished()
}

/// Numbers whose sum is that of the squares of all elements of `tensors`.
pub fn squares(tensors: &[&Tensor]) -> Result<Tensor> {
    let lengths: Vec<usize> = tensors.iter().map(|tensor| tensor.elem_count()).collect();
    let program = square_sums(&lengths)?;
    run(&program, tensors, &program.output)
}
