//! Steps of training on one made-up batch, the way a run takes them.

use std::time::{Duration, Instant};

use super::Case;
use crate::device::Chosen;
use crate::models::{Network, made_up_pixels};
use crate::train::{Examples, Loss, OptimizerSettings, Segments, TrainError, Trainer};

/// So small that many steps on one batch change no weight's magnitude.
const LEARNING_RATE: f64 = 1e-5;

pub struct Steps {
    trainer: Trainer,
    /// Images that are computed at once.
    micro_batch: usize,
    side: usize,
    pixels: Vec<f32>,
    targets: Vec<f32>,
    labels: Vec<u32>,
}

impl Steps {
    /// The batch of a case, `side` × `side` pixels each and each of a class far from that of the image before; every block is
    /// computed twice, or none.
    pub fn new(network: Network, case: &Case, side: usize, chosen: &Chosen) -> Result<Self, TrainError> {
        let Case { batch, recompute, micro_batch, .. } = *case;
        let classes = network.architecture.classes;
        let labels: Vec<u32> = (0..batch).map(|n| (n * 7919 % classes) as u32).collect();
        let is_wanted = |index: usize| labels[index / classes] as usize == index % classes;
        let targets = (0..batch * classes).map(|index| f32::from(u8::from(is_wanted(index)))).collect();
        let segments = Segments { first: 0, recompute: vec![recompute; network.blocks.len()] };
        let loss = Loss::default();
        let trainer = Trainer::new(network, segments, loss, OptimizerSettings::default(), &chosen.device)?;
        let micro_batch = micro_batch.unwrap_or(batch);
        Ok(Self { trainer, micro_batch, side, pixels: made_up_pixels(batch, side), targets, labels })
    }

    /// One step on the calling thread's rayon pool, which needs a deep stack.
    pub fn step(&mut self) -> Result<Duration, TrainError> {
        let Self { trainer, micro_batch, side, pixels, targets, labels } = self;
        let started = Instant::now();
        let examples = Examples { values: pixels, shape: &[*side, *side, 3], targets, labels, lesson: None };
        trainer.step(examples, *micro_batch, LEARNING_RATE, |_, _| Ok(Vec::new()))?;
        Ok(started.elapsed())
    }
}
