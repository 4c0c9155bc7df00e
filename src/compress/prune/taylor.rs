//! How much an inner channel matters to the loss, from gradients on photos: Molchanov et al. 2019, "Importance Estimation for
//! Neural Network Pruning" (arXiv:1906.10771), the first order form (equation 8) at a gate behind each channel.
//!
//! The gradient of a gate that multiplies a channel is the sum of the channel's values times their gradients. Every value goes
//! through the weights that take the channel, and only through these, so that the sum is that of these weights times theirs. Its
//! square is what the loss changes by when the channel is taken out, to first order and squared.

use crate::models::{Inner, Parameter, Part};
use crate::train::{Gradients, TrainError};

/// Scores that grow from batch to batch.
pub struct Taylor<'a> {
    inner: &'a [Inner],
    sums: Vec<Vec<f64>>,
}

impl<'a> Taylor<'a> {
    pub fn new(inner: &'a [Inner]) -> Self {
        Self { inner, sums: inner.iter().map(|inner| vec![0.0; inner.channels]).collect() }
    }

    /// Takes in the gradients of a batch's mean loss.
    pub fn add(&mut self, parameters: &[Parameter], gradients: &Gradients) -> Result<(), TrainError> {
        for (inner, sums) in self.inner.iter().zip(&mut self.sums) {
            let takes = inner.members.iter().find(|member| member.part == Part::Takes);
            let place = takes.and_then(|takes| parameters.iter().position(|one| one.name == takes.tensor));
            let Some((parameter, gradient)) = place.and_then(|place| Some((&parameters[place], gradients.get(place)?)))
            else {
                continue;
            };
            // (positions, inputs, outputs)
            let products = (parameter.var.as_detached_tensor() * gradient)?;
            let outputs = products.dims().last().copied().unwrap_or(1);
            let of_gates = products.reshape(((), inner.channels, outputs))?.sum((0, 2))?.to_vec1::<f32>()?;
            sums.iter_mut().zip(of_gates).for_each(|(sum, gate)| *sum += f64::from(gate).powi(2));
        }
        Ok(())
    }

    /// By layer and channel.
    pub fn scores(self) -> Vec<Vec<f64>> {
        self.sums
    }
}
