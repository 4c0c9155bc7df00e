//! A weight in the kernel's order.

use std::mem::MaybeUninit;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

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
const BLOCK: usize = 32;
/// Panels of one task.
const TASK_PANELS: usize = 4;

/// The lines of `panels` panels. `fill` gets some panels, whose first has the number it is told, and must write every line.
fn filled_lines(depth: usize, panels: usize, fill: impl Fn(usize, &mut [MaybeUninit<Line>]) + Sync) -> Vec<Line> {
    let mut lines = Vec::with_capacity(depth * panels);
    let space = &mut lines.spare_capacity_mut()[..depth * panels];
    space.par_chunks_mut((TASK_PANELS * depth).max(1)).enumerate().for_each(|(task, panels)| {
        vectorized!(|| fill(task * TASK_PANELS, panels));
    });
    // SAFETY: every line has been written.
    unsafe { lines.set_len(depth * panels) };
    lines
}

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

/// A matrix of `depth` rows in panels of [`PANEL`] columns, each panel row after row; columns beyond the last are zero.
pub struct PackedMatrix {
    lines: Vec<Line>,
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
        Self { lines, depth, columns }
    }

    /// Packs a weight of shape `(…, columns)`; all axes but the last are its depth.
    pub fn from_tensor(weight: &Tensor) -> Result<Self> {
        let columns = weight.dims().last().copied().unwrap_or(0);
        with_elements([weight], |elements| Ok(Self::scaled(elements[0], columns, None)))
    }

    /// The matrix `rows` of `columns` columns, each multiplied by its `scale`.
    pub fn scaled(rows: &[f32], columns: usize, scale: Option<&[f32]>) -> Self {
        let depth = rows.len() / columns.max(1);
        let lines = filled_lines(
            depth,
            columns.div_ceil(PANEL),
            #[inline(always)]
            |first_panel, panels| {
                for first_row in (0..depth).step_by(BLOCK) {
                    for (index, lines) in panels.chunks_exact_mut(depth).enumerate() {
                        let first = (first_panel + index) * PANEL;
                        let width = PANEL.min(columns - first);
                        let rows = rows[first_row * columns..].chunks_exact(columns).take(BLOCK);
                        for (space, row) in lines[first_row..].iter_mut().zip(rows) {
                            let mut line = line(&row[first..first + width]);
                            if let Some(scale) = scale {
                                line.0.iter_mut().zip(&scale[first..]).for_each(|(value, scale)| *value *= scale);
                            }
                            space.write(line);
                        }
                    }
                }
            },
        );
        Self { lines, depth, columns }
    }

    /// The transpose of the matrix `rows` of `columns` columns, each of which is multiplied by its `scale`.
    pub fn turned(rows: &[f32], columns: usize, scale: Option<&[f32]>) -> Self {
        let count = rows.len() / columns.max(1);
        let lines = filled_lines(
            columns,
            count.div_ceil(PANEL),
            #[inline(always)]
            |first_panel, panels| {
                for (index, lines) in panels.chunks_exact_mut(columns).enumerate() {
                    let rows = &rows[(first_panel + index) * PANEL * columns..];
                    for (block, space) in lines.chunks_mut(PANEL).enumerate() {
                        let first = block * PANEL;
                        let mut turned = [Line([0.0; PANEL]); PANEL];
                        for (place, row) in rows.chunks_exact(columns).take(PANEL).enumerate() {
                            let values = line(&row[first..first + space.len()]);
                            turned.iter_mut().zip(values.0).for_each(|(line, value)| line.0[place] = value);
                        }
                        for (index, (space, mut line)) in space.iter_mut().zip(turned).enumerate() {
                            if let Some(scale) = scale {
                                line.0.iter_mut().for_each(|value| *value *= scale[first + index]);
                            }
                            space.write(line);
                        }
                    }
                }
            },
        );
        Self { lines, depth: columns, columns: count }
    }

    /// Nothing yet: filled again and again by [`Self::refill`].
    pub fn empty() -> Self {
        Self { lines: Vec::new(), depth: 0, columns: 0 }
    }

    /// Becomes the matrix whose rows begin `stride` apart in `rows`.
    pub fn refill(&mut self, rows: &[f32], stride: usize, depth: usize, columns: usize) {
        (self.depth, self.columns) = (depth, columns);
        self.lines.resize(depth * columns.div_ceil(PANEL), Line([0.0; PANEL]));
        for first_row in (0..depth).step_by(BLOCK) {
            for (panel, lines) in self.lines.chunks_exact_mut(depth).enumerate() {
                let first = panel * PANEL;
                let width = PANEL.min(columns - first);
                let rows = rows[first_row * stride..].chunks(stride).take(BLOCK);
                for (space, row) in lines[first_row..].iter_mut().zip(rows) {
                    *space = line(&row[first..first + width]);
                }
            }
        }
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

    /// The lines of one panel.
    pub fn panel(&self, panel: usize) -> &[Line] {
        &self.lines[panel * self.depth..][..self.depth]
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        size_of_val(self.lines.as_slice())
    }
}

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedMatrix").field("depth", &self.depth).field("columns", &self.columns).finish()
    }
}
