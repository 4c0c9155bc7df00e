//! A run on disk: the network as everyone can open it, and beside it, in the same file, all that training needs to go on.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::score::Score;
use super::trainer::Trainer;
use crate::checkpoint::{Checkpoint, Planned, save_safetensors};
use crate::device::completed;
use crate::models::{Parameter, Weights};

/// What the names of an optimizer's memory, and of the weights that an average stands for, begin with.
const MEMORY: &str = "galley.optimizer.";
const RAW: &str = "galley.raw.";

/// The key of a run's position in a snapshot's metadata.
const POSITION: &str = "galley.training";

/// How far a run has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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
    /// Photos computed at once, and batches decoded ahead: memory may have asked for fewer than the settings say. None in
    /// snapshots of before it could.
    pub at_once: Option<usize>,
    pub batches_ahead: Option<usize>,
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
    let mut own: HashMap<&str, Held> =
        network.moving().map(|parameter| (parameter.name.as_str(), Held::Own(parameter))).collect();
    own.extend(
        trainer.averaged().map(|(parameter, average)| (parameter.name.as_str(), Held::Average(parameter, average))),
    );
    let mut tensors = Vec::new();
    let mut held = Vec::new();
    let mut plan = |name: String, shape: Vec<usize>, of| {
        tensors.push(Planned { name, shape });
        held.push(of);
    };
    for (name, _) in network.architecture.tensors()? {
        let of = own.get(name.as_str()).copied().unwrap_or(Held::Base);
        let shape = of.shape_in(base, &name).ok_or_else(|| TrainError::Lost { tensor: name.clone() })?;
        plan(name, shape, of);
    }
    for (parameter, memory) in network.learned.iter().zip(trainer.optimizer.memory()) {
        plan(format!("{MEMORY}{}", parameter.name), memory.dims().to_vec(), Held::Memory(memory));
    }
    for (parameter, _) in trainer.averaged() {
        plan(format!("{RAW}{}", parameter.name), parameter.shape.clone(), Held::Own(parameter));
    }
    let mut about = about.clone();
    about.insert(POSITION.to_owned(), serde_json::to_string(position).map_err(io::Error::other)?);
    save_safetensors(path, &about, &tensors, |index| {
        let name = &tensors[index].name;
        let values = completed(&trainer.device, || held[index].values(base, name))?;
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(values),
            false => Err(TrainError::NotFinite { tensor: name.clone() }),
        }
    })
}

/// Who has the values of a tensor of a snapshot.
#[derive(Clone, Copy)]
enum Held<'a> {
    /// What the network was built from.
    Base,
    Own(&'a Parameter),
    /// The average that stands for a parameter.
    Average(&'a Parameter, &'a Var),
    /// The optimizer.
    Memory(&'a Var),
}

impl Held<'_> {
    /// The shape in a file; `None` when nobody has the tensor.
    fn shape_in(self, base: &dyn Weights, name: &str) -> Option<Vec<usize>> {
        match self {
            Self::Base => base.tensors().iter().find(|tensor| tensor.name == name).map(|tensor| tensor.shape.clone()),
            Self::Own(parameter) | Self::Average(parameter, _) => Some(parameter.shape.clone()),
            Self::Memory(memory) => Some(memory.dims().to_vec()),
        }
    }

    /// The elements in a file's order.
    fn values(self, base: &dyn Weights, name: &str) -> Result<Vec<f32>, TrainError> {
        match self {
            Self::Base => Ok(base.read_f32(name)?),
            Self::Own(parameter) => elements(&parameter.as_in_file()?),
            Self::Average(parameter, average) => elements(&parameter.turn_back(&average.as_detached_tensor())?),
            Self::Memory(memory) => elements(&memory.as_detached_tensor()),
        }
    }
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
    for (parameter, average) in trainer.averaged() {
        average.set(&parameter.var.as_detached_tensor())?;
        parameter.var.set(&parameter.from_file(checkpoint.read_f32(&format!("{RAW}{}", parameter.name))?)?)?;
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
