//! Slopes of the activation functions.

use super::{Activation, TWICE_ROOT_2_BY_PI, erf_of_gelu, exp, gelu, hard_sigmoid, sigmoid};

/// The density of the normal distribution at zero: 1/sqrt(2π).
const DENSITY_AT_ZERO: f32 = 0.398_942_3;

impl Activation {
    /// Multiplies each gradient by the function's slope at its input, on the calling thread.
    ///
    /// Where a function has no slope (the ends of the clamped ones) it is PyTorch's.
    pub fn multiply_by_slope(self, gradients: &mut [f32], inputs: &[f32]) {
        vectorized!(|| self.multiply_by_slope_inlined(gradients, inputs));
    }

    /// The same inside a loop that is already compiled for this machine's vector instructions.
    #[inline(always)]
    pub fn multiply_by_slope_inlined(self, gradients: &mut [f32], inputs: &[f32]) {
        let within = |x: f32, low: f32, high: f32| if x > low && x < high { 1.0 } else { 0.0 };
        match self {
            Self::None => {}
            Self::Relu => map(gradients, inputs, |x| if x > 0.0 { 1.0 } else { 0.0 }),
            Self::Relu6 => map(gradients, inputs, |x| within(x, 0.0, 6.0)),
            Self::Gelu => map(gradients, inputs, |x| gelu_slope(x, erf_of_gelu(x))),
            Self::GeluTanh => map(gradients, inputs, |x| {
                let factor = TWICE_ROOT_2_BY_PI as f32;
                let s = sigmoid(factor * (x + 0.044_715 * x * x * x));
                s + x * s * (1.0 - s) * factor * (1.0 + 3.0 * 0.044_715 * x * x)
            }),
            Self::Silu => map(gradients, inputs, |x| {
                let s = sigmoid(x);
                s * (1.0 + x * (1.0 - s))
            }),
            Self::HardSwish => map(gradients, inputs, |x| hard_sigmoid(x) + x * within(x, -3.0, 3.0) * (1.0 / 6.0)),
            Self::HardSigmoid => map(gradients, inputs, |x| within(x, -3.0, 3.0) * (1.0 / 6.0)),
            Self::Sigmoid => map(gradients, inputs, |x| {
                let s = sigmoid(x);
                s * (1.0 - s)
            }),
        }
    }

    /// Writes the function's value at each input, and multiplies each gradient by its slope there, in one pass where that
    /// shares work.
    #[inline(always)]
    pub fn apply_with_slope_inlined(self, inputs: &[f32], values: &mut [f32], gradients: &mut [f32]) {
        if self == Self::Gelu {
            for ((x, value), gradient) in inputs.iter().zip(values).zip(gradients) {
                let erf = erf_of_gelu(*x);
                *value = gelu(*x, erf);
                *gradient *= gelu_slope(*x, erf);
            }
        } else {
            values.copy_from_slice(inputs);
            self.apply_inlined(values);
            self.multiply_by_slope_inlined(gradients, inputs);
        }
    }
}

/// The slope of GELU at `x`, given [`erf_of_gelu`].
#[inline(always)]
fn gelu_slope(x: f32, erf: f32) -> f32 {
    0.5 * (1.0 + erf) + x * DENSITY_AT_ZERO * exp(-0.5 * x * x)
}

#[inline(always)]
fn map(gradients: &mut [f32], inputs: &[f32], slope: impl Fn(f32) -> f32) {
    gradients.iter_mut().zip(inputs).for_each(|(gradient, x)| *gradient *= slope(*x));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_and_slope_together_are_those_apart() {
        use Activation::*;
        let inputs: Vec<f32> = (-300..300).map(|step| step as f32 * 0.03).collect();
        for activation in [None, Relu, Relu6, Gelu, GeluTanh, Silu, HardSwish, HardSigmoid, Sigmoid] {
            let (mut values, mut gradients) = (inputs.clone(), inputs.clone());
            activation.apply(&mut values);
            activation.multiply_by_slope(&mut gradients, &inputs);
            let (mut together, mut slopes) = (vec![0.0; inputs.len()], inputs.clone());
            vectorized!(|| activation.apply_with_slope_inlined(&inputs, &mut together, &mut slopes));
            assert_eq!((together, slopes), (values, gradients), "{activation:?}");
        }
    }
}
