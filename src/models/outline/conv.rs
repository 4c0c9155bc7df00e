//! Convolutions, with the norm, the sum and the activation after them.

use candle_core::Result;

use super::{Back, LearnOutline};
use crate::memory::Outline;
use crate::models::layers::{Conv, Depthwise};
use crate::ops::outline::{self, Fused};
use crate::ops::{Activation, Weight, Window};

impl Conv {
    pub fn outputs(&self) -> usize {
        self.weighted.0.shape()[1]
    }

    /// What [`Conv::forward`] allocates.
    pub fn forward_outline(&self, xs: &Outline) -> Result<Outline> {
        self.outline_with(xs, None)
    }

    /// What [`Conv::forward_with`] allocates.
    pub fn outline_with(&self, xs: &Outline, residual: Option<&Outline>) -> Result<Outline> {
        let fused = Fused::with(self.activation, residual.is_some());
        if self.norm.is_none() {
            return outline::conv(xs, &self.weighted.0, self.window, fused);
        }
        Ok(after_norm(outline::conv(xs, &self.weighted.0, self.window, Fused::default())?, fused))
    }

    /// What [`Conv::forward_gated`] allocates.
    pub fn gated_outline(&self, xs: &Outline, residual: Option<&Outline>) -> Result<Outline> {
        if self.norm.is_some() {
            return self.outline_with(&outline::same(xs), residual);
        }
        Ok(outline::project_gated(xs, &self.weighted.0))
    }
}

impl Depthwise {
    /// What [`Depthwise::forward`] allocates.
    pub fn forward_outline(&self, xs: &Outline) -> Result<Outline> {
        let fused = Fused::with(self.activation, false);
        if self.norm.is_none() {
            return outline::depthwise(xs, self.window, fused);
        }
        Ok(after_norm(outline::depthwise(xs, self.window, Fused::default())?, fused))
    }

    /// What [`Depthwise::forward_after`] allocates.
    pub fn outline_after(&self, expand: &Conv, xs: &Outline) -> Result<Outline> {
        if expand.norm.is_some() || self.norm.is_some() {
            return self.forward_outline(&expand.forward_outline(xs)?);
        }
        outline::expand_depthwise(xs, &expand.weighted.0, self.window)
    }
}

/// A norm of its own, and what follows it.
fn after_norm(sums: Outline, fused: Fused) -> Outline {
    let mut ys = outline::same(&sums);
    drop(sums);
    if fused.residual {
        ys = outline::add(&ys);
    }
    if fused.activation {
        ys = outline::same(&ys);
    }
    ys
}

/// What a convolution that trains is.
#[derive(Clone, Copy)]
pub struct ConvOutline<'a> {
    /// None of a depthwise convolution.
    weight: Option<&'a Weight>,
    window: Window,
    activation: Activation,
    has_norm: bool,
}

impl<'a> ConvOutline<'a> {
    pub fn dense(conv: &'a Conv) -> Self {
        let Conv { weighted, norm, window, activation } = conv;
        let (window, activation, has_norm) = (*window, *activation, norm.is_some());
        Self { weight: Some(&weighted.0), window, activation, has_norm }
    }

    pub fn depthwise(depthwise: &'a Depthwise) -> Self {
        let Depthwise { norm, window, activation, .. } = depthwise;
        Self { weight: None, window: *window, activation: *activation, has_norm: norm.is_some() }
    }

    /// The output, and what backward needs.
    pub fn keep(self, xs: &Outline, residual: Option<&Outline>) -> Result<(Outline, KeptConvOutline<'a>)> {
        let sums = match self.weight {
            Some(weight) => outline::conv(xs, weight, self.window, Fused::default())?,
            None => outline::depthwise(xs, self.window, Fused::default())?,
        };
        let (xs, has_activation) = (xs.clone(), self.activation != Activation::None);
        if self.has_norm {
            let ys = outline::same(&sums);
            let residual = residual.filter(|_| has_activation).cloned();
            return Ok((ys, KeptConvOutline { conv: self, xs, sums, residual }));
        }
        let sums = if residual.is_some() { outline::same(&sums) } else { sums };
        let ys = if has_activation { outline::same(&sums) } else { sums.clone() };
        Ok((ys, KeptConvOutline { conv: self, xs, sums, residual: None }))
    }
}

/// What a conv keeps of a pass.
pub struct KeptConvOutline<'a> {
    conv: ConvOutline<'a>,
    xs: Outline,
    sums: Outline,
    residual: Option<Outline>,
}

impl KeptConvOutline<'_> {
    /// The gradients of the input, if it is wanted, and of the residual.
    pub fn back(
        self,
        upstream: &Outline,
        wants_input: bool,
        found: &mut Vec<Outline>,
    ) -> Result<(Option<Outline>, Outline)> {
        let Self { conv, xs, sums, residual } = self;
        let (of_sums, of_residual) = match conv.activation {
            activation if conv.has_norm => outline::batch_norm_backward(&sums, activation, upstream),
            Activation::None => (upstream.clone(), upstream.clone()),
            _ => {
                let gradient = outline::activation_backward(&sums);
                (gradient.clone(), gradient)
            }
        };
        drop((sums, residual));
        let channels = of_sums.channels();
        let (of_input, of_weight) = match conv.weight {
            Some(weight) => outline::conv_backward(&xs, weight.shape(), conv.window, &of_sums, wants_input)?,
            None => outline::depthwise_backward(&xs, conv.window, &of_sums, wants_input)?,
        };
        found.push(of_weight);
        // The bias; a norm has two such vectors.
        found.extend((0..1 + usize::from(conv.has_norm)).map(|_| of_sums.new(&[channels])));
        Ok((of_input, of_residual))
    }
}

impl LearnOutline for Conv {
    fn keep(&self, xs: &Outline) -> Result<(Outline, Back<'_>)> {
        let (ys, kept) = ConvOutline::dense(self).keep(xs, None)?;
        let back: Back = Box::new(move |upstream, wants_input, found| Ok(kept.back(upstream, wants_input, found)?.0));
        Ok((ys, back))
    }
}
