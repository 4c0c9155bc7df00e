//! A weight in the kernel's order.

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

/// At most a line of values, and zeros.
fn line(values: &[f32]) -> Line {
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
        let mut lines = vec![Line([0.0; PANEL]); depth * columns.div_ceil(PANEL)];
        lines.par_chunks_mut(depth.max(1)).enumerate().for_each(|(panel, lines)| {
            let (first, width) = (panel * PANEL, PANEL.min(columns - panel * PANEL));
            vectorized!(|| {
                for (line, row) in lines.iter_mut().zip(rows.chunks_exact(columns)) {
                    line.0[..width].copy_from_slice(&row[first..first + width]);
                    if let Some(scale) = scale {
                        line.0.iter_mut().zip(&scale[first..]).for_each(|(value, scale)| *value *= scale);
                    }
                }
            });
        });
        Self { lines, depth, columns }
    }

    /// The transpose of the matrix `rows` of `columns` columns, each of which is multiplied by its `scale`.
    pub fn turned(rows: &[f32], columns: usize, scale: Option<&[f32]>) -> Self {
        let count = rows.len() / columns.max(1);
        let mut lines = vec![Line([0.0; PANEL]); columns * count.div_ceil(PANEL)];
        lines.par_chunks_mut(columns.max(1)).zip(rows.par_chunks(PANEL * columns.max(1))).for_each(|(lines, rows)| {
            vectorized!(|| {
                for (place, row) in rows.chunks_exact(columns).enumerate() {
                    lines.iter_mut().zip(row).for_each(|(line, value)| line.0[place] = *value);
                }
                if let Some(scale) = scale {
                    for (line, scale) in lines.iter_mut().zip(scale) {
                        line.0.iter_mut().for_each(|value| *value *= scale);
                    }
                }
            });
        });
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
        for (panel, lines) in self.lines.chunks_exact_mut(depth.max(1)).enumerate() {
            let first = panel * PANEL;
            let width = PANEL.min(columns - first);
            for (whole_line, row) in lines.iter_mut().zip(rows.chunks(stride.max(1))) {
                match row[first..first + width].first_chunk() {
                    Some(whole) => whole_line.0 = *whole,
                    None => *whole_line = line(&row[first..first + width]),
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
