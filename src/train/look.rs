//! Gradients on photos that nothing is learned from.

use super::TrainError;
use super::fit::{Session, examples};
use super::gradients::Gradients;
use crate::models::Parameter;
use crate::worker::{JobContext, Progress};

/// Is told the gradients of a batch, and the parameters they are of.
type Tell<'a> = dyn FnMut(&[Parameter], &Gradients) -> Result<(), TrainError> + 'a;

impl Session {
    /// Hands on the gradients of every batch of the training photos, with the parameters they are of. Returns how many photos
    /// could be read.
    pub fn look(&mut self, ctx: &JobContext, tell: &mut Tell<'_>) -> Result<u64, TrainError> {
        let shape = self.train.shape();
        let total = Some(self.train.batches(self.config.batch_size) as u64);
        let mut photos = 0;
        for (batch, done) in self.trial_batches()?.zip(1..) {
            ctx.check()?;
            if batch.labels.len() < self.fewest_photos() {
                continue;
            }
            let Self { trainer, compute, watch, .. } = self;
            watch.begin(done, 0, true);
            let gradients = loop {
                match compute.install(|| trainer.look(examples(&batch, &shape, None), &mut *watch)) {
                    Err(error) if error.is_of_device() && watch.failed() => {}
                    gradients => break gradients?,
                }
            };
            tell(&self.trainer.network.learned, &gradients)?;
            photos += batch.labels.len() as u64;
            let phase = "Computing what each channel matters".to_owned();
            ctx.report(Progress { phase, done, total, per_second: None });
            self.watch.take_done();
        }
        Ok(photos)
    }
}
