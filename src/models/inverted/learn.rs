//! An inverted residual block as one that takes its gradients itself.

use candle_core::Tensor;

use super::InvertedResidual;
use crate::models::Phase;
use crate::models::learn::{Backward, Found, KeptConv, Learn, TrainedConv};
use crate::ops::{self, KeptGate, Weight};

impl Learn for InvertedResidual {
    fn keep(&self, xs: &Tensor, phase: Phase) -> candle_core::Result<(Tensor, Box<dyn Backward + '_>)> {
        let expand = self.expand.as_ref().map(|expand| expand.trained()?.keep(xs, None, phase)).transpose()?;
        let (wide, expand) = expand.map_or((xs.clone(), None), |(ys, kept)| (ys, Some(kept)));
        let (wide, depthwise) = TrainedConv::depthwise(&self.depthwise).keep(&wide, None, phase)?;
        let gate = self.gate.as_ref().map(|gate| KeptGate::forward(&wide, gate)).transpose()?;
        let (wide, gate) = gate.map_or((wide, None), |(ys, kept)| (ys, Some(kept)));
        let shortcut = self.shortcut.then_some(xs);
        let (ys, project) = self.project.trained()?.keep(&wide, shortcut, phase)?;
        Ok((ys, Box::new(Kept { block: self, expand, depthwise, gate, project })))
    }
}

/// What a block keeps of a pass.
struct Kept<'a> {
    block: &'a InvertedResidual,
    expand: Option<KeptConv<'a>>,
    depthwise: KeptConv<'a>,
    gate: Option<KeptGate>,
    project: KeptConv<'a>,
}

impl Backward for Kept<'_> {
    fn back(
        self: Box<Self>,
        upstream: &Tensor,
        wants_input: bool,
        found: &mut Found,
    ) -> candle_core::Result<Option<Tensor>> {
        let Self { block, expand, depthwise, gate, project } = *self;
        let (of_wide, of_shortcut) = project.back(upstream, true, found)?;
        let mut gradient = of_wide.ok_or_else(no_gradient)?;
        if let (Some(kept), Some(gate)) = (gate, &block.gate) {
            let (of_gated, mut gradients) = kept.backward(&gradient)?;
            gradient = of_gated;
            for (weight, bias) in [&gate.reduce, &gate.expand] {
                let Weight::Plain(weight) = weight else { continue };
                for parameter in [weight, bias] {
                    gradients.remove(parameter).into_iter().for_each(|found_one| found.add(parameter, found_one));
                }
            }
        }
        let (of_input, _) = depthwise.back(&gradient, wants_input || expand.is_some(), found)?;
        let of_input = match expand {
            Some(expand) => expand.back(&of_input.ok_or_else(no_gradient)?, wants_input, found)?.0,
            None => of_input,
        };
        match of_input {
            Some(of_input) if block.shortcut => Ok(Some(ops::add(&of_input, &of_shortcut)?)),
            of_input => Ok(of_input),
        }
    }
}

fn no_gradient() -> candle_core::Error {
    candle_core::Error::msg("a gradient that was wanted is there")
}
