//! Groups of fingerprints that differ in few bits, without comparing each with each.

use std::collections::BTreeMap;

/// Most bits in which copies differ: one more than was seen of real ones.
const MAX_BITS: u32 = 4;

/// Two that differ in at most 4 bits agree in one of 5 bands: only those that share a band are compared.
const BANDS: [u64; 5] = [0x1FFF, 0x1FFF << 13, 0x1FFF << 26, 0x1FFF << 39, 0xFFF << 52];

/// The groups of two and more photos that are connected by near fingerprints, each sorted, by their first photo. Takes
/// fingerprints with the photo's number.
pub fn groups(fingerprints: &[(u64, usize)]) -> Vec<Vec<usize>> {
    // The photos of each fingerprint: many of one fingerprint would share all bands.
    let mut photos: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    fingerprints.iter().for_each(|(fingerprint, photo)| photos.entry(*fingerprint).or_default().push(*photo));
    let distinct: Vec<u64> = photos.keys().copied().collect();
    let mut forest = Forest((0..distinct.len()).collect());
    for band in BANDS {
        let mut order: Vec<usize> = (0..distinct.len()).collect();
        order.sort_unstable_by_key(|at| distinct[*at] & band);
        for same in order.chunk_by(|a, b| distinct[*a] & band == distinct[*b] & band) {
            for (place, a) in same.iter().enumerate() {
                for b in &same[place + 1..] {
                    if (distinct[*a] ^ distinct[*b]).count_ones() <= MAX_BITS {
                        forest.join(*a, *b);
                    }
                }
            }
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, photos) in photos.into_values().enumerate() {
        groups.entry(forest.root(at)).or_default().extend(photos);
    }
    let mut groups: Vec<Vec<usize>> = groups.into_values().filter(|group| group.len() > 1).collect();
    groups.iter_mut().for_each(|group| group.sort_unstable());
    groups.sort_unstable();
    groups
}

/// Disjoint sets, each member naming one that is nearer to the root.
struct Forest(Vec<usize>);

impl Forest {
    fn root(&mut self, mut at: usize) -> usize {
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::random::Random;

    #[test]
    fn bands_cover_each_bit_once() {
        assert_eq!(BANDS.iter().fold(0, |all, band| all | band), u64::MAX);
        assert_eq!(BANDS.iter().map(|band| band.count_ones()).sum::<u32>(), 64);
    }

    #[test]
    fn the_groups_are_those_of_comparing_each_with_each() {
        let mut random = Random::of(&[4]);
        let mut fingerprints: Vec<(u64, usize)> = Vec::new();
        for photo in 0..600 {
            // Some are others with up to six bits changed.
            let mut fingerprint = random.bits();
            if photo > 0 && photo % 3 == 0 {
                fingerprint = fingerprints[random.below(photo)].0;
                (0..random.below(7)).for_each(|_| fingerprint ^= 1 << random.below(64));
            }
            fingerprints.push((fingerprint, photo));
        }
        let mut forest = Forest((0..600).collect());
        for (a, (first, _)) in fingerprints.iter().enumerate() {
            for (b, (second, _)) in fingerprints.iter().enumerate().skip(a + 1) {
                if (first ^ second).count_ones() <= MAX_BITS {
                    forest.join(a, b);
                }
            }
        }
        let mut expected: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        (0..600).for_each(|photo| expected.entry(forest.root(photo)).or_default().push(photo));
        let expected: Vec<Vec<usize>> = expected.into_values().filter(|group| group.len() > 1).collect();
        assert!(expected.len() > 50);
        assert_eq!(groups(&fingerprints), expected);
    }

    #[test]
    fn a_hundred_thousand_photos_are_grouped_also_when_most_look_the_same() {
        let mut random = Random::of(&[5]);
        let mut fingerprints: Vec<(u64, usize)> = (0..100_000).map(|photo| (random.bits(), photo)).collect();
        fingerprints[99_999].0 = fingerprints[7].0 ^ 0b1011;
        assert_eq!(groups(&fingerprints), [[7, 99_999]]);
        fingerprints[..60_000].iter_mut().for_each(|(fingerprint, _)| *fingerprint = 9);
        let groups = groups(&fingerprints);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].len(), 60_000);
    }
}
