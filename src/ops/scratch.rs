//! Working memory of kernels: one buffer per thread and depth of nesting, grown when needed and used again by every
//! operation.

use std::cell::RefCell;

/// No kernel may ask for more than this per thread.
pub const MAX_BYTES: usize = 4 << 20;

/// Blocks of pages are mapped apart from the heap, where a buffer that stays would part the holes between tensors.
#[derive(Clone)]
#[repr(align(4096))]
struct Page(#[expect(dead_code, reason = "all pages are used as one slice")] [f32; Page::FLOATS]);

impl Page {
    const FLOATS: usize = 1024;
}

thread_local! {
    /// Those not in use, the outermost last.
    static BUFFERS: RefCell<Vec<Vec<Page>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `compute` with `length` floats of unspecified content.
///
/// The buffer is taken out meanwhile, so a nested call gets a buffer of its own.
pub fn with<R>(length: usize, compute: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    let pages = length.div_ceil(Page::FLOATS);
    if buffer.len() < pages {
        // The old content is of no use: free it before the larger buffer is taken.
        drop(std::mem::take(&mut buffer));
        buffer = vec![Page([0.0; Page::FLOATS]); pages];
    }
    // SAFETY: a page is floats and nothing between them.
    let floats = unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<f32>(), length) };
    let result = compute(floats);
    // A single row can be longer than the cap: such a buffer is not kept.
    if buffer.len() <= MAX_BYTES / size_of::<Page>() {
        BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer));
    }
    result
}

/// The same for work that other threads may take part in. They use buffers too, but not inside of this one: on which threads
/// one lies within another would be chance, so that in shared work this one is not kept.
pub fn with_shared<R>(length: usize, is_shared: bool, compute: impl FnOnce(&mut [f32]) -> R) -> R {
    if is_shared { compute(&mut vec![0.0; length]) } else { with(length, compute) }
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
