//! What residual blocks allocate that take their gradients themselves.

use candle_core::Result;

use super::{Residual, Stem};
use crate::memory::Outline;
use crate::models::outline::{Back, ConvOutline, LearnOutline};
use crate::ops::outline;

impl LearnOutline for Stem {
    fn keep(&self, xs: &Outline) -> Result<(Outline, Back<'_>)> {
        let (pooled, conv) = ConvOutline::dense(&self.conv).keep(xs, None)?;
        let ys = outline::max_pool(&pooled, self.pool)?;
        let back: Back = Box::new(move |_, wants_input, found| {
            let upstream = outline::max_pool_backward(&pooled);
            Ok(conv.back(&upstream, wants_input, found)?.0)
        });
        Ok((ys, back))
    }
}

impl LearnOutline for Residual {
    fn keep(&self, xs: &Outline) -> Result<(Outline, Back<'_>)> {
        let (last, first) = self.convs.split_last().expect("a block has convolutions");
        let (mut hidden, mut convs) = (xs.clone(), Vec::with_capacity(self.convs.len()));
        for conv in first {
            let (ys, kept) = ConvOutline::dense(conv).keep(&hidden, None)?;
            convs.push(kept);
            hidden = ys;
        }
        let shortcut = self.shortcut.as_ref().map(|conv| ConvOutline::dense(conv).keep(xs, None)).transpose()?;
        let (residual, shortcut) = shortcut.map_or((xs.clone(), None), |(ys, kept)| (ys, Some(kept)));
        let (ys, kept) = ConvOutline::dense(last).keep(&hidden, Some(&residual))?;
        convs.push(kept);
        let back: Back = Box::new(move |upstream, wants_input, found| {
            let (mut gradient, mut of_residual) = (upstream.clone(), None);
            while let Some(conv) = convs.pop() {
                let (of_input, added) = conv.back(&gradient, wants_input || !convs.is_empty(), found)?;
                of_residual.get_or_insert(added);
                let Some(of_input) = of_input else { break };
                gradient = of_input;
            }
            let of_residual = match (shortcut, of_residual) {
                (Some(shortcut), Some(of_residual)) => shortcut.back(&of_residual, wants_input, found)?.0,
                (_, of_residual) => of_residual,
            };
            let sum = of_residual.filter(|_| wants_input).map(|_residual| outline::same(&gradient));
            Ok(sum)
        });
        Ok((ys, back))
    }
}
