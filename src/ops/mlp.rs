//! Norm, widening layer, activation and narrowing layer around which the input passes.

mod backward;
pub mod learning;

use candle_core::{Result, Tensor};

use super::{Activation, Face, Weight, face, is_tracked, layer_norm, metal, packed, quantized};

/// The layers of [`mlp`], each as weight and bias.
#[derive(Debug)]
pub struct Mlp {
    /// Layer norm: `(channels)` both.
    pub norm: (Tensor, Tensor),
    pub epsilon: f32,
    /// `channels` inputs, `hidden` outputs.
    pub expand: (Weight, Tensor),
    pub activation: Activation,
    /// `hidden` inputs, `channels` outputs.
    pub project: (Weight, Tensor),
}

impl Mlp {
    fn with<'a, W>(&'a self, expand: &'a W, project: &'a W) -> packed::Mlp<'a, W> {
        packed::Mlp {
            norm: &self.norm,
            epsilon: self.epsilon,
            expand: (expand, &self.expand.1),
            activation: self.activation,
            project: (project, &self.project.1),
        }
    }
}

/// `residual + project(activation(expand(layer norm(x))))`; `x`, `residual` and the result have shape `(…, channels)`.
///
/// With packed or quantized weights and on Metal this is one pass, and the wide rows between the layers are never there at
/// once.
pub fn mlp(x: &Tensor, layers: &Mlp, residual: &Tensor) -> Result<Tensor> {
    let Mlp { norm, epsilon, expand, activation, project } = layers;
    match (&expand.0, &project.0) {
        (Weight::Packed(wide), Weight::Packed(narrow)) => {
            return packed::mlp(x, &layers.with(wide, narrow), residual);
        }
        (Weight::Quantized(wide), Weight::Quantized(narrow)) if face("quantized", x) == Face::Cpu => {
            return quantized::mlp(x, &layers.with(wide, narrow), residual);
        }
        _ => {}
    }
    if let (Weight::Plain(wide), Weight::Plain(narrow)) = (&expand.0, &project.0)
        && face("mlp", x) == Face::Metal
        && !is_tracked(&[x, residual, &norm.0, &norm.1, wide, &expand.1, narrow, &project.1])
    {
        return metal::mlp(x, layers, [wide, narrow], residual);
    }
    let hidden = layer_norm(x, &norm.0, &norm.1, *epsilon)?;
    let hidden = expand.0.linear(&hidden, &expand.1, *activation, None)?;
    project.0.linear(&hidden, &project.1, Activation::None, Some(residual))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::assert_gradients;

    #[test]
    fn gradients_are_right() -> Result<()> {
        let x: &[usize] = &[2, 7, 6];
        let shapes: [&[usize]; 8] = [x, &[6], &[6], &[6, 19], &[19], &[19, 6], &[6], x];
        assert_gradients(&shapes, |args| {
            let pair = |first: usize| (Weight::Plain(args[first].clone()), args[first + 1].clone());
            let (norm, expand, project) = ((args[1].clone(), args[2].clone()), pair(3), pair(5));
            mlp(&args[0], &Mlp { norm, epsilon: 1e-6, expand, activation: Activation::Gelu, project }, &args[7])
        })
    }
}
