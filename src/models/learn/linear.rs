//! A linear layer without an activation that may train.

use candle_core::{Result, Tensor};

use super::Found;
use crate::models::layers::Linear;
use crate::ops::{self, Activation, Weight};

/// What a linear layer keeps of a pass.
pub struct KeptLinear<'a> {
    weight: &'a Tensor,
    bias: &'a Tensor,
    xs: Tensor,
}

impl<'a> KeptLinear<'a> {
    /// Whether the layer is such a one.
    pub fn can_learn(linear: &Linear) -> bool {
        matches!(linear, Linear { weighted: (Weight::Plain(_), _), activation: Activation::None })
    }

    /// The output, and what backward needs.
    pub fn forward(linear: &'a Linear, xs: &Tensor, residual: Option<&Tensor>) -> Result<(Tensor, Self)> {
        let Linear { weighted: (Weight::Plain(weight), bias), activation: Activation::None } = linear else {
            candle_core::bail!("this layer does not train by itself")
        };
        let xs = xs.detach().contiguous()?;
        let ys = ops::linear(&xs, &weight.detach(), &bias.detach(), Activation::None, residual)?;
        Ok((ys, Self { weight, bias, xs }))
    }

    /// The gradient of the input; that of the residual is the result's own.
    pub fn back(self, upstream: &Tensor, found: &mut Found) -> Result<Tensor> {
        let [of_xs, of_weight, of_bias] = ops::linear_backward(&self.xs, self.weight, upstream)?;
        found.add(self.weight, of_weight);
        found.add(self.bias, of_bias);
        Ok(of_xs)
    }
}
