//! A weight, in f32 or bytes, as what passes over an image multiply its rows with: a tile of them at a time.

use super::linear::by_columns;
use super::matrix::{Line, PackedMatrix};
use super::operands::{Rows, Start, Target};
use super::product::{Product, Unit};
use crate::ops::Activation;

/// Rows one after the other, and what is added to their products.
pub struct Tile<'a> {
    pub rows: &'a [f32],
    pub bias: &'a [Line],
    /// As long as the result.
    pub residual: Option<&'a [f32]>,
    pub activation: Activation,
    /// For all rows of the image.
    pub unit: Unit,
    /// Whether all threads take part, each with its columns.
    pub is_shared: bool,
}

pub trait TileWeight: Sync {
    /// `(inputs, outputs)`.
    fn shape(&self) -> (usize, usize);

    /// Writes `activation(rows · weight + bias + residual)`, each row as in a layer of its own.
    fn multiply(&self, tile: &Tile, target: Target);
}

impl TileWeight for PackedMatrix {
    fn shape(&self) -> (usize, usize) {
        (self.depth(), self.columns())
    }

    fn multiply(&self, tile: &Tile, target: Target) {
        let product = Product {
            rows: Rows::dense(tile.rows, target.rows, self.depth()),
            weight: self,
            depth: 0..self.depth(),
            panels: 0..self.panels(),
            start: Start::Bias(tile.bias),
            residual: tile.residual,
            activation: tile.activation,
            unit: tile.unit,
        };
        if tile.is_shared { by_columns(&product, target) } else { product.write(target) }
    }
}
