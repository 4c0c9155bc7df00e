//! What becomes of sums that leave the tiles, a row after the other with AVX-512: as [`finish_sums`] finishes them, but what
//! is the same for all rows stays in registers.

use std::arch::x86_64::*;

use super::x86::Avx512Vnni;
use crate::ops::Activation;
use crate::ops::packed::{Line, PANEL};
use crate::ops::quantized::kernel::{Block, finish_sums};

/// Integer sums of a row and two panels.
pub type RowSums = [[i32; PANEL]; 2];

/// What is added to the rows.
const NOTHING: u8 = 0;
const FLOATS: u8 = 1;
const CODED: u8 = 2;

/// Writes rows whose sums are known.
///
/// # Safety
/// As for [`finish_sums`], with as many rows as there are sums.
pub unsafe fn finish<const PANELS: usize>(dot: Avx512Vnni, block: &Block<PANELS>, sums: &[RowSums]) {
    let least = match block.activation {
        Activation::Relu => Some(0.0),
        Activation::Relu6 | Activation::HardSwish => None,
        _ => Some(f32::NEG_INFINITY),
    };
    let floats = if block.bias.is_some() { block.residual } else { Some(block.result.cast_const()) };
    let is_held_and_added = block.bias.is_none() && block.residual.is_some();
    // SAFETY: the caller's promise.
    unsafe {
        match (least, floats, block.passed) {
            _ if block.columns < PANELS * PANEL || is_held_and_added => finish_any(dot, block, sums),
            (Some(least), None, None) => finish_rows::<PANELS, NOTHING>(block, None, least, sums),
            (Some(least), Some(_), None) => finish_rows::<PANELS, FLOATS>(block, floats, least, sums),
            (Some(least), None, Some(_)) => finish_rows::<PANELS, CODED>(block, None, least, sums),
            _ => finish_any(dot, block, sums),
        }
    }
}

/// The same for whole panels, to which nothing or one thing is `ADDED`, and whose values end at `least`.
///
/// # Safety
/// As for [`finish`]; `floats` as for the block's residual.
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn finish_rows<const PANELS: usize, const ADDED: u8>(
    block: &Block<PANELS>,
    floats: Option<*const f32>,
    least: f32,
    sums: &[RowSums],
) {
    // SAFETY: the caller's promise: a scale per column.
    let scales = block.scales.map(|line| load_line(unsafe { &*line }));
    let weight_sums = block.weight_sums.map(|line| load_line(line));
    let bias = block.bias.map_or([_mm512_setzero_ps(); PANELS], |bias| bias.map(|line| load_line(line)));
    let least = _mm512_set1_ps(least);
    for (row, sums) in sums.iter().enumerate() {
        let at = row * block.result_stride;
        // SAFETY: the caller's promise.
        unsafe {
            let code = *block.codes.add(row);
            let (scale, offset) = (_mm512_set1_ps(code.scale), _mm512_set1_ps(code.offset));
            let mut values = bias;
            for panel in 0..PANELS {
                let sum = _mm512_cvtepi32_ps(_mm512_loadu_si512(sums[panel].as_ptr().cast()));
                let start = _mm512_fmadd_ps(offset, weight_sums[panel], bias[panel]);
                values[panel] = _mm512_fmadd_ps(_mm512_mul_ps(sum, scales[panel]), scale, start);
            }
            if ADDED == FLOATS
                && let Some(floats) = floats
            {
                for (panel, value) in values.iter_mut().enumerate() {
                    *value = _mm512_add_ps(*value, _mm512_loadu_ps(floats.add(at + panel * PANEL)));
                }
            }
            if ADDED == CODED
                && let Some(passed) = block.passed
            {
                let code = *passed.codes.add(row);
                let (scale, offset) = (_mm512_set1_ps(code.scale), _mm512_set1_ps(code.offset));
                let places = places::<PANELS>(passed.bytes.add(at), passed.rests.add(at));
                for (value, place) in values.iter_mut().zip(places) {
                    *value = _mm512_fmadd_ps(place, scale, _mm512_add_ps(*value, offset));
                }
            }
            for (panel, value) in values.into_iter().enumerate() {
                // With a NaN in either place the instruction gives the second one.
                _mm512_storeu_ps(block.result.add(at + panel * PANEL), _mm512_max_ps(least, value));
            }
        }
    }
}

/// The values of `256 · byte + rest`, sixteen per panel.
///
/// # Safety
/// So many bytes and rests must be readable.
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
unsafe fn places<const PANELS: usize>(bytes: *const u8, rests: *const u8) -> [__m512; PANELS] {
    let mut places = [_mm512_setzero_ps(); PANELS];
    // SAFETY: the caller's promise.
    unsafe {
        if PANELS == 2 {
            let bytes = _mm512_cvtepu8_epi16(_mm256_loadu_si256(bytes.cast()));
            let rests = _mm512_cvtepu8_epi16(_mm256_loadu_si256(rests.cast()));
            let both = _mm512_or_si512(_mm512_slli_epi16::<8>(bytes), rests);
            places[0] = _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(both)));
            places[1] = _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(both)));
        } else {
            let bytes = _mm256_cvtepu8_epi16(_mm_loadu_si128(bytes.cast()));
            let rests = _mm256_cvtepu8_epi16(_mm_loadu_si128(rests.cast()));
            let both = _mm256_or_si256(_mm256_slli_epi16::<8>(bytes), rests);
            places[0] = _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(both));
        }
    }
    places
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_line(line: &Line) -> __m512 {
    // SAFETY: a line is a vector.
    unsafe { _mm512_load_ps(line.0.as_ptr()) }
}

/// The same in any other case.
///
/// # Safety
/// As for [`finish`].
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn finish_any<const PANELS: usize>(dot: Avx512Vnni, block: &Block<PANELS>, sums: &[RowSums]) {
    for (row, sums) in sums.iter().enumerate() {
        let mut vectors = [[[_mm512_setzero_si512(); 1]; PANELS]];
        // SAFETY: the caller's promise; a panel's sums are a vector.
        unsafe {
            for (vector, sums) in vectors[0].iter_mut().zip(sums) {
                vector[0] = _mm512_loadu_si512(sums.as_ptr().cast());
            }
            finish_sums::<_, 1, PANELS, 1>(dot, &block.below(row), vectors);
        }
    }
}
