//! What backward kernels share: the elements they read, and sums over rows in a fixed order.

use candle_core::{Result, Storage, Tensor};
use rayon::prelude::*;

use super::elements;

/// Calls `compute` with the elements of contiguous tensors on the CPU.
pub fn read<const N: usize, R>(tensors: [&Tensor; N], compute: impl FnOnce([&[f32]; N]) -> Result<R>) -> Result<R> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let mut slices: [&[f32]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        *slice = match &**storage {
            Storage::Cpu(storage) => elements(storage, layout)?,
            _ => candle_core::bail!("a CPU kernel was given a tensor of another device"),
        };
    }
    compute(slices)
}

/// The gradient of `argument`, whose shape it has.
pub fn gradient(values: Vec<f32>, argument: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, argument.shape(), argument.device())
}

/// Rows of `columns` values that one task sums: a fixed number, so that sums do not depend on the number of threads.
pub fn rows_per_task(columns: usize) -> usize {
    (32 << 10) / columns.max(1) + 1
}

/// Adds up what tasks summed, in their order.
pub fn sum_in_order(parts: Vec<Vec<f32>>, length: usize) -> Vec<f32> {
    let mut parts = parts.into_iter();
    let first = parts.next().unwrap_or_else(|| vec![0.0; length]);
    parts.fold(first, |mut sums, part| {
        add(&mut sums, &part);
        sums
    })
}

/// The sum of each column.
pub fn column_sums(values: &[f32], columns: usize) -> Vec<f32> {
    let parts = values.par_chunks((rows_per_task(columns) * columns).max(1)).map(|rows| {
        let mut sums = vec![0.0; columns];
        vectorized!(|| rows.chunks_exact(columns).for_each(|row| add(&mut sums, row)));
        sums
    });
    sum_in_order(parts.collect(), columns)
}

#[inline(always)]
pub fn add(sums: &mut [f32], values: &[f32]) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

/// The sum of a function of each pair, in sixteen lanes: a fixed order that vectorises.
#[inline(always)]
pub fn sum_pairs(one: &[f32], other: &[f32], function: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; 16];
    let (chunks, rest) = one.as_chunks::<16>();
    let (other_chunks, other_rest) = other.as_chunks::<16>();
    for (chunk, other) in chunks.iter().zip(other_chunks) {
        for ((lane, one), other) in lanes.iter_mut().zip(chunk).zip(other) {
            *lane += function(*one, *other);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().zip(other_rest).map(|(one, other)| function(*one, *other)).sum::<f32>()
}
