//! Training: a network learns from labelled photos, in the memory it is given.
//!
//! Forward and backward go block by block; gradients of micro-batches add up in one buffer per parameter, and no weight
//! moves before all of a step's gradients are there. Whatever is random is drawn from the run's seed, so that a run
//! repeats bit by bit with the same number of threads, also when it was interrupted.

mod config;
mod find_rate;
mod fit;
mod gradients;
mod look;
mod loss;
mod optimizer;
pub mod outline;
mod readout;
mod run;
mod schedule;
mod score;
mod segments;
mod similarity;
pub mod snapshot;
mod supply;
mod teacher;
mod trainer;
mod watch;

use std::path::PathBuf;

pub use config::{CacheFeatures, ClassWeights, ConfigError, Distill, Preset, Recompute, TrainConfig, Unfreeze};
pub use find_rate::{RatePoint, RateSearch, RatesTried};
pub use fit::{Ended, Finished, FitEvent, Session};
pub use gradients::Gradients;
pub use loss::{Loss, SoftLoss};
pub use optimizer::{Method, Optimizer, OptimizerSettings};
pub use readout::Readout;
pub use run::{
    EpochRecord, GuardRecord, Record, RunError, RunFolder, RunRecord, StepRecord, read_metrics, read_record,
};
pub use schedule::{Course, Schedule};
pub use score::{Score, Stepped, Unread};
pub use segments::{Judge, Paths, Segments};
pub use similarity::pooled;
pub use snapshot::{Best, Position};
pub use supply::Supply;
pub use teacher::{Lesson, Teacher};
pub use trainer::{Examples, Pace, Trainer};
pub use watch::{Source, Watch};

use crate::checkpoint::CheckpointError;
use crate::device;
use crate::models::ModelError;
use crate::worker::Canceled;

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error("the loss is no longer a number")]
    LossNotFinite,
    #[error("the gradients are no longer numbers")]
    GradientNotFinite,
    #[error("no gradient reaches the input of {block}")]
    NoGradient { block: String },
    #[error(
        "training went astray in step {step}: {} is the first that is no longer a number. {} and begin again with a \
         learning rate below {rate}", .layer.as_deref().unwrap_or("the loss"), resume(.snapshot)
    )]
    Diverged {
        step: u64,
        /// What went bad first, in words.
        layer: Option<String>,
        rate: f64,
        /// The last good snapshot.
        snapshot: Option<PathBuf>,
        source: Box<TrainError>,
    },
    #[error(
        "the device failed at step {} again and again, also with {at_once} photos at once; {}", .step + 1,
        resume(.snapshot)
    )]
    Device { step: u64, at_once: usize, snapshot: Option<PathBuf>, source: Box<TrainError> },
    #[error("the device failed while weights moved; continue the run from its last snapshot")]
    Halfway { source: Box<TrainError> },
    #[error("no weight has moved since the run began, so there is nothing to save: is the learning rate too small?")]
    NothingLearned,
    #[error("the tensor {tensor} holds values that are no numbers, so it was not saved")]
    NotFinite { tensor: String },
    #[error("the teacher's answers can no longer be read; continue the run, and what is missing is asked again: {}", .path.display())]
    Answers { path: PathBuf, source: std::io::Error },
    #[error("the tensor {tensor} is no longer to be had, so nothing was saved")]
    Lost { tensor: String },
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("failed to read the weights")]
    Read(#[from] CheckpointError),
    #[error("failed to write a snapshot")]
    Write(#[from] std::io::Error),
    // Not transparent, which would hide from the error's chain that it is a cancel.
    #[error("canceled")]
    Canceled(#[from] Canceled),
    #[error("failed to compute the network")]
    Model(#[from] ModelError),
    #[error("failed to compute a training step")]
    Compute(#[from] candle_core::Error),
}

impl TrainError {
    /// Where the device failed for good, if it did: none is while weights moved, at a validation or a snapshot.
    pub fn device_failure(&self) -> Option<Option<u64>> {
        match self {
            Self::Device { step, .. } => Some(Some(*step)),
            Self::Halfway { .. } => Some(None),
            error => error.is_of_device().then_some(None),
        }
    }

    /// True for what may go well when it is done once more.
    fn is_of_device(&self) -> bool {
        match self {
            Self::Compute(error) | Self::Model(ModelError::Compute(error)) => device::is_failure(error),
            _ => false,
        }
    }
}

fn resume(snapshot: &Option<PathBuf>) -> String {
    match snapshot {
        Some(path) => format!("The last good snapshot is {}; take it as the model", path.display()),
        None => "There is no snapshot yet; take the same model".to_owned(),
    }
}
