//! What this process uses and what it may use, each figure under its name; one that cannot be had is `None` and shown
//! as "unknown", never 0.

pub mod heap;
mod plan;
pub mod shelf;
mod system;
mod tally;

use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use system::Gauges;

pub use plan::Plan;
pub use tally::{F32, Held, Node, Outline, Peak, Place, Tally};

/// One reading of every figure the memory strip shows, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// What the operating system charges this process: macOS `phys_footprint`; Linux proportional set size plus swap.
    pub footprint: Option<u64>,
    /// Highest footprint since the start (macOS) or highest resident size (Linux, `VmHWM`, mapped files included).
    pub peak: Option<u64>,
    /// Live bytes of the heap, from the counting allocator.
    pub heap_live: u64,
    /// Highest `heap_live` since the start or the last reset.
    pub heap_peak: u64,
    /// What the system could give without swapping.
    pub system_available: Option<u64>,
    pub system_total: Option<u64>,
    /// The limit of the container or control group on this process, where there is one.
    pub limit: Option<u64>,
}

impl Reading {
    /// The budget line: the container's limit, or the footprint plus what the system could still give, if that is less.
    pub fn budget(&self) -> Option<u64> {
        let reachable = self.footprint.zip(self.system_available).map(|(used, free)| used + free);
        [self.limit, reachable].into_iter().flatten().min()
    }
}

/// Reads every figure now. Takes about a millisecond, so once a second is cheap.
pub fn read() -> Reading {
    static GAUGES: Mutex<Option<Gauges>> = Mutex::new(None);
    let mut gauges = GAUGES.lock().unwrap_or_else(PoisonError::into_inner);
    let gauges = gauges.get_or_insert_with(Gauges::new);
    let (footprint, peak) = system::own_use();
    gauges.refresh();
    Reading {
        footprint,
        peak,
        heap_live: heap::live(),
        heap_peak: heap::peak(),
        system_available: gauges.available(),
        system_total: gauges.total(),
        limit: gauges.limit(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_the_tighter_of_limit_and_free_memory() {
        let reading =
            |limit, free| Reading { footprint: Some(50), system_available: free, limit, ..Default::default() };
        assert_eq!(reading(None, Some(100)).budget(), Some(150));
        assert_eq!(reading(Some(120), Some(100)).budget(), Some(120));
        assert_eq!(reading(Some(120), None).budget(), Some(120));
        assert_eq!(reading(None, None).budget(), None);
    }

    #[test]
    fn touched_memory_shows_in_the_footprint() {
        const BLOCK: usize = 256 << 20;
        let before = read();
        let block = std::hint::black_box(vec![1u8; BLOCK]);
        let after = read();
        drop(block);
        let grown = after.footprint.unwrap().saturating_sub(before.footprint.unwrap());
        assert!(grown as usize > BLOCK / 2, "grew by {grown}");
        assert!(after.peak.unwrap() as usize >= BLOCK);
        assert!(after.system_total.unwrap() > after.system_available.unwrap());
    }
}
