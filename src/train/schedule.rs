//! The learning rate from step to step.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Course {
    /// Half a cosine from the full rate to the least (Loshchilov and Hutter, "SGDR").
    #[default]
    Cosine,
    /// Multiplied by a factor every so many epochs.
    Step,
    Constant,
}

/// A rate for every step of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    pub course: Course,
    pub rate: f64,
    /// Where the cosine ends, as a share of `rate`.
    pub least: f64,
    /// Steps in which the rate grows evenly to its full height.
    pub warm_up: u64,
    /// Steps in all.
    pub steps: u64,
    /// Steps between two multiplications, and the factor, of [`Course::Step`].
    pub every: u64,
    pub factor: f64,
}

impl Schedule {
    /// The rate of step number `step`, from 0. The first step's is above 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warm_up {
            return self.rate * (step + 1) as f64 / (self.warm_up + 1) as f64;
        }
        let (gone, whole) = (step - self.warm_up, self.steps.saturating_sub(self.warm_up).max(1));
        match self.course {
            Course::Constant => self.rate,
            Course::Step => self.rate * self.factor.powi((gone / self.every.max(1)) as i32),
            Course::Cosine => {
                let share = (gone.min(whole)) as f64 / whole as f64;
                let height = 0.5 * (1.0 + (std::f64::consts::PI * share).cos());
                self.rate * (self.least + (1.0 - self.least) * height)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSINE: Schedule =
        Schedule { course: Course::Cosine, rate: 2.0, least: 0.1, warm_up: 4, steps: 104, every: 10, factor: 0.5 };

    fn assert_rates(schedule: Schedule, expected: &[(u64, f64)]) {
        for (step, rate) in expected {
            assert!((schedule.rate(*step) - rate).abs() < 1e-12, "step {step}: {}", schedule.rate(*step));
        }
    }

    #[test]
    fn a_cosine_warms_up_and_falls_to_its_least() {
        assert_rates(COSINE, &[(0, 0.4), (3, 1.6), (4, 2.0), (54, 1.1), (104, 0.2), (1000, 0.2)]);
    }

    #[test]
    fn steps_multiply_and_a_constant_stays() {
        let step = Schedule { course: Course::Step, warm_up: 0, ..COSINE };
        assert_rates(step, &[(0, 2.0), (9, 2.0), (10, 1.0), (25, 0.5)]);
        let constant = Schedule { course: Course::Constant, ..COSINE };
        assert_rates(constant, &[(0, 0.4), (4, 2.0), (103, 2.0)]);
    }
}
