//! The sum of the gradients of a step's micro-batches: memory that is free between steps.

use candle_core::Tensor;

use super::TrainError;
use crate::ops;

/// By parameter; none before the first is added.
pub struct Gradients(Vec<Option<Tensor>>);

impl Gradients {
    pub fn new(parameters: usize) -> Self {
        Self(vec![None; parameters])
    }

    /// Adds to the gradient of parameter number `place`.
    pub fn add(&mut self, place: usize, gradient: Tensor) -> Result<(), TrainError> {
        let sum = match self.0[place].take() {
            Some(sum) => ops::add(&sum, &gradient)?,
            None => gradient.contiguous()?,
        };
        self.0[place] = Some(sum);
        Ok(())
    }

    /// The gradient of parameter number `place`, if any was added.
    pub fn get(&self, place: usize) -> Option<&Tensor> {
        self.0[place].as_ref()
    }

    /// The length of all gradients together as one vector, a scalar on their device.
    pub fn norm(&self) -> Result<Tensor, TrainError> {
        Ok(ops::sum_of_squares(&self.0.iter().flatten().collect::<Vec<_>>())?.sqrt()?)
    }
}
