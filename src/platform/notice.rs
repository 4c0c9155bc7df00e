//! When a person is told that work has ended: it was long, and the window is not what they look at.

use std::time::{Duration, Instant};

use super::work::{Kind, Work};

/// Work that took less is not worth a message: whoever started it still waits for it.
pub const LONG: Duration = Duration::from_secs(60);

/// Since when each kind of work goes on.
#[derive(Debug, Default)]
pub struct Notices {
    since: Vec<(Kind, Instant)>,
}

impl Notices {
    /// Takes what is worked at now; returns the long work that has ended since the last call.
    pub fn ended(&mut self, now: Instant, works: &[Work]) -> Vec<Kind> {
        let goes_on = |kind: Kind| works.iter().any(|work| work.kind == kind);
        let over = self.since.extract_if(.., |(kind, _)| !goes_on(*kind));
        let long = over.filter(|(_, since)| now.duration_since(*since) >= LONG).map(|(kind, _)| kind).collect();
        for work in works {
            if self.since.iter().all(|(kind, _)| *kind != work.kind) {
                self.since.push((work.kind, now));
            }
        }
        long
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(kind: Kind) -> Work {
        Work { kind, share: None }
    }

    #[test]
    fn only_long_work_is_told_once_and_by_itself() {
        let (start, mut notices) = (Instant::now(), Notices::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(notices.ended(at(0), &[work(Kind::Training)]), []);
        assert_eq!(notices.ended(at(50), &[work(Kind::Training), work(Kind::Downloading)]), []);
        assert_eq!(notices.ended(at(100), &[work(Kind::Downloading)]), [Kind::Training]);
        assert_eq!(notices.ended(at(105), &[]), [], "the download took 55 s");
        assert_eq!(notices.ended(at(110), &[work(Kind::Training)]), []);
        assert_eq!(notices.ended(at(170), &[]), [Kind::Training], "a second run counts from its own beginning");
        assert_eq!(notices.ended(at(400), &[]), []);
    }
}
