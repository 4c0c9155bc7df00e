//! A run from where it stands to its end: epochs of steps, each followed by a validation, with snapshots between.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use rayon::ThreadPool;

use super::config::TrainConfig;
use super::readout::{Readout, Taken};
use super::run::{EpochRecord, GuardRecord, Record, RunFolder};
use super::score::{Score, Stepped};
use super::snapshot::{self, Best, Position};
use super::supply::{Features, Frozen, Supply};
use super::trainer::{Examples, Pace as _, Trainer};
use super::watch::Watch;
use super::{Lesson, Paths, Teacher, TrainError};
use crate::data::random::Random;
use crate::data::{Batch, EpochOrder, Split};
use crate::device::scoped;
use crate::memory::guard::Act;
use crate::memory::{self, heap};
use crate::models::{Network, Weights};
use crate::ops;
use crate::worker::{JobContext, Progress};

/// A run with all it needs.
pub struct Session {
    pub config: TrainConfig,
    pub trainer: Trainer,
    /// Where the network's frozen tensors are.
    pub base: Box<dyn Weights + Send + Sync>,
    pub train: Supply,
    /// Whose answers to the training photos are learned too.
    pub teacher: Option<Teacher>,
    /// None when there are no photos to validate with.
    pub validation: Option<Supply>,
    /// Whether what the frozen blocks make of the photos is computed once, and kept. Then no photo may change from epoch
    /// to epoch, and no block be skipped.
    pub keeps_features: bool,
    /// What snapshots say of themselves besides the run's position: architecture, labels, transform.
    pub about: BTreeMap<String, String>,
    pub position: Position,
    pub folder: RunFolder,
    /// Computes; its threads have deep stacks.
    pub compute: ThreadPool,
    pub device: Device,
    /// Over the memory, while steps are taken.
    pub watch: Watch,
    /// Of what the steps found, from the device.
    pub readout: Readout,
}

/// What a run tells while it goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum FitEvent {
    Record(Record),
    /// A photo that could not be read, by its number in its part, and why.
    Skipped {
        photo: usize,
        split: Split,
        reason: String,
    },
}

/// Why a run left off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ended {
    Finished(Finished),
    /// A snapshot was written; open it again to go on.
    Paused,
    /// The same because of this: going on at once would end the same way.
    Held(GuardRecord),
}

/// How the rest of an epoch went.
enum Passed {
    /// To its end. It waited so long for photos.
    Whole(Duration),
    Until(Ended),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finished {
    pub epochs: u64,
    pub best: Option<Best>,
    /// The run stopped because validation had not become better for long.
    pub early: bool,
}

impl Session {
    /// Trains until the end, a pause or a cancel. What was done until then is in the run's folder.
    pub fn fit(&mut self, ctx: &JobContext, tell: &mut dyn FnMut(FitEvent)) -> Result<Ended, TrainError> {
        // What failed while it was set up is not the first step's.
        self.trainer.wait()?;
        while self.position.epoch < self.config.epochs as u64 {
            if self.is_exhausted() {
                return Ok(self.finished(true));
            }
            if self.keeps_features && !self.keep_features(ctx)? {
                return Ok(Ended::Paused);
            }
            let started = Instant::now();
            match self.train_epoch(ctx, tell)? {
                Passed::Whole(waited) => self.finish_epoch(started, waited, ctx, tell)?,
                Passed::Until(ended) => return Ok(ended),
            }
        }
        Ok(self.finished(false))
    }

    /// Has the frozen blocks compute their part, unless they have; then they are gone. False when the job is to pause.
    fn keep_features(&mut self, ctx: &JobContext) -> Result<bool, TrainError> {
        let Self { trainer, compute, device, config, .. } = self;
        let (network, blocks) = (&trainer.network, trainer.frozen());
        let frozen = Frozen { network, blocks, device, compute, batch_size: config.batch_size };
        let mut kept = Vec::new();
        for supply in std::iter::once(&self.train).chain(&self.validation) {
            let Supply::Photos(loader) = supply else { return Ok(true) };
            let Some(features) = Features::of(loader, frozen, ctx)? else { return Ok(false) };
            kept.push(Supply::Features(Arc::new(features)));
        }
        for (supply, kept) in std::iter::once(&mut self.train).chain(&mut self.validation).zip(kept) {
            *supply = kept;
        }
        self.trainer.drop_frozen();
        ops::release(&self.device)?;
        heap::release();
        Ok(true)
    }

    fn finished(&self, early: bool) -> Ended {
        Ended::Finished(Finished { epochs: self.position.epoch, best: self.position.best, early })
    }

    /// Whether validation has not become better for as long as patience lasts.
    fn is_exhausted(&self) -> bool {
        let since = self.position.best.map_or(0, |best| self.position.epoch.saturating_sub(best.epoch + 1));
        self.validation.is_some() && self.config.patience.is_some_and(|patience| since >= patience as u64)
    }

    /// The rest of an epoch.
    fn train_epoch(&mut self, ctx: &JobContext, tell: &mut dyn FnMut(FitEvent)) -> Result<Passed, TrainError> {
        let batches = self.train.batches(self.config.batch_size);
        let rates = self.config.learning_rates(batches);
        let mut epoch = self.train.epoch(self.order(true, self.position.batch as usize))?;
        let (mut waited, mut last_snapshot, mut held) = (Duration::ZERO, Instant::now(), None);
        loop {
            let asked = Instant::now();
            let Some(batch) = epoch.next() else { break };
            waited += asked.elapsed();
            batch.skipped.iter().for_each(|(photo, reason)| {
                tell(FitEvent::Skipped { photo: *photo, split: Split::Train, reason: reason.clone() });
            });
            // The schedule counts batches, so that a batch without a step moves it too.
            let place = self.position.epoch * batches as u64 + self.position.batch;
            if batch.labels.len() >= self.fewest_photos() {
                let stepped = self.take_step(&batch, rates.rate(place));
                // Also of a step that failed in the end.
                held = self.note_acts(tell)?;
                self.note_steps(tell)?;
                stepped.inspect_err(|error| self.keep_before(error))?;
            }
            self.position.batch += 1;
            let done = self.position.batch;
            ctx.report(Progress {
                phase: format!("Epoch {} of {}", self.position.epoch + 1, self.config.epochs),
                done: place + 1,
                total: Some((self.config.epochs * batches) as u64),
                per_second: None,
            });
            let minutes = self.config.snapshot_minutes;
            let is_to_save = minutes > 0.0 && last_snapshot.elapsed().as_secs_f64() > 60.0 * minutes;
            let is_to_flush = is_due(self.config.flush_train, done);
            let mut is_to_end = ctx.is_canceled() || ctx.is_paused() || held.is_some();
            if is_to_flush || is_to_end || is_to_save {
                held = held.or(self.settle(tell)?);
                is_to_end |= held.is_some();
            }
            if is_to_flush {
                ops::release(&self.device)?;
            }
            if is_to_end || is_to_save {
                self.snapshot()?;
                last_snapshot = Instant::now();
            }
            if is_to_end {
                ctx.is_canceled().then(|| ctx.check()).transpose()?;
                return Ok(Passed::Until(held.map_or(Ended::Paused, Ended::Held)));
            }
        }
        if let Some(held) = self.settle(tell)? {
            self.snapshot()?;
            return Ok(Passed::Until(Ended::Held(held)));
        }
        Ok(Passed::Whole(waited))
    }

    /// Reads what all steps so far found, and writes it down. Returns what the run is to be held for, if it is.
    fn settle(&mut self, tell: &mut dyn FnMut(FitEvent)) -> Result<Option<GuardRecord>, TrainError> {
        let read = self.read_out();
        self.note_steps(tell)?;
        read?;
        self.note_acts(tell)
    }

    fn read_out(&mut self) -> Result<(), TrainError> {
        let snapshot = self.last_snapshot();
        self.readout.settle(&self.trainer, &mut self.watch, snapshot)
    }

    /// Writes down what was read.
    fn note_steps(&mut self, tell: &mut dyn FnMut(FitEvent)) -> Result<(), TrainError> {
        for (record, score) in self.readout.take_read() {
            self.position.seen.add(score);
            self.folder.write(&Record::Step(record))?;
            tell(FitEvent::Record(Record::Step(record)));
        }
        Ok(())
    }

    fn last_snapshot(&self) -> Option<PathBuf> {
        Some(self.folder.last()).filter(|last| last.exists())
    }

    /// Writes down what was done about the memory, and does what is to be done between steps. Returns what the run is to
    /// be held for, if it is.
    fn note_acts(&mut self, tell: &mut dyn FnMut(FitEvent)) -> Result<Option<GuardRecord>, TrainError> {
        let mut held = None;
        for record in self.watch.take_done() {
            self.folder.write(&Record::Guard(record))?;
            tell(FitEvent::Record(Record::Guard(record)));
            held = held.or((record.act == Act::Pause).then_some(record));
        }
        let ahead = self.watch.batches_ahead();
        std::iter::once(&self.train).chain(&self.validation).for_each(|supply| supply.set_ahead(ahead));
        (self.position.at_once, self.position.batches_ahead) = (Some(self.watch.at_once()), Some(ahead));
        Ok(held)
    }

    /// Saves what there was before a step that the device fails at for good: nothing of the step is in it.
    fn keep_before(&self, error: &TrainError) {
        if matches!(error, TrainError::Device { .. }) {
            // The failure is what will be told. A device that cannot even hand out its weights leaves the last snapshot.
            drop(self.snapshot());
        }
    }

    /// What is left of an epoch may be a single photo, which batch norms cannot learn from.
    pub(super) fn fewest_photos(&self) -> usize {
        if self.trainer.network.running.is_empty() || self.config.batch_size == 1 { 1 } else { 2 }
    }

    /// The batches of the first epoch, for [`trial_step`](Self::trial_step).
    pub fn trial_batches(&self) -> Result<impl Iterator<Item = Batch> + use<>, TrainError> {
        self.train.epoch(self.order(true, 0))
    }

    /// A step that no record is made of.
    pub fn trial_step(&mut self, batch: &Batch) -> Result<(), TrainError> {
        self.step(batch, self.config.lr).map(drop)
    }

    fn order(&self, shuffle: bool, first_batch: usize) -> EpochOrder {
        let Self { config, position, .. } = self;
        EpochOrder { seed: config.seed, epoch: position.epoch, shuffle, batch_size: config.batch_size, first_batch }
    }

    /// A step of the run. What it found may be read with what later ones find.
    fn take_step(&mut self, batch: &Batch, rate: f64) -> Result<(), TrainError> {
        let taken = Taken { step: self.position.steps, epoch: self.position.epoch, rate };
        if self.readout.may_wait() && !self.watch.is_strained() {
            let unread = self.attempt(batch, false, |trainer, examples, watch, paths| {
                trainer.step_unread(examples, watch, rate, paths)
            })?;
            self.readout.push(taken, unread);
            return if self.readout.is_due() { self.read_out() } else { Ok(()) };
        }
        self.read_out()?;
        let stepped = self.step(batch, rate)?;
        self.readout.note(taken, stepped);
        Ok(())
    }

    /// A step that is read before the weights move.
    pub(super) fn step(&mut self, batch: &Batch, rate: f64) -> Result<Stepped, TrainError> {
        let taken = Taken { step: self.position.steps, epoch: self.position.epoch, rate };
        self.attempt(batch, true, |trainer, examples, watch, paths| trainer.step(examples, watch, rate, paths)).map_err(
            |error| match error {
                TrainError::LossNotFinite | TrainError::GradientNotFinite => {
                    let shape = self.train.shape();
                    let layer = self.compute.install(|| self.trainer.first_bad_layer(examples(batch, &shape, None)));
                    taken.diverged(error, layer, self.last_snapshot())
                }
                error => error,
            },
        )
    }

    /// Takes a step, again and again with less while the device fails at it. Fails for good when nothing is left to do
    /// without.
    fn attempt<R: Send>(
        &mut self,
        batch: &Batch,
        waits: bool,
        take: impl Fn(&mut Trainer, Examples, &mut Watch, &FindPaths) -> Result<R, TrainError> + Sync,
    ) -> Result<R, TrainError> {
        let (shape, snapshot) = (self.train.shape(), self.last_snapshot());
        let Self { config, trainer, teacher, position, compute, device, watch, readout, .. } = self;
        let lesson = teacher.as_ref().map(|teacher| teacher.teach(batch)).transpose()?;
        let examples = examples(batch, &shape, lesson.as_ref());
        let depths = skip_chances(&trainer.network, config.drop_path);
        let (seed, epoch, step) = (config.seed, position.epoch, position.steps);
        let paths = |first: usize, count: usize| {
            let photos = &batch.indices[first..first + count];
            skips(&depths, photos, [seed, epoch], device)
        };
        watch.begin(step, epoch, waits);
        let taken = loop {
            let taken = compute.install(|| scoped(|| take(trainer, examples, watch, &paths)));
            let Err(error) = taken else { break taken? };
            if !error.is_of_device() {
                return Err(error);
            }
            // What failed may have been a step before, which has moved the weights.
            readout.settle(trainer, watch, snapshot.clone())?;
            if !watch.failed() {
                return Err(TrainError::Device { step, at_once: watch.at_once(), snapshot, source: Box::new(error) });
            }
        };
        position.steps += 1;
        Ok(taken)
    }

    /// Validation, records and snapshots at the end of an epoch.
    fn finish_epoch(
        &mut self,
        started: Instant,
        waited: Duration,
        ctx: &JobContext,
        tell: &mut dyn FnMut(FitEvent),
    ) -> Result<(), TrainError> {
        let seconds = started.elapsed().as_secs_f64();
        let validated = self.validate(ctx, tell)?;
        let Position { epoch, steps, seen, best, .. } = self.position.clone();
        let batches = self.train.batches(self.config.batch_size);
        let is_best = validated.is_none_or(|(score, _)| {
            let (top1, loss) = (score.accuracy(), score.mean_loss());
            best.is_none_or(|best| top1 > best.top1 || (top1 == best.top1 && loss < best.loss))
        });
        if let (Some((score, _)), true) = (validated, is_best) {
            self.position.best = Some(Best { epoch, top1: score.accuracy(), loss: score.mean_loss() });
        }
        let record = Record::Epoch(EpochRecord {
            epoch,
            step: steps,
            train_loss: seen.mean_loss(),
            train_accuracy: seen.accuracy(),
            loss: validated.map(|(score, _)| score.mean_loss()),
            top1: validated.map(|(score, _)| score.accuracy()),
            top5: validated.map(|(score, top5)| top5 as f64 / score.photos.max(1) as f64),
            best: is_best,
            lr: self.config.learning_rates(batches).rate(((epoch + 1) * batches as u64).saturating_sub(1)),
            seconds,
            photos_per_second: seen.photos as f64 / seconds,
            waiting: waited.as_secs_f64() / seconds,
            peak_bytes: memory::read().peak,
        });
        self.folder.write(&record)?;
        self.position = Position { epoch: epoch + 1, batch: 0, seen: Score::default(), ..self.position.clone() };
        if is_best {
            self.save(&self.folder.best())?;
        }
        self.snapshot()?;
        tell(FitEvent::Record(record));
        Ok(())
    }

    /// What the network makes of the validation photos, and how many have their class among its first five.
    fn validate(&self, ctx: &JobContext, tell: &mut dyn FnMut(FitEvent)) -> Result<Option<(Score, u64)>, TrainError> {
        let Some(validation) = &self.validation else { return Ok(None) };
        self.trainer.exchange_average()?;
        let result = self.validate_with(validation, ctx, tell);
        self.trainer.exchange_average()?;
        result.map(|result| (result.0.photos > 0).then_some(result))
    }

    fn validate_with(
        &self,
        validation: &Supply,
        ctx: &JobContext,
        tell: &mut dyn FnMut(FitEvent),
    ) -> Result<(Score, u64), TrainError> {
        let (mut whole, mut top5) = (Score::default(), 0);
        let batch_size = self.watch.at_once().min(self.config.batch_size);
        let (order, shape) = (EpochOrder { batch_size, ..self.order(false, 0) }, validation.shape());
        let trainer = &self.trainer;
        for (batch, done) in validation.epoch(order)?.zip(1..) {
            if ctx.is_canceled() {
                self.trainer.exchange_average()?;
                self.snapshot()?;
                ctx.check()?;
            }
            batch.skipped.iter().for_each(|(photo, reason)| {
                tell(FitEvent::Skipped { photo: *photo, split: Split::Validation, reason: reason.clone() });
            });
            if batch.labels.is_empty() {
                continue;
            }
            let (score, logits) = self.compute.install(|| trainer.evaluate(examples(&batch, &shape, None)))?;
            whole.add(score);
            let is_among = |(row, label): &(&Vec<f32>, &u32)| {
                let own = row[**label as usize];
                row.iter().filter(|logit| **logit > own).count() < 5
            };
            top5 += logits.iter().zip(&batch.labels).filter(is_among).count() as u64;
            if is_due(self.config.flush_val, done) {
                ops::release(&self.device)?;
            }
        }
        Ok((whole, top5))
    }

    /// Writes where the run stands, to go on from there.
    fn snapshot(&self) -> Result<(), TrainError> {
        self.save(&self.folder.last())?;
        heap::release();
        Ok(())
    }

    fn save(&self, path: &Path) -> Result<(), TrainError> {
        assert!(self.readout.is_settled(), "weights of steps that may have failed are not saved");
        scoped(|| {
            // Nothing may be kept of what a device failed at.
            self.trainer.wait()?;
            let position = Position { metrics_bytes: self.folder.sync()?, ..self.position.clone() };
            snapshot::save(path, &self.trainer, self.base.as_ref(), &self.about, &position)
        })
    }
}

/// Which photos of a part skip which blocks, by its first photo and their number.
type FindPaths<'a> = dyn Fn(usize, usize) -> Result<Paths, TrainError> + Sync + 'a;

/// Whether something that is done after every so many batches is to be done now; 0: never.
fn is_due(every: usize, done: u64) -> bool {
    every > 0 && done.is_multiple_of(every as u64)
}

pub(super) fn examples<'a>(batch: &'a Batch, shape: &'a [usize], lesson: Option<&'a Lesson>) -> Examples<'a> {
    let Batch { pixels: values, targets, labels, .. } = batch;
    Examples { values, shape, targets, labels, lesson }
}

/// The chance that a photo skips a block, by block: from 0 in the first to `most` in the last residual one (Huang et al.,
/// "Deep networks with stochastic depth").
fn skip_chances(network: &Network, most: f64) -> Vec<f64> {
    let residual = network.blocks.iter().filter(|block| block.is_residual()).count();
    let mut number = 0;
    let chance = |block: &crate::models::Block| {
        if !block.is_residual() || most == 0.0 {
            return 0.0;
        }
        number += 1;
        most * (number - 1) as f64 / (residual - 1).max(1) as f64
    };
    network.blocks.iter().map(chance).collect()
}

/// Which of the photos skip which blocks.
fn skips(chances: &[f64], photos: &[usize], [seed, epoch]: [u64; 2], device: &Device) -> Result<Paths, TrainError> {
    const SKIP: u64 = u64::from_le_bytes(*b"skip    ");
    let of_block = |(block, chance): (usize, &f64)| {
        if *chance == 0.0 {
            return Ok(None);
        }
        let share = |photo: &usize| {
            let drawn = Random::of(&[seed, epoch, *photo as u64, SKIP, block as u64]).unit();
            if drawn < *chance { 0.0 } else { (1.0 / (1.0 - chance)) as f32 }
        };
        let shares: Vec<f32> = photos.iter().map(share).collect();
        Ok(Some(Tensor::from_vec(shares, photos.len(), device)?))
    };
    chances.iter().enumerate().map(of_block).collect()
}
