//! Random numbers that follow from what they are for, so that no choice depends on the order of others.

use sha2::{Digest as _, Sha256};

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The generator of one purpose: the same words give the same numbers.
    pub fn of(words: &[u64]) -> Self {
        Self(words.iter().fold(0, |state, word| mix(state ^ word).wrapping_add(GOLDEN)))
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// From 0 to below 1, in steps of 2⁻⁵³.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// From 0 to below `end`, which is not 0. The bias of the multiplication is below `end` / 2⁶⁴.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.bits()) * end as u128) >> 64) as usize
    }

    /// Fisher and Yates' shuffle.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// 2⁶⁴ divided by the golden ratio, made odd.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// A place in a lottery, by name alone: it stays when other names come or go.
pub fn rank(seed: u64, purpose: &str, name: &[u8]) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(purpose);
    hash.update([0]);
    hash.update(name);
    let digest: [u8; 32] = hash.finalize().into();
    digest.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_splitmix64s() {
        // The reference implementation (prng.di.unimi.it/splitmix64.c) seeded with 1234567.
        let mut random = Random(1_234_567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
        ];
        assert_eq!([(); 4].map(|()| random.bits()), expected);
    }

    #[test]
    fn numbers_below_an_end_are_even_and_each_word_counts() {
        let mut random = Random::of(&[1, 2, 3]);
        let mut counts = [0; 6];
        (0..60_000).for_each(|_| counts[random.below(6)] += 1);
        // Five standard deviations of a fair die: 5 · √(60000 · 1/6 · 5/6) = 456.
        assert!(counts.iter().all(|count| (9_544..=10_456).contains(count)), "{counts:?}");
        let first = |words: &[u64]| Random::of(words).bits();
        assert_eq!(first(&[1, 2, 3]), first(&[1, 2, 3]));
        for other in [[0, 2, 3], [1, 0, 3], [1, 2, 0], [3, 2, 1]] {
            assert_ne!(first(&[1, 2, 3]), first(&other));
        }
    }

    #[test]
    fn a_shuffle_keeps_every_item_and_moves_them() {
        let mut items: Vec<usize> = (0..100).collect();
        Random::of(&[7]).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
