//! Steps of training against PyTorch (tests/reference/steps.py), and the ways to take them that must not matter.

use std::path::Path;

use candle_core::{Device, Tensor};
use galley::models::{self, Network, RandomWeights, Strictness, Weights};
use galley::train::{Examples, Lesson, Loss, Method, OptimizerSettings, Pace, Segments, SoftLoss, Trainer};
use serde::Deserialize;

use crate::networks::{info, reference};

#[derive(Deserialize)]
struct Steps {
    name: String,
    side: usize,
    batch: usize,
    /// By the formula of the weights, for each step a tensor of this name, in NCHW order.
    pixels: Vec<String>,
    losses: Vec<f64>,
}

fn references() -> Vec<Steps> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/steps");
    let mut paths: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert_eq!(paths.len(), 5);
    paths.iter().map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
}

/// How a run goes about its steps.
#[derive(Clone, Copy)]
struct Way {
    micro_batch: usize,
    recompute: bool,
    frozen: usize,
}

impl Steps {
    fn network(&self, frozen: usize) -> Network {
        let weights: RandomWeights = reference(&self.name).weights();
        let architecture = models::detect(weights.tensors()).unwrap();
        models::build_trainable(&weights, &architecture, Strictness::Strict, frozen, &Device::Cpu).unwrap().0
    }

    /// `(batch, side, side, 3)`
    fn pixels(&self, step: usize) -> Vec<f32> {
        let (name, side) = (&self.pixels[step], self.side);
        let shape = vec![self.batch, 3, side, side];
        let values = RandomWeights(vec![info(name.clone(), shape)]).read_f32(name).unwrap();
        let at = |index: usize| {
            let (channel, place) = (index % 3, index / 3);
            let (image, place) = (place / (side * side), place % (side * side));
            values[(image * 3 + channel) * side * side + place]
        };
        (0..values.len()).map(at).collect()
    }

    fn trainer(&self, way: Way) -> Trainer {
        let network = self.network(way.frozen);
        let recompute = vec![way.recompute; network.blocks.len()];
        let segments = Segments { first: way.frozen, recompute };
        let loss = Loss::default();
        Trainer::new(network, segments, loss, OptimizerSettings::default(), &Device::Cpu).unwrap()
    }

    /// The losses of the first `steps` steps, and the trainer after them.
    fn run(&self, way: Way, steps: usize) -> (Vec<f64>, Trainer) {
        let mut trainer = self.trainer(way);
        let losses = (0..steps).map(|step| self.step(&mut trainer, way, step)).collect();
        (losses, trainer)
    }

    /// The loss of one more step.
    fn step(&self, trainer: &mut Trainer, way: Way, step: usize) -> f64 {
        let labels: Vec<u32> = (0..self.batch as u32).collect();
        let classes = trainer.network.architecture.classes;
        let mut targets = vec![0.0; self.batch * classes];
        (0..self.batch).for_each(|image| targets[image * classes + image] = 1.0);
        let (pixels, shape) = (self.pixels(step), [self.side, self.side, 3]);
        let examples = Examples { values: &pixels, shape: &shape, targets: &targets, labels: &labels, lesson: None };
        trainer.step(examples, way.micro_batch, 1e-4, |_, _| Ok(Vec::new())).unwrap().score.mean_loss()
    }
}

const WHOLE: Way = Way { micro_batch: usize::MAX, recompute: false, frozen: 0 };

#[test]
fn ten_steps_of_adamw_follow_pytorch() {
    for steps in references() {
        let (losses, _) = steps.run(WHOLE, steps.losses.len());
        for (step, (ours, expected)) in losses.iter().zip(&steps.losses).enumerate() {
            assert!(
                (ours - expected).abs() <= 1e-3 * expected,
                "{}, step {step}: {ours} instead of {expected}",
                steps.name
            );
        }
    }
}

fn weights_of(trainer: &Trainer) -> Vec<Vec<f32>> {
    trainer
        .network
        .moving()
        .map(|parameter| parameter.as_in_file().unwrap().flatten_all().unwrap().to_vec1().unwrap())
        .collect()
}

#[test]
fn an_average_follows_weights_and_statistics_and_takes_their_place() {
    let steps = references().into_iter().find(|steps| steps.name.contains("resnet18")).unwrap();
    let mut trainer = steps.trainer(WHOLE);
    let mut expected = weights_of(&trainer);
    trainer.keep_average(0.25).unwrap();
    // ExponentialMovingAverage of TensorFlow with num_updates: the share of the old is (1 + n) / (10 + n) at first.
    for (step, old) in [2.0 / 11.0, 0.25, 0.25].into_iter().enumerate() {
        steps.step(&mut trainer, WHOLE, step);
        for (average, weights) in expected.iter_mut().zip(weights_of(&trainer)) {
            average.iter_mut().zip(weights).for_each(|(average, new)| *average = old * *average + (1.0 - old) * new);
        }
    }
    let weights = weights_of(&trainer);
    trainer.exchange_average().unwrap();
    let averages = weights_of(&trainer);
    assert!(averages != weights);
    for (average, expected) in averages.iter().flatten().zip(expected.iter().flatten()) {
        assert!((average - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{average} instead of {expected}");
    }
    trainer.exchange_average().unwrap();
    assert!(weights_of(&trainer) == weights);
}

#[test]
fn recomputed_blocks_learn_bit_by_bit_what_kept_ones_do() {
    for steps in references().iter().filter(|steps| !steps.name.contains("vit")) {
        let (kept, one) = steps.run(WHOLE, 3);
        let (recomputed, other) = steps.run(Way { recompute: true, ..WHOLE }, 3);
        assert_eq!(kept, recomputed, "{}", steps.name);
        assert!(weights_of(&one) == weights_of(&other), "{}", steps.name);
    }
}

#[test]
fn micro_batches_add_up_to_their_batch() {
    let steps = references().into_iter().find(|steps| steps.name.contains("convnext")).unwrap();
    let (whole, _) = steps.run(WHOLE, 4);
    for micro_batch in [1, 3] {
        let (parts, _) = steps.run(Way { micro_batch, ..WHOLE }, 4);
        for (whole, parts) in whole.iter().zip(&parts) {
            assert!((whole - parts).abs() <= 1e-4 * whole, "{parts} instead of {whole}");
        }
    }
}

#[test]
fn frozen_blocks_stay_and_the_rest_learns() {
    let steps = references().into_iter().find(|steps| steps.name.contains("resnet18")).unwrap();
    let blocks = steps.network(0).blocks.len();
    let way = Way { frozen: blocks - 1, ..WHOLE };
    let before = weights_of(&steps.trainer(way));
    let (losses, trainer) = steps.run(way, 3);
    assert!(losses.iter().all(|loss| loss.is_finite()));
    // Weight and bias of the last layer.
    let after = weights_of(&trainer);
    assert_eq!(after.len(), 2);
    assert!(before.iter().zip(&after).all(|(before, after)| before != after));
}

#[test]
fn what_frozen_blocks_make_of_a_photo_does_not_depend_on_its_batch() {
    for steps in references() {
        let network = steps.network(usize::MAX);
        let frozen = network.blocks.len() - 1;
        let pixels = Tensor::from_vec(steps.pixels(0), (steps.batch, steps.side, steps.side, 3), &Device::Cpu).unwrap();
        let features = |first: usize, count: usize| -> Vec<u32> {
            let features = network.features(frozen, &pixels.narrow(0, first, count).unwrap()).unwrap();
            features.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
        };
        let whole = features(0, steps.batch);
        for size in [1, 2, 3] {
            let parts = (0..steps.batch).step_by(size).flat_map(|first| features(first, size.min(steps.batch - first)));
            assert!(whole.iter().copied().eq(parts), "{} in parts of {size}", steps.name);
        }
    }
}

/// Computes so many photos at once, and fails after so many micro-batches.
struct Failing {
    at_once: usize,
    left: usize,
}

impl Pace for Failing {
    fn at_once(&self) -> usize {
        self.at_once
    }

    fn computed(&mut self, _photos: usize) -> candle_core::Result<()> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => candle_core::bail!("the device failed"),
        }
    }
}

#[test]
fn photos_count_the_same_in_micro_batches_of_different_size() {
    let steps = references().into_iter().find(|steps| steps.name.contains("convnext")).unwrap();
    let (pixels, shape) = (steps.pixels(0), [steps.side, steps.side, 3]);
    let photo: usize = shape.iter().product();
    let step = |micro_batch: usize| {
        let mut trainer = steps.trainer(WHOLE);
        let classes = trainer.network.architecture.classes;
        let mut targets = vec![0.0; 3 * classes];
        (0..3).for_each(|image| targets[image * classes + image] = 1.0);
        let examples = Examples {
            values: &pixels[..3 * photo],
            shape: &shape,
            targets: &targets,
            labels: &[0, 1, 2],
            lesson: None,
        };
        let stepped = trainer.step(examples, micro_batch, 1e-2, |_, _| Ok(Vec::new())).unwrap();
        (stepped.score.mean_loss(), stepped.gradient_norm)
    };
    // Of two photos and one: were each part to count the same, the one photo would count double.
    let (whole, parts) = (step(3), step(2));
    assert!((whole.0 - parts.0).abs() < 1e-6 * whole.0, "{whole:?} {parts:?}");
    assert!((whole.1 - parts.1).abs() < 1e-4 * whole.1, "{whole:?} {parts:?}");
}

#[test]
fn a_step_that_fails_leaves_nothing_behind() {
    let steps = references().into_iter().find(|steps| steps.name.contains("resnet18")).unwrap();
    let mut trainer = steps.trainer(WHOLE);
    let before = weights_of(&trainer);
    let labels: Vec<u32> = (0..steps.batch as u32).collect();
    let classes = trainer.network.architecture.classes;
    let targets = vec![1.0 / classes as f32; steps.batch * classes];
    let (pixels, shape) = (steps.pixels(0), [steps.side, steps.side, 3]);
    let examples = Examples { values: &pixels, shape: &shape, targets: &targets, labels: &labels, lesson: None };
    for left in [0, 1] {
        let failing = Failing { at_once: 2, left };
        trainer.step(examples, failing, 0.1, |_, _| Ok(Vec::new())).unwrap_err();
        // Weights, and the statistics of batch norms, which go along with the forward pass.
        assert!(weights_of(&trainer) == before);
        assert_eq!(trainer.optimizer.steps(), 0);
    }
    trainer.step(examples, Failing { at_once: 2, left: 9 }, 0.1, |_, _| Ok(Vec::new())).unwrap();
    assert!(weights_of(&trainer) != before);
}

/// What a teacher might say: any probabilities, and any features.
fn lesson(photos: usize, classes: usize) -> Lesson {
    let value = |index: usize| (0.7 * index as f32).sin() + 1.1;
    let row = |photo: usize| {
        let row: Vec<f32> = (0..classes).map(|class| value(photo * classes + class)).collect();
        let sum: f32 = row.iter().sum();
        row.into_iter().map(move |value| value / sum)
    };
    let features = (0..photos * 5).map(|index| (1.3 * index as f32).cos()).collect();
    Lesson { probabilities: (0..photos).flat_map(row).collect(), features: Some(features) }
}

/// The loss and the length of the gradients of a step with a teacher, and the loss after it.
fn taught_step(steps: &Steps, soft: SoftLoss, micro_batch: usize, recompute: bool, rate: f64) -> (f64, f64, f64) {
    let network = steps.network(0);
    let classes = network.architecture.classes;
    let segments = Segments { first: 0, recompute: vec![recompute; network.blocks.len()] };
    let settings =
        OptimizerSettings { method: Method::Sgd, momentum: 0.0, weight_decay: 0.0, ..OptimizerSettings::default() };
    let loss = Loss { soft: Some(soft), ..Loss::default() };
    let mut trainer = Trainer::new(network, segments, loss, settings, &Device::Cpu).unwrap();
    let labels: Vec<u32> = (0..steps.batch as u32).collect();
    let mut targets = vec![0.0; steps.batch * classes];
    (0..steps.batch).for_each(|image| targets[image * classes + image] = 1.0);
    let (pixels, shape, lesson) = (steps.pixels(0), [steps.side, steps.side, 3], lesson(steps.batch, classes));
    let examples =
        Examples { values: &pixels, shape: &shape, targets: &targets, labels: &labels, lesson: Some(&lesson) };
    let mut step = || trainer.step(examples, micro_batch, rate, |_, _| Ok(Vec::new())).unwrap();
    let (before, after) = (step(), step());
    (before.score.mean_loss(), before.gradient_norm, after.score.mean_loss())
}

#[test]
fn a_small_step_lowers_the_loss_with_a_teacher_by_its_gradient() {
    let steps = references().into_iter().find(|steps| steps.name.contains("convnext")).unwrap();
    for (features, recompute) in [(None, false), (Some(300.0), false), (Some(300.0), true)] {
        let soft = SoftLoss { temperature: 3.0, weight: 0.6, features };
        // To the first order a step against the gradient g lowers the loss by rate · |g|².
        let (_, norm, _) = taught_step(&steps, soft, usize::MAX, recompute, 0.0);
        let rate = 2e-3 / norm.powi(2);
        let (before, _, after) = taught_step(&steps, soft, usize::MAX, recompute, rate);
        let ratio = (before - after) / 2e-3;
        assert!((ratio - 1.0).abs() < 0.05, "{features:?}: {ratio} of what the gradient says, loss {before}");
    }
}

#[test]
fn micro_batches_with_a_teacher_add_up_to_their_batch() {
    let steps = references().into_iter().find(|steps| steps.name.contains("convnext")).unwrap();
    let soft = SoftLoss { temperature: 3.0, weight: 0.6, features: None };
    let whole = taught_step(&steps, soft, usize::MAX, false, 1e-2);
    for micro_batch in [1, 3] {
        let parts = taught_step(&steps, soft, micro_batch, false, 1e-2);
        assert!((whole.0 - parts.0).abs() < 1e-5 * whole.0, "{whole:?} {parts:?}");
        assert!((whole.1 - parts.1).abs() < 1e-4 * whole.1, "{whole:?} {parts:?}");
        assert!((whole.2 - parts.2).abs() < 1e-4 * whole.2, "{whole:?} {parts:?}");
    }
}
