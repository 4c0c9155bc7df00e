//! An encoder's block as one that takes its gradients itself.

use candle_core::{Result, Tensor};

use super::Encoder;
use crate::models::Phase;
use crate::models::learn::{Backward, Found, KeptLinear, KeptMlp, KeptNorm, Learn};
use crate::ops;

impl Encoder {
    /// Whether all its weights are such as may train.
    pub(super) fn can_learn(&self) -> bool {
        [&self.qkv, &self.merge].into_iter().all(KeptLinear::can_learn) && KeptMlp::layers(&self.mlp, None).is_some()
    }

    /// The tokens after attention, and what backward needs of them.
    fn attend(&self, xs: &Tensor) -> Result<(Tensor, Attended<'_>)> {
        let xs = xs.detach();
        let (normed, norm) = KeptNorm::forward(&self.first, &xs)?;
        let (qkv, project) = KeptLinear::forward(&self.qkv, &normed, None)?;
        let attended = ops::attention(&qkv, self.heads)?;
        let (ys, merge) = KeptLinear::forward(&self.merge, &attended, Some(&xs))?;
        Ok((ys, Attended { norm, project, qkv, heads: self.heads, merge }))
    }
}

impl Learn for Encoder {
    fn keep(&self, xs: &Tensor, _: Phase) -> Result<(Tensor, Box<dyn Backward + '_>)> {
        let (hidden, attended) = self.attend(xs)?;
        let (ys, mlp) = KeptMlp::forward(KeptMlp::of(&self.mlp, None)?, &hidden, &hidden)?;
        Ok((ys, Box::new(Kept { attended, mlp })))
    }

    fn pass(&self, xs: &Tensor, _: Phase) -> Result<Tensor> {
        let hidden = self.attend(xs)?.0;
        Ok(ops::mlp_forward(&hidden, &KeptMlp::of(&self.mlp, None)?, &hidden, false)?.0)
    }

    fn again(&self, xs: &Tensor) -> Result<Box<dyn Backward + '_>> {
        let (hidden, attended) = self.attend(xs)?;
        Ok(Box::new(Kept { attended, mlp: KeptMlp::again(KeptMlp::of(&self.mlp, None)?, &hidden) }))
    }
}

/// What a block keeps of a pass.
struct Kept<'a> {
    attended: Attended<'a>,
    mlp: KeptMlp<'a>,
}

/// What attention and the layers around it keep of a pass.
struct Attended<'a> {
    norm: KeptNorm<'a>,
    project: KeptLinear<'a>,
    qkv: Tensor,
    heads: usize,
    merge: KeptLinear<'a>,
}

impl Attended<'_> {
    /// The gradient of the tokens, but for what passes around attention.
    fn back(self, upstream: &Tensor, found: &mut Found) -> Result<Tensor> {
        let Self { norm, project, qkv, heads, merge } = self;
        let of_attended = merge.back(upstream, found)?;
        let of_qkv = ops::attention_backward(&qkv, heads, &of_attended)?;
        drop((qkv, of_attended));
        norm.back(&project.back(&of_qkv, found)?, found)
    }
}

impl Backward for Kept<'_> {
    fn back(self: Box<Self>, upstream: &Tensor, wants_input: bool, found: &mut Found) -> Result<Option<Tensor>> {
        let Self { attended, mlp } = *self;
        let upstream = ops::add(&mlp.back(upstream, found)?, upstream)?;
        let of_xs = attended.back(&upstream, found)?;
        wants_input.then(|| ops::add(&of_xs, &upstream)).transpose()
    }
}
