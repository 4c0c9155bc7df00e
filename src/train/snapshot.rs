//! A run on disk: the network as everyone can open it, and beside it, in the same file, all that training needs to go on.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::trainer::{Score, Trainer};
use crate::checkpoint::{Checkpoint, Planned, save_safetensors};
use crate::models::{Parameter, Weights};

/// What the names of an optimizer's memory, and of the weights that an average stands for, begin with.
const MEMORY: &str = "galley.optimizer.";
const RAW: &str = "galley.raw.";

/// The key of a run's position in a snapshot's metadata.
const POSITION: &str = "galley.training";

/// How far a run has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Whole epochs behind, and batches of the next.
    pub epoch: u64,
    pub batch: u64,
    /// Steps of the optimizer.
    pub steps: u64,
    /// What the batches of the unfinished epoch brought.
    pub seen: Score,
    /// Length of the metrics that belong to this snapshot.
    pub metrics_bytes: u64,
    pub best: Option<Best>,
    /// A number of the weights before training, to tell whether they have moved.
    pub initial: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// From 0.
    pub epoch: u64,
    pub top1: f64,
    pub loss: f64,
}

/// Writes the network's tensors under the file's names, in the order of use, and the training's state.
///
/// Frozen tensors come from `base`, which the network was built from. Refuses weights that are no numbers, and such as
/// have not moved since the beginning, without touching `path`.
pub fn save(
    path: &Path,
    trainer: &Trainer,
    base: &dyn Weights,
    about: &BTreeMap<String, String>,
    position: &Position,
) -> Result<(), TrainError> {
    let network = &trainer.network;
    if fingerprint(&network.learned)? == position.initial {
        return Err(TrainError::NothingLearned);
    }
    let own: HashMap<&str, &Parameter> =
        network.learned.iter().chain(&network.running).map(|parameter| (parameter.name.as_str(), parameter)).collect();
    let held: HashMap<&str, &[usize]> =
        base.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect();
    let mut tensors = Vec::new();
    for (name, asked) in network.architecture.tensors()? {
        let shape = own.get(name.as_str()).map(|parameter| parameter.shape.as_slice());
        let shape = shape.or_else(|| held.get(name.as_str()).copied()).unwrap_or(&asked).to_vec();
        tensors.push(Planned { name, shape });
    }
    let weights = tensors.len();
    let mut states: Vec<&Var> = Vec::new();
    for (parameter, memory) in network.learned.iter().zip(trainer.optimizer.memory()) {
        tensors.push(Planned { name: format!("{MEMORY}{}", parameter.name), shape: memory.dims().to_vec() });
        states.push(memory);
    }
    let averaged = trainer.average();
    if averaged.is_some() {
        let raw = |parameter: &Parameter| Planned {
            name: format!("{RAW}{}", parameter.name),
            shape: parameter.shape.clone(),
        };
        tensors.extend(network.learned.iter().map(raw));
    }
    let places: HashMap<&str, usize> =
        network.learned.iter().enumerate().map(|(place, one)| (one.name.as_str(), place)).collect();
    let mut about = about.clone();
    about.insert(POSITION.to_owned(), serde_json::to_string(position).map_err(io::Error::other)?);
    save_safetensors(path, &about, &tensors, |index| {
        let name = tensors[index].name.as_str();
        let values = if index >= weights + states.len() {
            elements(&network.learned[index - weights - states.len()].as_in_file()?)?
        } else if index >= weights {
            elements(&states[index - weights].as_detached_tensor())?
        } else if let Some(parameter) = own.get(name) {
            let average = averaged.and_then(|averages| Some(&averages[*places.get(name)?]));
            match average {
                Some(average) => elements(&parameter.turn_back(&average.as_detached_tensor())?)?,
                None => elements(&parameter.as_in_file()?)?,
            }
        } else if held.contains_key(name) {
            base.read_f32(name)?
        } else {
            return Err(TrainError::Lost { tensor: name.to_owned() });
        };
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(values),
            false => Err(TrainError::NotFinite { tensor: name.to_owned() }),
        }
    })
}

fn elements(tensor: &Tensor) -> Result<Vec<f32>, TrainError> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}

/// Where the run of a snapshot stands; `None` for a checkpoint that no run of Galley's wrote.
pub fn position(checkpoint: &Checkpoint) -> Option<Position> {
    serde_json::from_str(checkpoint.metadata().get(POSITION)?.as_str()?).ok()
}

/// Puts back what training needs to go on, into a trainer whose network was built from the same checkpoint.
pub fn restore(trainer: &mut Trainer, checkpoint: &Checkpoint, steps: u64) -> Result<(), TrainError> {
    for (parameter, memory) in trainer.network.learned.iter().zip(trainer.optimizer.memory()) {
        let values = checkpoint.read_f32(&format!("{MEMORY}{}", parameter.name))?;
        memory.set(&Tensor::from_vec(values, memory.shape(), memory.device())?)?;
    }
    if let Some(averages) = trainer.average() {
        for (parameter, average) in trainer.network.learned.iter().zip(averages) {
            average.set(&parameter.var.as_detached_tensor())?;
            parameter.var.set(&parameter.from_file(checkpoint.read_f32(&format!("{RAW}{}", parameter.name))?)?)?;
        }
    }
    trainer.optimizer.resume_at(steps);
    Ok(())
}

/// A number that is another for other weights (64-bit FNV-1a of their bytes).
pub fn fingerprint(parameters: &[Parameter]) -> Result<u64, TrainError> {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for parameter in parameters {
        for value in elements(&parameter.var.as_detached_tensor())? {
            hash = (hash ^ u64::from(value.to_bits())).wrapping_mul(0x100_0000_01B3);
        }
    }
    Ok(hash)
}
