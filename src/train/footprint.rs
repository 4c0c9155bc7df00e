//! What the steps of training take beside the weights, measured: a few made-up photos go through the network, forward and
//! backward, and every further photo takes what the last ones took.

use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use rayon::ThreadPoolBuilder;

use super::TrainError;
use super::gradients::Gradients;
use super::segments::Segments;
use crate::device::scoped;
use crate::memory::heap;
use crate::models::Network;

/// Photos of the two steps that are compared. Of one photo alone a batch norm may have no variance.
const PHOTOS: [usize; 2] = [2, 4];

/// A block's graph is walked by recursion.
const STACK_BYTES: usize = 64 << 20;

/// One measurement at a time.
static MEASURING: Mutex<()> = Mutex::new(());

/// Larger sides are not measured, which could take the memory that is to be predicted: maps grow with the side's square.
const LARGEST_SIDE: usize = 128;

/// Bytes of a step beside the weights and what the optimizer remembers.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    /// Gradients, and what else does not depend on the photos.
    fixed: f64,
    /// For each photo that is computed at once.
    each: f64,
}

/// What a step takes with any number of photos of any size.
#[derive(Debug, Clone, PartialEq)]
pub struct Footprint {
    /// The side that was measured.
    side: usize,
    /// By block, of one photo.
    kept: Vec<u64>,
    /// When every block is computed twice, and when none is.
    least: Step,
    most: Step,
}

impl Footprint {
    /// `network` trains from block `first` on and is on the CPU; it is left as it is.
    pub fn measure(network: &Network, first: usize, side: usize) -> Result<Self, TrainError> {
        let _turn = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
        // Threads of its own, for what others allocate meanwhile is not the network's.
        let pool = ThreadPoolBuilder::new()
            .stack_size(STACK_BYTES)
            .start_handler(|_| heap::count_apart(true))
            .exit_handler(|_| heap::count_apart(false))
            .build()
            .map_err(candle_core::Error::wrap)?;
        let small = side.min(LARGEST_SIDE);
        pool.install(|| {
            // Some networks take photos of one size alone.
            Self::at(network, first, small).or_else(|error| match small < side {
                true => Self::at(network, first, side),
                false => Err(error),
            })
        })
    }

    fn at(network: &Network, first: usize, side: usize) -> Result<Self, TrainError> {
        let kept = Segments::kept_bytes(network, first, side)?;
        let before = heap::live_apart();
        let step = |recompute| {
            let segments = Segments { first, recompute: vec![recompute; network.blocks.len()] };
            let [few, more] = PHOTOS.map(|photos| highest_of_step(network, &segments, side, photos));
            let (few, more) = ((few? - before) as f64, (more? - before) as f64);
            let each = (more - few).max(0.0) / (PHOTOS[1] - PHOTOS[0]) as f64;
            Ok::<_, TrainError>(Step { fixed: (few - each * PHOTOS[0] as f64).max(0.0), each })
        };
        Ok(Self { side, kept, least: step(true)?, most: step(false)? })
    }

    /// The bytes that each block keeps of one photo of this side.
    pub fn kept(&self, side: usize) -> Vec<u64> {
        let area = self.area(side);
        self.kept.iter().map(|bytes| (*bytes as f64 * area) as u64).collect()
    }

    /// The bytes of a step with so many photos at once, of which each has this side. `recompute` is by block.
    pub fn step(&self, recompute: &[bool], photos: usize, side: usize) -> u64 {
        let all: u64 = self.kept.iter().sum();
        let held: u64 = self.kept.iter().zip(recompute).filter(|(_, twice)| !**twice).map(|(bytes, _)| bytes).sum();
        let share = held as f64 / all.max(1) as f64;
        let between = |least: f64, most: f64| least + share * (most - least).max(0.0);
        let each = between(self.least.each, self.most.each) * self.area(side);
        (between(self.least.fixed, self.most.fixed) + each * photos as f64) as u64
    }

    fn area(&self, side: usize) -> f64 {
        (side as f64 / self.side.max(1) as f64).powi(2)
    }
}

/// The most that the measuring threads hold at a time in forward and backward of so many photos. What they keep for the next
/// step, scratch space, is held in every later step too.
fn highest_of_step(network: &Network, segments: &Segments, side: usize, photos: usize) -> Result<i64, TrainError> {
    let pixels = Tensor::zeros((photos, side, side, 3), DType::F32, &Device::Cpu)?;
    let mut gradients = Gradients::new(network.learned.len());
    let judge = |logits: &Tensor| Ok(logits.zeros_like()?);
    let (looked, highest) = heap::peak_apart(|| scoped(|| segments.look(network, &pixels, judge, &mut gradients)));
    looked?;
    Ok(highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_grows_with_photos_and_their_area_and_shrinks_with_blocks_computed_twice() {
        let (least, most) = (Step { fixed: 100.0, each: 10.0 }, Step { fixed: 100.0, each: 50.0 });
        let footprint = Footprint { side: 64, kept: vec![0, 30, 10], least, most };
        let [none, one, all] = [[false; 3], [true, true, false], [true; 3]];
        assert_eq!(footprint.step(&none, 4, 64), 300);
        assert_eq!(footprint.step(&one, 4, 64), 100 + 4 * 20);
        assert_eq!(footprint.step(&all, 4, 64), 140);
        assert_eq!(footprint.step(&all, 4, 128), 100 + 4 * 40);
        assert_eq!(footprint.kept(128), [0, 120, 40]);
    }
}
