//! The product kernel: sums of a few rows times one or two panels stay in registers from the first to the last step of
//! the depth. One code for AVX-512, AVX2 and NEON; how many fit is all that differs.

use pulp::Simd;

use super::matrix::{Line, PANEL};
use crate::ops::activation::{Activation, activate_registers};
use crate::ops::simd::{load, prefetch, store};

/// Lines of a panel that are fetched ahead: about as many as pass while the second-level cache answers.
const PREFETCH: usize = 8;

/// Whether rows are multiplied with two panels at a time. Sixteen registers of eight floats have room for more rows of one
/// panel, of which half as much has to be read for each.
pub const fn takes_pairs<S: Simd>() -> bool {
    PANEL * size_of::<f32>() / size_of::<S::f32s>() != 2
}

/// A block of rows and panels, as addresses. All of it lies inside its slices: the caller has checked.
#[derive(Clone, Copy)]
pub struct Block<'a, const PANELS: usize> {
    /// First row of the left factor; its depth lies in `segments` runs of `segment_length` values.
    pub rows: *const f32,
    pub row_stride: usize,
    pub segments: usize,
    pub segment_stride: usize,
    pub segment_length: usize,
    /// The panels' lines of this depth.
    pub panels: [&'a [Line]; PANELS],
    pub result: *mut f32,
    pub result_stride: usize,
    /// Columns of the result, at most `PANELS * PANEL`.
    pub columns: usize,
    /// What the sums begin with: a bias per column (padded to whole panels), or what `result` holds.
    pub bias: Option<[&'a Line; PANELS]>,
    /// Added at the end, laid out as `result`.
    pub residual: Option<*const f32>,
    /// What follows, where it is immediate.
    pub activation: Activation,
}

impl<const PANELS: usize> Block<'_, PANELS> {
    /// The same block from `rows` further down.
    pub fn below(&self, rows: usize) -> Self {
        // SAFETY: the caller of `multiply` promises that the rows are there.
        unsafe {
            Self {
                rows: self.rows.add(rows * self.row_stride),
                result: self.result.add(rows * self.result_stride),
                residual: self.residual.map(|residual| residual.add(rows * self.result_stride)),
                ..*self
            }
        }
    }

    /// Where its sums go.
    #[inline(always)]
    fn place(&self) -> Place {
        Place {
            result: self.result,
            stride: self.result_stride,
            columns: self.columns,
            holds_start: self.bias.is_none(),
            residual: self.residual,
            activation: self.activation,
        }
    }
}

/// Multiplies `ROWS` rows with `PANELS` panels of `VECTORS` vector registers each.
///
/// # Safety
/// `ROWS` rows from `block.rows` on, each of all its segments, must be readable, and `ROWS` rows of `block.columns` values
/// writable from `block.result` on (and readable when there is no bias), and readable from `block.residual`.
#[inline(always)]
pub unsafe fn multiply<S: Simd, const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    simd: S,
    block: &Block<PANELS>,
) {
    let lanes = PANEL / VECTORS;
    let place = block.place();
    place.fetch::<ROWS, PANELS>();
    debug_assert_eq!(size_of::<S::f32s>(), lanes * size_of::<f32>());
    let line = |line: &Line, vector: usize| -> S::f32s {
        // SAFETY: a line is `VECTORS` vectors long, and aligned to more than a vector.
        unsafe { *line.0.as_ptr().add(vector * lanes).cast() }
    };
    let mut sums = [[[simd.splat_f32s(0.0); VECTORS]; PANELS]; ROWS];
    if let Some(bias) = block.bias {
        for row in &mut sums {
            for (sums, bias) in row.iter_mut().zip(bias) {
                sums.iter_mut().enumerate().for_each(|(vector, sum)| *sum = line(bias, vector));
            }
        }
    }
    let mut step = 0;
    for segment in 0..block.segments {
        for offset in 0..block.segment_length {
            let mut weights = [[simd.splat_f32s(0.0); VECTORS]; PANELS];
            for (weights, panel) in weights.iter_mut().zip(block.panels) {
                // SAFETY: a panel has a line for each step of the depth.
                let lines = unsafe { panel.get_unchecked(step) };
                prefetch(std::ptr::from_ref(lines).wrapping_add(PREFETCH));
                weights.iter_mut().enumerate().for_each(|(vector, weight)| *weight = line(lines, vector));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the caller promises the row and its segments.
                let value =
                    unsafe { *block.rows.add(row * block.row_stride + segment * block.segment_stride + offset) };
                let value = simd.splat_f32s(value);
                for (sums, weights) in sums.iter_mut().zip(&weights) {
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = simd.mul_add_f32s(value, *weight, *sum);
                    }
                }
            }
            step += 1;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { write(simd, sums, &place) };
}

/// A block of the product of a transposed left factor, whose columns are the rows of the result.
#[derive(Clone, Copy)]
pub struct Turned<'a, const PANELS: usize> {
    /// First of the columns, in the first row of the left factor.
    pub left: *const f32,
    /// Between its rows, one per line of the panels.
    pub left_stride: usize,
    pub panels: [&'a [Line]; PANELS],
    pub place: Place,
}

/// Multiplies `ROWS` columns of the left factor with `PANELS` panels of `VECTORS` vector registers each.
///
/// # Safety
/// `ROWS` values must be readable from `block.left` on for each line of the panels, which are equally long; and the place as
/// for [`write`].
#[inline(always)]
pub unsafe fn multiply_turned<S: Simd, const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    simd: S,
    block: &Turned<PANELS>,
) {
    let lanes = PANEL / VECTORS;
    block.place.fetch::<ROWS, PANELS>();
    let mut sums = [[[simd.splat_f32s(0.0); VECTORS]; PANELS]; ROWS];
    let mut left = block.left;
    for step in 0..block.panels[0].len() {
        let mut weights = [[simd.splat_f32s(0.0); VECTORS]; PANELS];
        // SAFETY: the caller promises a value per row at each step, and panels of equal length; a line is `VECTORS` vectors
        // long, and aligned to more than a vector.
        unsafe {
            for (weights, panel) in weights.iter_mut().zip(block.panels) {
                let line = panel.get_unchecked(step).0.as_ptr();
                weights
                    .iter_mut()
                    .enumerate()
                    .for_each(|(vector, weight)| *weight = *line.add(vector * lanes).cast::<S::f32s>());
            }
            prefetch(left.wrapping_add(PREFETCH * block.left_stride));
            for (row, sums) in sums.iter_mut().enumerate() {
                let value = simd.splat_f32s(*left.add(row));
                for (sums, weights) in sums.iter_mut().zip(&weights) {
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = simd.mul_add_f32s(value, *weight, *sum);
                    }
                }
            }
        }
        left = left.wrapping_add(block.left_stride);
    }
    // SAFETY: the caller's promise.
    unsafe { write(simd, sums, &block.place) };
}

/// Where the sums of a block go.
#[derive(Clone, Copy)]
pub struct Place {
    pub result: *mut f32,
    /// Between rows of the result, and of the residual.
    pub stride: usize,
    /// At most as many as the sums have.
    pub columns: usize,
    /// Whether the sums are added to what the result holds.
    pub holds_start: bool,
    pub residual: Option<*const f32>,
    /// What follows, where it is immediate.
    pub activation: Activation,
}

impl Place {
    /// Begins to fetch what [`write`] needs: called before the sums are computed, so that it need not wait then.
    #[inline(always)]
    pub fn fetch<const ROWS: usize, const PANELS: usize>(&self) {
        for row in 0..ROWS {
            for panel in 0..PANELS {
                let at = row * self.stride + panel * PANEL;
                prefetch(self.result.wrapping_add(at));
                if let Some(residual) = self.residual {
                    prefetch(residual.wrapping_add(at));
                }
            }
        }
    }
}

/// Writes the sums, with what is added to them, activated.
///
/// Each loop over the sums is so plain that it is unrolled: indexed at run time, they would live in memory.
///
/// # Safety
/// `ROWS` rows of `place.columns` values must be writable at the place (and readable where it holds a start), and
/// readable from its residual.
#[inline(always)]
pub unsafe fn write<S: Simd, const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    simd: S,
    mut sums: [[[S::f32s; VECTORS]; PANELS]; ROWS],
    place: &Place,
) {
    let Place { result, stride, columns, holds_start, residual, activation } = *place;
    let lanes = PANEL / VECTORS;
    // SAFETY: whole vectors of the result and the residual, as the caller promises.
    unsafe {
        if columns == PANELS * PANEL {
            if holds_start {
                each(
                    &mut sums,
                    #[inline(always)]
                    |row, column, sum| *sum = simd.add_f32s(*sum, read::<S>(result.add(row * stride + column))),
                );
            }
            if let Some(residual) = residual {
                each(
                    &mut sums,
                    #[inline(always)]
                    |row, column, sum| *sum = simd.add_f32s(*sum, read::<S>(residual.add(row * stride + column))),
                );
            }
            activate_registers(simd, activation, &mut sums);
            each(
                &mut sums,
                #[inline(always)]
                |row, column, sum| result.add(row * stride + column).cast::<S::f32s>().write_unaligned(*sum),
            );
            return;
        }
    }
    let mut tile = [[Line([0.0; PANEL]); PANELS]; ROWS];
    let lines = tile.as_mut_ptr().cast::<f32>();
    each(
        &mut sums,
        #[inline(always)]
        // SAFETY: the tile has as many values as there are sums.
        |row, column, sum| unsafe { lines.add(row * PANELS * PANEL + column).cast::<S::f32s>().write(*sum) },
    );
    for (row, line) in tile.iter().enumerate() {
        for column in (0..columns).step_by(lanes) {
            let (length, at) = ((columns - column).min(lanes), row * stride + column);
            // SAFETY: `length` values from here on are inside the result and the residual, as the caller promises.
            unsafe {
                let mut sum = line.as_ptr().cast::<f32>().add(column).cast::<S::f32s>().read();
                if holds_start {
                    sum = simd.add_f32s(sum, load(simd, result.add(at), length));
                }
                if let Some(residual) = residual {
                    sum = simd.add_f32s(sum, load(simd, residual.add(at), length));
                }
                let mut sum = [[[sum]]];
                activate_registers(simd, activation, &mut sum);
                store(simd, result.add(at), length, sum[0][0][0]);
            }
        }
    }
}

/// Calls `act` with the row, the column and the vector of each sum.
#[inline(always)]
pub fn each<V, const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    sums: &mut [[[V; VECTORS]; PANELS]; ROWS],
    mut act: impl FnMut(usize, usize, &mut V),
) {
    for (row, sums) in sums.iter_mut().enumerate() {
        for (panel, sums) in sums.iter_mut().enumerate() {
            for (vector, sum) in sums.iter_mut().enumerate() {
                act(row, panel * PANEL + vector * (PANEL / VECTORS), sum);
            }
        }
    }
}

/// # Safety
/// A whole vector must be readable.
#[inline(always)]
unsafe fn read<S: Simd>(from: *const f32) -> S::f32s {
    // SAFETY: the caller's promise.
    unsafe { from.cast::<S::f32s>().read_unaligned() }
}
