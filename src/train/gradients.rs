//! The sum of the gradients of a step's micro-batches: one persistent buffer per parameter.

use candle_core::{DType, Tensor, Var};

use super::TrainError;
use crate::models::Parameter;
use crate::ops;

pub struct Gradients {
    sums: Vec<Var>,
    /// Whether a sum holds anything of this step.
    begun: Vec<bool>,
}

impl Gradients {
    pub fn new(parameters: &[Parameter]) -> Result<Self, TrainError> {
        let zeros = |parameter: &Parameter| {
            let var = &parameter.var;
            Var::zeros(var.shape(), DType::F32, var.device())
        };
        let sums = parameters.iter().map(zeros).collect::<Result<_, _>>()?;
        Ok(Self { sums, begun: vec![false; parameters.len()] })
    }

    /// Begins a new sum.
    pub fn clear(&mut self) {
        self.begun.fill(false);
    }

    /// Adds to the gradient of parameter number `place`.
    pub fn add(&mut self, place: usize, gradient: &Tensor) -> Result<(), TrainError> {
        // What was there before may be no number, which no factor of 0 takes away.
        if self.begun[place] {
            ops::blend(&self.sums[place], 1.0, gradient, 1.0)?;
        } else {
            self.sums[place].set(&gradient.contiguous()?)?;
            self.begun[place] = true;
        }
        Ok(())
    }

    /// The gradient of parameter number `place`, if any was added.
    pub fn get(&self, place: usize) -> Option<&Tensor> {
        self.begun[place].then(|| self.sums[place].as_tensor())
    }

    /// The length of all gradients together as one vector.
    pub fn norm(&self) -> Result<f64, TrainError> {
        let places = (0..self.sums.len()).filter_map(|place| self.get(place));
        let squares = places.map(ops::sum_of_squares).sum::<Result<f64, _>>()?;
        Ok(squares.sqrt())
    }
}
