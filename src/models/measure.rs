//! What a network costs: passes over made-up pixels, as a whole and block by block.

use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};

use super::{ModelError, Network};
use crate::device::{scoped, wait};
use crate::ops::work;

/// What one block took in one pass.
#[derive(Debug, Clone)]
pub struct BlockCost {
    pub name: String,
    pub elapsed: Duration,
    /// Floating point operations of its convolutions, products and attention.
    pub operations: u64,
}

/// Values of about the size that normalised pixels have: `(batch, side, side, 3)`, row-major.
pub fn made_up_pixels(batch: usize, side: usize) -> Vec<f32> {
    (0..batch * side * side * 3).map(|n| (0.013 * n as f32).sin()).collect()
}

/// Floating point operations of one image's way forward.
pub fn forward_operations(network: &Network, side: usize, device: &Device) -> Result<u64, ModelError> {
    let pixels = Tensor::from_vec(made_up_pixels(1, side), (1, side, side, 3), &Device::Cpu)?;
    let before = work::total();
    network.forward(&pixels.to_device(device)?)?;
    Ok(work::total() - before)
}

/// A network with a batch to compute.
pub struct Trial {
    network: Network,
    pixels: Tensor,
}

impl Trial {
    /// `batch` images of `side` × `side` pixels.
    pub fn new(network: Network, batch: usize, side: usize, device: &Device) -> Result<Self, ModelError> {
        let pixels = Tensor::from_vec(made_up_pixels(batch, side), (batch, side, side, 3), &Device::Cpu)?;
        let pixels = pixels.to_device(device)?;
        Ok(Self { network, pixels })
    }

    /// One pass, on the calling thread's rayon pool.
    pub fn pass(&self) -> Result<Duration, ModelError> {
        scoped(|| {
            let start = Instant::now();
            self.network.forward(&self.pixels)?;
            wait(self.pixels.device())?;
            Ok(start.elapsed())
        })
    }

    /// One pass that stops after each block to look at the clock.
    pub fn blocks(&self) -> Result<Vec<BlockCost>, ModelError> {
        let mut costs = Vec::with_capacity(self.network.blocks.len());
        self.network.blocks.iter().try_fold(self.pixels.clone(), |xs, block| {
            let (start, before) = (Instant::now(), work::total());
            let xs = scoped(|| block.forward(xs))?;
            wait(self.pixels.device())?;
            let (elapsed, operations) = (start.elapsed(), work::total() - before);
            costs.push(BlockCost { name: block.name.clone(), elapsed, operations });
            Ok::<_, ModelError>(xs)
        })?;
        Ok(costs)
    }
}
