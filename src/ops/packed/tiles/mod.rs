//! Products of floats in the matrix unit of Intel's servers, about twice as fast as their vector unit and as exact: each
//! float becomes three bf16 numbers on the way.

mod kernel;
mod planes;

use std::arch::x86_64::*;
use std::ops::Range;

use pulp::x86::V4;
use pulp::{Simd, f32x16};

use self::kernel::SPAN;
pub use self::planes::{BLOCK_LINES, store_block};

use super::factors::{Right, Turned};
use super::kernel::{Place, write};
use super::matrix::{BLOCK, Form, Line, PANEL};
use super::operands::{Rows, Start, Target};
use super::transpose::x86::transpose;
use crate::ops::amx::{SIDE, Tiles};
use crate::ops::{Activation, scratch};

/// Rows whose planes are kept while they meet all columns.
const ROWS: usize = 448;
/// Depth of these planes: what both operands take stays in the second-level cache.
const DEPTH: usize = 512;

/// A left factor that can be brought into planes.
pub trait Left {
    /// Writes the planes of `count` rows from `first` on, of this part of their depth, in `blocks` blocks for every sixteen rows.
    ///
    /// # Safety
    /// The machine must have AVX-512, rows and depth be there, and `planes` have room for all blocks.
    unsafe fn store(&self, first: usize, count: usize, depth: Range<usize>, planes: *mut Line);
}

impl Left for Rows<'_> {
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn store(&self, first: usize, count: usize, depth: Range<usize>, planes: *mut Line) {
        let blocks = depth.len().div_ceil(BLOCK);
        let mut gathered = [0.0; DEPTH];
        for index in 0..count {
            let row = first + index;
            let values = if self.segments == 1 {
                &self.elements[self.first_element(row) + depth.start..][..depth.len()]
            } else {
                self.gather(row, &depth, &mut gathered);
                &gathered[..depth.len()]
            };
            for (block, values) in values.chunks(BLOCK).enumerate() {
                // SAFETY: the caller's promise.
                unsafe {
                    let block = planes.add((index / SIDE * blocks + block) * BLOCK_LINES);
                    planes::store_values(block, index % SIDE, values);
                }
            }
        }
    }
}

impl Left for Turned<'_> {
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn store(&self, first: usize, count: usize, depth: Range<usize>, planes: *mut Line) {
        let blocks = depth.len().div_ceil(BLOCK);
        for column in (0..count).step_by(SIDE) {
            let columns = first + column..first + count.min(column + SIDE);
            for block in 0..blocks {
                let row = depth.start + block * BLOCK;
                let above = self.columns(row..depth.end.min(row + SIDE), &columns);
                let below = self.columns((row + SIDE).min(depth.end)..depth.end.min(row + BLOCK), &columns);
                for index in 0..SIDE {
                    // SAFETY: the caller's promise.
                    unsafe {
                        let block = planes.add((column / SIDE * blocks + block) * BLOCK_LINES);
                        planes::store(block, index, above[index], below[index]);
                    }
                }
            }
        }
    }
}

impl Turned<'_> {
    /// At most sixteen columns of as many rows, one after the other; what is missing is zero.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn columns(&self, rows: Range<usize>, columns: &Range<usize>) -> [__m512; SIDE] {
        let mut vectors = [_mm512_setzero_ps(); SIDE];
        for (vector, row) in vectors.iter_mut().zip(rows) {
            *vector = planes::part(&self.elements[row * self.stride..][columns.clone()]);
        }
        transpose(vectors)
    }
}

/// Computes every value of `target`, on the calling thread, over a depth that is not empty. The caller has checked that all
/// lies in its slices.
pub fn multiply(tiles: &Tiles, left: &(impl Left + Sync), right: &Right, target: &Target) {
    let simd = V4::try_new().expect("a machine with tiles has AVX-512");
    let is_whole = right.depth.start.is_multiple_of(BLOCK) || right.weight.form() == Form::Lines;
    assert!(is_whole, "a part of planes begins with a block");
    let part = part(right.depth.len());
    let blocks = part / BLOCK;
    let rows = target.rows.min(ROWS).next_multiple_of(SPAN);
    scratch::with_lines(plane_lines(target.rows, right.depth.len()), |planes| {
        let (left_planes, right_planes) = planes.split_at_mut(rows / SIDE * blocks * BLOCK_LINES);
        for first_row in (0..target.rows).step_by(ROWS) {
            let count = ROWS.min(target.rows - first_row);
            for begin in (0..right.depth.len()).step_by(part) {
                let depth = begin..right.depth.len().min(begin + part);
                // SAFETY: the planes have room for these rows, and a machine with tiles has AVX-512.
                unsafe { left.store(first_row, count, depth.clone(), left_planes.as_mut_ptr()) };
                let step = Step { tiles, simd, right, target, first_row, count, depth };
                for panel in right.panels.clone().step_by(2) {
                    step.columns(left_planes, right_planes, panel);
                }
            }
        }
    });
}

/// The depth that is multiplied at a time: equal parts of all, in whole blocks.
fn part(depth: usize) -> usize {
    depth.div_ceil(depth.div_ceil(DEPTH).max(1)).next_multiple_of(BLOCK)
}

/// Lines of the planes of both operands of a product of so many rows.
pub fn plane_lines(rows: usize, depth: usize) -> usize {
    (rows.min(ROWS).next_multiple_of(SPAN) + SPAN) / SIDE * (part(depth) / BLOCK) * BLOCK_LINES
}

/// Some rows times a part of the depth.
struct Step<'a> {
    tiles: &'a Tiles,
    simd: V4,
    right: &'a Right<'a>,
    target: &'a Target<'a>,
    first_row: usize,
    count: usize,
    /// Within the depth of the product.
    depth: Range<usize>,
}

impl Step<'_> {
    /// All these rows of one or two panels.
    fn columns(&self, left: &[Line], right: &mut [Line], panel: usize) {
        let blocks = self.depth.len().div_ceil(BLOCK);
        let whole = &self.right.depth;
        let panels = (self.right.panels.end - panel).min(2);
        let depth = whole.start + self.depth.start..whole.start + self.depth.end;
        let weight = self.right.weight;
        let mut panel_planes = [right.as_ptr(); 2];
        for (index, space) in right.chunks_exact_mut(blocks * BLOCK_LINES).take(panels).enumerate() {
            let lines = weight.panel(panel + index);
            panel_planes[index] = match weight.form() {
                Form::Lines => {
                    planes::store_panel(&lines[depth.clone()], space);
                    space.as_ptr()
                }
                Form::Planes => lines[depth.start / BLOCK * BLOCK_LINES..][..blocks * BLOCK_LINES].as_ptr(),
            };
        }
        let row_planes = |row: usize| left[row / SIDE * blocks * BLOCK_LINES..][..blocks * BLOCK_LINES].as_ptr();
        let mut sums = Sums([[0.0; SPAN]; SPAN]);
        for row in (0..self.count).step_by(SPAN) {
            let rows = [row_planes(row), row_planes(row + SIDE)];
            // SAFETY: each of these planes has so many blocks. What has not been written makes sums that nobody reads.
            unsafe { kernel::multiply(self.tiles, rows, panel_planes, blocks, &mut sums.0) };
            match panels {
                2 => self.finish::<2>(&sums, row, panel),
                _ => self.finish::<1>(&sums, row, panel),
            }
        }
        if self.is_last() && !self.right.activation.is_immediate() {
            self.activate(panel, panels);
        }
    }

    fn is_last(&self) -> bool {
        self.depth.end == self.right.depth.len()
    }

    /// Writes sums of rows from `row` on.
    fn finish<const PANELS: usize>(&self, sums: &Sums, row: usize, panel: usize) {
        let Self { right, target, .. } = self;
        let first_column = (panel - right.panels.start) * PANEL;
        let begins = self.depth.start == 0;
        let place = |row: usize| {
            let at = (self.first_row + row) * target.stride + first_column;
            Place {
                result: target.first.wrapping_add(at),
                stride: target.stride,
                columns: (target.columns - first_column).min(PANELS * PANEL),
                holds_start: !begins || matches!(right.start, Some(Start::Result)),
                residual: if self.is_last() { right.residual.map(|residual| residual[at..].as_ptr()) } else { None },
                activation: if self.is_last() { right.activation } else { Activation::None },
            }
        };
        let bias = match right.start {
            Some(Start::Bias(bias)) if begins => Some(std::array::from_fn(|index| bias[panel + index])),
            _ => None,
        };
        let end = SPAN.min(self.count - row);
        let mut done = 0;
        while done < end {
            // SAFETY: these rows and columns are in the target, and its residual, which the caller of `multiply` has checked.
            unsafe {
                let (sums, place) = (&sums.0[done..], place(row + done));
                done += match end - done {
                    8.. => self.write_rows::<8, PANELS>(sums, bias, &place),
                    4.. => self.write_rows::<4, PANELS>(sums, bias, &place),
                    2.. => self.write_rows::<2, PANELS>(sums, bias, &place),
                    _ => self.write_rows::<1, PANELS>(sums, bias, &place),
                };
            }
        }
    }

    /// Writes the first rows of some sums. Returns `ROWS`.
    ///
    /// # Safety
    /// As for [`write`].
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn write_rows<const ROWS: usize, const PANELS: usize>(
        &self,
        sums: &[[f32; SPAN]],
        bias: Option<[Line; PANELS]>,
        place: &Place,
    ) -> usize {
        let mut vectors = [[[self.simd.splat_f32s(0.0)]; PANELS]; ROWS];
        for (vectors, sums) in vectors.iter_mut().zip(sums) {
            for (panel, vector) in vectors.iter_mut().enumerate() {
                // SAFETY: a row of sums is two vectors.
                vector[0] = unsafe { sums.as_ptr().add(panel * PANEL).cast::<f32x16>().read_unaligned() };
                if let Some(bias) = &bias {
                    // SAFETY: a line is a vector.
                    let bias = unsafe { bias[panel].0.as_ptr().cast::<f32x16>().read_unaligned() };
                    vector[0] = self.simd.add_f32s(vector[0], bias);
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe { write(self.simd, vectors, place) };
        ROWS
    }

    fn activate(&self, panel: usize, panels: usize) {
        let Self { right, target, .. } = self;
        let first = (panel - right.panels.start) * PANEL;
        let last = target.columns.min(first + panels * PANEL);
        vectorized!(|| {
            // SAFETY: these values have just been written.
            unsafe {
                target.rows(self.first_row..self.first_row + self.count).activate(
                    first..last,
                    #[inline(always)]
                    |values| right.activation.apply_inlined(values),
                );
            }
        });
    }
}

#[repr(align(64))]
struct Sums([[f32; SPAN]; SPAN]);
