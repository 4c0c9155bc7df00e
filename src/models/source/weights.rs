//! Where tensors come from: a checkpoint, or a formula.

use std::ops::Range;

use crate::checkpoint::{Blocks, Checkpoint, CheckpointError, TensorInfo};
use crate::models::InputRanges;

/// Tensors by name.
pub trait Weights {
    fn tensors(&self) -> &[TensorInfo];

    /// The elements of `name`, row-major.
    fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError>;

    /// The same of some of its outermost rows; `None` where only the whole can be read.
    fn read_rows(&self, _name: &str, _rows: Range<usize>) -> Result<Option<Vec<f32>>, CheckpointError> {
        Ok(None)
    }

    /// The same as they are stored, when that is in blocks.
    fn read_blocks(&self, _name: &str) -> Result<Option<Blocks>, CheckpointError> {
        Ok(None)
    }

    /// What is known of the inputs of layers.
    fn input_ranges(&self) -> InputRanges {
        InputRanges::default()
    }
}

impl Weights for Checkpoint {
    fn tensors(&self) -> &[TensorInfo] {
        self.tensors()
    }

    fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        self.read_f32(name)
    }

    fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Option<Vec<f32>>, CheckpointError> {
        self.read_rows(name, rows)
    }

    fn read_blocks(&self, name: &str) -> Result<Option<Blocks>, CheckpointError> {
        self.read_blocks(name)
    }

    fn input_ranges(&self) -> InputRanges {
        self.metadata().get(InputRanges::KEY).and_then(|text| text.as_str()).map(InputRanges::parse).unwrap_or_default()
    }
}
