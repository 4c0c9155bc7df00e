//! SqueezeNet's blocks as ones that take their gradients themselves.

use candle_core::{Result, Tensor};

use super::{Fire, POOL, Stem};
use crate::models::Phase;
use crate::models::learn::{Backward, Found, KeptConv, KeptPool, Learn};
use crate::ops;

impl Learn for Stem {
    fn keep(&self, xs: &Tensor, phase: Phase) -> Result<(Tensor, Box<dyn Backward + '_>)> {
        let (pooled, conv) = self.0.trained()?.keep(xs, None, phase)?;
        Ok((ops::max_pool(&pooled, POOL)?, Box::new(KeptPool { conv, pooled, window: POOL })))
    }
}

impl Learn for Fire {
    fn keep(&self, xs: &Tensor, phase: Phase) -> Result<(Tensor, Box<dyn Backward + '_>)> {
        let (squeezed, squeeze) = self.squeeze.trained()?.keep(xs, None, phase)?;
        let (one, expand_1x1) = self.expand_1x1.trained()?.keep(&squeezed, None, phase)?;
        let (three, expand_3x3) = self.expand_3x3.trained()?.keep(&squeezed, None, phase)?;
        let joined = ops::join_channels(&one, &three)?;
        let expanded = one.dim(3)?;
        let (ys, pooled) = if self.pooled { (ops::max_pool(&joined, POOL)?, Some(joined)) } else { (joined, None) };
        Ok((ys, Box::new(KeptFire { squeeze, expand_1x1, expand_3x3, expanded, pooled })))
    }
}

struct KeptFire<'a> {
    squeeze: KeptConv<'a>,
    expand_1x1: KeptConv<'a>,
    expand_3x3: KeptConv<'a>,
    /// Channels of the first of the two.
    expanded: usize,
    /// What the pool was given, if there is one.
    pooled: Option<Tensor>,
}

impl Backward for KeptFire<'_> {
    fn back(self: Box<Self>, upstream: &Tensor, wants_input: bool, found: &mut Found) -> Result<Option<Tensor>> {
        let Self { squeeze, expand_1x1, expand_3x3, expanded, pooled } = *self;
        let of_joined = pooled.map(|pooled| ops::max_pool_backward(&pooled, POOL, upstream)).transpose()?;
        let (of_one, of_three) = ops::split_channels(of_joined.as_ref().unwrap_or(upstream), expanded)?;
        drop(of_joined);
        let (one, _) = expand_1x1.back(&of_one, true, found)?;
        drop(of_one);
        let (three, _) = expand_3x3.back(&of_three, true, found)?;
        drop(of_three);
        let (Some(one), Some(three)) = (one, three) else {
            candle_core::bail!("a gradient that was wanted is there");
        };
        let (of_input, _) = squeeze.back(&ops::add(&one, &three)?, wants_input, found)?;
        Ok(of_input)
    }
}
