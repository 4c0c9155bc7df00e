//! What this process uses and what it may use, each figure under its name; "unknown" is `None`, never 0.

pub mod heap;

use serde::Serialize;

/// One reading of every figure the memory strip shows, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// What the operating system charges this process: macOS `phys_footprint`, Linux PSS (plus swap).
    pub footprint: Option<u64>,
    /// Highest footprint since the start (macOS) or highest resident size (Linux `VmHWM`).
    pub peak: Option<u64>,
    /// Live bytes of the heap, from the counting allocator.
    pub heap_live: u64,
    /// Highest `heap_live` since the start or the last reset.
    pub heap_peak: u64,
    /// What the system could give without swapping.
    pub system_available: Option<u64>,
    pub system_total: Option<u64>,
    /// The container's or control group's limit on this process, where there is one.
    pub limit: Option<u64>,
}

impl Reading {
    /// The budget line: the container's limit, else the footprint plus what the system could still give.
    pub fn budget(&self) -> Option<u64> {
        let free = self.footprint.zip(self.system_available).map(|(used, free)| used + free);
        [self.limit, free].into_iter().flatten().min()
    }
}

/// Reads every figure now. Costs a millisecond or so: once a second is fine.
pub fn read() -> Reading {
    Reading { heap_live: heap::live(), heap_peak: heap::peak(), ..Reading::default() }
}
