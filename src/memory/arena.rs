//! Where an allocator puts blocks: as glibc does with all that is not mapped on its own, into the smallest hole that is large
//! enough, or else at the end of the heap; what is freed becomes one hole with the holes beside it.

use std::collections::BTreeMap;

/// What an allocator needs for itself with each block, and the steps of its sizes.
const STEP: u64 = 16;

/// A heap that grows as it must.
#[derive(Debug, Default)]
pub struct Arena {
    /// Lengths of the holes, by where they begin.
    holes: BTreeMap<u64, u64>,
    end: u64,
    highest: u64,
}

impl Arena {
    /// Finds a place for so many bytes.
    pub fn take(&mut self, bytes: u64) -> u64 {
        if bytes == 0 {
            return self.end;
        }
        let length = Self::length(bytes);
        let fitting = self.holes.iter().filter(|(_, hole)| **hole >= length);
        let Some((&place, &hole)) = fitting.min_by_key(|(_, hole)| **hole) else {
            let place = self.end;
            self.end += length;
            self.highest = self.highest.max(self.end);
            return place;
        };
        self.holes.remove(&place);
        if hole > length {
            self.holes.insert(place + length, hole - length);
        }
        place
    }

    /// Takes back what [`Self::take`] gave for so many bytes.
    pub fn give(&mut self, mut place: u64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let mut length = Self::length(bytes);
        if let Some(behind) = self.holes.remove(&(place + length)) {
            length += behind;
        }
        if let Some((&before, &hole)) =
            self.holes.range(..place).next_back().filter(|(before, hole)| **before + **hole == place)
        {
            self.holes.remove(&before);
            (place, length) = (before, length + hole);
        }
        if place + length == self.end {
            self.end = place;
        } else {
            self.holes.insert(place, length);
        }
    }

    /// The furthest end there was.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    fn length(bytes: u64) -> u64 {
        (bytes + STEP).next_multiple_of(STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_hole_that_is_large_enough_is_filled() {
        let mut arena = Arena::default();
        let places: Vec<u64> = [992, 96, 496, 96, 192].into_iter().map(|bytes| arena.take(bytes)).collect();
        assert_eq!(places, [0, 1008, 1120, 1632, 1744]);
        arena.give(0, 992);
        arena.give(1120, 496);
        assert_eq!(arena.take(288), 1120);
        assert_eq!(arena.take(600), 0);
        // No hole is large enough.
        assert_eq!((arena.take(592), arena.highest()), (1952, 2560));
    }

    #[test]
    fn holes_beside_each_other_become_one_and_the_end_moves_back() {
        let mut arena = Arena::default();
        let places: Vec<u64> = (0..4).map(|_| arena.take(96)).collect();
        arena.give(places[0], 96);
        arena.give(places[2], 96);
        arena.give(places[1], 96);
        assert_eq!(arena.take(320), 0);
        arena.give(0, 320);
        arena.give(places[3], 96);
        assert_eq!((arena.end, arena.highest(), arena.holes.len()), (0, 448, 0));
    }
}
