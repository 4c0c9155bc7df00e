//! A layer norm that may train.

use candle_core::{Result, Tensor};

use super::Found;
use crate::models::layers::LayerNorm;
use crate::ops;

/// What a layer norm keeps of a pass.
pub struct KeptNorm<'a> {
    norm: &'a LayerNorm,
    xs: Tensor,
}

impl<'a> KeptNorm<'a> {
    /// The output, and what backward needs.
    pub fn forward(norm: &'a LayerNorm, xs: &Tensor) -> Result<(Tensor, Self)> {
        let ((weight, bias), xs) = (&norm.affine, xs.detach().contiguous()?);
        Ok((ops::layer_norm(&xs, &weight.detach(), &bias.detach(), norm.epsilon)?, Self { norm, xs }))
    }

    /// The gradient of the input.
    pub fn back(self, upstream: &Tensor, found: &mut Found) -> Result<Tensor> {
        let (weight, bias) = &self.norm.affine;
        let [of_xs, of_weight, of_bias] = ops::layer_norm_backward(&self.xs, weight, self.norm.epsilon, upstream)?;
        found.add(weight, of_weight);
        found.add(bias, of_bias);
        Ok(of_xs)
    }
}
