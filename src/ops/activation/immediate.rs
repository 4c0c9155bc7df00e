//! Activations of a few instructions, applied to sums while they are in registers: no second pass over the result.

use pulp::Simd;

use super::Activation;

impl Activation {
    /// Whether [`activate`] applies it.
    pub fn is_immediate(self) -> bool {
        matches!(self, Self::None | Self::Relu | Self::Relu6 | Self::HardSwish)
    }
}

/// Applies an activation to registers if it is immediate, with the results of [`Activation::apply`]; else does nothing.
#[inline(always)]
pub fn activate<S: Simd, const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    simd: S,
    activation: Activation,
    sums: &mut [[[S::f32s; VECTORS]; PANELS]; ROWS],
) {
    // The choice is made once, outside of the loops, which are plain enough to be unrolled.
    match activation {
        Activation::Relu => map(
            sums,
            #[inline(always)]
            |x| relu(simd, x),
        ),
        Activation::Relu6 => map(
            sums,
            #[inline(always)]
            |x| relu6(simd, x),
        ),
        Activation::HardSwish => map(
            sums,
            #[inline(always)]
            |x| hard_swish(simd, x),
        ),
        _ => {}
    }
}

#[inline(always)]
fn map<V: Copy, const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    sums: &mut [[[V; VECTORS]; PANELS]; ROWS],
    function: impl Fn(V) -> V,
) {
    for row in sums {
        for panel in row {
            for sum in panel {
                *sum = function(*sum);
            }
        }
    }
}

/// Selected, not clamped by an instruction: a NaN stays one on every machine.
#[inline(always)]
fn relu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let zero = simd.splat_f32s(0.0);
    if cfg!(target_arch = "x86_64") && size_of::<S::f32s>() > size_of::<f32>() {
        // Here the instruction is of use: with a NaN in either place it gives the second one.
        simd.max_f32s(zero, x)
    } else {
        simd.select_f32s(simd.less_than_f32s(x, zero), zero, x)
    }
}

#[inline(always)]
fn relu6<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let (x, six) = (relu(simd, x), simd.splat_f32s(6.0));
    simd.select_f32s(simd.less_than_f32s(six, x), six, x)
}

#[inline(always)]
fn hard_swish<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let gate = relu6(simd, simd.add_f32s(x, simd.splat_f32s(3.0)));
    simd.mul_f32s(x, simd.mul_f32s(gate, simd.splat_f32s(1.0 / 6.0)))
}
