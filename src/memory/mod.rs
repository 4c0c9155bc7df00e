//! What this process uses and what it may use, each figure under its name; one that cannot be had is `None` and shown
//! as "unknown", never 0.

mod arena;
mod budget;
mod calibration;
#[cfg(target_os = "linux")]
mod groups;
pub mod guard;
pub mod heap;
mod plan;
mod pressure;
pub mod shelf;
mod system;
mod tally;

use std::sync::{Mutex, PoisonError};

use serde::Serialize;

pub use budget::{Allowance, Bound, Budget, set_limit};
pub use calibration::Calibration;
pub use plan::Plan;
pub use pressure::{Pressure, watch as watch_pressure};
use system::Gauges;
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
    /// The tightest limit of the container or control groups on this process, where there is one.
    pub limit: Option<u64>,
    /// What these groups have left, of which others may be part; page cache that can be dropped counts as left.
    pub group_free: Option<u64>,
}

/// How the system is off, beside what it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Strain {
    pub pressure: Option<Pressure>,
    /// Bytes that the system has written to swap since it started.
    pub swapped_out: Option<u64>,
}

impl Reading {
    /// What will be read once this process has given so many bytes back.
    pub fn without(self, bytes: u64) -> Self {
        let more = |free: Option<u64>| free.map(|free| free + bytes);
        Self {
            footprint: self.footprint.map(|footprint| footprint.saturating_sub(bytes)),
            system_available: more(self.system_available),
            group_free: more(self.group_free),
            ..self
        }
    }
}

/// Reads every figure now. Takes about a millisecond, so once a second is cheap.
pub fn read() -> Reading {
    read_with(system::own_use())
}

/// The same in a fifth of the time, for jobs that look many times a second: on Linux the footprint is the resident size
/// plus swap, which counts what is shared with other processes as own.
pub fn read_often() -> Reading {
    read_with(system::own_use_roughly())
}

fn read_with((footprint, peak): (Option<u64>, Option<u64>)) -> Reading {
    with_gauges(|gauges| {
        gauges.refresh();
        let (limit, group_free) = gauges.group();
        Reading {
            footprint,
            peak,
            heap_live: heap::live(),
            heap_peak: heap::peak(),
            system_available: gauges.available(),
            system_total: gauges.total(),
            limit,
            group_free,
        }
    })
}

/// Reads signs of a shortage now.
pub fn strain() -> Strain {
    Strain { pressure: with_gauges(|gauges| gauges.pressure()), swapped_out: pressure::swapped_out() }
}

fn with_gauges<T>(read: impl FnOnce(&mut Gauges) -> T) -> T {
    static GAUGES: Mutex<Option<Gauges>> = Mutex::new(None);
    let mut gauges = GAUGES.lock().unwrap_or_else(PoisonError::into_inner);
    read(gauges.get_or_insert_with(Gauges::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_free_and_the_budget_stays() {
        let reading = Reading {
            footprint: Some(50),
            system_available: Some(100),
            group_free: Some(20),
            limit: Some(120),
            ..Default::default()
        };
        let after = reading.without(30);
        assert_eq!((after.footprint, after.system_available, after.group_free), (Some(20), Some(130), Some(50)));
        let budget = |reading: &Reading| Allowance { limit: None }.budget(reading, None);
        assert_eq!(budget(&after), budget(&reading));
    }

    #[test]
    fn touched_memory_shows_in_the_footprint() {
        const BLOCK: usize = 256 << 20;
        let before = read();
        let block = std::hint::black_box(vec![1u8; BLOCK]);
        let (after, roughly) = (read(), read_often());
        drop(block);
        assert!(roughly.footprint.unwrap() >= BLOCK as u64);
        let grown = after.footprint.unwrap().saturating_sub(before.footprint.unwrap());
        assert!(grown as usize > BLOCK / 2, "grew by {grown}");
        assert!(after.peak.unwrap() as usize >= BLOCK);
        assert!(after.system_total.unwrap() > after.system_available.unwrap());
    }
}
