//! A counting global allocator: live and peak bytes of the heap. On Linux large blocks lie in a heap of their own; every other
//! call goes to the system's allocator. It never refuses: limits are kept by admission before the work, not by failing an
//! allocation in the middle of it.

#[cfg(target_os = "linux")]
mod large;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The system's heap does for large blocks too.
#[cfg(not(target_os = "linux"))]
mod large {
    use std::alloc::Layout;

    pub fn take(_: Layout) -> Option<(*mut u8, bool)> {
        None
    }

    pub fn give(_: *mut u8, _: usize) -> bool {
        false
    }

    pub fn resize(_: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    pub fn release() {}
}

/// Bytes of the smallest block that lies in the places of [`super::arena`]: elsewhere than on Linux as if it did.
pub const LEAST_LARGE: u64 = 128 << 10;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static LIVE: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

/// Highest `LIVE` since somebody took it.
static RECENT: AtomicU64 = AtomicU64::new(0);

/// Bytes allocated and not freed.
pub fn live() -> u64 {
    LIVE.load(Relaxed)
}

/// Highest [`live`] since the start or the last [`reset_peak`].
pub fn peak() -> u64 {
    PEAK.load(Relaxed)
}

/// Starts the peak anew from what is live now.
pub fn reset_peak() {
    PEAK.store(live(), Relaxed);
}

/// Highest [`live`] since the last call. For one listener at a time: the job that guards its memory.
pub fn take_recent_peak() -> u64 {
    RECENT.swap(live(), Relaxed).max(live())
}

/// Sets glibc's allocator up for the small blocks that are left to it: one heap of them for all threads, what is large and
/// yet not [`large`]'s mapped apart, and nothing given back before [`release`]. Call once, at the start of the program.
/// Elsewhere it does nothing.
pub fn tune() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only stores numbers; it is called before other threads exist.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LEAST_LARGE as i32);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
    }
}

/// Gives freed heap pages back to the operating system.
pub fn release() {
    large::release();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes the allocator's own locks and touches only free memory.
    unsafe {
        libc::malloc_trim(0);
    }
    #[cfg(target_os = "macos")]
    // SAFETY: without a zone all are meant, and a goal of 0 is as much as there is; only free memory is touched, on any
    // thread.
    unsafe {
        malloc_zone_pressure_relief(std::ptr::null_mut(), 0);
    }
}

#[cfg(target_os = "macos")]
unsafe extern "C" {
    /// `malloc/malloc.h`; of macOS 10.7 and later.
    fn malloc_zone_pressure_relief(zone: *mut libc::malloc_zone_t, goal: usize) -> usize;
}

fn grew(bytes: usize) {
    let live = LIVE.fetch_add(bytes as u64, Relaxed) + bytes as u64;
    // Most allocations set no record: a plain read first keeps the shared line from bouncing between cores.
    if live > PEAK.load(Relaxed) {
        PEAK.fetch_max(live, Relaxed);
    }
    if live > RECENT.load(Relaxed) {
        RECENT.fetch_max(live, Relaxed);
    }
}

fn shrank(bytes: usize) {
    LIVE.fetch_sub(bytes as u64, Relaxed);
}

// SAFETY: every call is handed to the heap of large blocks or to `System` unchanged, and each block back to where it came
// from; the counters are atomics and allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let pointer = match large::take(layout) {
            Some((block, _)) => block,
            // SAFETY: the caller's promise about `layout` is passed on.
            None => unsafe { System.alloc(layout) },
        };
        if !pointer.is_null() {
            grew(layout.size());
        }
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let pointer = match large::take(layout) {
            Some((block, is_zero)) => {
                if !is_zero {
                    // SAFETY: the block is of this size.
                    unsafe { block.write_bytes(0, layout.size()) };
                }
                block
            }
            // SAFETY: the caller's promise about `layout` is passed on.
            None => unsafe { System.alloc_zeroed(layout) },
        };
        if !pointer.is_null() {
            grew(layout.size());
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !large::give(pointer, layout.size()) {
            // SAFETY: then `pointer` came from `System` with this `layout`, as the caller promises.
            unsafe { System.dealloc(pointer, layout) };
        }
        shrank(layout.size());
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if large::resize(pointer, layout.size(), new_size) {
            shrank(layout.size());
            grew(new_size);
            return pointer;
        }
        if layout.size().max(new_size) as u64 >= LEAST_LARGE {
            // SAFETY: as the caller promises, `new_size` is valid with this alignment.
            let wanted = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
            // SAFETY: the new block takes over what both have room for; then the old one is given back.
            return unsafe {
                let moved = self.alloc(wanted);
                if !moved.is_null() {
                    moved.copy_from_nonoverlapping(pointer, layout.size().min(new_size));
                    self.dealloc(pointer, layout);
                }
                moved
            };
        }
        // SAFETY: blocks this small came from `System`, with this `layout`, as the caller promises.
        let moved = unsafe { System.realloc(pointer, layout, new_size) };
        // A block that grows may be copied, and both are there for a moment; one that shrinks stays in its place.
        match layout.size() {
            _ if moved.is_null() => {}
            size if size < new_size => {
                grew(new_size);
                shrank(size);
            }
            size => shrank(size - new_size),
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Other tests allocate meanwhile, so the block is far larger than anything they hold.
    #[test]
    fn a_block_counts_while_it_lives_and_in_the_peak_after() {
        const BLOCK: u64 = 1 << 30;
        let before = live();
        let block = Vec::<u8>::with_capacity(BLOCK as usize);
        assert!(live() >= before + BLOCK / 2);
        drop(block);
        assert!(live() < before + BLOCK / 2);
        assert!(peak() >= before + BLOCK / 2);
        assert!(take_recent_peak() >= before + BLOCK / 2);
        assert!(take_recent_peak() < before + BLOCK / 2, "what was taken is over");
    }
}
