//! A model that a job computes with: as many photos at once as the memory allows while a watch looks at it, and on with the
//! same photos where its device failed for good and was made anew.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::ThreadPool;

use crate::format::{counted, error_chain};
use crate::images::Input;
use crate::jobs::admission::MemoryChoice;
use crate::jobs::failures::DeviceFailures;
use crate::memory::guard::Act;
use crate::predict::{Classifier, PredictError};
use crate::train::{GuardRecord, Pace as _, Watch};
use crate::worker::BoxError;

/// Batches whose photos are decoded while one is computed.
const BATCHES_AHEAD: usize = 1;

/// Answers of two models must not be taken for those of one.
#[derive(Debug, thiserror::Error)]
#[error("the model changed since it was read; start again: {}", .0.display())]
pub struct Changed(PathBuf);

/// Gives the same model on a device that was made anew.
pub type LendAgain<'a, M> = &'a dyn Fn() -> Result<M, BoxError>;

pub struct Watched<'a, M> {
    model: M,
    compute: Arc<ThreadPool>,
    /// Photos that are to go through the network at once.
    batch_size: usize,
    choice: MemoryChoice,
    watch: Watch,
    lend_again: Option<LendAgain<'a, M>>,
    /// After so many photos.
    failures: DeviceFailures<u64>,
    answered: u64,
    notices: Vec<String>,
}

impl<'a, M: Deref<Target = Classifier>> Watched<'a, M> {
    /// To compute on these threads.
    pub fn new(model: M, batch_size: usize, choice: MemoryChoice, compute: Arc<ThreadPool>) -> Self {
        let watch = watch(batch_size, choice, &model);
        let (failures, notices) = (DeviceFailures::default(), Vec::new());
        Self { model, compute, batch_size, choice, watch, lend_again: None, failures, answered: 0, notices }
    }

    /// The same, which goes on with what `lend_again` gives when the device failed for good.
    pub fn renewed_by(self, lend_again: LendAgain<'a, M>) -> Self {
        Self { lend_again: Some(lend_again), ..self }
    }

    /// That compute.
    pub fn threads(&self) -> usize {
        self.compute.current_num_threads()
    }

    pub fn model(&self) -> &M {
        &self.model
    }

    /// How many photos go through the network together, and what memory that took.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// A row of logits per photo. What fails on the device is tried again with fewer photos at once.
    pub fn logits(&mut self, inputs: &[&Input]) -> Result<Vec<Vec<f32>>, BoxError> {
        let mut rows = Vec::with_capacity(inputs.len());
        while rows.len() < inputs.len() {
            let next = &inputs[rows.len()..(rows.len() + self.watch.at_once()).min(inputs.len())];
            let (compute, model) = (&self.compute, &*self.model);
            match compute.install(|| model.logits(next)) {
                Ok(more) => {
                    rows.extend(more);
                    self.answered += next.len() as u64;
                    self.watch.computed(next.len())?;
                }
                Err(error) if error.is_of_device() && self.watch.failed() => {}
                Err(error) => self.renew(error)?,
            }
        }
        Ok(rows)
    }

    /// Takes a device that failed for good into use anew.
    fn renew(&mut self, error: PredictError) -> Result<(), BoxError> {
        let Some(lend_again) = self.lend_again else { return Err(error.into()) };
        let failure = error.is_of_device().then_some(self.answered);
        if !self.failures.renew_device(failure) {
            return Err(error.into());
        }
        let again = lend_again()?;
        if let Some(path) = self.model.changed_file() {
            return Err(Changed(path.to_owned()).into());
        }
        self.notices = self.take_notices();
        self.notices
            .push(format!("The GPU is taken into use anew, and goes on with the same photos: {}", error_chain(&error)));
        self.watch = watch(self.batch_size, self.choice, &again);
        self.model = again;
        Ok(())
    }

    /// What was done about the memory and the device since the last call, and why.
    pub fn take_notices(&mut self) -> Vec<String> {
        let mut notices = std::mem::take(&mut self.notices);
        notices.extend(self.watch.take_done().iter().map(sentence));
        notices
    }
}

fn watch(batch_size: usize, choice: MemoryChoice, classifier: &Classifier) -> Watch {
    Watch::new(batch_size, 1, BATCHES_AHEAD, classifier.device()).without_pause().over(Some(choice.allowance()))
}

fn sentence(act: &GuardRecord) -> String {
    let (reason, at_once) = (act.reason(), counted(act.at_once as u64, "photo"));
    match act.act {
        Act::Flush => format!("Caches were emptied, because {reason}"),
        Act::Halve => format!("From now on {at_once} at once, because {reason}"),
        Act::DropAhead | Act::Pause => format!("From now on no photos are decoded ahead, because {reason}"),
    }
}
