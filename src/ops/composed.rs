//! Pieces that composed forms share: plain candle operations whose gradients are right on every device and in f64.

use candle_core::{Result, Tensor};

use super::window::{Geometry, Window};

/// What every window over an image batch holds, one place of the window at a time.
pub struct Windows {
    padded: Tensor,
    geometry: Geometry,
}

impl Windows {
    /// Windows over `x` `(n, h, w, channels)`, which is surrounded by `margin`.
    pub fn new(x: &Tensor, window: Window, margin: f32) -> Result<Self> {
        let geometry = window.over(x.dims())?;
        let Geometry { height, width, top, left, out_height, out_width, .. } = geometry;
        // Far enough for `every` at the last place of the window.
        let after = |before: usize, length: usize, outputs: usize| {
            (window.kernel - 1 + outputs * window.stride).saturating_sub(length + before)
        };
        let padded = pad(x, 1, top, after(top, height, out_height), margin)?;
        let padded = pad(&padded, 2, left, after(left, width, out_width), margin)?;
        Ok(Self { padded, geometry })
    }

    /// The value at one place of each window: `(n, h', w', channels)`.
    pub fn at(&self, row: usize, column: usize) -> Result<Tensor> {
        let Geometry { window, out_height, out_width, .. } = self.geometry;
        let rows = every(&self.padded, 1, row, window.stride, out_height)?;
        every(&rows, 2, column, window.stride, out_width)?.contiguous()
    }

    /// The places of the window, row by row.
    pub fn places(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let kernel = self.geometry.window.kernel;
        (0..kernel).flat_map(move |row| (0..kernel).map(move |column| (row, column)))
    }
}

/// `x` with `before` and `after` elements of `margin` around it along `axis`.
fn pad(x: &Tensor, axis: usize, before: usize, after: usize, margin: f32) -> Result<Tensor> {
    let side = |length: usize| {
        let mut shape = x.dims().to_vec();
        shape[axis] = length;
        Tensor::full(margin, shape, x.device())?.to_dtype(x.dtype())
    };
    let mut parts = vec![x.clone()];
    if before > 0 {
        parts.insert(0, side(before)?);
    }
    if after > 0 {
        parts.push(side(after)?);
    }
    Tensor::cat(&parts, axis)
}

/// `count` elements along `axis`, `step` apart from `start` on; `x` must reach `start + count · step`.
fn every(x: &Tensor, axis: usize, start: usize, step: usize, count: usize) -> Result<Tensor> {
    let x = x.narrow(axis, start, count * step)?;
    if step == 1 {
        return Ok(x);
    }
    let mut shape = x.dims().to_vec();
    shape[axis] = count;
    shape.insert(axis + 1, step);
    x.reshape(shape)?.narrow(axis + 1, 0, 1)?.squeeze(axis + 1)
}

/// `x`, or `low` where it is larger; no gradient flows there.
pub fn at_least(x: &Tensor, low: f64) -> Result<Tensor> {
    x.le(low)?.where_cond(&x.zeros_like()?.affine(0.0, low)?, x)
}

/// `x`, or `high` where it is smaller; no gradient flows there.
pub fn at_most(x: &Tensor, high: f64) -> Result<Tensor> {
    x.ge(high)?.where_cond(&x.zeros_like()?.affine(0.0, high)?, x)
}

/// Softmax over the last axis.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let axis = x.rank() - 1;
    // The shift changes nothing, so no gradient belongs to it.
    let exp = x.broadcast_sub(&x.detach().max_keepdim(axis)?)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(axis)?)
}
