//! AdamW and SGD with momentum, in place, each parameter with its own share of the learning rate.

use candle_core::{DType, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::gradients::Gradients;
use crate::models::{Network, Parameter};
use crate::ops::{self, AdamStep, Moments};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    #[default]
    AdamW,
    /// Stochastic gradient descent with momentum, decay added to the gradient, as PyTorch's.
    Sgd,
}

/// What stays the same for all steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerSettings {
    pub method: Method,
    pub weight_decay: f64,
    /// Of SGD.
    pub momentum: f64,
    /// Of AdamW.
    pub betas: [f64; 2],
    pub epsilon: f64,
    /// What each block's learning rate is of the rate of the block behind it.
    pub layer_decay: f64,
    /// The gradients together are scaled down to this length; none leaves them.
    pub clip_norm: Option<f64>,
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        Self {
            method: Method::AdamW,
            weight_decay: 0.05,
            momentum: 0.9,
            // PyTorch's defaults.
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            layer_decay: 1.0,
            clip_norm: None,
        }
    }
}

pub struct Optimizer {
    settings: OptimizerSettings,
    states: Vec<State>,
    steps: u64,
}

/// What a parameter needs to move.
struct State {
    /// Both moments `(2, n)`, or the momentum in the parameter's shape.
    memory: Var,
    decays: bool,
    /// Its share of the learning rate.
    share: f64,
}

impl Optimizer {
    pub fn new(network: &Network, settings: OptimizerSettings) -> Result<Self, TrainError> {
        let mut states = Vec::with_capacity(network.learned.len());
        let last = network.blocks.len().saturating_sub(1);
        for (index, block) in network.blocks.iter().enumerate() {
            let share = settings.layer_decay.powi((last - index) as i32);
            for parameter in &network.learned[block.learned.clone()] {
                let device = parameter.var.device();
                let memory = match settings.method {
                    Method::AdamW => Var::zeros((2, parameter.var.elem_count()), DType::F32, device)?,
                    Method::Sgd => Var::zeros(parameter.var.shape(), DType::F32, device)?,
                };
                states.push(State { memory, decays: decays(parameter), share });
            }
        }
        Ok(Self { settings, states, steps: 0 })
    }

    /// Moves every parameter that has a gradient. `norm` is the gradients' length before clipping, a scalar on their device.
    pub fn step(
        &mut self,
        network: &Network,
        gradients: &Gradients,
        norm: &Tensor,
        rate: f64,
    ) -> Result<(), TrainError> {
        let scale = match self.settings.clip_norm {
            // torch.nn.utils.clip_grad_norm_
            Some(limit) => ((norm + 1e-6)?.recip()? * limit)?.minimum(1.0)?,
            None => norm.ones_like()?,
        };
        let scale = scale.to_dtype(DType::F32)?;
        self.steps += 1;
        for (place, (parameter, state)) in network.learned.iter().zip(&self.states).enumerate() {
            let Some(gradient) = gradients.get(place) else { continue };
            let decay = if state.decays { self.settings.weight_decay } else { 0.0 };
            let rate = rate * state.share;
            match self.settings.method {
                Method::AdamW => {
                    let betas = self.settings.betas;
                    ops::follow_moments(&state.memory, gradient, &scale, Moments { betas })?;
                    let corrections = betas.map(|beta| 1.0 - beta.powf(self.steps as f64));
                    let epsilon = self.settings.epsilon;
                    let step = AdamStep { learning_rate: rate, weight_decay: decay, epsilon, corrections };
                    ops::descend(&parameter.var, &state.memory, step)?;
                }
                Method::Sgd => {
                    ops::blend(&state.memory, self.settings.momentum, &gradient.broadcast_mul(&scale)?, 1.0)?;
                    if decay > 0.0 {
                        ops::blend(&state.memory, 1.0, &parameter.var.as_detached_tensor(), decay)?;
                    }
                    ops::blend(&parameter.var, 1.0, &state.memory.as_detached_tensor(), -rate)?;
                }
            }
        }
        Ok(())
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Each parameter's memory, in the order of the network's parameters.
    pub fn memory(&self) -> impl Iterator<Item = &Var> {
        self.states.iter().map(|state| &state.memory)
    }

    /// Goes on after `steps` steps whose memory was put back.
    pub fn resume_at(&mut self, steps: u64) {
        self.steps = steps;
    }
}

/// Norms, biases and tokens do not decay, as in timm.
fn decays(parameter: &Parameter) -> bool {
    let is_placed = ["cls_token", "pos_embed", "class_token", "pos_embedding"];
    let long_axes = parameter.shape.iter().filter(|&&length| length > 1).count();
    long_axes > 1 && !is_placed.iter().any(|name| parameter.name.ends_with(name))
}
