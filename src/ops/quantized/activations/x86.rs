//! Rows as bytes with AVX-512: its masks leave no rest to the values one by one, which are most of a short row.

use std::arch::x86_64::*;

use pulp::NullaryFnOnce;
use pulp::x86::V4;

use super::{Code, Coder, Range};

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

/// Those of the sixteen values from `first` on that a row has.
#[inline(always)]
fn mask(values: &[f32], first: usize) -> __mmask16 {
    match values.len() - first {
        LANES.. => u16::MAX,
        rest => (1 << rest) - 1,
    }
}

/// [`Coder::encode`] with AVX-512.
pub fn encode_values(simd: V4, coder: Coder, values: &[f32], bytes: &mut [u8]) {
    struct Encode<'a>(Coder, &'a [f32], &'a mut [u8]);

    impl NullaryFnOnce for Encode<'_> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            // SAFETY: the machine has the instructions, as the existence of `simd` says.
            unsafe { encode(self.0, self.1, self.2) }
        }
    }
    simd.vectorize(Encode(coder, values, bytes));
}

/// The range of a row's values.
///
/// # Safety
/// The machine must have AVX-512.
#[inline(always)]
unsafe fn range(values: &[f32]) -> Range {
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
unsafe fn encode(coder: Coder, values: &[f32], bytes: &mut [u8]) {
    assert_eq!(values.len(), bytes.len(), "a byte for each value");
    // SAFETY: the caller's promise; only values of the slices are loaded and stored.
    unsafe {
        // Packing takes four values at a time from each vector in turn.
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        let whole = values.len() / (4 * LANES) * (4 * LANES);
        for first in (0..whole).step_by(4 * LANES) {
            let from = values.as_ptr().add(first);
            let low = _mm512_packs_epi32(
                places(coder, _mm512_loadu_ps(from)),
                places(coder, _mm512_loadu_ps(from.add(LANES))),
            );
            let high = _mm512_packs_epi32(
                places(coder, _mm512_loadu_ps(from.add(2 * LANES))),
                places(coder, _mm512_loadu_ps(from.add(3 * LANES))),
            );
            let packed = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
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
