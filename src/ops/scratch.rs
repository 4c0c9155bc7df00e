//! Working memory of kernels: one buffer per thread and depth of nesting, grown when needed and used again by every
//! operation.

use std::cell::RefCell;

/// No kernel may ask for more than this per thread.
pub const MAX_BYTES: usize = 4 << 20;

thread_local! {
    /// Those not in use, the outermost last.
    static BUFFERS: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `compute` with `length` floats of unspecified content.
///
/// The buffer is taken out meanwhile, so a nested call gets a buffer of its own.
pub fn with<R>(length: usize, compute: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < length {
        // The old content is of no use: free it before the larger buffer is taken.
        drop(std::mem::take(&mut buffer));
        buffer = vec![0.0; length];
    }
    let result = compute(&mut buffer[..length]);
    // A single row can be longer than the cap: such a buffer is not kept.
    if buffer.len() <= MAX_BYTES / size_of::<f32>() {
        BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer));
    }
    result
}

/// The same with floats and bytes.
pub fn with_bytes<R>(floats: usize, bytes: usize, compute: impl FnOnce(&mut [f32], &mut [u8]) -> R) -> R {
    with(floats + bytes.div_ceil(size_of::<f32>()), |buffer| {
        let (floats, rest) = buffer.split_at_mut(floats);
        // SAFETY: a byte has no alignment, and any content is one.
        let (_, space, _) = unsafe { rest.align_to_mut() };
        compute(floats, &mut space[..bytes])
    })
}

/// The same in cache lines.
#[cfg(target_arch = "x86_64")]
pub fn with_lines<R>(length: usize, compute: impl FnOnce(&mut [super::packed::Line]) -> R) -> R {
    with((length + 1) * super::packed::PANEL, |buffer| {
        // SAFETY: a line is floats.
        let (_, lines, _) = unsafe { buffer.align_to_mut() };
        compute(&mut lines[..length])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_calls_get_their_own_buffers() {
        with(8, |outer| {
            outer.fill(1.0);
            with(8, |inner| inner.fill(2.0));
            assert!(outer.iter().all(|&value| value == 1.0));
        });
    }
}
