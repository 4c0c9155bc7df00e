//! A residual block as one that takes its gradients itself.

use candle_core::Tensor;

use super::{Residual, Stem};
use crate::models::Phase;
use crate::models::learn::{Backward, Found, KeptConv, KeptPool, Learn};
use crate::ops;

impl Learn for Stem {
    fn keep(&self, xs: &Tensor, phase: Phase) -> candle_core::Result<(Tensor, Box<dyn Backward + '_>)> {
        let (pooled, conv) = self.conv.trained()?.keep(xs, None, phase)?;
        Ok((ops::max_pool(&pooled, self.pool)?, Box::new(KeptPool { conv, pooled, window: self.pool })))
    }
}

impl Learn for Residual {
    fn keep(&self, xs: &Tensor, phase: Phase) -> candle_core::Result<(Tensor, Box<dyn Backward + '_>)> {
        let (last, first) = self.convs.split_last().expect("a block has convolutions");
        let mut hidden = xs.clone();
        let mut convs = Vec::with_capacity(self.convs.len());
        for conv in first {
            let (ys, kept) = conv.trained()?.keep(&hidden, None, phase)?;
            convs.push(kept);
            hidden = ys;
        }
        let shortcut = self.shortcut.as_ref().map(|conv| conv.trained()?.keep(xs, None, phase)).transpose()?;
        let (residual, shortcut) = shortcut.map_or((xs.clone(), None), |(ys, kept)| (ys, Some(kept)));
        let (ys, kept) = last.trained()?.keep(&hidden, Some(&residual), phase)?;
        convs.push(kept);
        Ok((ys, Box::new(Kept { convs, shortcut })))
    }
}

/// What a block keeps of a pass.
struct Kept<'a> {
    convs: Vec<KeptConv<'a>>,
    shortcut: Option<KeptConv<'a>>,
}

impl Backward for Kept<'_> {
    fn back(
        mut self: Box<Self>,
        upstream: &Tensor,
        wants_input: bool,
        found: &mut Found,
    ) -> candle_core::Result<Option<Tensor>> {
        let (mut gradient, mut of_residual) = (upstream.clone(), None);
        while let Some(conv) = self.convs.pop() {
            let (of_input, added) = conv.back(&gradient, wants_input || !self.convs.is_empty(), found)?;
            of_residual.get_or_insert(added);
            let Some(of_input) = of_input else { break };
            gradient = of_input;
        }
        let of_residual = match (self.shortcut, of_residual) {
            (Some(shortcut), Some(of_residual)) => shortcut.back(&of_residual, wants_input, found)?.0,
            (_, of_residual) => of_residual,
        };
        match of_residual {
            Some(of_residual) if wants_input => Ok(Some(ops::add(&gradient, &of_residual)?)),
            _ => Ok(None),
        }
    }
}
