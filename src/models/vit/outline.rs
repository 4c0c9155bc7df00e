//! What an encoder's block allocates that takes its gradients itself.

use candle_core::Result;

use super::Encoder;
use crate::memory::Outline;
use crate::models::outline::{Back, KeptMlpOutline, LearnOutline, keep_linear, keep_norm};
use crate::ops::outline;

/// What attention and the layers around it keep of a pass.
struct Attended {
    xs: Outline,
    normed: Outline,
    qkv: Outline,
    attended: Outline,
}

impl Encoder {
    fn attend_outline(&self, xs: &Outline) -> (Outline, Attended) {
        let normed = keep_norm(xs);
        let qkv = keep_linear(&self.qkv, &normed);
        let attended = outline::attention(&qkv);
        let ys = keep_linear(&self.merge, &attended);
        (ys, Attended { xs: xs.clone(), normed, qkv, attended })
    }

    fn back(&self, attended: Attended, mlp: KeptMlpOutline) -> Back<'_> {
        Box::new(move |upstream, wants_input, found| {
            let of_hidden = mlp.back(found);
            let upstream = outline::same(upstream);
            drop(of_hidden);
            let Attended { xs, normed, qkv, attended } = attended;
            let (of_attended, of_merge) = outline::linear_backward(&attended, self.merge.weighted.0.shape(), &upstream);
            found.extend(of_merge);
            drop(attended);
            let of_qkv = outline::attention_backward(&qkv);
            drop((qkv, of_attended));
            let (of_normed, of_project) = outline::linear_backward(&normed, self.qkv.weighted.0.shape(), &of_qkv);
            found.extend(of_project);
            drop((normed, of_qkv));
            let of_xs = outline::layer_norm_backward(&xs);
            drop((of_normed, xs));
            found.extend((0..2).map(|_| of_xs.new(&[of_xs.channels()])));
            Ok(wants_input.then(|| outline::same(&of_xs)))
        })
    }
}

impl LearnOutline for Encoder {
    fn keep(&self, xs: &Outline) -> Result<(Outline, Back<'_>)> {
        let (hidden, attended) = self.attend_outline(xs);
        let (ys, mlp) = KeptMlpOutline::forward(&self.mlp, &hidden);
        Ok((ys, self.back(attended, mlp)))
    }

    fn pass(&self, xs: &Outline) -> Result<Outline> {
        let hidden = self.attend_outline(xs).0;
        Ok(KeptMlpOutline::pass(&self.mlp, &hidden))
    }

    fn again(&self, xs: &Outline) -> Result<Back<'_>> {
        let (hidden, attended) = self.attend_outline(xs);
        let mlp = KeptMlpOutline::again(&self.mlp, &hidden);
        Ok(self.back(attended, mlp))
    }
}
