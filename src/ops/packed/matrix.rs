//! A weight in the kernel's order.

use candle_core::{Result, Tensor};

use crate::ops::with_elements;

/// Columns that are stored, and multiplied, together.
pub const PANEL: usize = 16;

/// One row of a panel: a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line(pub [f32; PANEL]);

/// Values in whole lines, zeros after the last.
pub fn lines(values: &[f32]) -> Vec<Line> {
    let line = |values: &[f32]| {
        let mut line = Line([0.0; PANEL]);
        line.0[..values.len()].copy_from_slice(values);
        line
    };
    values.chunks(PANEL).map(line).collect()
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
        with_elements([weight], |elements| {
            let depth = elements[0].len() / columns.max(1);
            Ok(Self::new(depth, columns, |row, column| elements[0][row * columns + column]))
        })
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
