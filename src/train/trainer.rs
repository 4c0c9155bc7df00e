//! One step of training after the other: a batch in, its loss out, the weights moved.

use std::ops::Range;

use candle_core::{DType, Device, Tensor, Var};

use super::TrainError;
use super::gradients::Gradients;
use super::loss::{Loss, Wanted};
use super::optimizer::{Optimizer, OptimizerSettings};
use super::score::{Score, Stepped, Unread};
use super::segments::{Judge, Paths, Segments};
use super::similarity;
use super::teacher::Lesson;
use crate::device::{Witness, completed, scoped};
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
    /// What a teacher says of them, if there is one.
    pub lesson: Option<&'a Lesson>,
}

/// Decides from micro-batch to micro-batch how many photos are computed at once. A number is always the same.
pub trait Pace {
    fn at_once(&self) -> usize;

    /// Hears of a micro-batch of so many photos that is done, or on its way where a device is not waited for. An error ends
    /// the step.
    fn computed(&mut self, photos: usize) -> candle_core::Result<()>;
}

impl<P: Pace + ?Sized> Pace for &mut P {
    fn at_once(&self) -> usize {
        (**self).at_once()
    }

    fn computed(&mut self, photos: usize) -> candle_core::Result<()> {
        (**self).computed(photos)
    }
}

impl Pace for usize {
    fn at_once(&self) -> usize {
        *self
    }

    fn computed(&mut self, _photos: usize) -> candle_core::Result<()> {
        Ok(())
    }
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
    pub(super) device: Device,
    witness: Witness,
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
        let witness = Witness::of(device);
        let optimizer = Optimizer::new(&network, settings)?;
        Ok(Self { network, optimizer, segments, loss, average: None, device: device.clone(), witness })
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

    /// One step over a batch, as many photos at a time as `pace` says: the same step, but for batch norms, which see the
    /// photos of a micro-batch only. No weight moves before every gradient is known to be there and to be numbers: until
    /// then a step that fails leaves nothing behind, and may be done once more.
    ///
    /// Needs a deep stack: a block's graph is walked by recursion.
    pub fn step(
        &mut self,
        examples: Examples,
        pace: impl Pace,
        rate: f64,
        paths: impl Fn(usize, usize) -> Result<Paths, TrainError>,
    ) -> Result<Stepped, TrainError> {
        self.witness.start();
        let (computed, stepped) = self.or_as_it_was(true, |trainer| {
            let computed = trainer.gradients(examples, pace, paths)?;
            trainer.wait()?;
            let stepped = computed.unread.read()?;
            Ok((computed, stepped))
        })?;
        self.descend(&computed, rate)?;
        // Else the next step would be done once more for what failed here.
        self.wait().map_err(|error| TrainError::Halfway { source: Box::new(error.into()) })?;
        Ok(stepped)
    }

    /// The same without a wait for the device. What failed there, or was no number, has moved the weights by the time it is
    /// known: only weights from before this step can then be trusted.
    pub fn step_unread(
        &mut self,
        examples: Examples,
        pace: impl Pace,
        rate: f64,
        paths: impl Fn(usize, usize) -> Result<Paths, TrainError>,
    ) -> Result<Unread, TrainError> {
        let computed = self.or_as_it_was(false, |trainer| trainer.gradients(examples, pace, paths))?;
        self.descend(&computed, rate)?;
        Ok(computed.unread)
    }

    /// Waits until all that was begun on the device is done. Fails if something failed there since the last wait, the trainer
    /// was made, or a step began that waits.
    pub(super) fn wait(&self) -> candle_core::Result<()> {
        self.witness.wait()
    }

    /// Computes what leaves the running statistics as they were if it fails; when it `waits` these are known to be kept, and
    /// to be back.
    fn or_as_it_was<R>(
        &mut self,
        waits: bool,
        compute: impl FnOnce(&mut Self) -> Result<R, TrainError>,
    ) -> Result<R, TrainError> {
        let wait = |trainer: &Self| if waits { trainer.wait() } else { Ok(()) };
        let statistics = self.statistics()?;
        wait(self)?;
        let computed = compute(self);
        if computed.is_err() {
            // What it failed at, if that was not told before.
            drop(wait(self));
            let back = self.put_back(&statistics).and_then(|()| Ok(wait(self)?));
            back.map_err(|source| TrainError::Halfway { source: Box::new(source) })?;
        }
        computed
    }

    fn descend(&mut self, Computed { gradients, norm, .. }: &Computed, rate: f64) -> Result<(), TrainError> {
        let moved = scoped(|| {
            self.optimizer.step(&self.network, gradients, norm, rate)?;
            self.follow_average()
        });
        moved.map_err(|error| TrainError::Halfway { source: Box::new(error) })
    }

    /// The gradients of a batch that nothing is learned from: running statistics stay as they are too.
    pub fn look(&mut self, examples: Examples, pace: impl Pace) -> Result<Gradients, TrainError> {
        let statistics = self.statistics()?;
        self.witness.start();
        let computed = self.gradients(examples, pace, |_, _| Ok(Paths::new()));
        self.put_back(&statistics)?;
        let gradients = computed?.gradients;
        self.wait()?;
        Ok(gradients)
    }

    /// The gradients of a whole batch, or the way to them, where a device is not waited for.
    fn gradients(
        &mut self,
        examples: Examples,
        mut pace: impl Pace,
        paths: impl Fn(usize, usize) -> Result<Paths, TrainError>,
    ) -> Result<Computed, TrainError> {
        let Self { network, segments, loss, device, .. } = self;
        let mut gradients = Gradients::new(network.learned.len());
        let classes = network.architecture.classes;
        let answers = examples.lesson.map(|lesson| lesson.probabilities.as_slice());
        let wanted = loss.wanted(examples.targets, answers, classes);
        let count = examples.labels.len();
        let mut found = Vec::new();
        let mut parts = Parts::of(0, count, pace.at_once());
        while let Some(part) = parts.next(pace.at_once()) {
            let (first, taken) = (part.start, part.len());
            let labels = &examples.labels[part];
            scoped(|| {
                let pixels = examples.tensor(first, taken, device)?;
                let taught = loss
                    .soft
                    .and_then(|soft| soft.features)
                    .map(|weight| examples.taught(first, taken, weight, device));
                let taught = taught.transpose()?.flatten();
                let mut judge = PartJudge { wanted: &wanted, first, labels, taught, found: None, difference: None };
                segments.run(network, &pixels, &paths(first, taken)?, &mut judge, &mut gradients)?;
                let (loss, correct) = judge.found.expect("logits are judged once");
                let loss = if let Some(difference) = judge.difference { (loss + difference)? } else { loss };
                found.extend([loss, correct]);
                Ok::<_, TrainError>(())
            })?;
            pace.computed(taken)?;
        }
        scoped(|| {
            let norm = gradients.norm()?;
            found.push(norm.to_dtype(DType::F32)?);
            let unread = Unread::new(count, Tensor::stack(&found, 0)?);
            Ok(Computed { gradients, norm, unread })
        })
    }

    /// The running statistics, which a step moves as it goes forward.
    fn statistics(&self) -> Result<Vec<Tensor>, TrainError> {
        // candle's `copy` shares the memory on Metal.
        let copy = |parameter: &Parameter| parameter.var.as_detached_tensor().force_contiguous();
        Ok(self.network.running.iter().map(copy).collect::<Result<_, _>>()?)
    }

    fn put_back(&self, statistics: &[Tensor]) -> Result<(), TrainError> {
        for (parameter, before) in self.network.running.iter().zip(statistics) {
            parameter.var.set(before)?;
        }
        Ok(())
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
        completed(&self.device, || {
            for (parameter, average) in self.averaged() {
                // candle's `copy` shares the memory on Metal, where the next line would overwrite it.
                let weights = parameter.var.as_detached_tensor().force_contiguous()?;
                parameter.var.set(&average.as_detached_tensor())?;
                average.set(&weights)?;
            }
            Ok(())
        })
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
        completed(&self.device, || {
            let pixels = examples.tensor(0, count, &self.device)?;
            // Not in lanes: how they share photos out changes the last bit of products with weights that train.
            let (frozen, trained) = self.network.blocks.split_at(self.segments.first);
            let features = self.network.features(frozen.len(), &pixels)?;
            let logits = trained.iter().try_fold(features, |xs, block| block.forward(xs))?;
            let wanted = Loss::default().wanted(examples.targets, None, self.network.architecture.classes);
            let judged = wanted.judge(&logits, 0, examples.labels)?;
            let loss = f64::from(judged.loss.to_scalar::<f32>()?) * count as f64;
            let correct = judged.correct.to_scalar::<f32>()? as u64;
            Ok((Score { photos: count as u64, loss, correct }, logits.to_vec2()?))
        })
    }
}

/// The gradients of a batch, their length, and what was found on the way.
struct Computed {
    gradients: Gradients,
    norm: Tensor,
    unread: Unread,
}

/// Judges a part of a batch.
struct PartJudge<'a> {
    wanted: &'a Wanted,
    first: usize,
    labels: &'a [u32],
    taught: Option<Taught>,
    /// The loss by the logits, and how many are right.
    found: Option<(Tensor, Tensor)>,
    /// The loss by the features.
    difference: Option<Tensor>,
}

/// A teacher's features of a part of a batch.
struct Taught {
    /// `(n, channels)`
    features: Tensor,
    /// What their difference counts, as the part's share of its batch.
    weight: f64,
}

impl Judge for PartJudge<'_> {
    fn logits(&mut self, logits: &Tensor) -> Result<Tensor, TrainError> {
        let judged = self.wanted.judge(logits, self.first, self.labels)?;
        self.found = Some((judged.loss, judged.correct));
        Ok(judged.gradient)
    }

    fn features(&mut self, output: &Tensor) -> Result<Option<Tensor>, TrainError> {
        let Some(taught) = &self.taught else { return Ok(None) };
        let (loss, gradient) = similarity::judge(output, &taught.features, taught.weight)?;
        self.difference = Some(loss);
        Ok(Some(gradient))
    }
}

/// The photos of a batch in parts as equal as can be: a batch norm learns little from a photo that is left alone.
struct Parts {
    /// What the parts are of, and how many photos each has at most.
    whole: Range<usize>,
    size: usize,
    parts: usize,
    taken: usize,
}

impl Parts {
    fn of(first: usize, end: usize, size: usize) -> Self {
        let parts = (end - first).div_ceil(size.max(1)).max(1);
        Self { whole: first..end, size, parts, taken: 0 }
    }

    fn bound(&self, part: usize) -> usize {
        self.whole.start + self.whole.len() * part / self.parts
    }

    /// The next part. When parts are to have another size, what is left is divided anew.
    fn next(&mut self, size: usize) -> Option<Range<usize>> {
        if self.taken == self.parts {
            return None;
        }
        if size != self.size {
            *self = Self::of(self.bound(self.taken), self.whole.end, size);
        }
        self.taken += 1;
        Some(self.bound(self.taken - 1)..self.bound(self.taken))
    }
}

impl Examples<'_> {
    /// The values of some photos on the device.
    fn tensor(&self, first: usize, count: usize, device: &Device) -> Result<Tensor, TrainError> {
        let photo: usize = self.shape.iter().product();
        let values = &self.values[first * photo..(first + count) * photo];
        Ok(Tensor::from_slice(values, [&[count], self.shape].concat(), device)?)
    }

    /// The teacher's features of some photos, if there are any.
    fn taught(&self, first: usize, count: usize, weight: f64, device: &Device) -> Result<Option<Taught>, TrainError> {
        let Some(features) = self.lesson.and_then(|lesson| lesson.features.as_ref()) else { return Ok(None) };
        let photos = self.labels.len();
        let channels = features.len() / photos.max(1);
        let values = &features[first * channels..(first + count) * channels];
        let weight = weight * count as f64 / photos as f64;
        Ok(Some(Taught { features: Tensor::from_slice(values, (count, channels), device)?, weight }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(count: usize, sizes: impl Fn(usize) -> usize) -> Vec<usize> {
        let mut parts = Parts::of(0, count, sizes(0));
        let mut done = 0;
        let mut lengths = Vec::new();
        while let Some(part) = parts.next(sizes(done)) {
            assert_eq!(part.start, done, "parts follow each other");
            done = part.end;
            lengths.push(part.len());
        }
        assert_eq!(done, count);
        lengths
    }

    #[test]
    fn parts_are_as_equal_as_can_be_and_what_is_left_is_divided_anew() {
        assert_eq!(parts(16, |_| 16), [16]);
        assert_eq!(parts(16, |_| 3), [2, 3, 3, 2, 3, 3]);
        assert_eq!(parts(5, |_| 100), [5]);
        assert_eq!(parts(16, |done| if done < 8 { 8 } else { 4 }), [8, 4, 4]);
        assert_eq!(parts(9, |done| if done < 3 { 4 } else { 1 }), [3, 1, 1, 1, 1, 1, 1]);
    }
}
