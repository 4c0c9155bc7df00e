//! Units per second over the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The rate is of so long ago until now: long enough to be calm, short enough to follow a change.
const WINDOW: Duration = Duration::from_secs(5);

/// Follows a count that grows.
pub struct Pace {
    samples: VecDeque<(Instant, u64)>,
}

impl Pace {
    /// Begins now, at `done` units.
    pub fn from(done: u64) -> Self {
        Self { samples: VecDeque::from([(Instant::now(), done)]) }
    }

    /// The rate at `done` units, once there is enough to tell.
    pub fn at(&mut self, done: u64) -> Option<f64> {
        let now = Instant::now();
        // The oldest sample stays until the next one is old enough, so the window is never empty.
        while self.samples.get(1).is_some_and(|(then, _)| now - *then > WINDOW) {
            self.samples.pop_front();
        }
        self.samples.push_back((now, done));
        let (then, before) = self.samples[0];
        let seconds = (now - then).as_secs_f64();
        (seconds > 0.2).then(|| done.saturating_sub(before) as f64 / seconds)
    }
}
