//! Layers of rows: linear ones, norms, and those that widen and narrow.

use super::super::layers::Linear;
use crate::memory::Outline;
use crate::ops::Mlp;
use crate::ops::outline::{self, Fused};

/// A layer norm's output; backward keeps its input.
pub fn keep_norm(xs: &Outline) -> Outline {
    outline::same(xs)
}

/// A linear layer's output; backward keeps its input.
pub fn keep_linear(linear: &Linear, xs: &Outline) -> Outline {
    outline::linear(xs, &linear.weighted.0, Fused::default())
}

/// What a norm, a widening and a narrowing layer keep of a pass.
pub struct KeptMlpOutline {
    shape: [usize; 2],
    xs: Outline,
    wide: Option<Outline>,
}

impl KeptMlpOutline {
    pub fn forward(mlp: &Mlp, xs: &Outline) -> (Outline, Self) {
        let shape = mlp.expand.0.shape();
        let (ys, wide) = outline::mlp_forward(xs, shape, true);
        (ys, Self { shape, xs: xs.clone(), wide })
    }

    /// The output alone.
    pub fn pass(mlp: &Mlp, xs: &Outline) -> Outline {
        outline::mlp_forward(xs, mlp.expand.0.shape(), false).0
    }

    pub fn again(mlp: &Mlp, xs: &Outline) -> Self {
        Self { shape: mlp.expand.0.shape(), xs: xs.clone(), wide: None }
    }

    /// The gradient of the input.
    pub fn back(self, found: &mut Vec<Outline>) -> Outline {
        let Self { shape, xs, wide } = self;
        let (of_xs, of_parameters) = outline::mlp_backward(&xs, shape, wide.is_some());
        found.extend(of_parameters);
        of_xs
    }
}
