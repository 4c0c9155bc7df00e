//! Norm, widening and narrowing layer, all of which may train.

use candle_core::{Error, Result, Tensor};

use super::Found;
use crate::ops::{self, Mlp, MlpGradients, MlpLayers, Weight};

/// What they keep of a pass.
pub struct KeptMlp<'a> {
    layers: MlpLayers<'a>,
    xs: Tensor,
    /// Before the activation; computed again if not kept.
    wide: Option<Tensor>,
}

impl<'a> KeptMlp<'a> {
    /// The layers, what they add multiplied by `scale`, if their weights may train.
    pub fn layers(mlp: &'a Mlp, scale: Option<&'a Tensor>) -> Option<MlpLayers<'a>> {
        let Mlp { norm, epsilon, expand: (Weight::Plain(expand), hidden_bias), activation, project } = mlp else {
            return None;
        };
        let (Weight::Plain(project), bias) = project else { return None };
        let (norm, expand, project) = ([&norm.0, &norm.1], [expand, hidden_bias], [project, bias]);
        Some(MlpLayers { norm, epsilon: *epsilon, expand, activation: *activation, project, scale })
    }

    /// Those that are known to be such.
    pub fn of(mlp: &'a Mlp, scale: Option<&'a Tensor>) -> Result<MlpLayers<'a>> {
        Self::layers(mlp, scale).ok_or_else(|| Error::msg("these layers do not train by themselves"))
    }

    /// The output, and what backward needs.
    pub fn forward(layers: MlpLayers<'a>, xs: &Tensor, residual: &Tensor) -> Result<(Tensor, Self)> {
        let (ys, wide) = ops::mlp_forward(xs, &layers, residual, true)?;
        Ok((ys, Self { layers, xs: xs.clone(), wide }))
    }

    /// What backward needs at least.
    pub fn again(layers: MlpLayers<'a>, xs: &Tensor) -> Self {
        Self { layers, xs: xs.clone(), wide: None }
    }

    /// The gradient of the input; that of the residual is the result's own.
    pub fn back(self, upstream: &Tensor, found: &mut Found) -> Result<Tensor> {
        let Self { layers, xs, wide } = self;
        let MlpGradients { x, norm, expand, project, scale } =
            ops::mlp_backward(&xs, &layers, wide.as_ref(), upstream)?;
        for (parameters, gradients) in [(layers.norm, norm), (layers.expand, expand), (layers.project, project)] {
            parameters.into_iter().zip(gradients).for_each(|(parameter, gradient)| found.add(parameter, gradient));
        }
        layers.scale.zip(scale).into_iter().for_each(|(parameter, gradient)| found.add(parameter, gradient));
        Ok(x)
    }
}
