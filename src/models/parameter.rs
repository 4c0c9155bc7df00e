//! What a network learns: its variables, and how the file they come from holds them.

use candle_core::{Result, Tensor, Var};

use super::Phase;
use crate::ops::{self, BatchStatistics};

/// A tensor of a network that trains.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// As in the file.
    pub name: String,
    /// In the network's order of axes.
    pub var: Var,
    /// As in the file.
    pub shape: Vec<usize>,
    /// Outputs, inputs and positions of a window when the file has them in this order; the variable has them reversed.
    pub(super) turned: Option<[usize; 3]>,
}

impl Parameter {
    /// The present values in the file's order and shape, detached.
    pub fn as_in_file(&self) -> Result<Tensor> {
        self.turn_back(&self.var.as_detached_tensor())
    }

    /// The file's elements, row-major, as a tensor that lies like the variable.
    pub fn from_file(&self, values: Vec<f32>) -> Result<Tensor> {
        let device = self.var.device();
        let values = match self.turned {
            Some([outputs, inputs, positions]) => {
                Tensor::from_vec(values, (outputs, inputs, positions), device)?.permute((2, 1, 0))?.contiguous()?
            }
            None => Tensor::from_vec(values, self.shape.as_slice(), device)?,
        };
        values.reshape(self.var.shape())
    }

    /// The same for a tensor that lies like the variable: a gradient, an average.
    pub fn turn_back(&self, values: &Tensor) -> Result<Tensor> {
        let Some([outputs, inputs, positions]) = self.turned else {
            return values.reshape(self.shape.as_slice());
        };
        let values = values.reshape((positions, inputs, outputs))?.permute((2, 1, 0))?;
        values.contiguous()?.reshape(self.shape.as_slice())
    }
}

/// A batch norm that is kept apart from the layer before it, because it trains.
pub struct TrainableNorm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub mean: Var,
    pub variance: Var,
    pub epsilon: f32,
    pub momentum: f64,
}

impl TrainableNorm {
    /// With the statistics of the batch, which move the running ones, or with those.
    pub fn forward(&self, xs: &Tensor, phase: Phase) -> Result<Tensor> {
        match phase {
            Phase::Train | Phase::TrainAgain => {
                let (ys, batch) = ops::batch_norm_of_batch(xs, &self.weight, &self.bias, self.epsilon)?;
                if phase == Phase::Train {
                    self.follow_batch(&batch)?;
                }
                Ok(ys)
            }
            Phase::Evaluate => ops::batch_norm(xs, &self.weight, &self.bias, &self.mean, &self.variance, self.epsilon),
        }
    }

    /// Moves the running statistics towards those of a batch.
    pub fn follow_batch(&self, batch: &BatchStatistics) -> Result<()> {
        self.follow(&self.mean, &batch.mean)?;
        self.follow(&self.variance, &batch.unbiased_variance)
    }

    fn follow(&self, running: &Var, batch: &Tensor) -> Result<()> {
        let kept = (running.as_detached_tensor() * (1.0 - self.momentum))?;
        running.set(&(kept + (batch * self.momentum)?)?)
    }
}
