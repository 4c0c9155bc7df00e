//! Gives memory back that nobody uses, and tells what a device has of it.

use super::models::Models;
use crate::device::{self, Chosen, DeviceChoice};
use crate::format::bytes;
use crate::memory::heap;
use crate::ops;
use crate::worker::BoxError;

/// The memory of a device that has its own count of it, in bytes. On unified memory it is part of the process's footprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceUse {
    /// In use; what its driver library keeps for reuse cannot be told apart from it.
    pub active: u64,
    /// Kept for reuse.
    pub cached: u64,
    /// What the system advises to stay below, and how much of that is left.
    pub recommended: u64,
    pub free: u64,
    /// No tensor may be larger.
    pub largest_buffer: u64,
}

impl DeviceUse {
    /// What the device has, of its count `memory`, and keeps for reuse.
    fn new(memory: device::DeviceMemory, kept: u64) -> Self {
        let device::DeviceMemory { allocated, recommended, largest_buffer } = memory;
        let cached = kept.min(allocated);
        let free = recommended.saturating_sub(allocated);
        Self { active: allocated - cached, cached, recommended, free, largest_buffer }
    }

    /// In one line, for a person.
    pub fn sentence(&self) -> String {
        let Self { active, cached, recommended, largest_buffer, .. } = *self;
        format!(
            "The GPU has {} in use and keeps {} for reuse; the system advises to stay below {}, and no single buffer may be \
             larger than {}. On a Mac all of it is part of the footprint",
            bytes(active),
            bytes(cached),
            bytes(recommended),
            bytes(largest_buffer)
        )
    }
}

/// None for the CPU, whose memory is the process's.
pub fn device_use(chosen: &Chosen) -> Option<DeviceUse> {
    let memory = device::memory(&chosen.device)?;
    Some(DeviceUse::new(memory, ops::kept_bytes(&chosen.device).unwrap_or(0)))
}

/// Gives back what the device and the heap keep for reuse, and before that the models that nobody uses or has pinned if
/// `unload` says so. Returns how many these were.
pub fn flush(models: &Models, choice: DeviceChoice, unload: bool) -> Result<usize, BoxError> {
    let unloaded = if unload { models.shelf.unload_idle() } else { 0 };
    // A device that is not there keeps nothing.
    if let Ok(chosen) = device::choose(choice) {
        ops::release(&chosen.device)?;
    }
    heap::release();
    Ok(unloaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_reuse_is_no_part_of_what_is_in_use() {
        let memory = device::DeviceMemory { allocated: 700, recommended: 1000, largest_buffer: 400 };
        let used = DeviceUse::new(memory, 200);
        assert_eq!((used.active, used.cached, used.free), (500, 200, 300));
        // Another thread may have given buffers back between the two counts.
        assert_eq!(DeviceUse::new(memory, 900).active, 0);
        let full = device::DeviceMemory { allocated: 1200, ..memory };
        assert_eq!(DeviceUse::new(full, 0).free, 0);
        assert!(used.sentence().contains("larger than 400 B"), "{}", used.sentence());
    }
}
