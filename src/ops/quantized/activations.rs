//! The left factor in bytes: each row, or each image, is coded by the range of its own values.

#[cfg(target_arch = "x86_64")]
mod x86;

use std::mem::MaybeUninit;
use std::sync::LazyLock;

use pulp::{Arch, Simd, WithSimd};

use super::instructions::Instructions;
use crate::ops::vectorized;

/// A byte `b` stands for `offset + scale · b`. Zero is among the values that a code has.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Code {
    pub scale: f32,
    pub offset: f32,
}

/// What a step is of the range that a row is coded by: its largest byte is that for which this machine's products are exact.
pub static SHARE: LazyLock<f32> = LazyLock::new(|| 1.0 / f32::from(Instructions::best().largest_byte()));

/// Parts of a step in which [`encode_rows_finely`] counts.
const FINE: f32 = 256.0;

impl Code {
    /// What `256 · byte + rest` stands for, where a row is coded in 16 bits: the first byte is the nearest one, so that the
    /// rest counts from half a step below it.
    #[inline(always)]
    pub fn fine(self) -> Self {
        Self { scale: self.scale * (1.0 / FINE), offset: self.offset - 0.5 * self.scale }
    }

    /// The values that [`encode_rows_finely`] was given, with its fine code.
    #[inline(always)]
    pub fn decode(self, bytes: &[u8], rests: &[u8], values: &mut [f32]) {
        for ((value, byte), rest) in values.iter_mut().zip(bytes).zip(rests) {
            *value = self.offset + self.scale * f32::from(u16::from(*byte) << 8 | u16::from(*rest));
        }
    }
}

/// A byte that is written, whether it holds a value yet or not.
///
/// # Safety
/// It must be laid out as a byte, and hold any.
pub unsafe trait Byte {
    fn put(&mut self, byte: u8);
}

// SAFETY: it is one.
unsafe impl Byte for u8 {
    #[inline(always)]
    fn put(&mut self, byte: u8) {
        *self = byte;
    }
}

// SAFETY: it is laid out as what it may hold.
unsafe impl Byte for MaybeUninit<u8> {
    #[inline(always)]
    fn put(&mut self, byte: u8) {
        self.write(byte);
    }
}

/// How a code's values become bytes.
#[derive(Clone, Copy)]
pub struct Coder {
    pub code: Code,
    per_scale: f32,
    zero: f32,
    /// The largest byte that values become.
    largest: f32,
}

/// Smallest and largest of some values and zero, and the sum of all times zero: NaN if one was not finite.
#[derive(Clone, Copy)]
pub struct Range {
    least: f32,
    most: f32,
    taint: f32,
}

impl Range {
    pub const ZERO: Self = Self { least: 0.0, most: 0.0, taint: 0.0 };

    #[inline(always)]
    fn of<S: Simd>(simd: S, values: &[f32]) -> Self {
        let (vectors, rest) = S::as_simd_f32s(values);
        let (pairs, single) = vectors.as_chunks::<2>();
        // Two of each, as one would have to wait for itself.
        let (mut first, mut second) = (Seen::nothing(simd), Seen::nothing(simd));
        for pair in pairs {
            first.take(simd, pair[0]);
            second.take(simd, pair[1]);
        }
        for vector in single {
            first.take(simd, *vector);
        }
        if !rest.is_empty() {
            second.take(simd, simd.partial_load_f32s(rest));
        }
        first.and(simd, second).range(simd)
    }

    /// Takes in what `other` has seen.
    pub fn and(self, other: Self) -> Self {
        Self {
            least: lesser(self.least, other.least),
            most: greater(self.most, other.most),
            taint: self.taint + other.taint,
        }
    }

    /// A code for every value seen. Its scale is NaN when one was not finite, so that the products are.
    #[inline(always)]
    pub fn coder(self) -> Coder {
        let Self { least, most, taint } = self;
        let share = *SHARE;
        let scale = most * share - least * share;
        // Below this, values are as good as zero, and the scale has no inverse.
        let (scale, per_scale) = if scale >= f32::MIN_POSITIVE { (scale, 1.0 / scale) } else { (0.0, 0.0) };
        let zero = (-least * per_scale).round_ties_even();
        let scale = scale + taint;
        Coder { code: Code { scale, offset: -scale * zero }, per_scale, zero, largest: 255.0 }
    }
}

/// The second when one is NaN, which is one instruction.
#[inline(always)]
fn lesser(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// A [`Range`] in each lane of vectors.
struct Seen<S: Simd> {
    least: S::f32s,
    most: S::f32s,
    taint: S::f32s,
}

impl<S: Simd> Seen<S> {
    #[inline(always)]
    fn nothing(simd: S) -> Self {
        let zero = simd.splat_f32s(0.0);
        Self { least: zero, most: zero, taint: zero }
    }

    #[inline(always)]
    fn take(&mut self, simd: S, values: S::f32s) {
        self.least = simd.min_f32s(values, self.least);
        self.most = simd.max_f32s(values, self.most);
        self.taint = simd.mul_add_f32s(values, simd.splat_f32s(0.0), self.taint);
    }

    #[inline(always)]
    fn and(self, simd: S, other: Self) -> Self {
        Self {
            least: simd.min_f32s(self.least, other.least),
            most: simd.max_f32s(self.most, other.most),
            taint: simd.add_f32s(self.taint, other.taint),
        }
    }

    #[inline(always)]
    fn range(self, simd: S) -> Range {
        Range {
            least: simd.reduce_min_f32s(self.least),
            most: simd.reduce_max_f32s(self.most),
            taint: simd.reduce_sum_f32s(self.taint),
        }
    }
}

impl Coder {
    /// Adding 1.5·2²³ rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;

    /// Bytes per value.
    #[inline(always)]
    pub fn per_scale(self) -> f32 {
        self.per_scale
    }

    /// The byte of 0.
    pub fn zero(self) -> u8 {
        self.zero as u8
    }

    /// For values between zero and `most`: what is larger becomes as large as that.
    pub fn up_to(most: f32) -> Self {
        let largest = f32::from(Instructions::best().largest_byte());
        Self { largest, ..Range { most, ..Range::ZERO }.coder() }
    }

    /// The largest place in 8 bits, and in 16.
    #[inline(always)]
    pub fn largest(self) -> [f32; 2] {
        [self.largest, self.largest * FINE + (FINE - 1.0)]
    }

    /// Whether nothing below zero has a byte.
    pub fn begins_with_zero(self) -> bool {
        self.zero == 0.0
    }

    /// Rounds to the nearest byte, halves to the even one.
    #[inline(always)]
    pub fn encode<B: Byte>(self, values: &[f32], bytes: &mut [B]) {
        for (byte, value) in bytes.iter_mut().zip(values) {
            let place = lesser(greater(value * self.per_scale + self.zero, 0.0), self.largest);
            byte.put((place + Self::ROUND).to_bits() as u8);
        }
    }

    /// The same in 16 bits: the nearest 256th of a step, and the byte nearest to that.
    #[inline(always)]
    pub fn encode_finely<B: Byte>(self, values: &[f32], bytes: &mut [B], rests: &mut [B]) {
        let ((per_scale, half_below_zero), [_, largest]) = (self.fine(), self.largest());
        for ((byte, rest), value) in bytes.iter_mut().zip(rests).zip(values) {
            // As zero lies on a byte, the range may reach half a step beyond the first or last one: just what 16 bits hold.
            let place = lesser(greater(value * per_scale + half_below_zero, 0.0), largest);
            let [first, second] = ((place + Self::ROUND).to_bits() as u16).to_be_bytes();
            byte.put(first);
            rest.put(second);
        }
    }

    /// 256ths of a step per value, and the place of zero among them.
    #[inline(always)]
    pub fn fine(self) -> (f32, f32) {
        (self.per_scale * FINE, (self.zero + 0.5) * FINE)
    }
}

/// [`Coder::encode`] compiled for this machine, of a coder for the range of these values.
pub fn encode<B: Byte>(coder: Coder, values: &[f32], bytes: &mut [B]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V4::try_new() {
        return x86::encode_values(simd, coder, values, bytes);
    }
    vectorized(
        #[inline(always)]
        || coder.encode(values, bytes),
    );
}

/// The same of [`Coder::encode_finely`].
pub fn encode_finely<B: Byte>(coder: Coder, values: &[f32], bytes: &mut [B], rests: &mut [B]) {
    vectorized(
        #[inline(always)]
        || coder.encode_finely(values, bytes, rests),
    );
}

/// Codes rows of `length` values each, one after the other; `bytes` is as long as `values`, `codes` has one per row.
pub fn encode_rows(values: &[f32], length: usize, bytes: &mut [u8], codes: &mut [Code]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V4::try_new() {
        return x86::encode_rows(simd, values, length, bytes, codes);
    }
    encode_portable(values, length, bytes, codes);
}

/// The same on any machine.
fn encode_portable(values: &[f32], length: usize, bytes: &mut [u8], codes: &mut [Code]) {
    struct Encode<'a>(&'a [f32], usize, &'a mut [u8], &'a mut [Code]);

    impl WithSimd for Encode<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Self(values, length, bytes, codes) = self;
            let rows = values.chunks_exact(length).zip(bytes.chunks_exact_mut(length));
            for ((values, bytes), code) in rows.zip(codes) {
                let coder = Range::of(simd, values).coder();
                coder.encode(values, bytes);
                *code = coder.code;
            }
        }
    }
    Arch::new().dispatch(Encode(values, length, bytes, codes));
}

/// Codes rows by the codes of [`encode_rows`] in 16 bits each: a byte, and a rest for [`Code::fine`].
pub fn encode_rows_finely(
    values: &[f32],
    length: usize,
    bytes: &mut [MaybeUninit<u8>],
    rests: &mut [MaybeUninit<u8>],
    codes: &mut [Code],
) {
    assert!(values.len() == bytes.len() && values.len() == rests.len(), "two bytes for each value");
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V4::try_new() {
        return x86::encode_rows_finely(simd, values, length, (bytes, rests), codes);
    }
    encode_portable_finely(values, length, bytes, rests, codes);
}

/// The same on any machine.
fn encode_portable_finely(
    values: &[f32],
    length: usize,
    bytes: &mut [MaybeUninit<u8>],
    rests: &mut [MaybeUninit<u8>],
    codes: &mut [Code],
) {
    let rows = bytes.chunks_exact_mut(length).zip(rests.chunks_exact_mut(length)).zip(codes);
    for (values, ((bytes, rests), code)) in values.chunks_exact(length).zip(rows) {
        let coder = range(values).coder();
        encode_finely(coder, values, bytes, rests);
        *code = coder.code;
    }
}

/// The range of many values.
pub fn range(values: &[f32]) -> Range {
    struct Measure<'a>(&'a [f32]);

    impl WithSimd for Measure<'_> {
        type Output = Range;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Range {
            Range::of(simd, self.0)
        }
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V4::try_new() {
        return x86::range_of(simd, values);
    }
    Arch::new().dispatch(Measure(values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{space, written};

    type Bytes = [MaybeUninit<u8>];

    fn coded(values: &[f32]) -> (Code, Vec<u8>) {
        let (mut bytes, mut codes) = (vec![0; values.len()], [Code::default()]);
        encode_rows(values, values.len(), &mut bytes, &mut codes);
        (codes[0], bytes)
    }

    #[test]
    fn every_value_is_within_half_a_step_and_zero_is_exact() {
        for (low, high, count) in [(-1.0, 2.0, 1), (-0.17, 9.0, 37), (0.0, 6.0, 64), (-3.0, 0.0, 100), (5.0, 6.0, 19)] {
            let mut values: Vec<f32> =
                (0..count).map(|index| low + (high - low) * (index as f32 * 0.618).fract()).collect();
            values.push(0.0);
            let (code, bytes) = coded(&values);
            for (value, byte) in values.iter().zip(bytes) {
                let decoded = code.offset + code.scale * f32::from(byte);
                assert!((decoded - value).abs() <= 0.5001 * code.scale + 1e-7, "{value} became {decoded}");
                assert!(*value != 0.0 || decoded == 0.0);
            }
            assert!(code.scale <= (high.max(0.0) - low.min(0.0)) * SHARE.next_up().next_up());
        }
    }

    #[test]
    fn every_machine_makes_the_same_bytes_of_rows_of_any_length() {
        for length in (1..70).chain([127, 128, 129, 300]) {
            let mut values: Vec<f32> =
                (0..3 * length).map(|index| (index as f32 * 0.618).fract() * 5.0 - 1.3).collect();
            values[length] = f32::NAN;
            let [mut ours, mut portable] = [vec![7; 3 * length + 20], vec![7; 3 * length + 20]];
            let [mut our_codes, mut portable_codes] = [[Code::default(); 3]; 2];
            encode_rows(&values, length, &mut ours, &mut our_codes);
            encode_portable(&values, length, &mut portable, &mut portable_codes);
            assert_eq!(ours[..length], portable[..length], "{length}");
            assert_eq!(ours[2 * length..], portable[2 * length..], "{length}, and nothing behind");
            assert!([0, 2].map(|row| our_codes[row]) == [0, 2].map(|row| portable_codes[row]));
            assert!(our_codes[1].scale.is_nan() && portable_codes[1].scale.is_nan());
            let fine = |encode: fn(&[f32], usize, &mut Bytes, &mut Bytes, &mut [Code])| {
                let ([mut bytes, mut rests], mut codes) = ([(); 2].map(|()| space(3 * length)), [Code::default(); 3]);
                encode(&values, length, &mut bytes, &mut rests, &mut codes);
                // SAFETY: all have been written.
                [bytes, rests].map(|bytes| unsafe { written(bytes) })
            };
            let [ours, portable] = [fine(encode_rows_finely), fine(encode_portable_finely)];
            for row in [0, 2] {
                let [ours, portable] =
                    [&ours, &portable].map(|fine| fine.each_ref().map(|all| &all[row * length..][..length]));
                assert_eq!(ours, portable, "{length}");
            }
        }
    }

    #[test]
    fn halves_go_to_the_even_byte() {
        let largest = Instructions::best().largest_byte();
        let most = f32::from(largest);
        let (code, bytes) = coded(&[0.0, 0.5, 1.5, 2.5, most - 0.5, most]);
        assert_eq!((code.scale, bytes), (1.0, vec![0, 0, 2, 2, largest - 1, largest]));
    }

    #[test]
    fn values_that_are_not_finite_make_the_code_nan_and_tiny_ones_are_zero() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 3, 18] {
                let mut values = vec![1.0; 19];
                values[place] = odd;
                assert!(coded(&values).0.scale.is_nan(), "{odd} at {place}");
            }
        }
        assert_eq!(coded(&[1e-40, -1e-41]), (Code::default(), vec![0, 0]));
        let (code, bytes) = coded(&[-3e38, 3e38]);
        let most = Instructions::best().largest_byte();
        assert!(code.scale.is_finite() && bytes[0] <= 1 && bytes[1] >= most - 1, "{code:?} {bytes:?}");
        assert!(range(&[1.0, 2.0]).and(range(&[f32::NAN])).coder().code.scale.is_nan());
    }
}
