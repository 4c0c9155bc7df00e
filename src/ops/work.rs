//! Counts the arithmetic of convolutions, matrix products and attention, so that a benchmark can say how much of a
//! machine's speed is reached. The rest (norms, activations, pools) is not counted, as is usual, nor are backward passes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static TOTAL: AtomicU64 = AtomicU64::new(0);

/// Floating point operations since the start of the program; a multiplication with its addition counts two.
pub fn total() -> u64 {
    TOTAL.load(Relaxed)
}

/// Counts a product of `(rows, depth)` and `(depth, columns)`. Called once per operation, by its public function, so that
/// the count is the same whichever kernel computes it.
pub fn product(rows: usize, depth: usize, columns: usize) {
    TOTAL.fetch_add(2 * (rows * depth * columns) as u64, Relaxed);
}
