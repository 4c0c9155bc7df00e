//! Byte products without special instructions.

use pulp::Scalar;

use super::compile_kernel;
use crate::ops::quantized::kernel::{Dot, Floats};
use crate::ops::quantized::matrix::{Bytes, STEP};

#[derive(Debug, Clone, Copy)]
pub struct Portable;

impl Dot for Portable {
    type Simd = Scalar;
    type Weights = [i8; STEP];
    type Values = [u8; STEP];
    type Sums = i32;
    const VECTORS: usize = 16;
    const SHIFT: f32 = 0.0;

    #[inline(always)]
    fn simd(self) -> Scalar {
        Scalar
    }

    #[inline(always)]
    unsafe fn zero(self) -> i32 {
        0
    }

    #[inline(always)]
    unsafe fn weights(self, line: *const Bytes, vector: usize) -> [i8; STEP] {
        // SAFETY: the caller promises the line.
        unsafe { line.cast::<[i8; STEP]>().add(vector).read() }
    }

    #[inline(always)]
    unsafe fn half_weights(self, line: *const Bytes, vector: usize, high: bool) -> [i8; STEP] {
        // SAFETY: the caller promises the line.
        let bytes = unsafe { line.cast::<[u8; STEP]>().add(vector).read() };
        bytes.map(|byte| (if high { byte >> 4 } else { byte & 15 }) as i8 - 8)
    }

    #[inline(always)]
    unsafe fn values(self, bytes: *const u8) -> [u8; STEP] {
        // SAFETY: the caller promises four bytes.
        unsafe { bytes.cast::<[u8; STEP]>().read() }
    }

    #[inline(always)]
    unsafe fn add_products(self, sums: i32, values: [u8; STEP], weights: [i8; STEP]) -> i32 {
        let products = values.into_iter().zip(weights).map(|(value, weight)| i32::from(value) * i32::from(weight));
        sums + products.sum::<i32>()
    }

    #[inline(always)]
    unsafe fn floats(self, sums: i32) -> Floats<Self> {
        sums as f32
    }
}

compile_kernel!(Portable, , 16, [2 1], [1]);
