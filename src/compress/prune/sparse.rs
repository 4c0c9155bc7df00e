//! Unstructured pruning: the smallest weights of a network become zero. The file and the work stay the same; only stored
//! sparse, or compressed, it is smaller.

use std::collections::HashSet;

use super::PruneError;
use crate::checkpoint::TensorInfo;
use crate::models::{Architecture, TINY, Weights};

/// Which weights become zero: those whose size is below a bound, and some of those that are as large as it.
#[derive(Debug, Clone, PartialEq)]
pub struct Zeroing {
    /// The tensors that are looked at, in the order of use.
    tensors: HashSet<String>,
    /// Their elements, and how many of these become zero.
    pub weights: u64,
    pub zeros: u64,
    /// The bits of the bound.
    bound: u32,
    /// How many as large as the bound are still to become zero.
    of_bound: u64,
}

/// The half of the bits that is looked at in one pass over the weights: a count for each of its values is in memory.
const HALF: u32 = 16;

impl Zeroing {
    /// Chooses exactly `ratio` (rounded to whole weights) of the elements of all convolutions and linear layers together, by
    /// size. Tensors of at most [`TINY`] elements, norms and biases are left alone.
    ///
    /// Reads every tensor twice, one in memory at a time. `check` is asked before each.
    pub fn choose<E: From<PruneError>>(
        weights: &dyn Weights,
        architecture: &Architecture,
        ratio: f64,
        mut check: impl FnMut() -> Result<(), E>,
    ) -> Result<Self, E> {
        let asked = architecture.tensors().map_err(PruneError::from)?;
        let is_weight = |shape: &[usize]| shape.len() > 1 && shape.iter().product::<usize>() > TINY;
        let tensors: Vec<&str> = asked
            .iter()
            .filter(|(name, shape)| name.ends_with("weight") && is_weight(shape))
            .map(|(name, _)| name.as_str())
            .collect();
        let mut counts = |of: &dyn Fn(u32) -> Option<u32>| -> Result<Vec<u64>, E> {
            let mut counts = vec![0_u64; 1 << HALF];
            for name in &tensors {
                check()?;
                let values = weights.read_f32(name).map_err(PruneError::from)?;
                values.iter().filter_map(|value| of(size(*value))).for_each(|place| counts[place as usize] += 1);
            }
            Ok(counts)
        };
        // The sizes of numbers are ordered as their bits are.
        let upper = counts(&|size| Some(size >> HALF))?;
        let weights = upper.iter().sum::<u64>();
        let zeros = (ratio * weights as f64).round() as u64;
        let (high, left) = place_of(&upper, zeros);
        let lower = counts(&|size| (size >> HALF == high).then_some(size & ((1 << HALF) - 1)))?;
        let (low, of_bound) = place_of(&lower, left);
        let tensors = tensors.into_iter().map(str::to_owned).collect();
        Ok(Self { tensors, weights, zeros, bound: high << HALF | low, of_bound })
    }

    /// Sets to zero what is to be in a tensor; tensors come in the order of use, each once.
    pub fn apply(&mut self, name: &str, values: &mut [f32]) {
        if !self.tensors.contains(name) {
            return;
        }
        for value in values {
            let size = size(*value);
            let is_of_bound = size == self.bound && self.of_bound > 0;
            self.of_bound -= u64::from(is_of_bound);
            if size < self.bound || is_of_bound {
                *value = 0.0;
            }
        }
    }

    /// Bytes of the network stored sparse: a bit for each weight that may be zero, four bytes for each that is not, and four
    /// for each element of all other tensors.
    pub fn sparse_bytes(&self, tensors: &[TensorInfo]) -> u64 {
        let elements: u64 = tensors.iter().map(|tensor| tensor.elements() as u64).sum();
        self.weights.div_ceil(8) + 4 * (elements - self.zeros)
    }
}

fn size(value: f32) -> u32 {
    value.abs().to_bits()
}

/// Where the element number `number` of a sorted list is, counted from 1, of which so many are in each place; and how many up to
/// it are in its own place. With 0, the first place and none of it.
fn place_of(counts: &[u64], number: u64) -> (u32, u64) {
    let mut before = 0;
    for (place, count) in counts.iter().enumerate() {
        if before + count >= number {
            return (place as u32, number - before);
        }
        before += count;
    }
    (counts.len() as u32 - 1, 0)
}
