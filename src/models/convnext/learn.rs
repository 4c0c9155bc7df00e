//! ConvNeXt's layers as ones that take their gradients themselves.

use candle_core::Tensor;

use super::{ConvNextBlock, Downsample};
use crate::models::Phase;
use crate::models::layers::Depthwise;
use crate::models::learn::{Backward, Found, KeptConv, KeptNorm, Learn};
use crate::ops::{self, Activation, Mlp, MlpGradients, MlpLayers, Weight};

impl ConvNextBlock {
    /// The layers after the depthwise convolution, while all of them may train.
    pub(super) fn layers(&self) -> Option<MlpLayers<'_>> {
        let Mlp { norm, epsilon, expand: (Weight::Plain(expand), hidden_bias), activation, project } = &self.mlp else {
            return None;
        };
        let ((Weight::Plain(project), bias), Some(scale)) = (project, &self.scale) else { return None };
        let (norm, expand, project) = ([&norm.0, &norm.1], [expand, hidden_bias], [project, bias]);
        Some(MlpLayers { norm, epsilon: *epsilon, expand, activation: *activation, project, scale })
    }

    /// The same where it is known that there are such.
    fn learned_layers(&self) -> candle_core::Result<MlpLayers<'_>> {
        self.layers().ok_or_else(|| candle_core::Error::msg("this block does not train by itself"))
    }

    fn hidden(&self, xs: &Tensor) -> candle_core::Result<Tensor> {
        let (weight, bias) = &self.depthwise.affine;
        ops::depthwise(xs, &weight.detach(), &bias.detach(), self.depthwise.window, Activation::None)
    }
}

impl Learn for ConvNextBlock {
    fn keep(&self, xs: &Tensor, _: Phase) -> candle_core::Result<(Tensor, Box<dyn Backward + '_>)> {
        let hidden = self.hidden(xs)?;
        let (ys, wide) = ops::mlp_forward(&hidden, &self.learned_layers()?, xs, true)?;
        Ok((ys, Box::new(Kept { block: self, xs: xs.clone(), hidden, wide })))
    }

    fn pass(&self, xs: &Tensor, _: Phase) -> candle_core::Result<Tensor> {
        Ok(ops::mlp_forward(&self.hidden(xs)?, &self.learned_layers()?, xs, false)?.0)
    }

    fn again(&self, xs: &Tensor) -> candle_core::Result<Box<dyn Backward + '_>> {
        Ok(Box::new(Kept { block: self, xs: xs.clone(), hidden: self.hidden(xs)?, wide: None }))
    }
}

/// What a block keeps of a pass.
struct Kept<'a> {
    block: &'a ConvNextBlock,
    xs: Tensor,
    /// After the depthwise convolution.
    hidden: Tensor,
    /// Before the activation; computed again if not kept.
    wide: Option<Tensor>,
}

impl Backward for Kept<'_> {
    fn back(
        self: Box<Self>,
        upstream: &Tensor,
        wants_input: bool,
        found: &mut Found,
    ) -> candle_core::Result<Option<Tensor>> {
        let layers = self.block.learned_layers()?;
        let MlpGradients { x: of_hidden, norm, expand, project, scale } =
            ops::mlp_backward(&self.hidden, &layers, self.wide.as_ref(), upstream)?;
        drop((self.hidden, self.wide));
        for (parameters, gradients) in [(layers.norm, norm), (layers.expand, expand), (layers.project, project)] {
            parameters.into_iter().zip(gradients).for_each(|(parameter, gradient)| found.add(parameter, gradient));
        }
        found.add(layers.scale, scale);
        let Depthwise { affine: (weight, bias), window, .. } = &self.block.depthwise;
        let (of_input, of_weight, of_bias) =
            ops::depthwise_backward(&self.xs, weight, *window, &of_hidden, wants_input)?;
        found.add(weight, of_weight);
        found.add(bias, of_bias);
        of_input.map(|gradient| ops::add(&gradient, upstream)).transpose()
    }
}

impl Learn for Downsample {
    fn keep(&self, xs: &Tensor, phase: Phase) -> candle_core::Result<(Tensor, Box<dyn Backward + '_>)> {
        let (mut xs, mut kept) = (xs.clone(), Vec::new());
        if let Some(norm) = &self.norm_first {
            let (ys, one) = KeptNorm::forward(norm, &xs)?;
            kept.push(KeptPart::Norm(one));
            xs = ys;
        }
        for conv in &self.convs {
            let (ys, one) = conv.trained()?.keep(&xs, None, phase)?;
            kept.push(KeptPart::Conv(one));
            xs = ys;
        }
        if let Some(norm) = &self.norm {
            let (ys, one) = KeptNorm::forward(norm, &xs)?;
            kept.push(KeptPart::Norm(one));
            xs = ys;
        }
        Ok((xs, Box::new(KeptParts(kept))))
    }
}

/// What layers one after the other keep of a pass.
struct KeptParts<'a>(Vec<KeptPart<'a>>);

enum KeptPart<'a> {
    Conv(KeptConv<'a>),
    Norm(KeptNorm<'a>),
}

impl Backward for KeptParts<'_> {
    fn back(
        mut self: Box<Self>,
        upstream: &Tensor,
        wants_input: bool,
        found: &mut Found,
    ) -> candle_core::Result<Option<Tensor>> {
        let mut gradient = upstream.clone();
        while let Some(part) = self.0.pop() {
            gradient = match part {
                KeptPart::Norm(norm) => norm.back(&gradient, found)?,
                KeptPart::Conv(conv) => match conv.back(&gradient, wants_input || !self.0.is_empty(), found)?.0 {
                    Some(of_input) => of_input,
                    None => return Ok(None),
                },
            };
        }
        Ok(Some(gradient))
    }
}
