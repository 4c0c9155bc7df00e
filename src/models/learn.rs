//! Layers that take their gradients themselves: without a graph of operations, whose every edge costs a pass over memory.

use candle_core::{Result, Tensor};

use super::Phase;

/// A layer in training. What it computes equals its [`forward`](super::layers::Layer::forward) up to rounding.
pub trait Learn {
    /// The output, and what backward needs.
    fn keep(&self, xs: &Tensor, phase: Phase) -> Result<(Tensor, Box<dyn Backward + '_>)>;

    /// The output alone.
    fn pass(&self, xs: &Tensor, phase: Phase) -> Result<Tensor> {
        Ok(self.keep(xs, phase)?.0)
    }

    /// What backward needs alone, of an input that has passed already.
    fn again(&self, xs: &Tensor) -> Result<Box<dyn Backward + '_>> {
        Ok(self.keep(xs, Phase::TrainAgain)?.1)
    }
}

/// What a layer kept of a pass.
pub trait Backward {
    /// Reports the gradient of every parameter, and returns that of the input if it is wanted, given the output's.
    fn back(self: Box<Self>, upstream: &Tensor, wants_input: bool, found: &mut Found) -> Result<Option<Tensor>>;
}

/// Gradients by the parameter they are of; also of tensors that do not train.
#[derive(Default)]
pub struct Found(pub Vec<(Tensor, Tensor)>);

impl Found {
    pub fn add(&mut self, parameter: &Tensor, gradient: Tensor) {
        self.0.push((parameter.clone(), gradient));
    }

    /// The gradient of `parameter`, taken out.
    pub fn take(&mut self, parameter: &Tensor) -> Option<Tensor> {
        let place = self.0.iter().position(|(one, _)| one.id() == parameter.id())?;
        Some(self.0.swap_remove(place).1)
    }
}
