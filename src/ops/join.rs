//! Channels of two images side by side, without a graph.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::backward::read;
use super::{space, written};

/// Rows of one task.
const TASK_ROWS: usize = 256;

/// The channels of `one` and then those of `other`, on the CPU: shapes `(…, a)` and `(…, b)` to `(…, a + b)`.
pub fn join_channels(one: &Tensor, other: &Tensor) -> Result<Tensor> {
    let (a, b) = (last(one), last(other));
    let mut shape = one.dims().to_vec();
    shape.pop();
    if other.rank() != one.rank() || other.dims()[..shape.len()] != shape {
        candle_core::bail!("channels of {:?} and {:?} do not lie side by side", one.dims(), other.dims());
    }
    shape.push(a + b);
    read([&one.contiguous()?, &other.contiguous()?], |[one, other]| {
        let mut result = space(one.len() + other.len());
        let tasks = one.par_chunks(TASK_ROWS * a).zip(other.par_chunks(TASK_ROWS * b));
        result.par_chunks_mut(TASK_ROWS * (a + b)).zip(tasks).for_each(|(rows, (one, other))| {
            let sources = one.chunks_exact(a).zip(other.chunks_exact(b));
            for (row, (one, other)) in rows.chunks_exact_mut(a + b).zip(sources) {
                row[..a].write_copy_of_slice(one);
                row[a..].write_copy_of_slice(other);
            }
        });
        // SAFETY: both have a row for each of the result's.
        Tensor::from_vec(unsafe { written(result) }, shape, &Device::Cpu)
    })
}

/// The first `at` channels and the others: what [`join_channels`] joins.
pub fn split_channels(joined: &Tensor, at: usize) -> Result<(Tensor, Tensor)> {
    let channels = last(joined);
    let part = |range: std::ops::Range<usize>| {
        let mut shape = joined.dims().to_vec();
        shape.pop();
        shape.push(range.len());
        read([&joined.contiguous()?], |[joined]| {
            let mut result = space(joined.len() / channels * range.len());
            let tasks = result.par_chunks_mut(TASK_ROWS * range.len()).zip(joined.par_chunks(TASK_ROWS * channels));
            tasks.for_each(|(rows, joined)| {
                for (row, joined) in rows.chunks_exact_mut(range.len()).zip(joined.chunks_exact(channels)) {
                    row.write_copy_of_slice(&joined[range.clone()]);
                }
            });
            // SAFETY: the result has as many rows as what is split.
            Tensor::from_vec(unsafe { written(result) }, shape, &Device::Cpu)
        })
    };
    if at == 0 || at >= channels {
        candle_core::bail!("{channels} channels cannot be split at {at}");
    }
    Ok((part(0..at)?, part(at..channels)?))
}

fn last(x: &Tensor) -> usize {
    x.dims().last().copied().unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, random, views};

    #[test]
    fn joined_channels_are_those_of_candle_and_split_again() -> Result<()> {
        for one in views(&[2, 30, 9, 5])? {
            let other = random(&[2, 30, 9, 7], 1)?;
            let joined = join_channels(&one, &other)?;
            assert_close(&joined, &Tensor::cat(&[&one, &other], 3)?, 0.0)?;
            let (first, second) = split_channels(&joined, 5)?;
            assert_close(&first, &one, 0.0)?;
            assert_close(&second, &other, 0.0)?;
            assert!(split_channels(&joined, 12).is_err() && join_channels(&one, &random(&[2, 4], 1)?).is_err());
        }
        Ok(())
    }
}
