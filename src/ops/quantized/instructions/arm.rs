//! Byte products of ARMv8.2 and later (every Apple processor): both factors signed, so the rows' bytes are shifted.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use pulp::aarch64::Neon;
use pulp::f32x4;

use super::compile_kernel;
use crate::ops::quantized::kernel::Dot;
use crate::ops::quantized::matrix::Bytes;

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

compile_kernel!(DotProduct, #[target_feature(enable = "neon,dotprod")], 4, [6 3 1], [3 1]);
