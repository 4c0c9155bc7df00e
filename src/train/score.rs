//! What comes of photos and steps: the loss, and how many photos are right.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::TrainError;
use crate::device::scoped;

/// What a network made of some photos.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    pub photos: u64,
    /// The sum of every photo's share.
    pub loss: f64,
    pub correct: u64,
}

impl Score {
    pub fn add(&mut self, other: Self) {
        self.photos += other.photos;
        self.loss += other.loss;
        self.correct += other.correct;
    }

    /// Per photo.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.photos.max(1) as f64
    }

    /// From 0 to 1.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.photos.max(1) as f64
    }
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stepped {
    pub score: Score,
    /// The length of the gradients as one vector, before clipping.
    pub gradient_norm: f64,
}

impl Stepped {
    fn check(self) -> Result<Self, TrainError> {
        match (self.score.loss.is_finite(), self.gradient_norm.is_finite()) {
            (false, _) => Err(TrainError::LossNotFinite),
            (true, false) => Err(TrainError::GradientNotFinite),
            (true, true) => Ok(self),
        }
    }
}

/// What a step did, on its device until somebody wants to know.
#[derive(Debug)]
pub struct Unread {
    photos: u64,
    /// Each part's loss and how many are right, then the length of the gradients before clipping.
    found: Tensor,
}

impl Unread {
    pub(super) fn new(photos: usize, found: Tensor) -> Self {
        Self { photos: photos as u64, found }
    }

    /// Waits for the device. What failed there is told by [`Trainer::wait`](super::trainer::Trainer::wait) alone, which has to come first.
    pub fn read(&self) -> Result<Stepped, TrainError> {
        let found = scoped(|| self.found.to_vec1::<f32>())?;
        let (scores, norm) = found.split_at(found.len() - 1);
        let mut score = Score { photos: self.photos, ..Score::default() };
        for part in scores.chunks_exact(2) {
            score.loss += f64::from(part[0]) * self.photos as f64;
            score.correct += part[1] as u64;
        }
        Stepped { score, gradient_norm: f64::from(norm[0]) }.check()
    }
}
