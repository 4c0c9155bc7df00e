//! Where bytes lie that products read as rows.

use std::mem::MaybeUninit;

use super::matrix::TILE;
use crate::ops::packed::Line;
use crate::ops::{space, written};

/// Bytes that must follow a row's last: a kernel reads whole tiles or blocks. Weights of zero meet what it finds there.
pub const SLACK: usize = TILE;

/// Bytes that begin with a cache line, as tiles are loaded fastest, and zeros for [`SLACK`].
pub struct RowBytes {
    held: Vec<u8>,
    first: usize,
}

impl RowBytes {
    const LINE: usize = size_of::<Line>();

    /// So many bytes.
    ///
    /// # Safety
    /// `fill` must write all of them.
    pub unsafe fn filled(length: usize, fill: impl FnOnce(&mut [MaybeUninit<u8>])) -> Self {
        let mut held = space(length + SLACK + Self::LINE);
        let first = held.as_ptr().addr().next_multiple_of(Self::LINE) - held.as_ptr().addr();
        let (before, rest) = held.split_at_mut(first);
        let (bytes, behind) = rest.split_at_mut(length);
        for unused in [before, behind] {
            unused.fill(MaybeUninit::new(0));
        }
        fill(bytes);
        // SAFETY: the caller's promise; all else is zero.
        let mut held = unsafe { written(held) };
        // Where a cache line begins is chance.
        held.truncate(first + length + SLACK);
        Self { held, first }
    }

    /// These, and what must follow them.
    pub fn with_slack(&self) -> &[u8] {
        &self.held[self.first..]
    }

    pub fn with_slack_mut(&mut self) -> &mut [u8] {
        &mut self.held[self.first..]
    }
}
