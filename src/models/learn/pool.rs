//! A pool of the largest values after a convolution.

use candle_core::{Result, Tensor};

use super::{Backward, Found, KeptConv};
use crate::ops::{self, Window};

/// What both keep of a pass.
pub struct KeptPool<'a> {
    pub conv: KeptConv<'a>,
    /// What the pool was given.
    pub pooled: Tensor,
    pub window: Window,
}

impl Backward for KeptPool<'_> {
    fn back(self: Box<Self>, upstream: &Tensor, wants_input: bool, found: &mut Found) -> Result<Option<Tensor>> {
        let upstream = ops::max_pool_backward(&self.pooled, self.window, upstream)?;
        Ok(self.conv.back(&upstream, wants_input, found)?.0)
    }
}
