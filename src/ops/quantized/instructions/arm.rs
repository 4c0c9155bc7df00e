//! Byte products of ARM: dot products of ARMv8.2 and later (every Apple processor), and tiles of two rows and two columns
//! of ARMv8.6 and later (Apple's from the M2 on). Both factors are signed, so the rows' bytes are shifted.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use pulp::aarch64::Neon;
use pulp::f32x4;

use super::compile_kernel;
use crate::ops::quantized::kernel::{Dot, Each, Run, add_step};
use crate::ops::quantized::matrix::{Bytes, STEP};

#[derive(Debug, Clone, Copy)]
pub struct DotProduct(Neon);

impl DotProduct {
    pub fn new() -> Option<Self> {
        if is_aarch64_feature_detected!("dotprod") { Neon::try_new().map(Self) } else { None }
    }
}

// SAFETY of all methods: the trait's caller promises the instructions and the addresses.
impl Dot for DotProduct {
    type Simd = Neon;
    type Weights = int8x16_t;
    type Values = int8x16_t;
    type Sums = int32x4_t;
    const VECTORS: usize = 4;
    const SHIFT: f32 = 128.0;

    #[inline(always)]
    fn simd(self) -> Neon {
        self.0
    }

    #[inline(always)]
    unsafe fn zero(self) -> int32x4_t {
        // SAFETY: see above.
        unsafe { vdupq_n_s32(0) }
    }

    #[inline(always)]
    unsafe fn weights(self, line: *const Bytes, vector: usize) -> int8x16_t {
        // SAFETY: see above.
        unsafe { vld1q_s8(line.cast::<i8>().add(16 * vector)) }
    }

    #[inline(always)]
    unsafe fn half_weights(self, line: *const Bytes, vector: usize, high: bool) -> int8x16_t {
        // SAFETY: see above.
        unsafe {
            let bytes = vld1q_u8(line.cast::<u8>().add(16 * vector));
            let halves = if high { vshrq_n_u8::<4>(bytes) } else { vandq_u8(bytes, vdupq_n_u8(15)) };
            vsubq_s8(vreinterpretq_s8_u8(halves), vdupq_n_s8(8))
        }
    }

    #[inline(always)]
    unsafe fn values(self, bytes: *const u8) -> int8x16_t {
        // SAFETY: see above.
        unsafe {
            let values = vreinterpretq_s8_s32(vdupq_n_s32(bytes.cast::<i32>().read_unaligned()));
            // Flipping the highest bit subtracts 128.
            veorq_s8(values, vdupq_n_s8(i8::MIN))
        }
    }

    #[inline(always)]
    unsafe fn add_products(self, sums: int32x4_t, values: int8x16_t, weights: int8x16_t) -> int32x4_t {
        let mut sums = sums;
        // SAFETY: see above. The intrinsic for this instruction is not stable yet.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {sums:v}.4s, {values:v}.16b, {weights:v}.16b",
                sums = inout(vreg) sums,
                values = in(vreg) values,
                weights = in(vreg) weights,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sums
    }

    #[inline(always)]
    unsafe fn floats(self, sums: int32x4_t) -> f32x4 {
        // SAFETY: see above; both are four floats.
        unsafe { std::mem::transmute(vcvtq_f32_s32(sums)) }
    }
}

compile_kernel!(DotProduct, #[target_feature(enable = "neon,dotprod")], 4, [5 3 1], [2 1]);

/// The same sums, but those of two rows are computed together: an instruction multiplies eight bytes of both with eight of
/// two columns.
#[derive(Debug, Clone, Copy)]
pub struct TileProduct(DotProduct);

impl TileProduct {
    pub fn new() -> Option<Self> {
        if is_aarch64_feature_detected!("i8mm") { DotProduct::new().map(Self) } else { None }
    }
}

impl Dot for TileProduct {
    type Simd = Neon;
    type Weights = int8x16_t;
    type Values = int8x16_t;
    type Sums = int32x4_t;
    const VECTORS: usize = DotProduct::VECTORS;
    const SHIFT: f32 = DotProduct::SHIFT;

    #[inline(always)]
    fn simd(self) -> Neon {
        self.0.simd()
    }

    #[inline(always)]
    unsafe fn zero(self) -> int32x4_t {
        // SAFETY: see above.
        unsafe { self.0.zero() }
    }

    #[inline(always)]
    unsafe fn weights(self, line: *const Bytes, vector: usize) -> int8x16_t {
        // SAFETY: see above.
        unsafe { self.0.weights(line, vector) }
    }

    #[inline(always)]
    unsafe fn half_weights(self, line: *const Bytes, vector: usize, high: bool) -> int8x16_t {
        // SAFETY: see above.
        unsafe { self.0.half_weights(line, vector, high) }
    }

    #[inline(always)]
    unsafe fn values(self, bytes: *const u8) -> int8x16_t {
        // SAFETY: see above.
        unsafe { self.0.values(bytes) }
    }

    #[inline(always)]
    unsafe fn add_products(self, sums: int32x4_t, values: int8x16_t, weights: int8x16_t) -> int32x4_t {
        // SAFETY: see above.
        unsafe { self.0.add_products(sums, values, weights) }
    }

    #[inline(always)]
    unsafe fn floats(self, sums: int32x4_t) -> f32x4 {
        // SAFETY: see above.
        unsafe { self.0.floats(sums) }
    }

    #[inline(always)]
    unsafe fn add_run<const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
        self,
        sums: &mut Each<int32x4_t, ROWS, PANELS, VECTORS>,
        run: &Run<PANELS>,
    ) {
        // SAFETY: see above.
        unsafe {
            // A row without a partner, and a step without one, are left to dot products.
            let pairs = if ROWS.is_multiple_of(2) { run.steps / 2 } else { 0 };
            if pairs > 0 {
                exchange(sums);
                for step in (0..2 * pairs).step_by(2) {
                    add_tiles(self, sums, run, step);
                }
                exchange(sums);
            }
            for step in 2 * pairs..run.steps {
                add_step(self, sums, run, step);
            }
        }
    }
}

/// Turns two rows' sums of four columns into both rows' sums of two columns each, and back.
///
/// # Safety
/// The machine must have NEON.
#[inline(always)]
unsafe fn exchange<const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    sums: &mut Each<int32x4_t, ROWS, PANELS, VECTORS>,
) {
    for [above, below] in sums.as_chunks_mut().0 {
        for (above, below) in above.as_flattened_mut().iter_mut().zip(below.as_flattened_mut()) {
            // SAFETY: the caller's promise.
            unsafe {
                let [upper, lower] = [*above, *below].map(|row| vreinterpretq_s64_s32(row));
                *above = vreinterpretq_s32_s64(vzip1q_s64(upper, lower));
                *below = vreinterpretq_s32_s64(vzip2q_s64(upper, lower));
            }
        }
    }
}

/// Adds the products of two steps to exchanged sums.
///
/// # Safety
/// As for [`Dot::add_run`], with an even number of rows.
#[inline(always)]
unsafe fn add_tiles<const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    dot: TileProduct,
    sums: &mut Each<int32x4_t, ROWS, PANELS, VECTORS>,
    run: &Run<PANELS>,
    step: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut values = [vdupq_n_s8(0); ROWS];
        for (pair, values) in values[..ROWS / 2].iter_mut().enumerate() {
            let above = run.rows.add(2 * pair * run.row_stride + step * STEP);
            let both = vcombine_u8(vld1_u8(above), vld1_u8(above.add(run.row_stride)));
            *values = veorq_s8(vreinterpretq_s8_u8(both), vdupq_n_s8(i8::MIN));
        }
        for panel in 0..PANELS {
            for vector in 0..VECTORS {
                let weights = |step| vreinterpretq_s32_s8(run.weights(dot, step, panel, vector));
                let (first, second) = (weights(step), weights(step + 1));
                // Eight bytes of columns 0 and 1, then 2 and 3.
                let left = vreinterpretq_s8_s32(vzip1q_s32(first, second));
                let right = vreinterpretq_s8_s32(vzip2q_s32(first, second));
                for ([above, below], values) in sums.as_chunks_mut().0.iter_mut().zip(values) {
                    above[panel][vector] = add_tile(above[panel][vector], values, left);
                    below[panel][vector] = add_tile(below[panel][vector], values, right);
                }
            }
        }
    }
}

/// Adds the products of two rows with two columns: row 0 with both, then row 1.
///
/// # Safety
/// The machine must have i8mm.
#[inline(always)]
unsafe fn add_tile(sums: int32x4_t, values: int8x16_t, weights: int8x16_t) -> int32x4_t {
    let mut sums = sums;
    // SAFETY: the caller's promise. The intrinsic for this instruction is not stable yet.
    unsafe {
        asm!(
            ".arch_extension i8mm",
            "smmla {sums:v}.4s, {values:v}.16b, {weights:v}.16b",
            sums = inout(vreg) sums,
            values = in(vreg) values,
            weights = in(vreg) weights,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

compile_kernel!(TileProduct, #[target_feature(enable = "neon,dotprod,i8mm")], 4, [4 2 1], [2 1]);
