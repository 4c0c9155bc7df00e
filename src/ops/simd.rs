//! Loads and stores of a vector register, or of its first values only, and fetching ahead.

use pulp::Simd;

/// The first `length` values from an address on, at most a register full; the rest is zero.
///
/// # Safety
/// `length` values must be readable.
#[inline(always)]
pub unsafe fn load<S: Simd>(simd: S, from: *const f32, length: usize) -> S::f32s {
    // SAFETY: the caller's promise; a whole vector is read only when all of it is promised.
    unsafe {
        if length * size_of::<f32>() >= size_of::<S::f32s>() {
            from.cast::<S::f32s>().read_unaligned()
        } else {
            simd.mask_load_ptr_f32s(simd.mask_between_m32s(0, length as u32), from)
        }
    }
}

/// Writes the first `length` values of a register, at most all.
///
/// # Safety
/// `length` values must be writable.
#[inline(always)]
pub unsafe fn store<S: Simd>(simd: S, to: *mut f32, length: usize, values: S::f32s) {
    // SAFETY: the caller's promise; a whole vector is written only when all of it is promised.
    unsafe {
        if length * size_of::<f32>() >= size_of::<S::f32s>() {
            to.cast::<S::f32s>().write_unaligned(values);
        } else {
            simd.mask_store_ptr_f32s(simd.mask_between_m32s(0, length as u32), to, values);
        }
    }
}

/// Begins to fetch what lies at an address into the first-level cache; there need not be anything.
#[inline(always)]
pub fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is no access; SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
