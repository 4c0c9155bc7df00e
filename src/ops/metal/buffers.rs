//! Memory of programs on Metal: buffers that are used again in sizes close to what is asked for.
//!
//! candle's own pool rounds to powers of two and lends a gigabyte to a scalar.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::metal_backend::DeviceId;
use candle_core::{Error, MetalDevice, Result};
use candle_metal_kernels::metal::Buffer;
use objc2_metal::MTLResourceOptions;

/// For the GPU alone, and without Metal's own tracking: candle marks what each command reads and writes.
const OPTIONS: MTLResourceOptions =
    MTLResourceOptions(MTLResourceOptions::StorageModePrivate.0 | MTLResourceOptions::HazardTrackingModeUntracked.0);

/// Buffers by device and size in bytes, those in use and those that are free.
///
/// A buffer is free when nobody but the pool holds it. Commands that still use it come first on the GPU, for candle
/// orders all commands by the buffers they are marked to read and write.
type Pool = HashMap<(DeviceId, usize), Vec<Arc<Buffer>>>;

fn pool() -> std::sync::MutexGuard<'static, Pool> {
    static POOL: OnceLock<Mutex<Pool>> = OnceLock::new();
    POOL.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buffer for `length` floats of unspecified content.
pub fn take(device: &MetalDevice, length: usize) -> Result<Arc<Buffer>> {
    let bytes = size_class(length * size_of::<f32>());
    let mut pool = pool();
    let buffers = pool.entry((device.id(), bytes)).or_default();
    if let Some(free) = buffers.iter().find(|buffer| Arc::strong_count(buffer) == 1) {
        return Ok(free.clone());
    }
    let buffer = Arc::new(device.metal_device().new_buffer(bytes, OPTIONS).map_err(Error::wrap)?);
    buffers.push(buffer.clone());
    Ok(buffer)
}

/// Gives the device's free buffers back to the system; those that commands still use go when these are done.
pub fn release(device: &MetalDevice) {
    pool().retain(|(id, _), buffers| {
        if *id == device.id() {
            buffers.retain(|buffer| Arc::strong_count(buffer) > 1);
        }
        !buffers.is_empty()
    });
}

/// Knows nothing of the device's buffers any more: each goes when nobody uses it.
pub fn forget(device: &MetalDevice) {
    pool().retain(|(id, _), _| *id != device.id());
}

/// Bytes of the device's free buffers.
pub fn kept_bytes(device: &MetalDevice) -> u64 {
    let pool = pool();
    let of_device = pool.iter().filter(|((id, _), _)| *id == device.id());
    let free = |buffers: &[Arc<Buffer>]| buffers.iter().filter(|buffer| Arc::strong_count(buffer) == 1).count();
    of_device.map(|((_, bytes), buffers)| (bytes * free(buffers)) as u64).sum()
}

/// The size to allocate: at most an eighth more, so that similar requests share buffers.
fn size_class(bytes: usize) -> usize {
    const SMALLEST_STEP: usize = 256;
    bytes.next_multiple_of((bytes.next_power_of_two() / 16).max(SMALLEST_STEP))
}
