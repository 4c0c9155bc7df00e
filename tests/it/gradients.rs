//! Networks that train against PyTorch: one step's loss, gradients and running statistics (tests/reference/gradients.py).

use std::path::Path;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use galley::models::{self, Network, Parameter, Phase, RandomWeights, Strictness, Weights};
use galley::ops;
use serde::Deserialize;

use crate::networks::{info, reference};

#[derive(Deserialize)]
struct Step {
    name: String,
    side: usize,
    batch: usize,
    loss: f64,
    /// How far gradients move, as a share of their norm, when rounding shakes every layer.
    rounding: f64,
    /// By the formula of the weights, as a tensor of this name and NCHW order.
    pixels: String,
    /// Norm, first, middle and last element for each tensor that is learned, in the file's order.
    gradients: Vec<[f64; 4]>,
    /// First and last element of each running statistic after the step.
    running: Vec<[f64; 2]>,
}

fn steps() -> Vec<Step> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/gradients");
    let mut paths: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 10);
    paths.iter().map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
}

fn step(name: &str) -> Step {
    steps().into_iter().find(|step| step.name == name).unwrap()
}

impl Step {
    fn weights(&self) -> RandomWeights {
        reference(&self.name).weights()
    }

    fn network(&self, frozen: usize) -> Network {
        let weights = self.weights();
        let architecture = models::detect(weights.tensors()).unwrap();
        models::build_trainable(&weights, &architecture, Strictness::Strict, frozen, &Device::Cpu).unwrap().0
    }

    /// `(batch, side, side, 3)`
    fn pixels(&self) -> Tensor {
        let shape = [self.batch, 3, self.side, self.side];
        let values = RandomWeights(vec![info(self.pixels.clone(), shape.into())]).read_f32(&self.pixels).unwrap();
        Tensor::from_vec(values, &shape, &Device::Cpu).unwrap().permute((0, 2, 3, 1)).unwrap()
    }

    /// The mean cross entropy when image `i` has label `i`, and its gradients.
    fn train(&self, network: &Network) -> (f64, GradStore) {
        let logits = network.forward_in(Phase::Train, &self.pixels()).unwrap();
        let own = ops::softmax(&logits).unwrap().narrow(1, 0, self.batch).unwrap();
        let diagonal = (own * Tensor::eye(self.batch, DType::F32, &Device::Cpu).unwrap()).unwrap();
        let loss = (diagonal.sum(1).unwrap().log().unwrap().mean(0).unwrap().neg()).unwrap();
        (f64::from(loss.to_scalar::<f32>().unwrap()), loss.backward().unwrap())
    }
}

fn values(parameter: &Parameter, tensor: &Tensor) -> Vec<f64> {
    let values = parameter.turn_back(tensor).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f64::from).collect()
}

#[test]
fn a_training_step_is_that_of_pytorch() {
    for step in steps() {
        let network = step.network(0);
        let (loss, gradients) = step.train(&network);
        assert!((loss - step.loss).abs() < 1e-4 * step.loss, "{}: loss {loss}, not {}", step.name, step.loss);
        let names: Vec<String> = step.weights().tensors().iter().map(|info| info.name.clone()).collect();
        let (running, learned): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.contains(".running_"));
        assert_eq!((learned.len(), running.len()), (step.gradients.len(), step.running.len()), "{}", step.name);
        assert_eq!((network.learned.len(), network.running.len()), (learned.len(), running.len()), "{}", step.name);
        // What a norm right behind takes away again has a gradient of zero, but for rounding.
        let largest = step.gradients.iter().fold(0.0, |largest: f64, [norm, ..]| largest.max(*norm));
        let is_close = |ours: f64, expected: f64, share: f64, scale: f64| {
            (ours - expected).abs() <= (1e-3 + share * step.rounding) * scale + 1e-5 * largest
        };
        let mut wrong = Vec::new();
        for (name, [expected_norm, first, middle, last]) in learned.into_iter().zip(&step.gradients) {
            let parameter = network.learned.iter().find(|parameter| parameter.name == *name).unwrap();
            let gradient = gradients.get(&parameter.var).unwrap_or_else(|| panic!("{}: {name}", step.name));
            let ours = values(parameter, gradient);
            let norm = ours.iter().map(|value| value * value).sum::<f64>().sqrt();
            assert!(norm.is_finite() && norm > 0.0, "{}: {name} has gradient {norm}", step.name);
            let typical = expected_norm / (ours.len() as f64).sqrt();
            let some = [ours[0], ours[ours.len() / 2], ours[ours.len() - 1]].into_iter().zip([*first, *middle, *last]);
            let some_are_close =
                some.clone().all(|(ours, expected)| is_close(ours, expected, 4.0, typical.max(expected.abs())));
            if !is_close(norm, *expected_norm, 1.0, *expected_norm) || !some_are_close {
                let some: Vec<_> = some.collect();
                wrong.push(format!("{name}: norm {norm}, not {expected_norm}; elements and expected {some:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}, largest {largest}:\n{}", step.name, wrong.join("\n"));
        for (name, [first, last]) in running.into_iter().zip(&step.running) {
            let parameter = network.running.iter().find(|parameter| parameter.name == *name).unwrap();
            let ours = values(parameter, &parameter.var);
            for (ours, expected) in [ours[0], ours[ours.len() - 1]].iter().zip([first, last]) {
                assert!((ours - expected).abs() <= 1e-4 * expected.abs().max(0.1), "{name}: {ours}, not {expected}");
            }
        }
    }
}

#[test]
fn evaluated_while_training_a_network_answers_as_for_inference() {
    for step in steps() {
        let weights = step.weights();
        let architecture = models::detect(weights.tensors()).unwrap();
        let (folded, _) = models::build(&weights, &architecture, Strictness::Strict, &Device::Cpu).unwrap();
        assert!(folded.learned.is_empty() && folded.running.is_empty());
        let pixels = step.pixels().narrow(0, 0, 1).unwrap();
        let expected = folded.forward(&pixels).unwrap().to_vec2::<f32>().unwrap();
        let logits = step.network(0).forward(&pixels).unwrap();
        assert!(!logits.track_op(), "evaluating keeps no graph");
        let scale = expected.iter().flatten().fold(1f32, |largest, logit| largest.max(logit.abs()));
        for (ours, expected) in logits.to_vec2::<f32>().unwrap().iter().flatten().zip(expected.iter().flatten()) {
            assert!((ours - expected).abs() <= 1e-4 * scale, "{}: {ours} instead of {expected}", step.name);
        }
    }
}

#[test]
fn frozen_blocks_get_no_gradient_and_keep_their_statistics() {
    let step = step("torchvision-mobilenet_v3_small");
    let whole = step.network(0);
    let frozen = step.network(whole.blocks.len() - 2);
    // The last convolution with its norm, and the classifier's two layers.
    assert_eq!((frozen.learned.len(), frozen.running.len()), (3 + 4, 2));
    let (_, gradients) = step.train(&frozen);
    // And one for the constant the loss multiplies with.
    assert_eq!(gradients.get_ids().count(), 7 + 1);
    assert!(frozen.learned.iter().all(|parameter| gradients.get(&parameter.var).is_some()));
    let all_frozen = step.network(whole.blocks.len());
    assert!(all_frozen.learned.is_empty());
    assert!(!all_frozen.forward_in(Phase::Train, &step.pixels()).unwrap().track_op());
}

#[test]
fn what_a_network_learned_goes_back_to_the_files_layout() {
    for name in ["torchvision-mobilenet_v3_small", "timm-convnextv2_atto", "timm-vit_tiny_patch16_224"] {
        let step = step(name);
        let weights = step.weights();
        let network = step.network(0);
        for parameter in network.moving() {
            let tensor = parameter.as_in_file().unwrap();
            let info = weights.tensors().iter().find(|info| info.name == parameter.name).unwrap();
            assert_eq!(tensor.dims(), info.shape, "{name}: {}", parameter.name);
            let ours = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(ours, weights.read_f32(&parameter.name).unwrap(), "{name}: {}", parameter.name);
        }
    }
}

#[test]
fn a_step_repeats_bit_by_bit() {
    let step = step("timm-mobilenetv3_small_100");
    let bits = || {
        let network = step.network(0);
        let (_, gradients) = step.train(&network);
        let gradients = network.learned.iter().map(|parameter| gradients.get(&parameter.var).unwrap().clone());
        let flat = gradients.map(|gradient| gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        flat.flatten().map(f32::to_bits).collect::<Vec<u32>>()
    };
    assert!(bits() == bits());
}
