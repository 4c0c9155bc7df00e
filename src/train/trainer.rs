//! One step of training after the other: a batch in, its loss out, the weights moved.

use candle_core::{Device, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::gradients::Gradients;
use super::loss::Loss;
use super::optimizer::{Optimizer, OptimizerSettings};
use super::segments::{Paths, Segments};
use crate::device::scoped;
use crate::models::{Network, Parameter, Phase};
use crate::ops;

/// Photos with what is wanted of them.
#[derive(Debug, Clone, Copy)]
pub struct Examples<'a> {
    /// What the first block takes: pixels `(n, height, width, 3)`, or features. Row-major.
    pub values: &'a [f32],
    /// Of one photo: `(height, width, 3)`, or that of its features.
    pub shape: &'a [usize],
    /// Wanted probabilities `(n, classes)`, row-major.
    pub targets: &'a [f32],
    /// The class of each photo.
    pub labels: &'a [u32],
}

/// What a network made of some photos.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    pub photos: u64,
    /// The sum of every photo's share.
    pub loss: f64,
    pub correct: u64,
}

impl Score {
    pub fn add(&mut self, other: Self) {
        self.photos += other.photos;
        self.loss += other.loss;
        self.correct += other.correct;
    }

    /// Per photo.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.photos.max(1) as f64
    }

    /// From 0 to 1.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.photos.max(1) as f64
    }
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stepped {
    pub score: Score,
    /// The length of the gradients as one vector, before clipping.
    pub gradient_norm: f64,
}

/// A network that is being trained.
pub struct Trainer {
    pub network: Network,
    pub optimizer: Optimizer,
    segments: Segments,
    loss: Loss,
    /// The moving average of every parameter and running statistic, and the share of the old in the new.
    average: Option<(Vec<Var>, f64)>,
    /// Where the network computes.
    device: Device,
}

impl Trainer {
    /// `network` comes from [`build_trainable`](crate::models::build_trainable) with the same first block.
    pub fn new(
        network: Network,
        segments: Segments,
        loss: Loss,
        settings: OptimizerSettings,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let optimizer = Optimizer::new(&network, settings)?;
        Ok(Self { network, optimizer, segments, loss, average: None, device: device.clone() })
    }

    /// From now on keeps a moving average of the weights, and of the batch norms' statistics that belong to them; it is
    /// what is evaluated and saved.
    pub fn keep_average(&mut self, share_of_old: f64) -> Result<(), TrainError> {
        let copy = |parameter: &Parameter| Var::from_tensor(&parameter.var.as_detached_tensor());
        let averages = self.network.moving().map(copy).collect::<Result<_, _>>()?;
        self.average = Some((averages, share_of_old));
        Ok(())
    }

    /// Everything that moves in training with its average; nothing when no average is kept.
    pub fn averaged(&self) -> impl Iterator<Item = (&Parameter, &Var)> {
        self.network.moving().zip(self.average.iter().flat_map(|(averages, _)| averages))
    }

    /// Drops the frozen blocks: examples are from now on what these made of photos.
    pub fn drop_frozen(&mut self) {
        let first = std::mem::take(&mut self.segments.first);
        self.network.blocks.drain(..first);
        self.segments.recompute.drain(..first);
    }

    /// How many blocks there are before those that train.
    pub fn frozen(&self) -> usize {
        self.segments.first
    }

    /// One step over a batch, `micro_batch` photos at a time: the same step, but for batch norms, which see the photos of a
    /// micro-batch only. No weight moves before every gradient is there.
    ///
    /// Needs a deep stack: a block's graph is walked by recursion.
    pub fn step(
        &mut self,
        examples: Examples,
        micro_batch: usize,
        rate: f64,
        paths: impl Fn(usize, usize) -> Result<Paths, TrainError>,
    ) -> Result<Stepped, TrainError> {
        let Self { network, segments, loss, device, .. } = self;
        let mut gradients = Gradients::new(network.learned.len());
        let classes = network.architecture.classes;
        let wanted = loss.wanted(examples.targets, classes);
        let count = examples.labels.len();
        let mut score = Score { photos: count as u64, ..Score::default() };
        // Parts as equal as can be: a batch norm learns little from a photo that is left alone.
        let parts = count.div_ceil(micro_batch.max(1)).max(1);
        for part in 0..parts {
            let (first, end) = (count * part / parts, count * (part + 1) / parts);
            let taken = end - first;
            let labels = &examples.labels[first..end];
            scoped(|| {
                let pixels = examples.tensor(first, taken, device)?;
                let mut found = None;
                let judge = |logits: &Tensor| {
                    let judged = wanted.judge(logits, first, labels)?;
                    found = Some((judged.loss, judged.correct));
                    Ok(judged.gradient)
                };
                segments.run(network, &pixels, &paths(first, taken)?, judge, &mut gradients)?;
                let (loss, correct) = found.expect("logits are judged once");
                score.loss += f64::from(loss.to_scalar::<f32>()?) * count as f64;
                score.correct += correct.to_scalar::<f32>()? as u64;
                Ok::<_, TrainError>(())
            })?;
        }
        if !score.loss.is_finite() {
            return Err(TrainError::LossNotFinite);
        }
        let gradient_norm = scoped(|| {
            self.device.synchronize()?;
            let norm = self.optimizer.step(&self.network, &gradients, rate)?;
            self.follow_average()?;
            Ok::<_, TrainError>(norm)
        })?;
        Ok(Stepped { score, gradient_norm })
    }

    fn follow_average(&self) -> Result<(), TrainError> {
        let Some((_, share)) = &self.average else { return Ok(()) };
        // TensorFlow's ExponentialMovingAverage with num_updates: an early average is not held back by the beginning.
        let steps = self.optimizer.steps() as f64;
        let share = share.min((1.0 + steps) / (10.0 + steps));
        for (parameter, average) in self.averaged() {
            ops::blend(average, share, &parameter.var.as_detached_tensor(), 1.0 - share)?;
        }
        Ok(())
    }

    /// Exchanges weights and averages, if there are any: before evaluating, and after.
    pub fn exchange_average(&self) -> Result<(), TrainError> {
        for (parameter, average) in self.averaged() {
            // candle's `copy` shares the memory on Metal, where the next line would overwrite it.
            let weights = parameter.var.as_detached_tensor().force_contiguous()?;
            parameter.var.set(&average.as_detached_tensor())?;
            average.set(&weights)?;
        }
        Ok(())
    }

    /// The first layer that holds or makes a number that is none, in words.
    pub fn first_bad_layer(&self, examples: Examples) -> Option<String> {
        let is_bad = |tensor: &Tensor| {
            let sum =
                tensor.detach().sqr().and_then(|squares| squares.sum_all()).and_then(|sum| sum.to_scalar::<f32>());
            !sum.is_ok_and(f32::is_finite)
        };
        let mut xs = examples.tensor(0, examples.labels.len(), &self.device).ok()?;
        if is_bad(&xs) {
            return Some("the photos themselves".to_owned());
        }
        for block in &self.network.blocks {
            let parameters = &self.network.learned[block.learned.clone()];
            if let Some(parameter) = parameters.iter().find(|parameter| is_bad(&parameter.var)) {
                return Some(format!("the weight {}", parameter.name));
            }
            xs = block.forward_in(Phase::TrainAgain, xs).ok()?.detach();
            if is_bad(&xs) {
                return Some(format!("the output of {}", block.name));
            }
        }
        None
    }

    /// What the network makes of photos without learning from them; also the logits, a row per photo.
    pub fn evaluate(&self, examples: Examples) -> Result<(Score, Vec<Vec<f32>>), TrainError> {
        let count = examples.labels.len();
        scoped(|| {
            let pixels = examples.tensor(0, count, &self.device)?;
            // Not in lanes: how they share photos out changes the last bit of products with weights that train.
            let (frozen, trained) = self.network.blocks.split_at(self.segments.first);
            let features = self.network.features(frozen.len(), &pixels)?;
            let logits = trained.iter().try_fold(features, |xs, block| block.forward(xs))?;
            let plain = Loss { label_smoothing: 0.0, class_weights: None };
            let judged =
                plain.wanted(examples.targets, self.network.architecture.classes).judge(&logits, 0, examples.labels)?;
            let loss = f64::from(judged.loss.to_scalar::<f32>()?) * count as f64;
            let correct = judged.correct.to_scalar::<f32>()? as u64;
            Ok((Score { photos: count as u64, loss, correct }, logits.to_vec2()?))
        })
    }
}

impl Examples<'_> {
    /// The values of some photos on the device.
    fn tensor(&self, first: usize, count: usize, device: &Device) -> Result<Tensor, TrainError> {
        let photo: usize = self.shape.iter().product();
        let values = &self.values[first * photo..(first + count) * photo];
        Ok(Tensor::from_slice(values, [&[count], self.shape].concat(), device)?)
    }
}
