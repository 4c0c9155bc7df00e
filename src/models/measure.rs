//! What a network costs: passes over made-up pixels, as a whole and block by block, and steps of training.

use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};

use super::{ModelError, Network, Phase};
use crate::device::scoped;
use crate::ops::work;

/// What one block took in one pass.
#[derive(Debug, Clone)]
pub struct BlockCost {
    pub name: String,
    pub elapsed: Duration,
    /// Floating point operations of its convolutions, products and attention.
    pub operations: u64,
}

/// So small that many steps on one batch change no weight's magnitude.
const LEARNING_RATE: f64 = 1e-3;

/// The mean over a batch where the label of image n is a class far from that of image n - 1.
fn cross_entropy(logits: &Tensor) -> candle_core::Result<Tensor> {
    let (count, classes) = logits.dims2()?;
    let labels: Vec<u32> = (0..count).map(|n| (n * 7919 % classes) as u32).collect();
    let labels = Tensor::from_vec(labels, (count, 1), &Device::Cpu)?.to_device(logits.device())?;
    let shifted = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?;
    let normalizer = shifted.exp()?.sum_keepdim(1)?.log()?;
    (normalizer - shifted.gather(&labels, 1)?)?.mean_all()
}

/// A network with a batch to compute.
pub struct Trial {
    network: Network,
    pixels: Tensor,
}

impl Trial {
    /// `batch` images of `side` × `side` pixels.
    pub fn new(network: Network, batch: usize, side: usize, device: &Device) -> Result<Self, ModelError> {
        let values = (0..batch * side * side * 3).map(|n| (0.013 * n as f32).sin()).collect();
        let pixels = Tensor::from_vec(values, (batch, side, side, 3), &Device::Cpu)?.to_device(device)?;
        Ok(Self { network, pixels })
    }

    /// One pass, on the calling thread's rayon pool.
    pub fn pass(&self) -> Result<Duration, ModelError> {
        scoped(|| {
            let start = Instant::now();
            self.network.forward(&self.pixels)?;
            self.pixels.device().synchronize()?;
            Ok(start.elapsed())
        })
    }

    /// One step of training on the calling thread's rayon pool, which needs a deep stack: forward, the cross entropy with
    /// made-up labels, backward, and a step down the gradient by every parameter.
    pub fn step(&self) -> Result<Duration, ModelError> {
        scoped(|| {
            let start = Instant::now();
            let logits = self.network.forward_in(Phase::Train, &self.pixels)?;
            let gradients = cross_entropy(&logits)?.backward()?;
            for parameter in &self.network.learned {
                let weights = parameter.var.as_detached_tensor();
                if let Some(gradient) = gradients.get(&parameter.var) {
                    parameter.var.set(&(weights - (gradient.detach() * LEARNING_RATE)?)?)?;
                }
            }
            self.pixels.device().synchronize()?;
            Ok(start.elapsed())
        })
    }

    /// One pass that stops after each block to look at the clock.
    pub fn blocks(&self) -> Result<Vec<BlockCost>, ModelError> {
        let mut costs = Vec::with_capacity(self.network.blocks.len());
        self.network.blocks.iter().try_fold(self.pixels.clone(), |xs, block| {
            let (start, before) = (Instant::now(), work::total());
            let xs = scoped(|| block.forward(xs))?;
            self.pixels.device().synchronize()?;
            let (elapsed, operations) = (start.elapsed(), work::total() - before);
            costs.push(BlockCost { name: block.name.clone(), elapsed, operations });
            Ok::<_, ModelError>(xs)
        })?;
        Ok(costs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{RandomWeights, Strictness, build_trainable, named};

    #[test]
    fn every_step_of_training_moves_every_parameter_and_lowers_the_loss() -> Result<(), ModelError> {
        let architecture = named("squeezenet1_1", 5)?;
        let weights = RandomWeights::of(&architecture)?;
        let (network, _) = build_trainable(&weights, &architecture, Strictness::Strict, 0, &Device::Cpu)?;
        let trial = Trial::new(network, 2, 64, &Device::Cpu)?;
        let loss = || -> Result<f32, ModelError> {
            Ok(cross_entropy(&trial.network.forward_in(Phase::Train, &trial.pixels)?)?.to_scalar::<f32>()?)
        };
        let before: Vec<_> =
            trial.network.learned.iter().map(|parameter| parameter.var.as_detached_tensor().copy()).collect();
        let first = loss()?;
        trial.step()?;
        trial.step()?;
        assert!(loss()? < first);
        for (parameter, before) in trial.network.learned.iter().zip(before) {
            let moved = (parameter.var.as_detached_tensor() - before?)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(moved > 0.0, "{} stays", parameter.name);
        }
        Ok(())
    }

    #[test]
    fn cross_entropy_is_that_of_its_definition_and_finite_for_huge_logits() -> candle_core::Result<()> {
        let logits = Tensor::new(&[[1f32, 2.0, 3.0], [0.5, -1.0, 4.0]], &Device::Cpu)?;
        // Labels 0 and 7919 mod 3 = 2.
        let share = |row: [f64; 3], label: usize| row[label].exp() / row.iter().map(|logit| logit.exp()).sum::<f64>();
        let defined = -(share([1.0, 2.0, 3.0], 0).ln() + share([0.5, -1.0, 4.0], 2).ln()) / 2.0;
        assert!((f64::from(cross_entropy(&logits)?.to_scalar::<f32>()?) - defined).abs() < 1e-6);
        let huge = Tensor::new(&[[-1e30f32, 1e30]], &Device::Cpu)?;
        assert_eq!(cross_entropy(&huge)?.to_scalar::<f32>()?, 2e30);
        Ok(())
    }
}
