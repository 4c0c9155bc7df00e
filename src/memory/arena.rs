//! Where large blocks lie, in the plan of a job and on Linux in the heap itself: in the smallest hole that is large enough, or
//! else at the end of the heap; what is freed becomes one hole with the holes beside it.

use std::collections::BTreeMap;

/// A heap that grows as it must.
#[derive(Debug, Default)]
pub struct Arena {
    /// Lengths of the holes, by where they begin.
    holes: BTreeMap<u64, u64>,
    end: u64,
    highest: u64,
}

#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "elsewhere it predicts and places nothing"))]
impl Arena {
    /// Blocks begin at multiples of it: a cache line's length.
    pub const STEP: u64 = 64;

    pub const fn new() -> Self {
        Self { holes: BTreeMap::new(), end: 0, highest: 0 }
    }

    /// Finds a place for so many bytes.
    pub fn take(&mut self, bytes: u64) -> u64 {
        let length = bytes.next_multiple_of(Self::STEP);
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
        let mut length = bytes.next_multiple_of(Self::STEP);
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

    /// Gives a block another length where it lies; false if what is behind it is in the way.
    pub fn resize(&mut self, place: u64, before: u64, after: u64) -> bool {
        let [before, after] = [before, after].map(|bytes| bytes.next_multiple_of(Self::STEP));
        let behind = place + before;
        if after < before {
            self.give(place + after, before - after);
        } else if behind == self.end {
            self.end = place + after;
            self.highest = self.highest.max(self.end);
        } else if after > before {
            let Some(hole) = self.holes.get(&behind).copied().filter(|hole| *hole >= after - before) else {
                return false;
            };
            self.holes.remove(&behind);
            if hole > after - before {
                self.holes.insert(place + after, hole - (after - before));
            }
        }
        true
    }

    /// Where they begin, and their lengths.
    pub fn holes(&self) -> impl Iterator<Item = (u64, u64)> {
        self.holes.iter().map(|(place, length)| (*place, *length))
    }

    /// Behind the last block.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The furthest end there was.
    pub fn highest(&self) -> u64 {
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_hole_that_is_large_enough_is_filled() {
        let mut arena = Arena::new();
        let places: Vec<u64> = [1000, 64, 500, 100, 192].into_iter().map(|bytes| arena.take(bytes)).collect();
        assert_eq!(places, [0, 1024, 1088, 1600, 1728]);
        arena.give(0, 1000);
        arena.give(1088, 500);
        assert_eq!(arena.take(288), 1088);
        assert_eq!(arena.take(600), 0);
        // No hole is large enough.
        assert_eq!((arena.take(600), arena.highest()), (1920, 2560));
        assert_eq!(arena.holes().collect::<Vec<_>>(), [(640, 384), (1408, 192)]);
    }

    #[test]
    fn blocks_shrink_where_they_lie_and_grow_into_what_is_free() {
        let mut arena = Arena::new();
        let places: Vec<u64> = [640, 640, 64].into_iter().map(|bytes| arena.take(bytes)).collect();
        assert!(arena.resize(places[1], 640, 100));
        assert_eq!(arena.holes().collect::<Vec<_>>(), [(768, 512)]);
        assert!(!arena.resize(places[0], 640, 641) && !arena.resize(places[1], 100, 700));
        assert!(arena.resize(places[1], 100, 640) && arena.resize(places[2], 64, 1000));
        assert_eq!((arena.end(), arena.highest(), arena.holes().count()), (2304, 2304, 0));
        assert!(arena.resize(places[2], 1000, 64));
        assert_eq!((arena.end(), arena.highest()), (1344, 2304));
    }

    #[test]
    fn holes_beside_each_other_become_one_and_the_end_moves_back() {
        let mut arena = Arena::new();
        let places: Vec<u64> = (0..4).map(|_| arena.take(128)).collect();
        arena.give(places[0], 128);
        arena.give(places[2], 128);
        arena.give(places[1], 128);
        assert_eq!(arena.take(384), 0);
        arena.give(0, 384);
        arena.give(places[3], 128);
        assert_eq!((arena.end(), arena.highest(), arena.holes().count()), (0, 512, 0));
    }
}
