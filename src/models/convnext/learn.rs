//! ConvNeXt's layers as ones that take their gradients themselves.

use candle_core::Tensor;

use super::{ConvNextBlock, Downsample};
use crate::models::Phase;
use crate::models::layers::Depthwise;
use crate::models::learn::{Backward, Found, KeptConv, KeptMlp, KeptNorm, Learn};
use crate::ops::{self, Activation, MlpLayers};

impl ConvNextBlock {
    /// The layers after the depthwise convolution, while all of them may train.
    pub(super) fn layers(&self) -> Option<MlpLayers<'_>> {
        KeptMlp::layers(&self.mlp, self.scale.as_ref())
    }

    /// The same where it is known that there are such.
    fn learned_layers(&self) -> candle_core::Result<MlpLayers<'_>> {
        KeptMlp::of(&self.mlp, self.scale.as_ref())
    }

    fn hidden(&self, xs: &Tensor) -> candle_core::Result<Tensor> {
        let (weight, bias) = &self.depthwise.affine;
        ops::depthwise(xs, &weight.detach(), &bias.detach(), self.depthwise.window, Activation::None)
    }
}

impl Learn for ConvNextBlock {
    fn keep(&self, xs: &Tensor, _: Phase) -> candle_core::Result<(Tensor, Box<dyn Backward + '_>)> {
        let (ys, mlp) = KeptMlp::forward(self.learned_layers()?, &self.hidden(xs)?, xs)?;
        Ok((ys, Box::new(Kept { depthwise: &self.depthwise, xs: xs.clone(), mlp })))
    }

    fn pass(&self, xs: &Tensor, _: Phase) -> candle_core::Result<Tensor> {
        Ok(ops::mlp_forward(&self.hidden(xs)?, &self.learned_layers()?, xs, false)?.0)
    }

    fn again(&self, xs: &Tensor) -> candle_core::Result<Box<dyn Backward + '_>> {
        let mlp = KeptMlp::again(self.learned_layers()?, &self.hidden(xs)?);
        Ok(Box::new(Kept { depthwise: &self.depthwise, xs: xs.clone(), mlp }))
    }
}

/// What a block keeps of a pass.
struct Kept<'a> {
    depthwise: &'a Depthwise,
    xs: Tensor,
    /// Of the layers after the depthwise convolution.
    mlp: KeptMlp<'a>,
}

impl Backward for Kept<'_> {
    fn back(
        self: Box<Self>,
        upstream: &Tensor,
        wants_input: bool,
        found: &mut Found,
    ) -> candle_core::Result<Option<Tensor>> {
        let Self { depthwise: Depthwise { affine: (weight, bias), window, .. }, xs, mlp } = *self;
        let of_hidden = mlp.back(upstream, found)?;
        let (of_input, of_weight, of_bias) = ops::depthwise_backward(&xs, weight, *window, &of_hidden, wants_input)?;
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
