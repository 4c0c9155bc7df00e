//! Bounds the decoding memory of all threads together. A photo enters by its estimated bytes, in order of arrival, so
//! that a large one is not starved by small ones; one larger than the whole budget enters alone.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Limits;

/// A counting semaphore in bytes, fair in order of arrival.
#[derive(Debug)]
pub struct ImageBudget {
    total_bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    used_bytes: u64,
    /// The ticket the next arrival draws, and the one that enters next.
    next_ticket: u64,
    now_serving: u64,
}

/// The right to use so many bytes, until it is dropped.
#[derive(Debug)]
pub struct Permit<'a> {
    budget: &'a ImageBudget,
    bytes: u64,
}

impl ImageBudget {
    /// What every job that decodes counts with: room for a phone's JPEG of twelve megapixels, also a progressive one.
    pub const LEAST_BYTES: u64 = 12_000_000;

    /// More is of no use: two photos of twelve megapixels that are decoded at full size.
    const MOST_BYTES: u64 = 100_000_000;

    pub fn new(bytes: u64) -> Self {
        Self { total_bytes: bytes, state: Mutex::default(), changed: Condvar::new() }
    }

    /// For a job with so many bytes of memory left beside all that it counted with. A photo that needs more is refused; one
    /// that needs more than all threads usually take together enters alone.
    pub fn with_left(bytes: u64) -> (Self, Limits) {
        let usual = Limits::default();
        let room = bytes.saturating_add(Self::LEAST_BYTES);
        let limits = Limits { max_decode_bytes: room.min(usual.max_decode_bytes), ..usual };
        (Self::new(room.min(Self::MOST_BYTES)), limits)
    }

    /// Waits until `bytes` are free and everyone who came before has entered.
    pub fn acquire(&self, bytes: u64) -> Permit<'_> {
        let bytes = bytes.min(self.total_bytes);
        let mut state = self.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        while state.now_serving != ticket || state.used_bytes + bytes > self.total_bytes {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.now_serving += 1;
        state.used_bytes += bytes;
        self.changed.notify_all();
        Permit { budget: self, bytes }
    }

    /// Bytes held by permits now.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.budget.lock().used_bytes -= self.bytes;
        self.budget.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn permits_together_never_exceed_the_budget() {
        let budget = ImageBudget::new(100);
        let (held, highest) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for worker in 0..8_u64 {
                let (budget, held, highest) = (&budget, &held, &highest);
                scope.spawn(move || {
                    for round in 0..200 {
                        let bytes = 1 + (worker * 37 + round * 13) % 90;
                        let permit = budget.acquire(bytes);
                        highest.fetch_max(held.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
                        held.fetch_sub(bytes, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert!(highest.load(Ordering::SeqCst) <= 100);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_photo_larger_than_the_budget_enters_alone() {
        let budget = ImageBudget::new(100);
        let large = budget.acquire(1_000);
        assert_eq!(budget.used_bytes(), 100);
        thread::scope(|scope| {
            let small = scope.spawn(|| drop(budget.acquire(1)));
            thread::sleep(Duration::from_millis(20));
            assert!(!small.is_finished());
            drop(large);
        });
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_large_photo_is_not_overtaken_by_small_ones_that_came_later() {
        let budget = ImageBudget::new(100);
        let first = budget.acquire(60);
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let enter = |name: &'static str, bytes| {
                let permit = budget.acquire(bytes);
                order.lock().unwrap().push(name);
                drop(permit);
            };
            scope.spawn(move || enter("large", 90));
            while budget.lock().next_ticket < 2 {
                thread::yield_now();
            }
            scope.spawn(move || enter("small", 20)); // does not fit beside the large one
            while budget.lock().next_ticket < 3 {
                thread::yield_now();
            }
            drop(first);
        });
        assert_eq!(*order.lock().unwrap(), ["large", "small"]);
    }
}
