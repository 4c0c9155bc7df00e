//! Tensors to try operations on: seeded values, and views of every kind.

use candle_core::{Device, Result, Tensor};

/// The same values for the same shape and seed, in [-1, 1).
pub fn random(shape: &[usize], seed: u64) -> Result<Tensor> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let values: Vec<f32> = (0..shape.iter().product::<usize>())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// How a tensor lies in the one it is a view of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum View {
    Whole,
    /// Behind the first element along its first axis.
    Offset,
    /// First and last axes are stored swapped.
    Swapped,
}

impl View {
    pub const ALL: [Self; 3] = [Self::Whole, Self::Offset, Self::Swapped];

    /// The shape of the tensor that a view of `shape` is taken from.
    pub fn stored(self, shape: &[usize]) -> Vec<usize> {
        let mut stored = shape.to_vec();
        match self {
            Self::Whole => {}
            Self::Offset => stored[0] += 1,
            Self::Swapped => stored.swap(0, shape.len() - 1),
        }
        stored
    }

    pub fn of(self, stored: &Tensor) -> Result<Tensor> {
        match self {
            Self::Whole => Ok(stored.clone()),
            Self::Offset => stored.narrow(0, 1, stored.dim(0)? - 1),
            Self::Swapped => stored.transpose(0, stored.rank() - 1),
        }
    }
}
