//! A counting global allocator: live and peak bytes of the heap. It delegates every call to the system's allocator and
//! never refuses: limits are kept by admission before the work, not by failing an allocation in the middle of it.

use std::alloc::{GlobalAlloc, Layout, System};
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

/// Sets glibc's allocator up for buffers that come and go: blocks up to 1 GB stay in one heap and are reused instead of
/// being mapped and page-faulted anew for each operation, which costs more than the arithmetic; what a job no longer
/// needs is given back by [`release`]. Call once, at the start of the program. Elsewhere it does nothing.
pub fn tune() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only stores numbers; it is called before other threads exist.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
    }
}

/// Asks for large pages for a block that has come, or what the heap has grown by for it: in small ones the matrices of a
/// network lie in so many that finding them takes a good part of the time. Where there are no large pages to be had, there
/// are small ones.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn ask_for_large_pages(block: *mut u8, length: usize) {
    /// Smaller blocks are not worth a look.
    const LEAST: usize = 1 << 20;
    const PAGE: usize = 4096;
    /// Where the heap ended when it was last looked at.
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    if length < LEAST || block.is_null() {
        return;
    }
    // SAFETY: by nothing the heap's end is not moved.
    let heap_end = unsafe { libc::sbrk(0) }.addr();
    let (start, end) = match (block.addr(), ASKED.swap(heap_end, Relaxed)) {
        (start, _) if start >= heap_end => (start, start + length),
        (start, 0) => (start, heap_end),
        (_, asked) => (asked, heap_end),
    };
    let start = start / PAGE * PAGE;
    if start < end {
        // SAFETY: how memory is mapped changes nothing that it holds; neither does an error.
        unsafe { libc::madvise(std::ptr::without_provenance_mut(start), end - start, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn ask_for_large_pages(_: *mut u8, _: usize) {}

/// Gives freed heap pages back to the operating system.
pub fn release() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes the allocator's own locks and touches only free memory.
    unsafe {
        libc::malloc_trim(0);
    }
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

// SAFETY: every call is handed to `System` unchanged; the counters are atomics and allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        let pointer = unsafe { System.alloc(layout) };
        ask_for_large_pages(pointer, layout.size());
        if !pointer.is_null() {
            grew(layout.size());
        }
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        let pointer = unsafe { System.alloc_zeroed(layout) };
        ask_for_large_pages(pointer, layout.size());
        if !pointer.is_null() {
            grew(layout.size());
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this `layout`, as the caller promises.
        unsafe { System.dealloc(pointer, layout) };
        shrank(layout.size());
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: `pointer` came from `System` with this `layout`, as the caller promises.
        let moved = unsafe { System.realloc(pointer, layout, new_size) };
        ask_for_large_pages(moved, new_size);
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
