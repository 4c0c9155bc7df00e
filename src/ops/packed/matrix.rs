//! A weight in the kernel's order.

use std::mem::MaybeUninit;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::transpose::transpose;
use crate::ops::simd::prefetch;
use crate::ops::with_elements;

/// Columns that are stored, and multiplied, together.
pub const PANEL: usize = 16;

/// One row of a panel: a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line(pub [f32; PANEL]);

/// Values in whole lines, zeros after the last.
pub fn lines(values: &[f32]) -> Vec<Line> {
    values.chunks(PANEL).map(line).collect()
}

/// Rows that are packed together: so many lines of a panel lie one after the other, where single ones would each be in a page
/// of their own.
pub const BLOCK: usize = 32;
/// Panels of one task.
const TASK_PANELS: usize = 4;

/// At most a line of values, and zeros.
#[inline(always)]
fn line(values: &[f32]) -> Line {
    if let Some(whole) = values.first_chunk() {
        return Line(*whole);
    }
    let mut line = Line([0.0; PANEL]);
    line.0[..values.len()].copy_from_slice(values);
    line
}

/// A distance between rows of `length` values that spreads them over the sets of a cache: an odd number of its lines.
pub fn apart(length: usize) -> usize {
    (length.div_ceil(PANEL) | 1) * PANEL
}

/// Whether the matrix unit is faster for a weight: bringing values into its order costs less than it gains when each meets as
/// many others as this.
pub fn suit_tiles(depth: usize, columns: usize) -> bool {
    depth.min(columns) >= 96
}

/// Whether there is a matrix unit, of Intel's servers or of a Mac.
pub fn has_matrix_unit() -> bool {
    #[cfg(target_arch = "x86_64")]
    return crate::ops::amx::is_available();
    #[cfg(not(target_arch = "x86_64"))]
    return cfg!(all(target_os = "macos", target_arch = "aarch64"));
}

/// How a panel is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Row after row, which both kernels read.
    Lines,
    /// In blocks of [`BLOCK`] rows as the matrix unit reads them, half as large again.
    #[cfg(target_arch = "x86_64")]
    Planes,
    /// As lines, which the matrix unit alone reads: so all that multiply with them come to the same.
    #[cfg(all(target_os = "macos", target_arch = "aarch64"))]
    LinesOfUnit,
}

impl Form {
    /// Of a matrix that is packed for a few products: the order of the faster kernel.
    fn passing(depth: usize, columns: usize) -> Self {
        #[cfg(target_arch = "x86_64")]
        if suit_tiles(depth, columns) && crate::ops::amx::is_available() {
            return Self::Planes;
        }
        #[cfg(all(target_os = "macos", target_arch = "aarch64"))]
        if suit_tiles(depth, columns) {
            return Self::LinesOfUnit;
        }
        let _ = (depth, columns);
        Self::Lines
    }

    /// Lines of a panel that so many rows take.
    fn lines(self, rows: usize) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Planes => rows.div_ceil(BLOCK) * super::tiles::BLOCK_LINES,
            _ => rows,
        }
    }

    /// Stores a block of rows of a panel, which begin at `row`.
    #[inline(always)]
    fn store(self, panel: &mut [MaybeUninit<Line>], row: usize, block: &[Line]) {
        let space = &mut panel[self.lines(row)..][..self.lines(block.len())];
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Planes => super::tiles::store_block(space, block),
            _ => _ = space.write_copy_of_slice(block),
        }
    }
}

/// A matrix of `depth` rows in panels of [`PANEL`] columns; columns beyond the last are zero.
pub struct PackedMatrix {
    lines: Vec<Line>,
    form: Form,
    depth: usize,
    columns: usize,
}

impl PackedMatrix {
    /// Packs a matrix of `depth` rows whose element `(row, column)` is `element(row, column)`.
    pub fn new(depth: usize, columns: usize, element: impl Fn(usize, usize) -> f32) -> Self {
        let mut lines = vec![Line([0.0; PANEL]); depth * columns.div_ceil(PANEL)];
        for (index, line) in lines.iter_mut().enumerate() {
            let (first, row) = (index / depth * PANEL, index % depth);
            for (column, value) in (first..columns).zip(&mut line.0) {
                *value = element(row, column);
            }
        }
        Self { lines, form: Form::Lines, depth, columns }
    }

    /// The same from parts: `read` gives what belongs to a panel's columns, or nothing, with which there is no matrix;
    /// `element` takes a row's and a column's value from the part that begins with column `first`.
    pub fn from_panels<P, E>(
        depth: usize,
        columns: usize,
        read: impl Fn(std::ops::Range<usize>) -> std::result::Result<Option<P>, E>,
        element: impl Fn(&P, usize, usize, usize) -> f32,
    ) -> std::result::Result<Option<Self>, E> {
        let mut lines = Vec::new();
        for first in (0..columns).step_by(PANEL) {
            let end = columns.min(first + PANEL);
            let Some(part) = read(first..end)? else { return Ok(None) };
            if first == 0 {
                lines.reserve_exact(depth * columns.div_ceil(PANEL));
            }
            lines.extend((0..depth).map(|row| {
                let mut line = Line([0.0; PANEL]);
                for (column, value) in (first..end).zip(&mut line.0) {
                    *value = element(&part, row, column, first);
                }
                line
            }));
        }
        Ok(Some(Self { lines, form: Form::Lines, depth, columns }))
    }

    /// Packs a weight of shape `(…, columns)`; all axes but the last are its depth.
    pub fn from_tensor(weight: &Tensor) -> Result<Self> {
        let columns = weight.dims().last().copied().unwrap_or(0);
        with_elements([weight], |elements| Ok(Self::scaled(elements[0], columns, None)))
    }

    /// The matrix `rows` of `columns` columns, each multiplied by its `scale`.
    pub fn scaled(rows: &[f32], columns: usize, scale: Option<&[f32]>) -> Self {
        let depth = rows.len() / columns.max(1);
        Self::filled(
            Form::passing(depth, columns),
            depth,
            columns,
            #[inline(always)]
            |first, first_row, block| {
                let width = PANEL.min(columns - first);
                let rows = rows[first_row * columns..].chunks_exact(columns);
                for (space, row) in block.iter_mut().zip(rows) {
                    let row = &row[first..first + width];
                    // The next block's rows are in other pages, where no processor fetches ahead by itself.
                    prefetch(row.as_ptr().wrapping_add(BLOCK * columns));
                    *space = line(row);
                    if let Some(scale) = scale {
                        space.0.iter_mut().zip(&scale[first..]).for_each(|(value, scale)| *value *= scale);
                    }
                }
            },
        )
    }

    /// The transpose of the matrix `rows` of `columns` columns, each of which is multiplied by its `scale`.
    pub fn turned(rows: &[f32], columns: usize, scale: Option<&[f32]>) -> Self {
        let outputs = rows.len() / columns.max(1);
        Self::filled(
            Form::passing(columns, outputs),
            columns,
            outputs,
            #[inline(always)]
            |first, first_row, block| {
                let rows = &rows[first * columns..];
                for (index, block) in block.chunks_mut(PANEL).enumerate() {
                    let first_row = first_row + index * PANEL;
                    let mut turned = [Line([0.0; PANEL]); PANEL];
                    for (space, row) in turned.iter_mut().zip(rows.chunks_exact(columns)) {
                        let row = &row[first_row..first_row + block.len()];
                        prefetch(row.as_ptr().wrapping_add(BLOCK));
                        *space = line(row);
                    }
                    transpose(&mut turned);
                    for (index, (space, line)) in block.iter_mut().zip(turned).enumerate() {
                        *space = line;
                        if let Some(scale) = scale {
                            space.0.iter_mut().for_each(|value| *value *= scale[first_row + index]);
                        }
                    }
                }
            },
        )
    }

    /// In this form: `fill` gets a panel's first column, the first of some rows, and their lines, at most [`BLOCK`], all of which it must
    /// write.
    pub fn filled(form: Form, depth: usize, columns: usize, fill: impl Fn(usize, usize, &mut [Line]) + Sync) -> Self {
        let (length, panels) = (form.lines(depth), columns.div_ceil(PANEL));
        let mut lines = Vec::with_capacity(length * panels);
        let space = &mut lines.spare_capacity_mut()[..length * panels];
        space.par_chunks_mut((TASK_PANELS * length).max(1)).enumerate().for_each(|(task, space)| {
            vectorized!(|| {
                let mut block = [Line([0.0; PANEL]); BLOCK];
                for row in (0..depth).step_by(BLOCK) {
                    let block = &mut block[..BLOCK.min(depth - row)];
                    for (index, panel) in space.chunks_exact_mut(length).enumerate() {
                        fill((task * TASK_PANELS + index) * PANEL, row, block);
                        form.store(panel, row, block);
                    }
                }
            });
        });
        // SAFETY: every line has been written.
        unsafe { lines.set_len(length * panels) };
        Self { lines, form, depth, columns }
    }

    /// A matrix of this shape without values, of which nothing but its shape and size is asked.
    pub fn outline(depth: usize, columns: usize) -> Self {
        Self { lines: Vec::new(), form: Form::Lines, depth, columns }
    }

    /// Bytes of a matrix that is packed for a few products.
    pub fn passing_bytes(depth: usize, columns: usize) -> usize {
        Self { form: Form::passing(depth, columns), ..Self::outline(depth, columns) }.bytes()
    }

    /// Nothing yet: filled again and again by [`Self::refill`].
    pub fn empty() -> Self {
        Self { lines: Vec::new(), form: Form::Lines, depth: 0, columns: 0 }
    }

    /// Becomes the matrix whose rows begin `stride` apart in `rows`.
    pub fn refill(&mut self, rows: &[f32], stride: usize, depth: usize, columns: usize) {
        (self.depth, self.columns, self.form) = (depth, columns, Form::passing(depth, columns));
        let length = self.form.lines(depth);
        self.lines.clear();
        self.lines.reserve(length * columns.div_ceil(PANEL));
        let space = &mut self.lines.spare_capacity_mut()[..length * columns.div_ceil(PANEL)];
        let mut block = [Line([0.0; PANEL]); BLOCK];
        for first_row in (0..depth).step_by(BLOCK) {
            let block = &mut block[..BLOCK.min(depth - first_row)];
            for (panel, space) in space.chunks_exact_mut(length).enumerate() {
                let first = panel * PANEL;
                let width = PANEL.min(columns - first);
                for (space, row) in block.iter_mut().zip(rows[first_row * stride..].chunks(stride)) {
                    *space = line(&row[first..first + width]);
                }
                self.form.store(space, first_row, block);
            }
        }
        // SAFETY: every line has been written.
        unsafe { self.lines.set_len(length * columns.div_ceil(PANEL)) };
    }

    pub fn form(&self) -> Form {
        self.form
    }

    pub fn depth(&self) -> usize {
        self.depth
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn panels(&self) -> usize {
        self.columns.div_ceil(PANEL)
    }

    /// The lines of one panel, in the order of its form.
    pub fn panel(&self, panel: usize) -> &[Line] {
        let length = self.form.lines(self.depth);
        &self.lines[panel * length..][..length]
    }

    /// Bytes held, by an outline those of the matrix.
    pub fn bytes(&self) -> usize {
        self.form.lines(self.depth) * self.panels() * size_of::<Line>()
    }
}

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedMatrix").field("depth", &self.depth).field("columns", &self.columns).finish()
    }
}
