//! Activation functions, written without branches so that they vectorise, and softmax.
//!
//! Products that are added to are written as `mul_add`: one instruction wherever there are vector instructions to compile
//! for. Elsewhere it is a library call, slow and right: so all that computes these is inlined into such a loop.

mod backward;
mod immediate;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::backward::{gradient, read, sum_pairs};
use super::composed::{at_least, at_most};
use super::layer_norm::sum;
use super::{Face, composed, elements, face, has_kernel, metal, output, space, written};

pub use immediate::activate as activate_registers;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    None,
    Relu,
    Relu6,
    /// `x · Φ(x)`, exact to 1e-6.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    Silu,
    HardSwish,
    HardSigmoid,
    Sigmoid,
}

impl Activation {
    /// Applies the function to each value, on the calling thread.
    pub fn apply(self, values: &mut [f32]) {
        vectorized!(|| self.apply_inlined(values));
    }

    /// The same inside a loop that is already compiled for this machine's vector instructions.
    #[inline(always)]
    pub fn apply_inlined(self, values: &mut [f32]) {
        match self {
            Self::None => {}
            // Not f32::max, which would hide a NaN.
            Self::Relu => map(values, |x| if x < 0.0 { 0.0 } else { x }),
            Self::Relu6 => map(values, |x| x.clamp(0.0, 6.0)),
            Self::Gelu => map(values, |x| gelu(x, erf_of_gelu(x))),
            Self::GeluTanh => {
                const CUBIC: f32 = (0.044_715 * TWICE_ROOT_2_BY_PI) as f32;
                map(values, |x| x * sigmoid(x * (x * x).mul_add(CUBIC, TWICE_ROOT_2_BY_PI as f32)));
            }
            Self::Silu => map(values, |x| x * sigmoid(x)),
            Self::HardSwish => map(values, |x| x * hard_sigmoid(x)),
            Self::HardSigmoid => map(values, hard_sigmoid),
            Self::Sigmoid => map(values, sigmoid),
        }
    }

    /// The same composed of candle operations.
    pub(crate) fn composed(self, x: &Tensor) -> Result<Tensor> {
        let gate = |x: &Tensor| at_most(&at_least(&(x + 3.0)?, 0.0)?, 6.0)? / 6.0;
        // By tanh, which overflows on neither side.
        let sigmoid = |x: &Tensor| ((x * 0.5)?.tanh()? + 1.0)? * 0.5;
        match self {
            Self::None => Ok(x.clone()),
            Self::Relu => at_least(x, 0.0),
            Self::Relu6 => at_most(&at_least(x, 0.0)?, 6.0),
            // By erf: candle's own GELU rounds its gradient's constants.
            Self::Gelu => x * (((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)? * 0.5)?,
            Self::GeluTanh => x * sigmoid(&((x + (x.sqr()? * x)? * 0.044_715)? * TWICE_ROOT_2_BY_PI)?)?,
            Self::Silu => x * sigmoid(x)?,
            Self::HardSwish => x * gate(x)?,
            Self::HardSigmoid => gate(x),
            Self::Sigmoid => sigmoid(x),
        }
    }
}

/// 2·sqrt(2/π): tanh(u) is 2·sigmoid(2u) - 1.
const TWICE_ROOT_2_BY_PI: f64 = 1.595_769_121_605_731;

#[inline(always)]
fn map(values: &mut [f32], function: impl Fn(f32) -> f32) {
    values.iter_mut().for_each(|value| *value = function(*value));
}

#[inline(always)]
fn erf_of_gelu(x: f32) -> f32 {
    erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

/// GELU of `x`, given [`erf_of_gelu`].
#[inline(always)]
fn gelu(x: f32, erf: f32) -> f32 {
    // Below -5.7, 1 + erf is 0 but for its last bit, which no large factor may blow up.
    let half = 0.5 * if x < -5.7 { -5.7 } else { x };
    half.mul_add(erf, half)
}

#[inline(always)]
fn hard_sigmoid(x: f32) -> f32 {
    (x + 3.0).clamp(0.0, 6.0) * (1.0 / 6.0)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    // Beyond, the sum would be out of the reciprocal's range; NaN passes.
    reciprocal(1.0 + exp_within(-x.clamp(-87.0, 87.0)))
}

/// `1 / x` for `x` in [2⁻¹²⁶, 2¹²⁶], to the last bit or the one before: several times faster than a vector division.
#[inline(always)]
fn reciprocal(x: f32) -> f32 {
    // Subtracting the bits negates the exponent. This constant leaves a twentieth of relative error (the least that was
    // found by search); a step of the third order cubes it, and Newton's squares that.
    let y = f32::from_bits(0x7EF3_11C7_u32.wrapping_sub(x.to_bits()));
    let error = (-x).mul_add(y, 1.0);
    let y = y.mul_add(error.mul_add(error, error), y);
    y.mul_add((-x).mul_add(y, 1.0), y)
}

/// `eˣ` with a relative error under 2e-7, for `x` in [-87, 88]; beyond, the value at the end of that range.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    exp_within(x.clamp(-87.0, 88.0))
}

/// The same for `x` that is known to be in that range.
#[inline(always)]
fn exp_within(x: f32) -> f32 {
    // Adding 1.5·2²³ rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first with few enough bits that its products are exact (Cody and Waite).
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Cephes' expf.
    const COEFFICIENTS: [f32; 6] = [1.987_569_2e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = (-n).mul_add(LN2_LOW, (-n).mul_add(LN2_HIGH, x));
    let power_of_two = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    ((polynomial(&COEFFICIENTS, r) * r).mul_add(r, r) + 1.0) * power_of_two
}

/// The polynomial of these coefficients, the highest first.
#[inline(always)]
fn polynomial<const COUNT: usize>(coefficients: &[f32; COUNT], x: f32) -> f32 {
    coefficients[1..].iter().fold(coefficients[0], |sum, coefficient| sum.mul_add(x, *coefficient))
}

/// The error function with an absolute error under 5e-7.
#[inline(always)]
fn erf(x: f32) -> f32 {
    // Rational approximation of Eigen's generic_fast_erf_float, both signs turned, so that the denominator is positive;
    // erf is ±1 in f32 beyond 4.
    const NUMERATOR: [f32; 7] =
        [2.726_142_3e-10, -2.770_681_4e-8, 2.101_024e-6, 5.692_506_4e-5, 7.349_906_3e-4, 2.954_6e-3, 1.609_603_3e-2];
    const DENOMINATOR: [f32; 5] = [1.456_607_2e-5, 2.133_740_6e-4, 1.682_827e-3, 7.373_329_2e-3, 1.426_473_9e-2];
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    x * polynomial(&NUMERATOR, square) * reciprocal(polynomial(&DENOMINATOR, square))
}

/// Elements of one task.
const CHUNK: usize = 16 << 10;

/// The activation of `x`, elementwise.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match face("activation", x) {
        Face::Composed => return activation.composed(x),
        Face::Metal => return metal::activate(x, activation),
        Face::Cpu => {}
    }
    x.contiguous()?.apply_op1(Activate(activation))
}

struct Activate(Activation);

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = elements(x, layout)?;
        let mut result = space(x.len());
        result.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(chunk, x)| {
            self.0.apply(chunk.write_copy_of_slice(x));
        });
        // SAFETY: the chunks are all of the result.
        Ok(output(unsafe { written(result) }, layout.shape()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        activation_backward(x, self.0, upstream).map(Some)
    }
}

/// The gradient of `x` on the CPU, given that of its activation.
pub fn activation_backward(x: &Tensor, activation: Activation, upstream: &Tensor) -> Result<Tensor> {
    read([x, &upstream.contiguous()?], |[inputs, upstream]| {
        let mut result = space(inputs.len());
        let chunks = inputs.par_chunks(CHUNK).zip(upstream.par_chunks(CHUNK));
        result.par_chunks_mut(CHUNK).zip(chunks).for_each(|(gradients, (inputs, upstream))| {
            activation.multiply_by_slope(gradients.write_copy_of_slice(upstream), inputs);
        });
        // SAFETY: both have as many values as the result.
        gradient(unsafe { written(result) }, x)
    })
}

/// Softmax over the last axis.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    if !has_kernel("softmax", x) {
        return composed::softmax(x);
    }
    x.contiguous()?.apply_op1(Softmax)
}

struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut result = elements(x, layout)?.to_vec();
        let length = layout.dims().last().copied().unwrap_or(1).max(1);
        result.par_chunks_mut(length).for_each(softmax_row);
        Ok(output(result, layout.shape()))
    }

    fn bwd(&self, x: &Tensor, result: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        let length = x.dims().last().copied().unwrap_or(1).max(1);
        read([result, &upstream.contiguous()?], |[results, upstream]| {
            let mut gradients = upstream.to_vec();
            gradients.par_chunks_mut(length).zip(results.par_chunks(length)).for_each(|(gradients, results)| {
                softmax_row_backward(gradients, results);
            });
            gradient(gradients, x).map(Some)
        })
    }
}

/// Turns the gradient of a row's softmax into the gradient of the row.
pub fn softmax_row_backward(gradients: &mut [f32], results: &[f32]) {
    vectorized!(|| {
        let mean = sum_pairs(gradients, results, |gradient, result| gradient * result);
        for (gradient, result) in gradients.iter_mut().zip(results) {
            *gradient = (*gradient - mean) * result;
        }
    });
}

/// Softmax of one row in place. The largest value is subtracted first, so no value overflows.
pub fn softmax_row(row: &mut [f32]) {
    vectorized!(|| {
        let largest = largest(row);
        row.iter_mut().for_each(|value| *value = exp(*value - largest));
        let scale = 1.0 / sum(row, |value| value);
        row.iter_mut().for_each(|value| *value *= scale);
    });
}

/// The largest value, in sixteen lanes, which vectorise. NaN counts as none.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let larger = |one: f32, other: f32| if other > one { other } else { one };
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane = larger(*lane, *value));
    }
    lanes.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, larger)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::ops::testing::{assert_close, assert_gradients, views};

    /// erf by its power series in f64: the oracle for small arguments, where the series converges well.
    fn erf_series(x: f64) -> f64 {
        let mut term = x;
        let mut sum = x;
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn erf_and_exp_are_accurate_to_single_precision() {
        for step in -4000..=4000 {
            let x = step as f32 * 1e-3;
            assert!((f64::from(erf(x)) - erf_series(f64::from(x))).abs() < 5e-7, "erf({x})");
            let wide = x * 21.0;
            let exact = f64::from(wide).exp();
            assert!((f64::from(exp(wide)) - exact).abs() < 2e-7 * exact, "exp({wide})");
        }
        assert_eq!((erf(-9.0), erf(9.0)), (erf(-4.0), erf(4.0)));
        assert!(exp(f32::NEG_INFINITY) < 1e-37 && exp(-1e30) < 1e-37 && exp(200.0).is_finite());
    }

    #[test]
    fn each_activation_equals_its_composed_form() -> Result<()> {
        use Activation::*;
        for x in views(&[2, 3, 5, 7])? {
            let x = (x * 5.0)?;
            for activation in [None, Relu, Relu6, Gelu, GeluTanh, Silu, HardSwish, HardSigmoid, Sigmoid] {
                assert_close(&activate(&x, activation)?, &activation.composed(&x)?, 2e-6)?;
            }
        }
        Ok(())
    }

    #[test]
    fn activations_of_large_values_are_zero_or_the_value_itself() {
        use Activation::*;
        for activation in [Relu, Gelu, GeluTanh, Silu, HardSwish] {
            for large in [50.0f32, 89.0, 200.0, 1e9] {
                let mut values = [-large, large];
                activation.apply(&mut values);
                let [zero, same] = values;
                assert!(
                    zero.abs() < 1e-6 && (same - large).abs() <= 1e-6 * large,
                    "{activation:?}({large}): {values:?}"
                );
            }
        }
        let mut values = [-1e9, 1e9, -89.0];
        Sigmoid.apply(&mut values);
        assert!(values[0].abs() < 1e-30 && values[1] == 1.0 && values[2] < 1e-30, "{values:?}");
    }

    #[test]
    fn activations_keep_nan_visible() {
        use Activation::*;
        for activation in [Relu, Relu6, Gelu, GeluTanh, Silu, HardSwish, HardSigmoid, Sigmoid] {
            let mut values = [f32::NAN];
            activation.apply(&mut values);
            assert!(values[0].is_nan(), "{activation:?}");
        }
    }

    #[test]
    fn softmax_equals_its_composed_form_and_survives_large_values() -> Result<()> {
        for x in views(&[3, 2, 9])? {
            let x = (x * 300.0)?;
            assert_close(&softmax(&x)?, &composed::softmax(&x)?, 1e-6)?;
        }
        Ok(())
    }

    #[test]
    fn gradients_are_right() -> Result<()> {
        use Activation::*;
        for activation in [Relu, Relu6, Gelu, GeluTanh, Silu, HardSwish, HardSigmoid, Sigmoid] {
            // Wide enough for both ends of the clamped ones.
            assert_gradients(&[&[2, 3, 5, 7]], |args| activate(&(&args[0] * 8.0)?, activation))?;
        }
        assert_gradients(&[&[3, 2, 19]], |args| softmax(&(&args[0] * 4.0)?))
    }

    #[test]
    fn gradients_at_the_ends_of_clamped_activations_are_pytorchs() -> Result<()> {
        let cases = [
            (Activation::Relu, [0.0, -0.0], [0.0, 0.0]),
            (Activation::Relu6, [0.0, 6.0], [0.0, 0.0]),
            (Activation::HardSigmoid, [-3.0, 3.0], [0.0, 0.0]),
            (Activation::HardSwish, [-3.0, 3.0], [0.0, 1.0]),
        ];
        for (activation, ends, slopes) in cases {
            let ends = Var::from_slice(&ends, 2, &Device::Cpu)?;
            for x in [ends.to_dtype(DType::F32)?, ends.as_tensor().clone()] {
                let gradients = activate(&x, activation)?.sum_all()?.backward()?;
                let ours = gradients.get(&ends).expect("it is tracked").to_vec1::<f64>()?;
                assert_eq!(ours, slopes, "{activation:?} in {:?}", x.dtype());
            }
        }
        Ok(())
    }
}
