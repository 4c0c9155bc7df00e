//! Photos per second over the last seconds, and the total once it is counted.

use crate::jobs::pace;
use crate::worker::{Job, Outcome, Progress};

/// Follows a run from batch to batch.
pub struct Pace {
    photos: pace::Pace,
    total: Option<u64>,
    counting: Option<Job<u64, ()>>,
}

impl Pace {
    /// `counting` finds the total meanwhile.
    pub fn new(counting: Job<u64, ()>) -> Self {
        Self { photos: pace::Pace::from(0), total: None, counting: Some(counting) }
    }

    /// The progress after `done` photos.
    pub fn at(&mut self, done: u64) -> Progress {
        let per_second = self.photos.at(done);
        Progress { phase: "Classifying".to_owned(), done, total: self.total(done), per_second }
    }

    fn total(&mut self, done: u64) -> Option<u64> {
        if let Some(Outcome::Finished(total)) = self.counting.as_mut().and_then(Job::take_outcome) {
            self.total = Some(total);
            self.counting = None;
        }
        // Photos may appear while the run goes on.
        self.total.map(|total| total.max(done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_appears_when_it_is_counted_and_grows_with_the_folder() {
        let mut pace = Pace::new(Job::start("count", || (), |_, _| Ok(10)).unwrap());
        while pace.at(3).total.is_none() {
            std::thread::yield_now();
        }
        assert_eq!(pace.at(3).total, Some(10));
        assert_eq!(pace.at(11).total, Some(11));
    }
}
