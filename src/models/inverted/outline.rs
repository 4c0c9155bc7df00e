//! What an inverted residual block allocates that takes its gradients itself.

use candle_core::Result;

use super::InvertedResidual;
use crate::memory::Outline;
use crate::models::outline::{Back, ConvOutline, LearnOutline};
use crate::ops::outline;

impl LearnOutline for InvertedResidual {
    fn keep(&self, xs: &Outline) -> Result<(Outline, Back<'_>)> {
        let expand = self.expand.as_ref().map(|expand| ConvOutline::dense(expand).keep(xs, None)).transpose()?;
        let (wide, expand) = expand.map_or((xs.clone(), None), |(ys, kept)| (ys, Some(kept)));
        let (wide, depthwise) = ConvOutline::depthwise(&self.depthwise).keep(&wide, None)?;
        // A gate keeps its input.
        let (wide, gate) = match &self.gate {
            Some(_) => (outline::same(&wide), Some(wide)),
            None => (wide, None),
        };
        let shortcut = self.shortcut.then_some(xs);
        let (ys, project) = ConvOutline::dense(&self.project).keep(&wide, shortcut)?;
        let back: Back = Box::new(move |upstream, wants_input, found| {
            let (of_wide, of_shortcut) = project.back(upstream, true, found)?;
            let Some(mut gradient) = of_wide else { return Ok(None) };
            if let (Some(kept), Some(gate)) = (gate, &self.gate) {
                gradient = outline::gate_backward(&kept);
                for (weight, _) in [&gate.reduce, &gate.expand] {
                    let [inputs, outputs] = weight.shape();
                    found.extend([gradient.new(&[inputs, outputs]), gradient.new(&[outputs])]);
                }
            }
            let (of_input, _) = depthwise.back(&gradient, wants_input || expand.is_some(), found)?;
            let of_input = match (expand, of_input) {
                (Some(expand), Some(of_input)) => expand.back(&of_input, wants_input, found)?.0,
                (_, of_input) => of_input,
            };
            let sum = |of_input: Outline| if self.shortcut { outline::same(&of_input) } else { of_input };
            let of_input = of_input.map(sum);
            drop(of_shortcut);
            Ok(of_input)
        });
        Ok((ys, back))
    }
}
