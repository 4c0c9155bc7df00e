//! What a job may take: the tightest of a person's own limit, the control group's, the device's, and what the system can
//! still give. Asked anew while a job runs, for other programs come and go.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use super::Reading;

/// The part of the memory that is left to others, and at most so much.
const SHARE_LEFT: u64 = 20;
const MOST_LEFT: u64 = 1_000_000_000;

/// A person's own limit for jobs that are not told another, in bytes; 0 is none.
static LIMIT: AtomicU64 = AtomicU64::new(0);

/// From now on the process takes at most so much, in bytes, unless a job is told otherwise.
pub fn set_limit(limit: Option<u64>) {
    LIMIT.store(limit.unwrap_or(0), Relaxed);
}

fn own_limit() -> Option<u64> {
    Some(LIMIT.load(Relaxed)).filter(|limit| *limit > 0)
}

/// What sets a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// A person's own limit.
    Chosen,
    ControlGroup,
    Device,
    System,
}

impl Bound {
    /// For a sentence: "the memory budget is 400 MB, your own limit".
    pub fn text(self) -> &'static str {
        match self {
            Self::Chosen => "your own limit",
            Self::ControlGroup => "the limit of this container",
            Self::Device => "what the GPU should work with",
            Self::System => "what the system has free now",
        }
    }
}

/// A ceiling for the footprint of the process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Budget {
    pub bytes: u64,
    pub bound: Bound,
}

/// What a budget follows from besides a reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    /// A person's own limit for the process; none takes that of [`set_limit`].
    pub limit: Option<u64>,
}

impl Allowance {
    /// None when nothing is known that bounds the process. `device_free` is what the GPU has left of its working set.
    pub fn budget(&self, reading: &Reading, device_free: Option<u64>) -> Option<Budget> {
        let reachable = |free: Option<u64>| Some(reading.footprint? + free?);
        let kept = |whole: Option<u64>| (whole.unwrap_or(0) / SHARE_LEFT).min(MOST_LEFT);
        let group = reachable(reading.group_free).or(reading.limit);
        let bounds = [
            (self.limit.or_else(own_limit), Bound::Chosen),
            (group.map(|bytes| bytes.saturating_sub(kept(reading.limit))), Bound::ControlGroup),
            (reachable(device_free), Bound::Device),
            (
                reachable(reading.system_available).map(|bytes| bytes.saturating_sub(kept(reading.system_total))),
                Bound::System,
            ),
        ];
        let known = bounds.into_iter().filter_map(|(bytes, bound)| Some(Budget { bytes: bytes?, bound }));
        known.min_by_key(|budget| budget.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn budget(allowance: Allowance, reading: Reading, device_free: Option<u64>) -> Option<(u64, Bound)> {
        allowance.budget(&reading, device_free).map(|budget| (budget.bytes, budget.bound))
    }

    #[test]
    fn the_tightest_bound_wins_and_what_is_unknown_bounds_nothing() {
        let nothing = Allowance::default();
        assert_eq!(budget(nothing, Reading::default(), Some(GB)), None, "free memory without a footprint says nothing");
        let system = Reading {
            footprint: Some(GB),
            system_available: Some(8 * GB),
            system_total: Some(16 * GB),
            ..Reading::default()
        };
        assert_eq!(budget(nothing, system, None), Some((8_200_000_000, Bound::System)), "a twentieth of 16 GB stays");
        let large = Reading { system_total: Some(64 * GB), ..system };
        assert_eq!(budget(nothing, large, None), Some((8 * GB, Bound::System)), "but never more than a gigabyte");
        assert_eq!(budget(nothing, system, Some(2 * GB)), Some((3 * GB, Bound::Device)));
        let group = Reading { limit: Some(4 * GB), group_free: Some(2 * GB), ..system };
        assert_eq!(budget(nothing, group, None), Some((2_800_000_000, Bound::ControlGroup)));
        let without_usage = Reading { limit: Some(4 * GB), ..system };
        assert_eq!(budget(nothing, without_usage, None), Some((3_800_000_000, Bound::ControlGroup)));
        let chosen = Allowance { limit: Some(GB / 2) };
        assert_eq!(budget(chosen, group, Some(0)), Some((GB / 2, Bound::Chosen)));
        assert_eq!(budget(chosen, Reading::default(), None), Some((GB / 2, Bound::Chosen)));
    }
}
