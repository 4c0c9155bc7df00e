//! The two products of the backward of every linear layer and convolution.

use rayon::prelude::*;

use super::packed::{PANEL, PackedMatrix, Target, Unit, linear_rows, multiply_turned};
use super::{Activation, backward, space, written};

/// Rows whose products are summed together: as many as keep what is read in the second-level cache.
pub const TILE_ROWS: usize = 224;

/// `upstream · weightᵀ`: the gradients of rows, for a weight of `outputs` columns.
pub fn row_gradients(upstream: &[f32], weight: &[f32], outputs: usize) -> Vec<f32> {
    let turned = PackedMatrix::turned(weight, outputs, None);
    linear_rows(upstream, &turned, &vec![0.0; turned.columns()], Activation::None, None, Unit::Tiles)
}

/// `rowsᵀ · upstream`: the gradient of a weight of `inputs` rows and `outputs` columns.
///
/// `tile(first, count, add)` must call `add` once, with `count` rows from `first` on, and how far apart they are; `count` is
/// at most [`TILE_ROWS`].
pub fn weight_gradients(
    upstream: &[f32],
    [inputs, outputs]: [usize; 2],
    tile: impl Fn(usize, usize, &mut dyn FnMut(&[f32], usize)) + Sync,
) -> Vec<f32> {
    let rows = upstream.len() / outputs.max(1);
    if rows == 0 {
        return vec![0.0; inputs * outputs];
    }
    let threads = rayon::current_num_threads();
    let add = |rows: std::ops::Range<usize>, first_column: usize, mut target: Target| {
        let (columns, mut panels) = (target.columns, PackedMatrix::empty());
        for first in rows.clone().step_by(TILE_ROWS) {
            let count = TILE_ROWS.min(rows.end - first);
            panels.refill(&upstream[first * outputs + first_column..], outputs, count, columns);
            tile(first, count, &mut |left, stride| {
                multiply_turned(left, stride, &panels, target.columns(0..columns));
            });
            target.holds_values = true;
        }
    };
    // A thread has its own columns where there are enough to keep the kernel busy; else its own rows, and sums.
    if outputs >= 4 * PANEL * threads {
        let mut sums = space(inputs * outputs);
        let share = outputs.div_ceil(threads).next_multiple_of(PANEL);
        let (mut parts, mut rest) = (Vec::new(), Target::new(&mut sums, outputs));
        for first in (0..outputs).step_by(share) {
            let (part, others) = rest.split_at_column(share);
            parts.push((first, part));
            rest = others;
        }
        parts.into_par_iter().for_each(|(first, part)| add(0..rows, first, part));
        // SAFETY: the first tile of rows, which there is, writes all of each part.
        return unsafe { written(sums) };
    }
    let share = rows.div_ceil(threads).max(1);
    let parts = (0..rows.div_ceil(share)).into_par_iter().map(|index| {
        let mut sums = space(inputs * outputs);
        add(index * share..rows.min((index + 1) * share), 0, Target::new(&mut sums, outputs));
        // SAFETY: the first tile of its rows, which there is, writes all of the sums.
        unsafe { written(sums) }
    });
    backward::sum_in_order(parts.collect(), inputs * outputs)
}
