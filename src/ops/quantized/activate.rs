//! Activations of values in vector registers.

use pulp::Simd;

use crate::ops::Activation;

/// Applies the activation, or returns false when it has no form for vectors.
#[inline(always)]
pub fn activate<S: Simd>(simd: S, activation: Activation, values: &mut [S::f32s]) -> bool {
    match activation {
        Activation::None => {}
        Activation::Relu => map(
            values,
            #[inline(always)]
            |x| simd.max_f32s(x, simd.splat_f32s(0.0)),
        ),
        Activation::Relu6 => map(
            values,
            #[inline(always)]
            |x| clamp(simd, x, 0.0, 6.0),
        ),
        Activation::HardSigmoid => map(
            values,
            #[inline(always)]
            |x| hard_sigmoid(simd, x),
        ),
        Activation::HardSwish => map(
            values,
            #[inline(always)]
            |x| simd.mul_f32s(x, hard_sigmoid(simd, x)),
        ),
        Activation::Gelu => map(
            values,
            #[inline(always)]
            |x| gelu(simd, x),
        ),
        _ => return false,
    }
    true
}

#[inline(always)]
fn clamp<S: Simd>(simd: S, x: S::f32s, low: f32, high: f32) -> S::f32s {
    simd.min_f32s(simd.max_f32s(x, simd.splat_f32s(low)), simd.splat_f32s(high))
}

#[inline(always)]
fn hard_sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let sixths = clamp(simd, simd.add_f32s(x, simd.splat_f32s(3.0)), 0.0, 6.0);
    simd.mul_f32s(sixths, simd.splat_f32s(1.0 / 6.0))
}

#[inline(always)]
fn map<T: Copy>(values: &mut [T], function: impl Fn(T) -> T) {
    // A loop: an iterator's method would not be compiled for this machine's vectors.
    for value in values {
        *value = function(*value);
    }
}

/// `x · Φ(x)` with an error under 5e-5, or 5e-6 of larger values: far below what rounding to bytes changes afterwards.
///
/// Φ is 1/2 plus an odd polynomial, fitted so that the largest error of GELU on [-4.4, 4.4] is least; beyond, Φ is that at
/// the end.
#[inline(always)]
fn gelu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    const END: f32 = 4.4;
    const COEFFICIENTS: [f32; 9] = [
        3.572_579_4e-11,
        -3.756_588_4e-9,
        1.741_693_9e-7,
        -4.726_376_6e-6,
        8.430_85e-5,
        -1.055_084_4e-3,
        9.643_327e-3,
        -6.607_69e-2,
        3.987_618_4e-1,
    ];
    let near = clamp(simd, x, -END, END);
    let square = simd.mul_f32s(near, near);
    let mut sum = simd.splat_f32s(COEFFICIENTS[0]);
    for coefficient in &COEFFICIENTS[1..] {
        sum = simd.mul_add_f32s(sum, square, simd.splat_f32s(*coefficient));
    }
    simd.mul_f32s(x, simd.mul_add_f32s(near, sum, simd.splat_f32s(0.5)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_is_accurate() {
        for step in -20_000..=20_000 {
            let x = step as f32 * 1e-3;
            let ours = gelu(pulp::Scalar, x);
            let mut exact = [x];
            Activation::Gelu.apply(&mut exact);
            let allowed = (5e-6 * x.abs()).max(5e-5);
            assert!((ours - exact[0]).abs() < allowed, "gelu({x}) is {} and not {ours}", exact[0]);
        }
        assert!(gelu(pulp::Scalar, f32::NAN).is_nan());
    }
}
