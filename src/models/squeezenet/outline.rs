//! What SqueezeNet's blocks allocate that take their gradients themselves.

use candle_core::Result;

use super::{Fire, POOL, Stem};
use crate::memory::Outline;
use crate::models::outline::{Back, ConvOutline, LearnOutline};
use crate::ops::outline;

impl LearnOutline for Stem {
    fn keep(&self, xs: &Outline) -> Result<(Outline, Back<'_>)> {
        let (pooled, conv) = ConvOutline::dense(&self.0).keep(xs, None)?;
        let ys = outline::max_pool(&pooled, POOL)?;
        let back: Back = Box::new(move |_, wants_input, found| {
            let upstream = outline::max_pool_backward(&pooled);
            Ok(conv.back(&upstream, wants_input, found)?.0)
        });
        Ok((ys, back))
    }
}

impl LearnOutline for Fire {
    fn keep(&self, xs: &Outline) -> Result<(Outline, Back<'_>)> {
        let (squeezed, squeeze) = ConvOutline::dense(&self.squeeze).keep(xs, None)?;
        let (one, expand_1x1) = ConvOutline::dense(&self.expand_1x1).keep(&squeezed, None)?;
        let (three, expand_3x3) = ConvOutline::dense(&self.expand_3x3).keep(&squeezed, None)?;
        let joined = outline::join_channels(&one, &three);
        let expanded = one.channels();
        let (ys, pooled) = if self.pooled { (outline::max_pool(&joined, POOL)?, Some(joined)) } else { (joined, None) };
        let back: Back = Box::new(move |upstream, wants_input, found| {
            let of_joined = pooled.map(|pooled| outline::max_pool_backward(&pooled));
            let joined = of_joined.as_ref().unwrap_or(upstream);
            let of_one = joined.with_channels(expanded);
            let of_three = joined.with_channels(joined.channels() - expanded);
            drop(of_joined);
            let (one, _) = expand_1x1.back(&of_one, true, found)?;
            drop(of_one);
            let (three, _) = expand_3x3.back(&of_three, true, found)?;
            drop(of_three);
            let (Some(one), Some(_three)) = (one, three) else { return Ok(None) };
            let (of_input, _) = squeeze.back(&outline::same(&one), wants_input, found)?;
            Ok(of_input)
        });
        Ok((ys, back))
    }
}
