//! The learning-rate finder: from mini-batch to mini-batch the rate grows, until the loss blows up (Smith 2017, "Cyclical
//! learning rates for training neural networks", arXiv:1506.01186).
//!
//! Suggested is the rate at which the smoothed loss falls fastest by the rate's logarithm (fastai's rule `steep`), before it
//! is lowest: behind that a network may be dead, with a loss that is constant.

use serde::Serialize;

use super::TrainError;
use super::fit::Session;
use crate::worker::{JobContext, Progress};

/// The rates that are tried: the first, the last, and the steps from the one to the other, each a factor above the one
/// before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateSearch {
    pub from: f64,
    pub to: f64,
    pub steps: usize,
}

/// A loss above so many times the lowest is out of hand.
const BLOWN_UP: f64 = 4.0;

/// The loss must fall by this part of itself to be told from noise.
const LEAST_FALL: f64 = 0.05;

/// What one mini-batch brought.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RatePoint {
    pub lr: f64,
    pub loss: f64,
}

/// What all of them brought.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RatesTried {
    pub points: Vec<RatePoint>,
    /// By point: the mean of the losses around it.
    pub smoothed: Vec<f64>,
    /// None when no rate lowered the loss.
    pub suggested: Option<f64>,
    /// True when the loss blew up before the last rate.
    pub blew_up: bool,
}

impl RateSearch {
    /// Seven powers of ten, in 100 steps or in those of four epochs if they are fewer, but at least 40.
    pub fn of(steps_per_epoch: usize) -> Self {
        Self { from: 1e-7, to: 1.0, steps: (4 * steps_per_epoch).clamp(40, 100) }
    }

    /// The rate of step number `step`, from 0.
    fn rate(&self, step: usize) -> f64 {
        let share = step as f64 / (self.steps - 1).max(1) as f64;
        self.from * (self.to / self.from).powf(share)
    }

    /// How many neighbours on each side smooth a loss: a twentieth of all.
    fn reach(&self) -> usize {
        (self.steps / 20).max(1)
    }
}

/// The losses so far.
struct Losses {
    reach: usize,
    points: Vec<RatePoint>,
}

impl Losses {
    fn smoothed(&self) -> Vec<f64> {
        let around = |place: usize| {
            let neighbours =
                &self.points[place.saturating_sub(self.reach)..(place + self.reach + 1).min(self.points.len())];
            neighbours.iter().map(|point| point.loss).sum::<f64>() / neighbours.len() as f64
        };
        (0..self.points.len()).map(around).collect()
    }

    fn is_out_of_hand(&self) -> bool {
        let smoothed = self.smoothed();
        let lowest = smoothed.iter().copied().fold(f64::INFINITY, f64::min);
        smoothed.last().is_some_and(|last| *last > BLOWN_UP * lowest)
    }

    fn suggested(&self) -> Option<f64> {
        let smoothed = self.smoothed();
        // The first photos may have been hard or easy ones: there is little to smooth them with.
        let first = (smoothed.len() / 10).max(self.reach);
        let lowest = (first..smoothed.len()).min_by(|a, b| smoothed[*a].total_cmp(&smoothed[*b]))?;
        if smoothed[lowest] > (1.0 - LEAST_FALL) * smoothed[first] {
            return None;
        }
        let change =
            |place: usize| smoothed[(place + self.reach).min(smoothed.len() - 1)] - smoothed[place - self.reach];
        let steepest = (first..=lowest).min_by(|a, b| change(*a).total_cmp(&change(*b)))?;
        Some(self.points[steepest].lr)
    }
}

impl Session {
    /// Tries rates on this session's network, which is of no use afterwards; nothing is written.
    pub fn try_rates(
        &mut self,
        search: RateSearch,
        ctx: &JobContext,
        tell: &mut dyn FnMut(RatePoint),
    ) -> Result<RatesTried, TrainError> {
        let mut losses = Losses { reach: search.reach(), points: Vec::new() };
        let mut blew_up = false;
        while losses.points.len() < search.steps && !blew_up {
            let before = losses.points.len();
            for batch in self.trial_batches()? {
                let done = losses.points.len();
                if done == search.steps {
                    break;
                }
                if batch.labels.len() < self.fewest_photos() {
                    continue;
                }
                ctx.check()?;
                let lr = search.rate(done);
                match self.step(&batch, lr) {
                    Ok(stepped) => {
                        let loss = stepped.score.mean_loss();
                        losses.points.push(RatePoint { lr, loss });
                        tell(RatePoint { lr, loss });
                    }
                    Err(TrainError::Diverged { .. }) => blew_up = true,
                    Err(error) => return Err(error),
                }
                blew_up = blew_up || losses.is_out_of_hand();
                let (done, total) = (losses.points.len() as u64, Some(search.steps as u64));
                ctx.report(Progress { phase: "Trying learning rates".to_owned(), done, total, per_second: None });
                if blew_up {
                    break;
                }
            }
            self.position.epoch += 1;
            if losses.points.len() == before {
                break;
            }
        }
        let (suggested, smoothed) = (losses.suggested(), losses.smoothed());
        Ok(RatesTried { points: losses.points, smoothed, suggested, blew_up })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loss for each power of ten from 1e-9 on.
    fn losses(values: &[f64]) -> Losses {
        let point = |(step, loss): (usize, &f64)| RatePoint { lr: 10_f64.powi(step as i32 - 9), loss: *loss };
        Losses { reach: 1, points: values.iter().enumerate().map(point).collect() }
    }

    #[test]
    fn rates_grow_by_a_factor_from_the_first_to_the_last() {
        let search = RateSearch { from: 1e-4, to: 1.0, steps: 5 };
        for step in 0..5 {
            assert!((search.rate(step) / 10_f64.powi(step as i32 - 4) - 1.0).abs() < 1e-12);
        }
        assert_eq!([1, 15, 1000].map(|steps| RateSearch::of(steps).steps), [40, 60, 100]);
        assert_eq!([5, 60, 100].map(|steps| RateSearch { steps, ..search }.reach()), [1, 3, 5]);
    }

    #[test]
    fn the_suggestion_is_where_the_loss_falls_fastest() {
        let falls = losses(&[9.0, 9.1, 9.0, 8.5, 5.0, 1.5, 1.0, 1.1, 30.0, 90.0]);
        assert!((falls.suggested().unwrap() - 1e-5).abs() < 1e-15);
        assert!(falls.is_out_of_hand());
        // A network that died goes on with a constant loss, which is the lowest only by a little.
        let dies = losses(&[9.0, 9.1, 9.0, 8.5, 5.0, 2.4, 2.4, 2.4, 2.3, 2.3, 2.3]);
        assert!((dies.suggested().unwrap() - 1e-5).abs() < 1e-15 && !dies.is_out_of_hand());
    }

    #[test]
    fn where_no_rate_lowers_the_loss_nothing_is_suggested() {
        for values in [&[1.0, 1.02, 0.99, 1.01, 2.0, 3.0][..], &[1.0], &[]] {
            assert_eq!(losses(values).suggested(), None);
        }
        assert!(!losses(&[]).is_out_of_hand());
    }

    #[test]
    fn a_smoothed_loss_is_the_mean_of_its_neighbours() {
        assert_eq!(losses(&[1.0, 2.0, 6.0, 1.0]).smoothed(), [1.5, 3.0, 3.0, 3.5]);
    }
}
