//! Steps whose loss and accuracy are still on the device. Reading them waits for it, so that on a GPU the next steps are
//! prepared meanwhile, and several are read at once.
//!
//! A step that is not read by itself moves the weights before anybody knows that it went well. Until it is read, no weights
//! are saved; when the device failed at it, the run goes on from its last snapshot.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_core::Device;

use super::TrainError;
use super::config::TrainConfig;
use super::run::StepRecord;
use super::score::{Score, Stepped, Unread};
use super::trainer::Trainer;
use super::watch::Watch;

/// No longer does anybody wait to see the loss, or to hear of a device that failed.
const LONGEST: Duration = Duration::from_secs(2);

pub struct Readout {
    most: usize,
    /// When steps were read last. The first step of a session, in which memory is taken for the first time, is read by itself.
    last: Option<Instant>,
    unread: Vec<(Taken, Unread)>,
    read: Vec<(StepRecord, Score)>,
}

/// What is known of a step before it is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub step: u64,
    pub epoch: u64,
    pub rate: f64,
}

impl Taken {
    /// The error of a step whose loss or gradients are no numbers; `layer` is the first that holds or makes such.
    pub fn diverged(self, error: TrainError, layer: Option<String>, snapshot: Option<PathBuf>) -> TrainError {
        let Self { step, rate, .. } = self;
        TrainError::Diverged { step, layer, rate, snapshot, source: Box::new(error) }
    }

    fn record(self, Stepped { score, gradient_norm }: Stepped) -> (StepRecord, Score) {
        let Self { step, epoch, rate: lr } = self;
        let (loss, accuracy) = (score.mean_loss(), score.accuracy());
        (StepRecord { step, epoch, loss, accuracy, lr, gradient_norm }, score)
    }
}

impl Readout {
    /// Reads at most so many steps at once, each by itself when it is 1.
    pub fn of(most: usize) -> Self {
        Self { most, last: None, unread: Vec::new(), read: Vec::new() }
    }

    /// As often as a run with these settings asks for.
    pub fn on(device: &Device, config: &TrainConfig) -> Self {
        Self::of(if device.is_cpu() { 1 } else { config.steps_unread() })
    }

    /// Whether the next step need not be read by itself.
    pub(super) fn may_wait(&self) -> bool {
        self.most > 1 && self.last.is_some()
    }

    pub(super) fn is_due(&self) -> bool {
        self.unread.len() >= self.most || self.last.is_none_or(|last| last.elapsed() > LONGEST)
    }

    /// Whether it is known of all steps that they went well.
    pub(super) fn is_settled(&self) -> bool {
        self.unread.is_empty()
    }

    pub(super) fn push(&mut self, taken: Taken, unread: Unread) {
        self.unread.push((taken, unread));
    }

    /// Notes a step that was read by itself.
    pub(super) fn note(&mut self, taken: Taken, stepped: Stepped) {
        self.read.push(taken.record(stepped));
        self.last = Some(Instant::now());
    }

    /// Reads what is unread. After an error the weights are not what they should be, and `snapshot` is the last that are.
    pub(super) fn settle(
        &mut self,
        trainer: &Trainer,
        watch: &mut Watch,
        snapshot: Option<PathBuf>,
    ) -> Result<(), TrainError> {
        if self.is_settled() {
            return Ok(());
        }
        let halfway = |error: TrainError| TrainError::Halfway { source: Box::new(error) };
        trainer.wait().and_then(|()| watch.look()).map_err(|error| halfway(error.into()))?;
        // What could not be read stays unread.
        while let Some((taken, unread)) = self.unread.first() {
            let (taken, stepped) = (*taken, unread.read());
            // By now the weights hold no numbers either, so that nobody can tell where it began.
            let stepped = stepped.map_err(|error| match error {
                TrainError::LossNotFinite => taken.diverged(error, None, snapshot.clone()),
                TrainError::GradientNotFinite => taken.diverged(error, Some("a gradient".to_owned()), snapshot.clone()),
                error => halfway(error),
            })?;
            self.unread.remove(0);
            self.note(taken, stepped);
        }
        Ok(())
    }

    /// The steps that were read since the last call, in order.
    pub(super) fn take_read(&mut self) -> Vec<(StepRecord, Score)> {
        std::mem::take(&mut self.read)
    }
}
