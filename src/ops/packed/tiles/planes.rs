//! Floats as sums of three bf16 numbers, in the order that tile registers read them in.
//!
//! A float has 24 significant bits and a bf16 number 8: rounding to one, and what is left to another, leaves a third that is
//! exact (but for values under 2⁻¹¹⁰, whose last bits are lost). The three are kept in planes: high, middle, low.
//!
//! The depth lies in blocks of 32. A block of sixteen rows is a tile per plane; a row's values `p` and `p + 16` of a block lie
//! beside each other, as do those of a column in the other factor, where a tile's row has such a pair of each column.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use crate::ops::amx::{ROW_BYTES, SIDE};
use crate::ops::packed::matrix::{BLOCK, Line, PANEL};

pub const TILE_BYTES: usize = SIDE * ROW_BYTES;
/// Lines of a block: three tiles.
pub const BLOCK_LINES: usize = 3 * SIDE;

/// Writes `row` of a block's tiles from the values `p` (`first`) and `p + 16` (`second`) of its depth.
///
/// # Safety
/// `block` must be three tiles that may be written, and `row` less than 16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn store(block: *mut Line, row: usize, first: __m512, second: __m512) {
    let (first_high, first) = split(first);
    let (second_high, second) = split(second);
    let (first_middle, first) = split(first);
    let (second_middle, second) = split(second);
    let low = (_mm512_castps_si512(first), _mm512_castps_si512(second));
    let planes = [(first_high, second_high), (first_middle, second_middle), low];
    for (plane, (first, second)) in planes.into_iter().enumerate() {
        // The upper halves of both, the first below the second.
        let pairs = _mm512_mask_blend_epi16(0x5555_5555, second, _mm512_srli_epi32::<16>(first));
        // SAFETY: the caller's promise.
        unsafe { _mm512_store_si512(block.add(plane * SIDE + row).cast(), pairs) };
    }
}

/// The nearest numbers of eight bits, and what is left of the values, which is exact.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn split(values: __m512) -> (__m512i, __m512) {
    let half = _mm512_add_epi32(_mm512_castps_si512(values), _mm512_set1_epi32(0x8000));
    let upper = _mm512_and_si512(half, _mm512_set1_epi32(0xFFFF_0000_u32 as i32));
    (upper, _mm512_sub_ps(values, _mm512_castsi512_ps(upper)))
}

/// Brings all lines of a panel into planes.
pub fn store_panel(lines: &[Line], planes: &mut [Line]) {
    // SAFETY: what is written is lines, too.
    let planes = unsafe { &mut *(std::ptr::from_mut(planes) as *mut [MaybeUninit<Line>]) };
    for (block, lines) in planes.chunks_exact_mut(BLOCK_LINES).zip(lines.chunks(BLOCK)) {
        store_block(block, lines);
    }
}

/// Writes the three tiles of sixteen columns whose lines these are, at most [`BLOCK`]; what is missing is zero.
pub fn store_block(planes: &mut [MaybeUninit<Line>], lines: &[Line]) {
    assert!(
        planes.len() == BLOCK_LINES && crate::ops::amx::is_available(),
        "three tiles, and AVX-512 to fill them with"
    );
    let space = planes.as_mut_ptr().cast();
    // SAFETY: three tiles may be written, and a machine with tiles has AVX-512.
    unsafe {
        if let Some(lines) = lines.first_chunk() {
            store_lines(space, lines);
        } else {
            let mut whole = [Line([0.0; PANEL]); BLOCK];
            whole[..lines.len()].copy_from_slice(lines);
            store_lines(space, &whole);
        }
    }
}

/// # Safety
/// `block` must be three tiles that may be written.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn store_lines(block: *mut Line, lines: &[Line; BLOCK]) {
    for row in 0..SIDE {
        // SAFETY: a line is a vector, and aligned to one; the caller's promise.
        unsafe {
            let (first, second) = (&lines[row], &lines[row + SIDE]);
            store(block, row, _mm512_load_ps(first.0.as_ptr()), _mm512_load_ps(second.0.as_ptr()));
        }
    }
}

/// Writes `row` of the block of a row's values, at most [`BLOCK`]; what is missing is zero.
///
/// # Safety
/// As for [`store`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn store_values(block: *mut Line, row: usize, values: &[f32]) {
    // SAFETY: the caller's promise; no more is read than there is.
    unsafe {
        if let Some(values) = values.first_chunk::<BLOCK>() {
            store(block, row, _mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values.as_ptr().add(SIDE)));
        } else {
            let (first, second) = values.split_at(values.len().min(SIDE));
            store(block, row, part(first), part(second));
        }
    }
}

/// At most a vector of values, and zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub fn part(values: &[f32]) -> __m512 {
    let mask = ((1_u32 << values.len()) - 1) as u16;
    // SAFETY: only as many values are read as there are.
    unsafe { _mm512_maskz_loadu_ps(mask, values.as_ptr()) }
}
