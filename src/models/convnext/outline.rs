//! What ConvNeXt's layers allocate that take their gradients themselves.

use candle_core::Result;

use super::{ConvNextBlock, Downsample};
use crate::memory::Outline;
use crate::models::outline::{Back, ConvOutline, KeptConvOutline, KeptMlpOutline, LearnOutline, keep_norm};
use crate::ops::outline::{self, Fused};

impl ConvNextBlock {
    fn back(&self, xs: &Outline, mlp: KeptMlpOutline) -> Back<'_> {
        let xs = xs.clone();
        Box::new(move |upstream, wants_input, found| {
            let of_hidden = mlp.back(found);
            let window = self.depthwise.window;
            let (of_input, of_weight) = outline::depthwise_backward(&xs, window, &of_hidden, wants_input)?;
            found.extend([of_weight, upstream.new(&[upstream.channels()])]);
            Ok(of_input.map(|gradient| outline::same(&gradient)))
        })
    }
}

impl LearnOutline for ConvNextBlock {
    fn keep(&self, xs: &Outline) -> Result<(Outline, Back<'_>)> {
        let (ys, mlp) =
            KeptMlpOutline::forward(&self.mlp, &outline::depthwise(xs, self.depthwise.window, Fused::default())?);
        Ok((ys, self.back(xs, mlp)))
    }

    fn pass(&self, xs: &Outline) -> Result<Outline> {
        Ok(KeptMlpOutline::pass(&self.mlp, &outline::depthwise(xs, self.depthwise.window, Fused::default())?))
    }

    fn again(&self, xs: &Outline) -> Result<Back<'_>> {
        let mlp = KeptMlpOutline::again(&self.mlp, &outline::depthwise(xs, self.depthwise.window, Fused::default())?);
        Ok(self.back(xs, mlp))
    }
}

impl LearnOutline for Downsample {
    fn keep(&self, xs: &Outline) -> Result<(Outline, Back<'_>)> {
        let (mut xs, mut kept) = (xs.clone(), Vec::new());
        let keep = |xs: Outline, kept: &mut Vec<Part>| {
            let ys = keep_norm(&xs);
            kept.push(Part::Norm(xs));
            ys
        };
        if self.norm_first.is_some() {
            xs = keep(xs, &mut kept);
        }
        for conv in &self.convs {
            let (ys, one) = ConvOutline::dense(conv).keep(&xs, None)?;
            kept.push(Part::Conv(one));
            xs = ys;
        }
        if self.norm.is_some() {
            xs = keep(xs, &mut kept);
        }
        let back: Back = Box::new(move |upstream, wants_input, found| {
            let mut gradient = upstream.clone();
            while let Some(part) = kept.pop() {
                gradient = match part {
                    Part::Norm(xs) => {
                        found.extend((0..2).map(|_| xs.new(&[xs.channels()])));
                        outline::layer_norm_backward(&xs)
                    }
                    Part::Conv(conv) => match conv.back(&gradient, wants_input || !kept.is_empty(), found)?.0 {
                        Some(of_input) => of_input,
                        None => return Ok(None),
                    },
                };
            }
            Ok(Some(gradient))
        });
        Ok((xs, back))
    }
}

enum Part<'a> {
    Conv(KeptConvOutline<'a>),
    /// Its input.
    Norm(Outline),
}
