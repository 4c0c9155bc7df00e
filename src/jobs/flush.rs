//! Gives memory back that nobody uses, and tells what a device has of it.

use super::models::Models;
use crate::device::{self, Chosen, DeviceChoice};
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
}

/// None for the CPU, whose memory is the process's.
pub fn device_use(chosen: &Chosen) -> Option<DeviceUse> {
    let device::DeviceMemory { allocated, recommended } = device::memory(&chosen.device)?;
    let cached = ops::kept_bytes(&chosen.device).unwrap_or(0).min(allocated);
    Some(DeviceUse { active: allocated - cached, cached, recommended, free: recommended.saturating_sub(allocated) })
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
