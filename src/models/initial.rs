//! Weights before any training: what a network begins with that has no checkpoint.

use std::ops::Range;

use super::input_ranges::InputRanges;
use super::named::{fnv1a, uniform};
use super::source::Weights;
use super::{Architecture, ModelError, RandomWeights};
use crate::checkpoint::{CheckpointError, TensorInfo};

/// Weights of an architecture drawn as its papers do, repeatably by a seed.
///
/// Convolutions: He et al., "Delving deep into rectifiers", by their outputs per group. Linear layers, tokens and places: a normal
/// distribution of deviation 0.02, as in ViT's and ConvNeXt's code. Norms begin as one and zero, layer scales as 1e-6.
pub struct InitialWeights {
    tensors: Vec<TensorInfo>,
    seed: u64,
    /// What a network of them is given, where that is known.
    input_ranges: InputRanges,
}

impl InitialWeights {
    pub fn of(architecture: &Architecture, seed: u64) -> Result<Self, ModelError> {
        Ok(Self { tensors: RandomWeights::of(architecture)?.0, seed, input_ranges: InputRanges::default() })
    }

    /// The same with what a network of them is given.
    pub fn knowing(self, input_ranges: InputRanges) -> Self {
        Self { input_ranges, ..self }
    }
}

impl Weights for InitialWeights {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        Ok(self.values(name, 0..self.info(name).elements()))
    }

    fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Option<Vec<f32>>, CheckpointError> {
        let row = self.info(name).shape[1..].iter().product::<usize>();
        Ok(Some(self.values(name, rows.start * row..rows.end * row)))
    }

    fn input_ranges(&self) -> InputRanges {
        self.input_ranges.clone()
    }
}

impl InitialWeights {
    fn info(&self, name: &str) -> &TensorInfo {
        self.tensors.iter().find(|info| info.name == name).expect("only tensors of the table are asked for")
    }

    /// Some of a tensor's elements, row-major.
    fn values(&self, name: &str, elements: Range<usize>) -> Vec<f32> {
        let is_placed = name.contains("token") || name.contains("pos_embed");
        match self.info(name).shape.as_slice() {
            _ if name.ends_with("running_var") => vec![1.0; elements.len()],
            _ if name.ends_with("gamma") && !name.contains("grn") || name.contains("layer_scale") => {
                vec![1e-6; elements.len()]
            }
            [_] if name.ends_with("weight") && !name.contains("grn") => vec![1.0; elements.len()],
            // One input per output: depthwise.
            [outputs, inputs, height, width] => {
                let outputs = if *inputs == 1 { 1 } else { *outputs };
                self.normal(name, elements, (2.0 / (outputs * height * width) as f64).sqrt())
            }
            shape if shape.len() > 1 && !name.contains("grn") || is_placed => self.normal(name, elements, 0.02),
            _ => vec![0.0; elements.len()],
        }
    }

    /// Numbers of a normal distribution (Box and Muller), from the seed and the tensor's name.
    fn normal(&self, name: &str, elements: Range<usize>, deviation: f64) -> Vec<f32> {
        let seed = fnv1a(name) ^ self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // From −1 to 1 in steps of 2⁻²³: the smallest distance from a bound keeps the logarithm finite.
        let share = |index: usize| (f64::from(uniform(seed, index as u64)) + 1.0) / 2.0 + f64::from(f32::EPSILON) / 8.0;
        let value = |index: usize| {
            let radius = (-2.0 * share(2 * index).ln()).sqrt();
            (deviation * radius * (std::f64::consts::TAU * share(2 * index + 1)).cos()) as f32
        };
        elements.map(value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::named;

    #[test]
    fn weights_begin_as_the_papers_say_and_repeat() {
        let architecture = named("mobilenet_v3_small", 8).unwrap();
        let weights = InitialWeights::of(&architecture, 7).unwrap();
        let read = |name: &str| weights.read_f32(name).unwrap();
        // (48, 24, 1, 1): a deviation of √(2 / 48); of 1,152 values the measured one lies within a tenth.
        let convolution = read("features.9.block.0.0.weight");
        let outputs =
            weights.tensors().iter().find(|info| info.name == "features.9.block.0.0.weight").unwrap().shape[0];
        let deviation = |values: &[f32]| {
            let squares: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
            (squares / values.len() as f64).sqrt()
        };
        assert!((deviation(&convolution) / (2.0 / outputs as f64).sqrt() - 1.0).abs() < 0.1);
        assert!((deviation(&read("classifier.0.weight")) / 0.02 - 1.0).abs() < 0.1);
        assert!(read("features.0.1.weight").iter().all(|value| *value == 1.0));
        assert!(read("features.0.1.bias").iter().all(|value| *value == 0.0));
        assert!(read("features.0.1.running_var").iter().all(|value| *value == 1.0));
        let rows = weights.read_rows("features.9.block.0.0.weight", 2..5).unwrap().unwrap();
        let row = convolution.len() / outputs;
        assert_eq!(rows, convolution[2 * row..5 * row]);
        let again = InitialWeights::of(&architecture, 7).unwrap();
        assert_eq!(convolution, again.read_f32("features.9.block.0.0.weight").unwrap());
        let other = InitialWeights::of(&architecture, 8).unwrap();
        assert_ne!(convolution, other.read_f32("features.9.block.0.0.weight").unwrap());
    }
}
