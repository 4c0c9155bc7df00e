//! Rows as bytes with AVX-512: its masks leave no rest to the values one by one, which are most of a short row.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use pulp::NullaryFnOnce;
use pulp::x86::V4;

use super::{Byte, Code, Coder, Range};

/// Values of a vector.
const LANES: usize = 16;

/// Codes rows as [`super::encode_rows`] does.
pub fn encode_rows(simd: V4, values: &[f32], length: usize, bytes: &mut [u8], codes: &mut [Code]) {
    struct Encode<'a>(&'a [f32], usize, &'a mut [u8], &'a mut [Code]);

    impl NullaryFnOnce for Encode<'_> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            let Self(values, length, bytes, codes) = self;
            let rows = values.chunks_exact(length).zip(bytes.chunks_exact_mut(length));
            for ((values, bytes), code) in rows.zip(codes) {
                // SAFETY: the machine has the instructions, as the existence of `simd` says.
                unsafe {
                    let coder = range(values).coder();
                    encode(coder, values, bytes);
                    *code = coder.code;
                }
            }
        }
    }
    simd.vectorize(Encode(values, length, bytes, codes));
}

/// Codes rows as [`super::encode_rows_finely`] does.
pub fn encode_rows_finely(
    simd: V4,
    values: &[f32],
    length: usize,
    (bytes, rests): (&mut [MaybeUninit<u8>], &mut [MaybeUninit<u8>]),
    codes: &mut [Code],
) {
    struct Encode<'a>(&'a [f32], usize, [&'a mut [MaybeUninit<u8>]; 2], &'a mut [Code]);

    impl NullaryFnOnce for Encode<'_> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            let Self(values, length, [bytes, rests], codes) = self;
            let rows = bytes.chunks_exact_mut(length).zip(rests.chunks_exact_mut(length)).zip(codes);
            for (values, ((bytes, rests), code)) in values.chunks_exact(length).zip(rows) {
                // SAFETY: the machine has the instructions, as the existence of `simd` says.
                unsafe {
                    let coder = range(values).coder();
                    encode_finely(coder, values, bytes, rests);
                    *code = coder.code;
                }
            }
        }
    }
    simd.vectorize(Encode(values, length, [bytes, rests], codes));
}

/// Those of the sixteen values from `first` on that a row has.
#[inline(always)]
fn mask(values: &[f32], first: usize) -> __mmask16 {
    match values.len() - first {
        LANES.. => u16::MAX,
        rest => (1 << rest) - 1,
    }
}

/// [`Coder::encode`] with AVX-512.
pub fn encode_values<B: Byte>(simd: V4, coder: Coder, values: &[f32], bytes: &mut [B]) {
    struct Encode<'a, B>(Coder, &'a [f32], &'a mut [B]);

    impl<B: Byte> NullaryFnOnce for Encode<'_, B> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            // SAFETY: the machine has the instructions, as the existence of `simd` says.
            unsafe { encode(self.0, self.1, self.2) }
        }
    }
    simd.vectorize(Encode(coder, values, bytes));
}

/// [`super::range`] with AVX-512.
pub fn range_of(simd: V4, values: &[f32]) -> Range {
    struct Measure<'a>(&'a [f32]);

    impl NullaryFnOnce for Measure<'_> {
        type Output = Range;

        #[inline(always)]
        fn call(self) -> Range {
            // SAFETY: the machine has the instructions, as the existence of `simd` says.
            unsafe { range(self.0) }
        }
    }
    simd.vectorize(Measure(values))
}

/// The range of a row's values.
///
/// # Safety
/// The machine must have AVX-512.
#[inline(always)]
unsafe fn range(values: &[f32]) -> Range {
    // SAFETY: the caller's promise.
    unsafe {
        match range_from_zero(values) {
            Some(range) => range,
            None => any_range(values),
        }
    }
}

/// The same if none of the values is negative, as behind a ReLU.
///
/// # Safety
/// The machine must have AVX-512.
#[inline(always)]
unsafe fn range_from_zero(values: &[f32]) -> Option<Range> {
    const INFINITY: i32 = f32::INFINITY.to_bits() as i32;
    // SAFETY: the caller's promise; only values of the slice are loaded.
    unsafe {
        // Such values are in the order of their bits; beyond all of them are those that are not finite or negative.
        let mut most = _mm512_maskz_loadu_epi32(mask(values, 0), values.as_ptr().cast());
        if _mm512_movepi32_mask(most) != 0 {
            return None;
        }
        let (vectors, rest) = values.as_chunks::<LANES>();
        let (pairs, single) = vectors.as_chunks::<2>();
        let mut other = most;
        for [one, two] in pairs {
            most = _mm512_max_epu32(most, _mm512_loadu_si512(one.as_ptr().cast()));
            other = _mm512_max_epu32(other, _mm512_loadu_si512(two.as_ptr().cast()));
        }
        for vector in single {
            most = _mm512_max_epu32(most, _mm512_loadu_si512(vector.as_ptr().cast()));
        }
        if !rest.is_empty() {
            let rest = _mm512_maskz_loadu_epi32(mask(rest, 0), rest.as_ptr().cast());
            other = _mm512_max_epu32(other, rest);
        }
        let most = _mm512_max_epu32(most, other);
        let is_known = _mm512_cmpge_epu32_mask(most, _mm512_set1_epi32(INFINITY)) == 0;
        if is_known {
            Some(Range { most: _mm512_reduce_max_ps(_mm512_castsi512_ps(most)), ..Range::ZERO })
        } else {
            None
        }
    }
}

/// The same of any values.
///
/// # Safety
/// The machine must have AVX-512.
#[inline(always)]
unsafe fn any_range(values: &[f32]) -> Range {
    // SAFETY: the caller's promise; only values of the slice are loaded.
    unsafe {
        let zero = _mm512_setzero_ps();
        // Two of each, as one would have to wait for itself.
        let (mut least, mut most, mut taint) = ([zero; 2], [zero; 2], [zero; 2]);
        for first in (0..values.len()).step_by(2 * LANES) {
            for place in 0..2 {
                let first = first + place * LANES;
                if first < values.len() {
                    let vector = _mm512_maskz_loadu_ps(mask(values, first), values.as_ptr().add(first));
                    least[place] = _mm512_min_ps(vector, least[place]);
                    most[place] = _mm512_max_ps(vector, most[place]);
                    taint[place] = _mm512_fmadd_ps(vector, zero, taint[place]);
                }
            }
        }
        let taint = _mm512_add_ps(taint[0], taint[1]);
        let is_tainted = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(taint, taint) != 0;
        Range {
            least: _mm512_reduce_min_ps(_mm512_min_ps(least[0], least[1])),
            most: _mm512_reduce_max_ps(_mm512_max_ps(most[0], most[1])),
            taint: if is_tainted { f32::NAN } else { 0.0 },
        }
    }
}

/// [`Coder::encode`] of a row, whose bytes are as many.
///
/// # Safety
/// The machine must have AVX-512.
#[inline(always)]
unsafe fn encode<B: Byte>(coder: Coder, values: &[f32], bytes: &mut [B]) {
    assert_eq!(values.len(), bytes.len(), "a byte for each value");
    // SAFETY: the caller's promise; only values of the slices are loaded and stored.
    unsafe {
        let order = packed_order();
        let whole = values.len() / (4 * LANES) * (4 * LANES);
        for first in (0..whole).step_by(4 * LANES) {
            let [a, b, c, d] = four_places(coder, values.as_ptr().add(first));
            let packed = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            let packed = _mm512_permutexvar_epi32(order, packed);
            _mm512_storeu_si512(bytes.as_mut_ptr().add(first).cast(), packed);
        }
        for first in (whole..values.len()).step_by(LANES) {
            let mask = mask(values, first);
            let places = places(coder, _mm512_maskz_loadu_ps(mask, values.as_ptr().add(first)));
            let places = _mm512_max_epi32(places, _mm512_setzero_si512());
            _mm512_mask_cvtusepi32_storeu_epi8(bytes.as_mut_ptr().add(first).cast(), mask, places);
        }
    }
}

/// Coder's `encode_finely` of a row, whose bytes and rests are as many.
///
/// # Safety
/// The machine must have AVX-512.
#[inline(always)]
unsafe fn encode_finely(coder: Coder, values: &[f32], bytes: &mut [MaybeUninit<u8>], rests: &mut [MaybeUninit<u8>]) {
    assert!(values.len() == bytes.len() && values.len() == rests.len(), "two bytes for each value");
    let (per_scale, zero) = coder.fine();
    let fine = Coder { per_scale, zero, ..coder };
    // SAFETY: the caller's promise; only values of the slices are loaded and stored.
    unsafe {
        let (order, low_byte) = (packed_order(), _mm512_set1_epi16(255));
        let whole = values.len() / (4 * LANES) * (4 * LANES);
        for first in (0..whole).step_by(4 * LANES) {
            let [a, b, c, d] = four_places(fine, values.as_ptr().add(first));
            let (low, high) = (_mm512_packus_epi32(a, b), _mm512_packus_epi32(c, d));
            let upper = _mm512_packus_epi16(_mm512_srli_epi16::<8>(low), _mm512_srli_epi16::<8>(high));
            let lower = _mm512_packus_epi16(_mm512_and_si512(low, low_byte), _mm512_and_si512(high, low_byte));
            let (upper, lower) = (_mm512_permutexvar_epi32(order, upper), _mm512_permutexvar_epi32(order, lower));
            _mm512_storeu_si512(bytes.as_mut_ptr().add(first).cast(), upper);
            _mm512_storeu_si512(rests.as_mut_ptr().add(first).cast(), lower);
        }
        for first in (whole..values.len()).step_by(LANES) {
            let mask = mask(values, first);
            let places = places(fine, _mm512_maskz_loadu_ps(mask, values.as_ptr().add(first)));
            let places = _mm512_min_epi32(_mm512_max_epi32(places, _mm512_setzero_si512()), _mm512_set1_epi32(65_535));
            _mm512_mask_cvtepi32_storeu_epi8(
                bytes.as_mut_ptr().add(first).cast(),
                mask,
                _mm512_srli_epi32::<8>(places),
            );
            _mm512_mask_cvtepi32_storeu_epi8(rests.as_mut_ptr().add(first).cast(), mask, places);
        }
    }
}

/// What brings bytes packed from four vectors into order: packing takes four values at a time from each vector in turn.
///
/// # Safety
/// The machine must have AVX-512.
#[inline(always)]
unsafe fn packed_order() -> __m512i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15) }
}

/// [`places`] of four vectors one after the other.
///
/// # Safety
/// The machine must have AVX-512, and so many values be readable.
#[inline(always)]
unsafe fn four_places(coder: Coder, from: *const f32) -> [__m512i; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        [
            places(coder, _mm512_loadu_ps(from)),
            places(coder, _mm512_loadu_ps(from.add(LANES))),
            places(coder, _mm512_loadu_ps(from.add(2 * LANES))),
            places(coder, _mm512_loadu_ps(from.add(3 * LANES))),
        ]
    }
}

/// The nearest integers to the places of values, of two the even one: yet to be brought into the range of bytes.
///
/// # Safety
/// The machine must have AVX-512.
#[inline(always)]
unsafe fn places(coder: Coder, values: __m512) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let scaled = _mm512_mul_ps(values, _mm512_set1_ps(coder.per_scale));
        _mm512_cvtps_epi32(_mm512_add_ps(scaled, _mm512_set1_ps(coder.zero)))
    }
}
