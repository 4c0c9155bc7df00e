//! Sixteen values as bytes on x86-64, those below zero as zero: as [`Coder::encode`] and [`Coder::encode_finely`] round them.

use std::arch::x86_64::*;

use crate::ops::quantized::activations::Coder;
use crate::ops::quantized::kernel::CodedPlace;

/// With AVX-512.
///
/// # Safety
/// Sixteen places must be writable.
#[target_feature(enable = "avx512f,avx512vl")]
#[inline]
pub unsafe fn store_16(values: __m512, CodedPlace { bytes, rests, coder }: CodedPlace) {
    // SAFETY: the caller's promise.
    unsafe {
        match rests {
            None => bytes_16(coder, values, bytes),
            Some(rests) => finely_16(coder, values, bytes, rests),
        }
    }
}

/// # Safety
/// Sixteen bytes must be writable.
#[target_feature(enable = "avx512f,avx512vl")]
#[inline]
unsafe fn bytes_16(coder: Coder, values: __m512, bytes: *mut u8) {
    let values = _mm512_max_ps(values, _mm512_setzero_ps());
    let places = nearest_16(_mm512_mul_ps(values, _mm512_set1_ps(coder.per_scale())), coder.largest()[0]);
    // SAFETY: the caller's promise.
    unsafe { _mm_storeu_si128(bytes.cast(), _mm512_cvtepi32_epi8(places)) }
}

/// The same in 16 bits.
///
/// # Safety
/// Sixteen bytes and rests must be writable.
#[target_feature(enable = "avx512f,avx512vl")]
#[inline]
unsafe fn finely_16(coder: Coder, values: __m512, bytes: *mut u8, rests: *mut u8) {
    let (per_scale, half_below_zero) = coder.fine();
    let scaled = _mm512_mul_ps(_mm512_max_ps(values, _mm512_setzero_ps()), _mm512_set1_ps(per_scale));
    let places = nearest_16(_mm512_add_ps(scaled, _mm512_set1_ps(half_below_zero)), coder.largest()[1]);
    // SAFETY: the caller's promise.
    unsafe {
        _mm_storeu_si128(bytes.cast(), _mm512_cvtepi32_epi8(_mm512_srli_epi32::<8>(places)));
        _mm_storeu_si128(rests.cast(), _mm512_cvtepi32_epi8(places));
    }
}

/// The nearest integers, of two the even one, and `most` at most.
#[target_feature(enable = "avx512f")]
#[inline]
fn nearest_16(places: __m512, most: f32) -> __m512i {
    _mm512_cvtps_epi32(_mm512_min_ps(places, _mm512_set1_ps(most)))
}

/// With AVX2.
///
/// # Safety
/// Sixteen places must be writable.
#[target_feature(enable = "avx2")]
#[inline]
pub unsafe fn store_8_8(values: [__m256; 2], CodedPlace { bytes, rests, coder }: CodedPlace) {
    // SAFETY: the caller's promise.
    unsafe {
        match rests {
            None => bytes_8_8(coder, values, bytes),
            Some(rests) => finely_8_8(coder, values, bytes, rests),
        }
    }
}

/// # Safety
/// Sixteen bytes must be writable.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn bytes_8_8(coder: Coder, values: [__m256; 2], bytes: *mut u8) {
    let (per_scale, zero) = (_mm256_set1_ps(coder.per_scale()), _mm256_setzero_ps());
    let scaled = values.map(|values| _mm256_mul_ps(_mm256_max_ps(values, zero), per_scale));
    let places = nearest_8_8(scaled, coder.largest()[0]);
    let packed = _mm_packus_epi16(_mm256_castsi256_si128(places), _mm256_extracti128_si256::<1>(places));
    // SAFETY: the caller's promise.
    unsafe { _mm_storeu_si128(bytes.cast(), packed) }
}

/// The same in 16 bits.
///
/// # Safety
/// Sixteen bytes and rests must be writable.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn finely_8_8(coder: Coder, values: [__m256; 2], bytes: *mut u8, rests: *mut u8) {
    let (per_scale, half_below_zero) = coder.fine();
    let (per_scale, half_below_zero) = (_mm256_set1_ps(per_scale), _mm256_set1_ps(half_below_zero));
    let scaled = values.map(|values| {
        _mm256_add_ps(_mm256_mul_ps(_mm256_max_ps(values, _mm256_setzero_ps()), per_scale), half_below_zero)
    });
    let places = nearest_8_8(scaled, coder.largest()[1]);
    let (upper, lower) = (_mm256_srli_epi16::<8>(places), _mm256_and_si256(places, _mm256_set1_epi16(255)));
    let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(upper, lower));
    // SAFETY: the caller's promise.
    unsafe {
        _mm_storeu_si128(bytes.cast(), _mm256_castsi256_si128(both));
        _mm_storeu_si128(rests.cast(), _mm256_extracti128_si256::<1>(both));
    }
}

/// As [`nearest_16`], in 16 bits each.
#[target_feature(enable = "avx2")]
#[inline]
fn nearest_8_8(places: [__m256; 2], most: f32) -> __m256i {
    let [one, other] = places.map(|places| _mm256_cvtps_epi32(_mm256_min_ps(places, _mm256_set1_ps(most))));
    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(one, other))
}
