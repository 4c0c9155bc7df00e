//! A convolution, the norm after it, a sum and an activation: what residual networks are made of.

use candle_core::{Result, Tensor};

use super::{Backward, Found};
use crate::models::Phase;
use crate::models::layers::{Conv, Depthwise};
use crate::models::parameter::TrainableNorm;
use crate::ops::{self, Activation, BatchLayers, Normal, Weight, Window};

/// `activation(norm(convolution(x)) + residual)`, all of which may train.
#[derive(Clone, Copy)]
pub struct TrainedConv<'a> {
    weight: &'a Tensor,
    bias: &'a Tensor,
    norm: Option<&'a TrainableNorm>,
    window: Window,
    activation: Activation,
    is_depthwise: bool,
}

impl<'a> TrainedConv<'a> {
    /// None when the weight is not one that trains.
    pub fn dense(conv: &'a Conv) -> Option<Self> {
        let Conv { weighted: (Weight::Plain(weight), bias), norm, window, activation } = conv else { return None };
        let (window, activation) = (*window, *activation);
        Some(Self { weight, bias, norm: norm.as_ref(), window, activation, is_depthwise: false })
    }

    pub fn depthwise(depthwise: &'a Depthwise) -> Self {
        let Depthwise { affine: (weight, bias), norm, window, activation } = depthwise;
        let (window, activation) = (*window, *activation);
        Self { weight, bias, norm: norm.as_ref(), window, activation, is_depthwise: true }
    }

    /// The output, and what backward needs.
    pub fn keep(self, xs: &Tensor, residual: Option<&Tensor>, phase: Phase) -> Result<(Tensor, KeptConv<'a>)> {
        let (xs, residual) = (xs.detach(), residual.map(Tensor::detach));
        let (weight, bias) = (self.weight.detach(), self.bias.detach());
        let sums = if self.is_depthwise {
            ops::depthwise(&xs, &weight, &bias, self.window, Activation::None)?
        } else {
            ops::conv(&xs, &weight, &bias, self.window, Activation::None, None)?
        };
        let Some(norm) = self.norm else {
            let sums = if let Some(residual) = &residual { ops::add(&sums, residual)? } else { sums };
            let ys = ops::activate_sum(sums.clone(), None, self.activation)?;
            return Ok((ys, KeptConv { conv: self, xs, sums, normal: None, residual: None }));
        };
        let (ys, normal, batch) = ops::batch_norm_forward(&sums, self.layers(norm), residual.as_ref())?;
        if phase == Phase::Train {
            norm.follow_batch(&batch)?;
        }
        // Without an activation the sum leaves no trace in backward.
        let residual = residual.filter(|_| self.activation != Activation::None);
        Ok((ys, KeptConv { conv: self, xs, sums, normal: Some(normal), residual }))
    }

    fn layers(self, norm: &'a TrainableNorm) -> BatchLayers<'a> {
        BatchLayers { weight: &norm.weight, bias: &norm.bias, epsilon: norm.epsilon, activation: self.activation }
    }
}

/// What a conv keeps of a pass.
pub struct KeptConv<'a> {
    conv: TrainedConv<'a>,
    xs: Tensor,
    /// Before the norm; without one, before the activation.
    sums: Tensor,
    normal: Option<Normal>,
    residual: Option<Tensor>,
}

impl KeptConv<'_> {
    /// The gradients of the input, if it is wanted, and of the residual.
    pub fn back(self, upstream: &Tensor, wants_input: bool, found: &mut Found) -> Result<(Option<Tensor>, Tensor)> {
        let Self { conv, xs, sums, normal, residual } = self;
        let (of_sums, of_residual) = match (conv.norm, normal) {
            (Some(norm), Some(normal)) => {
                let layers = conv.layers(norm);
                let gradients = ops::batch_norm_backward(&sums, &normal, layers, residual.as_ref(), upstream)?;
                found.add(&norm.weight, gradients.weight);
                found.add(&norm.bias, gradients.bias);
                (gradients.x, gradients.residual)
            }
            _ if conv.activation == Activation::None => (upstream.clone(), upstream.clone()),
            _ => {
                let gradient = ops::activation_backward(&sums, conv.activation, upstream)?;
                (gradient.clone(), gradient)
            }
        };
        drop((sums, residual));
        let backward = if conv.is_depthwise { ops::depthwise_backward } else { ops::conv_backward };
        let (of_input, of_weight, of_bias) = backward(&xs, conv.weight, conv.window, &of_sums, wants_input)?;
        found.add(conv.weight, of_weight);
        found.add(conv.bias, of_bias);
        Ok((of_input, of_residual))
    }
}

impl Backward for KeptConv<'_> {
    fn back(self: Box<Self>, upstream: &Tensor, wants_input: bool, found: &mut Found) -> Result<Option<Tensor>> {
        Ok((*self).back(upstream, wants_input, found)?.0)
    }
}
