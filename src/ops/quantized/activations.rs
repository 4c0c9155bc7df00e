//! The left factor in bytes: each row, or each image, is coded by the range of its own values.

use crate::ops::vectorized;

/// A byte `b` stands for `offset + scale · b`. Zero is among the values that a code has.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Code {
    pub scale: f32,
    pub offset: f32,
}

/// How a code's values become bytes.
#[derive(Clone, Copy)]
pub struct Coder {
    pub code: Code,
    per_scale: f32,
    zero: f32,
}

/// Smallest and largest of some values and zero, and their sum times zero: NaN if one was not finite.
#[derive(Clone, Copy)]
pub struct Range {
    least: f32,
    most: f32,
    taint: f32,
}

/// Values that are looked at together: two of the widest registers.
const LANES: usize = 32;

impl Range {
    pub const ZERO: Self = Self { least: 0.0, most: 0.0, taint: 0.0 };

    #[inline(always)]
    fn of(values: &[f32]) -> Self {
        let [mut least, mut most, mut sum] = [[0.0; LANES]; 3];
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                least[lane] = lesser(chunk[lane], least[lane]);
                most[lane] = greater(chunk[lane], most[lane]);
                sum[lane] += chunk[lane];
            }
        }
        let (chunks, rest) = rest.as_chunks::<8>();
        for chunk in chunks {
            for lane in 0..8 {
                least[lane] = lesser(chunk[lane], least[lane]);
                most[lane] = greater(chunk[lane], most[lane]);
                sum[lane] += chunk[lane];
            }
        }
        for (lane, &value) in rest.iter().enumerate() {
            least[lane] = lesser(value, least[lane]);
            most[lane] = greater(value, most[lane]);
            sum[lane] += value;
        }
        Self { least: folded(least, lesser), most: folded(most, greater), taint: folded(sum, |a, b| a + b) * 0.0 }
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
        let scale = most * (1.0 / 255.0) - least * (1.0 / 255.0);
        // Below this, values are as good as zero, and the scale has no inverse.
        let (scale, per_scale) = if scale >= f32::MIN_POSITIVE { (scale, 1.0 / scale) } else { (0.0, 0.0) };
        let zero = (-least * per_scale).round_ties_even();
        let scale = scale + taint;
        Coder { code: Code { scale, offset: -scale * zero }, per_scale, zero }
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

/// Halves with halves, so that it is done in few steps.
#[inline(always)]
fn folded(mut lanes: [f32; LANES], pair: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES;
    while half > 1 {
        half /= 2;
        for lane in 0..half {
            lanes[lane] = pair(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

impl Coder {
    /// The byte of 0.
    pub fn zero(self) -> u8 {
        self.zero as u8
    }

    /// Rounds to the nearest byte, halves to the even one.
    #[inline(always)]
    pub fn encode(self, values: &[f32], bytes: &mut [u8]) {
        // Adding 1.5·2²³ rounds to an integer and leaves it in the low bits.
        const ROUND: f32 = 12_582_912.0;
        for (byte, value) in bytes.iter_mut().zip(values) {
            let place = lesser(greater(value * self.per_scale + self.zero, 0.0), 255.0);
            *byte = (place + ROUND).to_bits() as u8;
        }
    }
}

/// Codes rows of `length` values each, one after the other; `bytes` is as long as `values`, `codes` has one per row.
pub fn encode_rows(values: &[f32], length: usize, bytes: &mut [u8], codes: &mut [Code]) {
    vectorized(
        #[inline(always)]
        || {
            let rows = values.chunks_exact(length).zip(bytes.chunks_exact_mut(length));
            for ((values, bytes), code) in rows.zip(codes) {
                *code = encode_row(values, bytes);
            }
        },
    );
}

/// One row, inside a loop that is already compiled for this machine's vector instructions.
#[inline(always)]
pub fn encode_row(values: &[f32], bytes: &mut [u8]) -> Code {
    let coder = Range::of(values).coder();
    coder.encode(values, bytes);
    coder.code
}

/// The range of many values.
pub fn range(values: &[f32]) -> Range {
    vectorized(
        #[inline(always)]
        || Range::of(values),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(code.scale <= (high.max(0.0) - low.min(0.0)) / 254.99);
        }
    }

    #[test]
    fn halves_go_to_the_even_byte() {
        let (code, bytes) = coded(&[0.0, 0.5, 1.5, 2.5, 254.5, 255.0]);
        assert_eq!((code.scale, bytes), (1.0, vec![0, 0, 2, 2, 254, 255]));
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
        assert!(code.scale.is_finite() && bytes[0] <= 1 && bytes[1] >= 254, "{code:?} {bytes:?}");
        assert!(range(&[1.0, 2.0]).and(range(&[f32::NAN])).coder().code.scale.is_nan());
    }
}
