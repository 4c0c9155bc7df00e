//! Products of floats by the system's own library on a Mac, which alone knows the matrix unit of Apple's processors. The
//! tests of other systems come here too, with what multiplies there instead (see [`crate::ops::gemm`]).
//!
//! The library is given the same number of rows and columns each time, so that a result does not depend on what is computed
//! beside it: not on the batch, nor on how a layer is cut into parts.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::factors::{Right, Turned};
use super::matrix::PANEL;
use super::operands::{Rows, Start, Target};
use crate::ops::gemm::{self, Matrix};
use crate::ops::scratch;

/// Rows that are multiplied together.
pub const ROWS: usize = 64;
/// Columns that are multiplied together.
const PANELS: usize = 8;
const COLUMNS: usize = PANELS * PANEL;
/// So much of the depth at a time: these weights stay in the second-level cache while all rows meet them.
const DEPTH: usize = 512;

/// A left factor that can be given to the library.
pub trait Left {
    /// At least these rows, at most [`ROWS`], of a part of their depth: as they lie in memory, or else brought into `space`.
    /// How many are given depends on nothing but the layer.
    fn part<'a>(&'a self, rows: Range<usize>, depth: &Range<usize>, space: &'a mut [f32]) -> Matrix<'a>;
}

impl Left for Rows<'_> {
    fn part<'a>(&'a self, rows: Range<usize>, depth: &Range<usize>, space: &'a mut [f32]) -> Matrix<'a> {
        let is_one_piece = self.segments == 1 && self.row_stride >= depth.len();
        if is_one_piece && rows.len() == ROWS && rows.start % self.count + ROWS <= self.count {
            let elements = &self.elements[self.first_element(rows.start) + depth.start..];
            let (columns, row_stride) = (depth.len(), self.row_stride);
            return Matrix { elements, rows: ROWS, columns, row_stride, column_stride: 1 };
        }
        for (space, row) in space.chunks_exact_mut(depth.len()).zip(rows) {
            self.gather(row, depth, space);
        }
        // Whatever lies behind makes sums that nobody reads.
        Matrix::row_major(space, ROWS, depth.len())
    }
}

impl Left for Turned<'_> {
    fn part<'a>(&'a self, rows: Range<usize>, depth: &Range<usize>, _: &'a mut [f32]) -> Matrix<'a> {
        Matrix {
            elements: &self.elements[depth.start * self.stride + rows.start..],
            rows: rows.len(),
            columns: depth.len(),
            row_stride: 1,
            column_stride: self.stride,
        }
    }
}

/// Computes every value of `target`, on the calling thread, over a depth that is not empty. The caller has checked that all
/// lies in its slices.
pub fn multiply(left: &impl Left, right: &Right, target: &Target) {
    let part = part(right.depth.len());
    scratch::with(floats(right.depth.len()), |space| {
        let (rows_space, space) = space.split_at_mut(ROWS * part);
        let (weights, sums) = space.split_at_mut(part * COLUMNS);
        for first in right.panels.clone().step_by(PANELS) {
            let panels = first..right.panels.end.min(first + PANELS);
            for begin in (0..right.depth.len()).step_by(part) {
                let depth = begin..right.depth.len().min(begin + part);
                let weights = &mut weights[..depth.len() * COLUMNS];
                right.unpack(&panels, &depth, weights);
                let step = Step { right, target, panels: panels.clone(), depth };
                for row in (0..target.rows).step_by(ROWS) {
                    let rows = row..target.rows.min(row + ROWS);
                    let left = left.part(rows.clone(), &step.depth, &mut rows_space[..ROWS * step.depth.len()]);
                    gemm::multiply(sums, COLUMNS, left, Matrix::row_major(weights, step.depth.len(), COLUMNS), 1.0);
                    step.add(rows, sums);
                }
            }
        }
    });
}

/// The depth that is multiplied at a time: equal parts of all.
fn part(depth: usize) -> usize {
    depth.div_ceil(depth.div_ceil(DEPTH).max(1))
}

/// Working memory of a product of this depth, in floats.
pub fn floats(depth: usize) -> usize {
    (ROWS + COLUMNS) * part(depth) + ROWS * COLUMNS
}

impl Right<'_> {
    /// Writes a part of some panels' depth row after row. What follows their columns makes sums that nobody reads.
    fn unpack(&self, panels: &Range<usize>, depth: &Range<usize>, rows: &mut [f32]) {
        let depth = self.depth.start + depth.start..self.depth.start + depth.end;
        for (index, panel) in panels.clone().enumerate() {
            let lines = &self.weight.panel(panel)[depth.clone()];
            for (row, line) in rows.chunks_exact_mut(COLUMNS).zip(lines) {
                row[index * PANEL..][..PANEL].copy_from_slice(&line.0);
            }
        }
    }
}

/// A part of the depth, in some columns.
struct Step<'a> {
    right: &'a Right<'a>,
    target: &'a Target<'a>,
    panels: Range<usize>,
    /// Within the depth of the product.
    depth: Range<usize>,
}

impl Step<'_> {
    /// Adds sums to these rows of the target: to what they begin with before the first part of the depth; what ends them follows
    /// the last one.
    fn add(&self, rows: Range<usize>, sums: &[f32]) {
        let Self { right, target, panels, depth } = self;
        let column = (panels.start - right.panels.start) * PANEL;
        let columns = (target.columns - column).min(panels.len() * PANEL);
        let (begins, ends) = (depth.start == 0, depth.end == right.depth.len());
        for (row, sums) in rows.zip(sums.chunks_exact(COLUMNS)) {
            let at = row * target.stride + column;
            // SAFETY: these columns of the row are the target's own; nothing is read before it is written.
            let values = unsafe {
                let first = target.first.add(at).cast::<MaybeUninit<f32>>();
                std::slice::from_raw_parts_mut(first, columns)
            };
            if begins {
                match right.start {
                    Some(Start::Bias(bias)) => {
                        let bias = bias[panels.clone()].iter().flat_map(|line| &line.0);
                        values.iter_mut().zip(bias).for_each(|(value, bias)| _ = value.write(*bias));
                    }
                    Some(Start::Result) => {}
                    None => values.fill(MaybeUninit::new(0.0)),
                }
            }
            // SAFETY: they hold what they begin with, or sums of the depth so far.
            let values = unsafe { values.assume_init_mut() };
            vectorized!(|| {
                values.iter_mut().zip(sums).for_each(|(value, sum)| *value += sum);
                if ends {
                    if let Some(residual) = right.residual {
                        values.iter_mut().zip(&residual[at..]).for_each(|(value, residual)| *value += residual);
                    }
                    right.activation.apply_inlined(values);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_rows_are_given_whichever_are_asked_for() {
        let elements: Vec<f32> = (0..8000).map(|index| index as f32).collect();
        let dense = Rows::dense(&elements, 200, 40);
        let in_segments = Rows {
            groups: 19,
            group_stride: 400,
            count: 10,
            segments: 2,
            segment_stride: 400,
            segment_length: 20,
            ..dense
        };
        let depth = 5..33;
        for rows in [dense, in_segments] {
            for asked in [0..1, 3..67, 63..66, 126..190] {
                let mut space = vec![0.0; ROWS * depth.len()];
                let given = rows.part(asked.clone(), &depth, &mut space);
                assert_eq!((given.rows, given.columns, given.column_stride), (ROWS, depth.len(), 1));
                for (index, row) in asked.enumerate() {
                    let mut own = vec![0.0; depth.len()];
                    rows.gather(row, &depth, &mut own);
                    assert_eq!(given.elements[index * given.row_stride..][..depth.len()], own);
                }
            }
        }
    }
}
