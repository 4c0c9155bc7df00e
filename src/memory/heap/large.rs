//! Large blocks lie in a heap of their own, in places that [`Arena`] finds: the same arithmetic that predicts a job lays its
//! tensors out. In one heap with small blocks, those that stay part the holes that large ones leave, so that a tensor no
//! longer fits where one of its size was: training took up to 40 % more than its tensors.

use std::alloc::Layout;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::memory::arena::Arena;

/// Smaller blocks come and go in the system's heap.
const LEAST: usize = super::LEAST_LARGE as usize;

/// Addresses that are set aside, of which only what is used takes memory.
const RESERVED: usize = 1 << 38;

/// Large pages are asked for: in small ones the matrices of a network lie in so many that finding them takes a good part of
/// the time. Where there are no large pages to be had, there are small ones.
const LARGE_PAGE: usize = 2 << 20;

const PAGE: usize = 4096;

static HEAP: Mutex<Heap> = Mutex::new(Heap { base: Base::Unknown, arena: Arena::new(), open: 0, touched: 0 });

struct Heap {
    base: Base,
    arena: Arena,
    /// So far from its base it may be used.
    open: usize,
    /// So far it was used: beyond it is nothing but zeros.
    touched: usize,
}

enum Base {
    Unknown,
    /// A limit on addresses is in the way.
    None,
    At(usize),
}

fn heap() -> MutexGuard<'static, Heap> {
    HEAP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A block, and whether it is known to hold zeros. None if it belongs in the system's heap, also because there is no room.
pub fn take(layout: Layout) -> Option<(*mut u8, bool)> {
    if layout.size() < LEAST || layout.align() as u64 > Arena::STEP {
        return None;
    }
    heap().take(layout.size())
}

/// Takes a block back; false if it is none of these.
pub fn give(block: *mut u8, size: usize) -> bool {
    // What is smaller came from elsewhere, and has no need to wait for others.
    size >= LEAST && heap().give(block.addr(), size)
}

/// Gives a block another size where it lies; false if that cannot be, or if it is none of these.
pub fn resize(block: *mut u8, before: usize, after: usize) -> bool {
    before.min(after) >= LEAST && heap().resize(block.addr(), before, after)
}

/// Gives the pages of holes back to the system.
pub fn release() {
    heap().release();
}

impl Heap {
    fn base(&mut self) -> Option<usize> {
        if let Base::Unknown = self.base {
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            // SAFETY: a new mapping at a place of the system's choice touches nothing that is there.
            let pages = unsafe { libc::mmap(std::ptr::null_mut(), RESERVED, libc::PROT_NONE, kind, -1, 0) };
            self.base = match pages {
                libc::MAP_FAILED => Base::None,
                pages => Base::At(pages.expose_provenance().next_multiple_of(LARGE_PAGE)),
            };
        }
        if let Base::At(base) = self.base { Some(base) } else { None }
    }

    /// Where in it a block of its own lies.
    fn place_of(&self, address: usize) -> Option<u64> {
        let Base::At(base) = self.base else { return None };
        (base..base + self.open).contains(&address).then(|| (address - base) as u64)
    }

    fn take(&mut self, size: usize) -> Option<(*mut u8, bool)> {
        let base = self.base()?;
        let place = self.arena.take(size as u64);
        let (start, end) = (place as usize, place as usize + size);
        if !self.open_to(base, end) {
            self.arena.give(place, size as u64);
            return None;
        }
        let is_zero = start >= self.touched;
        self.touched = self.touched.max(end);
        Some((std::ptr::with_exposed_provenance_mut(base + start), is_zero))
    }

    fn open_to(&mut self, base: usize, end: usize) -> bool {
        let (before, after) = (self.open, end.next_multiple_of(PAGE));
        if after <= before {
            return true;
        }
        if after > RESERVED - LARGE_PAGE {
            return false;
        }
        let (pages, length) = (std::ptr::with_exposed_provenance_mut(base + before), after - before);
        // SAFETY: the pages are of the addresses that were set aside, and nobody has any of them yet.
        let is_open = unsafe { libc::mprotect(pages, length, libc::PROT_READ | libc::PROT_WRITE) } == 0;
        if is_open {
            // The last one only once the heap reaches beyond it.
            let (whole, whole_end) = (before / LARGE_PAGE * LARGE_PAGE, after / LARGE_PAGE * LARGE_PAGE);
            if whole < whole_end {
                let pages = std::ptr::with_exposed_provenance_mut(base + whole);
                // SAFETY: how memory is mapped changes nothing that it holds; neither does an error.
                unsafe { libc::madvise(pages, whole_end - whole, libc::MADV_HUGEPAGE) };
                if whole < before {
                    // Small pages are there already, and would stay: systems before Linux 6.1 leave them.
                    // SAFETY: as above.
                    unsafe { libc::madvise(pages, LARGE_PAGE, libc::MADV_COLLAPSE) };
                }
            }
            self.open = after;
        }
        is_open
    }

    fn give(&mut self, address: usize, size: usize) -> bool {
        let place = self.place_of(address);
        place.inspect(|place| self.arena.give(*place, size as u64)).is_some()
    }

    fn resize(&mut self, address: usize, before: usize, after: usize) -> bool {
        let (Some(base), Some(place)) = (self.base(), self.place_of(address)) else { return false };
        let end = place as usize + after;
        if !self.arena.resize(place, before as u64, after as u64) {
            return false;
        }
        if !self.open_to(base, end) {
            self.arena.resize(place, after as u64, before as u64);
            return false;
        }
        self.touched = self.touched.max(end);
        true
    }

    fn release(&mut self) {
        let Base::At(base) = self.base else { return };
        let (end, touched) = (self.arena.end() as usize, self.touched);
        let holes = self.arena.holes().map(|(place, length)| (place as usize, (place + length) as usize));
        for (start, end) in holes.chain([(end, touched.next_multiple_of(PAGE))]) {
            let (start, end) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
            if start < end {
                // SAFETY: the pages are of holes, which nobody has; they will be zeros.
                unsafe {
                    libc::madvise(std::ptr::with_exposed_provenance_mut(base + start), end - start, libc::MADV_DONTNEED)
                };
            }
        }
        self.touched = end.next_multiple_of(PAGE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a heap of its own.
    fn heap() -> Heap {
        Heap { base: Base::Unknown, arena: Arena::new(), open: 0, touched: 0 }
    }

    #[test]
    fn blocks_hold_what_is_written_and_their_places_are_used_again() {
        let mut heap = heap();
        let size = 3 * LEAST + 1;
        let [one, two, three] = [1, 2, 3].map(|value| {
            let (block, is_zero) = heap.take(size).unwrap();
            assert!(is_zero && block.addr().is_multiple_of(64));
            // SAFETY: the block is of this size.
            unsafe {
                assert_eq!((block.read(), block.add(size - 1).read()), (0, 0));
                block.write_bytes(value, size);
            }
            block
        });
        assert!(heap.give(two.addr(), size));
        let (again, is_zero) = heap.take(size).unwrap();
        assert_eq!((again, is_zero), (two, false));
        // SAFETY: as above.
        unsafe { assert_eq!((one.add(size - 1).read(), three.read()), (1, 3)) };
        assert!(!heap.give(std::ptr::from_ref(&size).addr(), size));
        // Only the last one has room to grow.
        assert!(!heap.resize(one.addr(), size, size + LEAST) && heap.resize(three.addr(), size, 10 * size));
        // SAFETY: the block is of ten times the size.
        unsafe {
            three.write_bytes(4, 10 * size);
            assert_eq!((two.read(), three.add(10 * size - 1).read()), (2, 4));
        }
    }

    #[test]
    fn holes_are_zeros_once_their_pages_were_given_back_and_blocks_stay() {
        let mut heap = heap();
        let [one, two, three] = [1, 2, 3].map(|value| {
            let (block, _) = heap.take(1 << 20).unwrap();
            // SAFETY: the block is of this size.
            unsafe { block.write_bytes(value, 1 << 20) };
            block
        });
        heap.give(two.addr(), 1 << 20);
        heap.give(three.addr(), 1 << 20);
        heap.release();
        let (again, is_zero) = heap.take(1 << 20).unwrap();
        assert_eq!((again, is_zero), (two, true));
        // SAFETY: as above.
        unsafe { assert_eq!((one.add((1 << 20) - 1).read(), again.read(), again.add(1 << 19).read()), (1, 0, 0)) };
    }

    #[test]
    fn what_is_small_or_begins_at_pages_belongs_elsewhere() {
        assert!(take(Layout::from_size_align(LEAST - 1, 64).unwrap()).is_none());
        assert!(take(Layout::from_size_align(LEAST, 4096).unwrap()).is_none());
    }
}
