//! A checkpoint's network in fewer bits: which type each tensor gets, and the file, written tensor by tensor.
//!
//! Convolutions and linear layers get the type that their block is given. What is small, norms, biases and depthwise
//! convolutions, stays in 16 or 32 bits. In memory there is never more than one tensor.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::rounding::round_row;
use crate::checkpoint::{Checkpoint, CheckpointError, GgufTensor, GgufType, Unnamed, gguf_bytes, write_gguf};
use crate::models::{self, Architecture, InputRanges, LayerWeight, ModelError, Shift};
use crate::ops::InputMeans;
use crate::worker::{Canceled, JobContext, Progress};

/// What the weights of a block are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Bits {
    #[serde(rename = "q4_0")]
    Q4_0,
    #[serde(rename = "q4_1")]
    Q4_1,
    #[serde(rename = "q5_0")]
    Q5_0,
    #[serde(rename = "q8_0")]
    Q8_0,
    #[serde(rename = "f16")]
    F16,
}

impl Bits {
    pub const ALL: [Self; 5] = [Self::Q8_0, Self::Q5_0, Self::Q4_1, Self::Q4_0, Self::F16];

    pub fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q8_0 => "q8_0",
            Self::F16 => "f16",
        }
    }

    fn stored(self) -> GgufType {
        match self {
            Self::Q4_0 => GgufType::Q4_0,
            Self::Q4_1 => GgufType::Q4_1,
            Self::Q5_0 => GgufType::Q5_0,
            Self::Q8_0 => GgufType::Q8_0,
            Self::F16 => GgufType::F16,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("cannot compress this model")]
    Model(#[from] ModelError),
    #[error("failed to write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Canceled(#[from] Canceled),
}

/// Every tensor of a network with the type it gets, the weights of layers first.
#[derive(Debug, Clone)]
pub struct Plan {
    tensors: Vec<GgufTensor>,
    /// Those of the first tensors, in the same order.
    layers: Vec<LayerWeight>,
    /// Of all blocks, by position.
    pub block_names: Vec<String>,
}

/// What rounding a block's weights cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockNoise {
    pub name: String,
    /// The types of its layers' weights, each once.
    pub types: Vec<String>,
    /// Bytes of its layers' weights as f32, and as stored.
    pub bytes: [u64; 2],
    /// Mean squares of the weights over those of what rounding took from them, in decibels; each weighed by the square of
    /// what it is multiplied with where photos were looked at. None for a block in which nothing was rounded.
    pub decibels: Option<f64>,
}

/// What the layers of a network are given, by the names of their weights.
pub type Calibration = HashMap<String, InputMeans>;

/// What the file says of that.
pub fn input_ranges(calibration: &Calibration) -> InputRanges {
    calibration.iter().map(|(name, means)| (name.clone(), means.range)).collect()
}

impl Plan {
    /// `bits` gives the type of each block's weights.
    ///
    /// Fails when the file does not hold the whole network.
    pub fn new(
        checkpoint: &Checkpoint,
        architecture: &Architecture,
        bits: &dyn Fn(usize) -> Bits,
    ) -> Result<Self, CompressError> {
        let fit = models::fit(checkpoint.tensors(), architecture)?;
        if !(fit.missing.is_empty() && fit.reshaped.is_empty()) {
            let title = architecture.title.clone();
            return Err(ModelError::Misfit { title, report: Box::new(fit) }.into());
        }
        let shapes: HashMap<&str, &[usize]> =
            checkpoint.tensors().iter().map(|info| (info.name.as_str(), info.shape.as_slice())).collect();
        let layers = architecture.layers()?;
        let named = |name: &str, kind| {
            let shape = shapes.get(name).copied().unwrap_or_default().to_vec();
            GgufTensor { name: name.to_owned(), shape, kind }
        };
        let of_layer = |weight: &LayerWeight| named(&weight.name, stored_as(weight.axes, bits(weight.block)));
        let mut tensors: Vec<GgufTensor> = layers.iter().map(of_layer).collect();
        let of_layers: HashSet<&str> = layers.iter().map(|weight| weight.name.as_str()).collect();
        let others = architecture.tensors()?.into_iter().filter(|(name, _)| !of_layers.contains(name.as_str()));
        tensors.extend(others.map(|(name, shape)| {
            // What is one number per channel, such as a layer scale, may be very small: 16 bits are too few for that.
            let is_a_list = shape.iter().filter(|size| **size > 1).count() <= 1;
            named(&name, if is_a_list { GgufType::F32 } else { GgufType::F16 })
        }));
        Ok(Self { tensors, layers, block_names: architecture.block_names()? })
    }

    /// Bytes of the file.
    pub fn file_bytes(&self, metadata: &Map<String, Value>) -> u64 {
        gguf_bytes(metadata, &self.tensors).unwrap_or_default()
    }

    /// Bytes of one block's weights of layers.
    pub fn block_bytes(&self, block: usize) -> u64 {
        let of_block = self.layers.iter().zip(&self.tensors).filter(|(weight, _)| weight.block == block);
        of_block.map(|(_, tensor)| tensor.bytes()).sum()
    }

    /// Elements of the largest tensor, as which one is read.
    pub fn largest_elements(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.shape.iter().product()).max().unwrap_or_default()
    }
}

/// The type of a layer's weight of which `bits` are wanted: what kernels cannot multiply in it, and what is small, gets more.
fn stored_as(axes: [usize; 3], bits: Bits) -> GgufType {
    let [_, inputs, positions] = axes;
    let side = positions.isqrt();
    // A kernel takes a window row by row, and a block has one scale.
    let in_blocks = side == 1 || (side * inputs).is_multiple_of(crate::ops::BLOCK);
    match bits {
        _ if !models::rounds(axes) => GgufType::F16,
        Bits::Q4_0 | Bits::Q4_1 | Bits::Q5_0 if !in_blocks => GgufType::Q8_0,
        bits => bits.stored(),
    }
}

/// What was written.
pub struct Written {
    pub file: Unnamed,
    pub blocks: Vec<BlockNoise>,
}

/// Writes the network beside `path`, where it lies without a name until [`Unnamed::name`].
///
/// With a calibration the error of rounding is weighed by what weights are multiplied with, and what it adds to a layer's
/// outputs on average is taken off its bias, or the mean of the batch norm after it (Nagel et al. 2019, "Data-Free
/// Quantization through Weight Equalization and Bias Correction", 4.2).
pub fn write(
    checkpoint: &Checkpoint,
    plan: &Plan,
    metadata: &Map<String, Value>,
    calibration: Option<&Calibration>,
    path: &Path,
    ctx: &JobContext,
) -> Result<Written, CompressError> {
    let noises = vec![Noise::default(); plan.block_names.len()];
    let mut writing = Writing { checkpoint, plan, calibration, noises, moved: HashMap::new() };
    let mut progress = Progress {
        phase: "Writing the smaller model".to_owned(),
        total: Some(plan.tensors.iter().map(GgufTensor::bytes).sum()),
        ..Progress::default()
    };
    let file = Unnamed::write(path, |writer| {
        write_gguf(writer, metadata, &plan.tensors, |index, sink| -> Result<(), Failure> {
            ctx.check()?;
            writing.tensor(index, sink)?;
            progress.done += plan.tensors[index].bytes();
            ctx.report(progress.clone());
            Ok(())
        })
    });
    let file = file.map_err(|failure: Failure| failure.at(path))?;
    let blocks = writing.noises.into_iter().zip(&plan.block_names).map(|(noise, name)| noise.named(name)).collect();
    Ok(Written { file, blocks })
}

/// A file that is being written.
struct Writing<'a> {
    checkpoint: &'a Checkpoint,
    plan: &'a Plan,
    calibration: Option<&'a Calibration>,
    /// Of each block.
    noises: Vec<Noise>,
    /// What is added to tensors that are written later.
    moved: HashMap<&'a str, Vec<f32>>,
}

impl Writing<'_> {
    fn tensor(&mut self, index: usize, sink: &mut dyn Write) -> Result<(), Failure> {
        let tensor = &self.plan.tensors[index];
        let layer = self.plan.layers.get(index);
        if let Some(weight) = layer {
            self.noises[weight.block].count(tensor);
        }
        let Some(weight) = layer.filter(|_| tensor.kind.block_bytes().is_some()) else {
            let mut values = self.checkpoint.read_f32(&tensor.name)?;
            let moved = self.moved.remove(tensor.name.as_str()).into_iter().flatten();
            values.iter_mut().zip(moved).for_each(|(value, moved)| *value += moved);
            return write_plain(tensor, &values, sink);
        };
        let means = self.calibration.and_then(|calibration| calibration.get(&weight.name));
        let rounded = Rounding { checkpoint: self.checkpoint, tensor, axes: weight.axes, means }.write(sink)?;
        let noise = &mut self.noises[weight.block];
        noise.signal += rounded.signal;
        noise.noise += rounded.noise;
        if means.is_some() {
            self.moved.extend(correction(&weight.shift, rounded.added));
        }
        Ok(())
    }
}

/// What takes from a layer's outputs what rounding added to them, by the tensor it is to be added to.
fn correction(shift: &Shift, added: Vec<f32>) -> Option<(&str, Vec<f32>)> {
    match shift {
        Shift::Bias(name) => Some((name, added.into_iter().map(|added| -added).collect())),
        Shift::Mean(name) => Some((name, added)),
        Shift::None => None,
    }
}

/// As [`CompressError`], before it is known which file could not be written.
enum Failure {
    Io(io::Error),
    Other(CompressError),
}

impl Failure {
    fn at(self, path: &Path) -> CompressError {
        match self {
            Self::Io(source) => CompressError::Write { path: path.to_owned(), source },
            Self::Other(error) => error,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl<E: Into<CompressError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

fn write_plain(tensor: &GgufTensor, values: &[f32], sink: &mut dyn Write) -> Result<(), Failure> {
    let (mut bytes, mut stored) = (Vec::new(), Vec::new());
    for values in values.chunks(PIECE) {
        round_row(tensor.kind, values, None, &mut bytes, &mut stored);
        refuse_infinite(tensor, &stored)?;
        sink.write_all(&bytes)?;
        bytes.clear();
        stored.clear();
    }
    Ok(())
}

/// Elements that are rounded at a time.
const PIECE: usize = 1 << 18;

fn refuse_infinite(tensor: &GgufTensor, stored: &[f32]) -> Result<(), Failure> {
    match stored.iter().all(|value| value.is_finite()) {
        true => Ok(()),
        false => Err(Failure::Other(ModelError::NotFinite { tensor: tensor.name.clone() }.into())),
    }
}

/// The rounding of one layer's weight.
struct Rounding<'a> {
    checkpoint: &'a Checkpoint,
    tensor: &'a GgufTensor,
    axes: [usize; 3],
    means: Option<&'a InputMeans>,
}

/// What rounding a weight did.
struct Rounded {
    signal: f64,
    noise: f64,
    /// What it adds to each output on average, where the inputs are known.
    added: Vec<f32>,
}

impl Rounding<'_> {
    fn write(&self, sink: &mut dyn Write) -> Result<Rounded, Failure> {
        let [outputs, inputs, positions] = self.axes;
        let length = inputs * positions;
        let at_once = (PIECE / length.max(1)).clamp(1, outputs.max(1));
        let mut rounded = Rounded { signal: 0.0, noise: 0.0, added: Vec::with_capacity(outputs) };
        let mut whole = None;
        for first in (0..outputs).step_by(at_once) {
            let rows = first..outputs.min(first + at_once);
            let piece = match &whole {
                None => self.checkpoint.read_rows(&self.tensor.name, rows.clone())?,
                Some(_) => None,
            };
            if piece.is_none() && whole.is_none() {
                whole = Some(self.checkpoint.read_f32(&self.tensor.name)?);
            }
            let values = match (&piece, &whole) {
                (Some(piece), _) => piece,
                (None, Some(whole)) => &whole[rows.start * length..rows.end * length],
                (None, None) => &[],
            };
            self.round(values, sink, &mut rounded)?;
        }
        Ok(rounded)
    }

    /// Some rows, as the file has them: over inputs and then positions.
    fn round(&self, values: &[f32], sink: &mut dyn Write, rounded: &mut Rounded) -> Result<(), Failure> {
        let [_, inputs, positions] = self.axes;
        let importance = self.means.map(|means| means.squares.as_slice());
        let rows = values.par_chunks(inputs * positions).map(|row| {
            let turned: Vec<f32> =
                (0..row.len()).map(|place| row[place % inputs * positions + place / inputs]).collect();
            let (mut bytes, mut stored) = (Vec::new(), Vec::new());
            round_row(self.tensor.kind, &turned, importance, &mut bytes, &mut stored);
            let (mut signal, mut noise, mut added) = (0.0, 0.0, 0.0);
            for (place, (value, stored)) in turned.iter().zip(&stored).enumerate() {
                let lost = stored - value;
                let square = importance.map_or(1.0, |importance| f64::from(importance[place]));
                signal += square * f64::from(value * value);
                noise += square * f64::from(lost * lost);
                added += self.means.map_or(0.0, |means| lost * means.values[place]);
            }
            (bytes, stored, signal, noise, added)
        });
        for (bytes, stored, signal, noise, added) in rows.collect::<Vec<_>>() {
            refuse_infinite(self.tensor, &stored)?;
            sink.write_all(&bytes)?;
            rounded.signal += signal;
            rounded.noise += noise;
            rounded.added.push(added);
        }
        Ok(())
    }
}

/// Sums over the layers of a block.
#[derive(Debug, Clone, Default)]
struct Noise {
    types: Vec<String>,
    bytes: [u64; 2],
    signal: f64,
    noise: f64,
}

impl Noise {
    fn count(&mut self, tensor: &GgufTensor) {
        let name = tensor.kind.name().to_lowercase();
        if !self.types.contains(&name) {
            self.types.push(name);
        }
        self.bytes[0] += GgufType::F32.bytes_of(&tensor.shape);
        self.bytes[1] += tensor.bytes();
    }

    fn named(self, name: &str) -> BlockNoise {
        let decibels = (self.noise > 0.0 && self.signal > 0.0).then(|| 10.0 * (self.signal / self.noise).log10());
        BlockNoise { name: name.to_owned(), types: self.types, bytes: self.bytes, decibels }
    }
}
