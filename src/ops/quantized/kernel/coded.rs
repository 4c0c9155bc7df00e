//! Rows of bytes: what is added to sums, and what they become.

use std::mem::MaybeUninit;

use pulp::Simd;

use super::{Block, CodedPlace, Dot, Each, Floats};
use crate::ops::packed::{Line, PANEL};

/// Writes the sums, with the residual added to them, as bytes.
///
/// # Safety
/// As for [`super::multiply`].
#[inline(always)]
pub unsafe fn write_coded<D: Dot, const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    dot: D,
    totals: Each<Floats<D>, ROWS, PANELS, VECTORS>,
    block: &Block<PANELS>,
    coded: CodedPlace,
) {
    for (row, totals) in totals.into_iter().enumerate() {
        for (panel, mut values) in totals.into_iter().enumerate() {
            let at = row * block.result_stride + panel * PANEL;
            let columns = block.columns.saturating_sub(panel * PANEL);
            // SAFETY: the caller's promise.
            unsafe {
                if columns >= PANEL {
                    if let Some(residual) = block.residual {
                        for (vector, value) in values.iter_mut().enumerate() {
                            let added = residual.add(at + vector * (PANEL / VECTORS)).cast::<Floats<D>>();
                            *value = dot.simd().add_f32s(*value, added.read_unaligned());
                        }
                    }
                    dot.store(values, coded.at(at));
                } else if columns > 0 {
                    let mut line = line_of::<D, VECTORS>(values);
                    if let Some(residual) = block.residual {
                        let residual = std::slice::from_raw_parts(residual.add(at), columns);
                        line.0.iter_mut().zip(residual).for_each(|(value, added)| *value += added);
                    }
                    encode(&mut line.0[..columns], coded.at(at));
                }
            }
        }
    }
}

/// A panel's values.
#[inline(always)]
pub fn line_of<D: Dot, const VECTORS: usize>(values: [Floats<D>; VECTORS]) -> Line {
    let mut line = Line([0.0; PANEL]);
    assert!(size_of_val(&values) == size_of_val(&line.0), "a panel is so many vectors");
    // SAFETY: a line is `VECTORS` vectors long, and aligned to more than a vector.
    unsafe { line.0.as_mut_ptr().cast::<[Floats<D>; VECTORS]>().write(values) };
    line
}

/// Codes some values of a row, those below zero as zero.
///
/// # Safety
/// So many places must be writable.
#[inline(always)]
pub unsafe fn encode(values: &mut [f32], CodedPlace { bytes, rests, coder }: CodedPlace) {
    values.iter_mut().for_each(|value| *value = value.max(0.0));
    // SAFETY: the caller's promise.
    let space =
        |bytes: *mut u8| unsafe { std::slice::from_raw_parts_mut(bytes.cast::<MaybeUninit<u8>>(), values.len()) };
    match rests {
        None => coder.encode(values, space(bytes)),
        Some(rests) => coder.encode_finely(values, space(bytes), space(rests)),
    }
}

/// A vector of `256 · byte + rest`, as far as there are columns.
///
/// # Safety
/// So many bytes and rests must be readable.
#[inline(always)]
pub unsafe fn places<D: Dot>(bytes: *const u8, rests: *const u8, columns: usize) -> Floats<D> {
    let mut places = Line([0.0; PANEL]);
    // SAFETY: the caller's promise.
    let place = |lane: usize| unsafe { f32::from(u16::from(*bytes.add(lane)) << 8 | u16::from(*rests.add(lane))) };
    let lanes = PANEL / D::VECTORS;
    // So many at a time become vectors.
    if columns >= lanes {
        places.0[..lanes].iter_mut().enumerate().for_each(|(lane, value)| *value = place(lane));
    } else {
        places.0[..columns].iter_mut().enumerate().for_each(|(lane, value)| *value = place(lane));
    }
    // SAFETY: a line is `VECTORS` vectors long, and aligned to more than a vector.
    unsafe { places.0.as_ptr().cast::<Floats<D>>().read() }
}
