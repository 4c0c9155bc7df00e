//! Byte products of x86-64: VNNI in 512 and 256 bits, and AVX2, whose byte product adds pairs in 16 bits and saturates: it is
//! exact for rows of seven bits. Where the weights let it, two of its products are added before they become sums of 32 bits.

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::*;

use pulp::x86::{V3, V4};
use pulp::{f32x8, f32x16};

use super::compile_kernel;
use super::store::{store_8_8, store_16};
use crate::ops::quantized::kernel::{CodedPlace, Dot, Each, Run, add_step};
use crate::ops::quantized::matrix::{Bytes, STEP};

#[derive(Debug, Clone, Copy)]
pub struct Avx512Vnni(V4);

impl Avx512Vnni {
    pub fn new() -> Option<Self> {
        if is_x86_feature_detected!("avx512vnni") { V4::try_new().map(Self) } else { None }
    }
}

// SAFETY of all implementations below: the trait's caller promises the instructions and the addresses.
impl Dot for Avx512Vnni {
    type Simd = V4;
    type Weights = __m512i;
    type Values = __m512i;
    type Sums = __m512i;
    const VECTORS: usize = 1;
    const SHIFT: f32 = 0.0;

    #[inline(always)]
    fn simd(self) -> V4 {
        self.0
    }

    #[inline(always)]
    unsafe fn zero(self) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn weights(self, line: *const Bytes, _: usize) -> __m512i {
        // SAFETY: see above; lines are aligned.
        unsafe { _mm512_load_si512(line.cast()) }
    }

    #[inline(always)]
    unsafe fn half_weights(self, line: *const Bytes, _: usize, high: bool) -> __m512i {
        // SAFETY: see above; lines are aligned.
        unsafe {
            let bytes = _mm512_load_si512(line.cast());
            let halves = if high { _mm512_srli_epi16::<4>(bytes) } else { bytes };
            _mm512_sub_epi8(_mm512_and_si512(halves, _mm512_set1_epi8(15)), _mm512_set1_epi8(8))
        }
    }

    #[inline(always)]
    unsafe fn values(self, bytes: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi32(bytes.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn add_products(self, sums: __m512i, values: __m512i, weights: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_dpbusd_epi32(sums, values, weights) }
    }

    #[inline(always)]
    unsafe fn floats(self, sums: __m512i) -> f32x16 {
        // SAFETY: see above; both are sixteen floats.
        unsafe { std::mem::transmute(_mm512_cvtepi32_ps(sums)) }
    }

    #[inline(always)]
    unsafe fn store<const VECTORS: usize>(self, values: [f32x16; VECTORS], place: CodedPlace) {
        // SAFETY: see above; both are sixteen floats.
        unsafe { store_16(std::mem::transmute_copy(&values), place) }
    }
}

compile_kernel!(
    Avx512Vnni,
    #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,bmi1,bmi2,lzcnt,popcnt")],
    1, [14 7 4 2 1], [6 3 1]
);

/// Half a line at `vector`.
///
/// # Safety
/// The line must be readable, and the machine have AVX.
#[inline(always)]
unsafe fn half_line(line: *const Bytes, vector: usize) -> __m256i {
    // SAFETY: the caller's promise; lines are aligned.
    unsafe { _mm256_load_si256(line.cast::<__m256i>().add(vector)) }
}

/// The low or the high halves of bytes, that count from -8.
///
/// # Safety
/// The machine must have AVX2.
#[inline(always)]
unsafe fn halves(bytes: __m256i, high: bool) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let halves = if high { _mm256_srli_epi16::<4>(bytes) } else { bytes };
        _mm256_sub_epi8(_mm256_and_si256(halves, _mm256_set1_epi8(15)), _mm256_set1_epi8(8))
    }
}

/// VNNI of processors without AVX-512.
#[derive(Debug, Clone, Copy)]
pub struct AvxVnni(V3);

impl AvxVnni {
    pub fn new() -> Option<Self> {
        if is_x86_feature_detected!("avxvnni") { V3::try_new().map(Self) } else { None }
    }
}

impl Dot for AvxVnni {
    type Simd = V3;
    type Weights = __m256i;
    type Values = __m256i;
    type Sums = __m256i;
    const VECTORS: usize = 2;
    const SHIFT: f32 = 0.0;

    #[inline(always)]
    fn simd(self) -> V3 {
        self.0
    }

    #[inline(always)]
    unsafe fn zero(self) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn weights(self, line: *const Bytes, vector: usize) -> __m256i {
        // SAFETY: see above.
        unsafe { half_line(line, vector) }
    }

    #[inline(always)]
    unsafe fn half_weights(self, line: *const Bytes, vector: usize, high: bool) -> __m256i {
        // SAFETY: see above.
        unsafe { halves(half_line(line, vector), high) }
    }

    #[inline(always)]
    unsafe fn values(self, bytes: *const u8) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_set1_epi32(bytes.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn add_products(self, sums: __m256i, values: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_dpbusd_avx_epi32(sums, values, weights) }
    }

    #[inline(always)]
    unsafe fn floats(self, sums: __m256i) -> f32x8 {
        // SAFETY: see above; both are eight floats.
        unsafe { std::mem::transmute(_mm256_cvtepi32_ps(sums)) }
    }

    #[inline(always)]
    unsafe fn store<const VECTORS: usize>(self, values: [f32x8; VECTORS], place: CodedPlace) {
        // SAFETY: see above; both are two times eight floats.
        unsafe { store_8_8(std::mem::transmute_copy(&values), place) }
    }
}

compile_kernel!(
    AvxVnni,
    #[target_feature(enable = "avx2,fma,avxvnni,bmi1,bmi2,lzcnt,popcnt")],
    2, [6 3 1], [2 1]
);

#[derive(Debug, Clone, Copy)]
pub struct Avx2(V3);

impl Avx2 {
    pub fn new() -> Option<Self> {
        V3::try_new().map(Self)
    }
}

impl Dot for Avx2 {
    type Simd = V3;
    type Weights = __m256i;
    type Values = __m256i;
    type Sums = __m256i;
    const VECTORS: usize = 2;
    const SHIFT: f32 = 0.0;

    #[inline(always)]
    fn simd(self) -> V3 {
        self.0
    }

    #[inline(always)]
    unsafe fn zero(self) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn weights(self, line: *const Bytes, vector: usize) -> __m256i {
        // SAFETY: see above.
        unsafe { half_line(line, vector) }
    }

    #[inline(always)]
    unsafe fn half_weights(self, line: *const Bytes, vector: usize, high: bool) -> __m256i {
        // SAFETY: see above.
        unsafe { halves(half_line(line, vector), high) }
    }

    #[inline(always)]
    unsafe fn values(self, bytes: *const u8) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_set1_epi32(bytes.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn add_products(self, sums: __m256i, values: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe {
            let pairs = _mm256_maddubs_epi16(values, weights);
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn add_run<const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
        self,
        sums: &mut Each<__m256i, ROWS, PANELS, VECTORS>,
        run: &Run<PANELS>,
    ) {
        // SAFETY: see above; a panel says of every two lines whether they are narrow.
        unsafe {
            let [Some(narrow)] = run.narrow[..] else {
                for step in 0..run.steps {
                    add_step(self, sums, run, step);
                }
                return;
            };
            for pair in 0..run.steps / 2 {
                if *narrow.add(pair) {
                    add_two_steps(self, sums, run, 2 * pair);
                } else {
                    add_step(self, sums, run, 2 * pair);
                    add_step(self, sums, run, 2 * pair + 1);
                }
            }
            if !run.steps.is_multiple_of(2) {
                add_step(self, sums, run, run.steps - 1);
            }
        }
    }

    #[inline(always)]
    unsafe fn floats(self, sums: __m256i) -> f32x8 {
        // SAFETY: see above; both are eight floats.
        unsafe { std::mem::transmute(_mm256_cvtepi32_ps(sums)) }
    }

    #[inline(always)]
    unsafe fn store<const VECTORS: usize>(self, values: [f32x8; VECTORS], place: CodedPlace) {
        // SAFETY: see above; both are two times eight floats.
        unsafe { store_8_8(std::mem::transmute_copy(&values), place) }
    }
}

/// Adds the products of two steps of a run whose lines are narrow.
///
/// # Safety
/// As for [`Dot`], with lines whose products may be added in 16 bits.
#[inline(always)]
unsafe fn add_two_steps<const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    dot: Avx2,
    sums: &mut Each<__m256i, ROWS, PANELS, VECTORS>,
    run: &Run<PANELS>,
    step: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut weights = [[[run.weights(dot, step, 0, 0); 2]; VECTORS]; PANELS];
        for (panel, weights) in weights.iter_mut().enumerate() {
            for (vector, weights) in weights.iter_mut().enumerate() {
                *weights = [run.weights(dot, step, panel, vector), run.weights(dot, step + 1, panel, vector)];
            }
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            let values = run.rows.add(row * run.row_stride + step * STEP);
            let values = [dot.values(values), dot.values(values.add(STEP))];
            for (sums, weights) in sums.iter_mut().zip(&weights) {
                for (sums, weights) in sums.iter_mut().zip(weights) {
                    let pairs = _mm256_add_epi16(
                        _mm256_maddubs_epi16(values[0], weights[0]),
                        _mm256_maddubs_epi16(values[1], weights[1]),
                    );
                    *sums = _mm256_add_epi32(*sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
                }
            }
        }
    }
}

compile_kernel!(
    Avx2,
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")],
    2, [4 3 2 1], [2 1]
);
