//! Trains: a checkpoint and a folder of photos become a run, which can be paused, canceled, killed and continued.

mod arrange;
mod judge;
mod look;
mod open;
mod plan;
mod report;
mod solve;
mod teach;

use std::path::{Path, PathBuf};
use std::time::Instant;

pub(super) use arrange::admit_steps;
pub use judge::evaluate_best;
pub use look::{LookJob, Previewed, look, preview, start_look};
pub use plan::{Forecast, ForecastJob, MemoryPlan, forecast, start_forecast};

use crate::data::Split;
use crate::format::error_chain;
use crate::jobs::admission::MemoryChoice;
use crate::jobs::doctor::{self, Prepared};
use crate::jobs::evaluate::Tiled;
use crate::jobs::failures::DeviceFailures;
use crate::jobs::peaks::Predicted;
use crate::jobs::{Places, peaks};
use crate::memory::{Plan, heap};
use crate::ops;
use crate::train::{Ended, Finished, FitEvent, Readout, Record, RunError, Session, TrainConfig, TrainError};
use crate::worker::{self, BoxError, Events, Job, JobContext, Outcome, Progress};
use open::Opened;

/// What to train.
#[derive(Debug, Clone, PartialEq)]
pub enum TrainTask {
    /// A new run in this folder.
    Begin { config: Box<TrainConfig>, folder: PathBuf },
    /// The run of this folder, from its last snapshot; none takes the run's own choice about memory.
    Resume { folder: PathBuf, memory: Option<MemoryChoice> },
}

impl TrainTask {
    pub fn folder(&self) -> &Path {
        match self {
            Self::Begin { folder, .. } | Self::Resume { folder, .. } => folder,
        }
    }
}

/// What a run is about, once its model and photos are known.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainStart {
    pub model: String,
    pub classes: Vec<String>,
    /// Photos of each class to train on, and to validate with.
    pub train_counts: Vec<usize>,
    pub validation_counts: Vec<usize>,
    /// Blocks in all, and those that learn.
    pub blocks: usize,
    pub trained_blocks: usize,
    /// Blocks that are computed twice.
    pub recomputed_blocks: usize,
    /// Photos computed at once.
    pub at_once: usize,
    /// Whether batch norms learn, which see no more photos than these together.
    pub has_batch_norms: bool,
    /// Elements that learn.
    pub parameters: u64,
    pub image_size: usize,
    pub steps_per_epoch: usize,
    /// What the run is expected to take beside what the process had before.
    pub plan: Plan,
    /// What is kept of that frozen blocks made of the photos, computed once; none when nothing is.
    pub feature_bytes: Option<u64>,
    /// Whole epochs that are behind already.
    pub epoch: u64,
    pub config: TrainConfig,
}

/// What a run tells.
#[derive(Debug, Clone)]
pub enum TrainEvent {
    Start(Box<TrainStart>),
    Record(Record),
    Skipped {
        path: PathBuf,
        reason: String,
    },
    Notice(String),
    /// The same about the device.
    DeviceNotice(String),
    /// A snapshot is written and the device is free.
    Paused,
    /// The same, and the job has paused itself: memory ran out in a way that nothing helps against. Why, for people.
    Held(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct TrainSummary {
    pub folder: PathBuf,
    pub finished: Finished,
    /// The run as a page of HTML; none when it could not be written.
    pub report: Option<PathBuf>,
    pub seconds: f64,
}

pub type TrainJob = Job<TrainSummary, TrainEvent>;

/// Why a run cannot begin or go on, where a person can help.
#[derive(Debug, thiserror::Error)]
pub enum TrainJobError {
    #[error("a classifier needs at least two classes, and these photos have {0}: make a folder for each class")]
    OneClass(String),
    #[error(
        "a network that begins with random weights has to learn as a whole: leave --unfreeze out, or begin from a checkpoint"
    )]
    FrozenBeginning,
    #[error("there are no photos to train on in {}", .0.display())]
    NoPhotos(PathBuf),
    #[error(
        "the photos have changed since the run began, so it cannot go on as it would have; begin a new one from its \
         last weights: galley train --model {} --data …", .last.display()
    )]
    PhotosChanged { last: PathBuf },
    #[error(
        "the teacher has changed since the run began, so the run cannot go on as it would have; put the teacher's file back, \
         or begin a new run from the last weights: galley train --model {} --data …", .last.display()
    )]
    TeacherChanged { last: PathBuf },
    #[error(
        "the photos have changed since the run began, so which of them it never learned from is no longer known: choose \
         a folder of photos to evaluate on"
    )]
    ValidationChanged,
    #[error("this run validated with no photos: choose a folder of photos to evaluate on")]
    NoValidation,
    #[error(
        "{} weights of this checkpoint are in 8 or 4 bits; training needs the float checkpoint they were made from", .0
    )]
    Quantized(usize),
}

/// Runs on the calling thread until the end. While paused it holds neither the network nor the device's memory.
pub fn train(
    task: &TrainTask,
    places: &Places,
    ctx: &JobContext,
    on_event: &mut dyn FnMut(TrainEvent) -> Result<(), BoxError>,
) -> Result<TrainSummary, BoxError> {
    let started = Instant::now();
    let mut task = task.clone();
    let folder = task.folder().to_owned();
    let (mut failures, mut has_failed) = (DeviceFailures::default(), false);
    loop {
        match run(&task, places, has_failed, ctx, on_event) {
            Err(error) => {
                if !failures.renew_device(of_device(&error)) {
                    return Err(error);
                }
                has_failed = true;
                let again = "The GPU is taken into use anew, and the run goes on from its last snapshot";
                on_event(TrainEvent::Notice(format!("{again}: {}", error_chain(&*error))))?;
            }
            Ok(Passed::Whole(finished, report)) => {
                return Ok(TrainSummary { folder, finished, report, seconds: started.elapsed().as_secs_f64() });
            }
            Ok(Passed::Paused) => on_event(TrainEvent::Paused)?,
            Ok(Passed::Held(reason)) => {
                ctx.set_paused(true);
                on_event(TrainEvent::Held(reason))?;
            }
        }
        ctx.check()?;
        let memory = match task {
            TrainTask::Begin { .. } => None,
            TrainTask::Resume { memory, .. } => memory,
        };
        task = TrainTask::Resume { folder: folder.clone(), memory };
    }
}

/// The step that the device failed at for good, if it did and at one.
fn of_device(error: &BoxError) -> Option<Option<u64>> {
    error.downcast_ref().and_then(TrainError::device_failure)
}

/// How far a run went.
enum Passed {
    /// To its end, after which there is a report.
    Whole(Finished, Option<PathBuf>),
    Paused,
    Held(String),
}

/// Until the end or a pause. After a failure of the device each step is read by itself: one that fails again is then done
/// with fewer photos at once.
fn run(
    task: &TrainTask,
    places: &Places,
    has_failed: bool,
    ctx: &JobContext,
    on_event: &mut dyn FnMut(TrainEvent) -> Result<(), BoxError>,
) -> Result<Passed, BoxError> {
    let choice = match task {
        TrainTask::Begin { config, .. } => config.device,
        TrainTask::Resume { folder, .. } => crate::train::read_record(folder)?.config.device,
    };
    let Prepared { chosen, notices } = doctor::prepare(choice, &places.verdicts, ctx)?;
    for notice in notices {
        on_event(TrainEvent::DeviceNotice(notice))?;
    }
    ctx.report(Progress { phase: "Reading model and photos".to_owned(), ..Progress::default() });
    let Opened { mut session, start, training, validating, tiles, notices, plan, before } =
        open::open(task, places, &chosen, ctx)?;
    let predicted = Predicted {
        kind: peaks::kind(&session.trainer.network.architecture.name, "train", &chosen),
        config: Predicted::config_of(&start.config),
        items: plan.training.process_items(),
        anyway: start.config.anyway,
        before,
        left: u64::MAX,
    };
    if has_failed {
        session.readout = Readout::of(1);
    }
    let (batch_size, has_batch_norms) = (start.config.batch_size, start.has_batch_norms);
    for notice in notices {
        on_event(TrainEvent::Notice(notice))?;
    }
    on_event(TrainEvent::Start(Box::new(start)))?;
    let mut failure = None;
    let ended = session.fit(ctx, &mut |event| {
        let event = match event {
            FitEvent::Record(record) => {
                if let Record::Guard(act) = &record
                    && failure.is_none()
                {
                    failure = on_event(TrainEvent::Notice(act.sentence(batch_size, has_batch_norms))).err();
                }
                TrainEvent::Record(record)
            }
            FitEvent::Skipped { photo, split, reason } => {
                let photos = if split == Split::Train { &training } else { &validating };
                TrainEvent::Skipped { path: photos[photo].path.clone(), reason }
            }
        };
        if failure.is_none()
            && let Err(error) = on_event(event)
        {
            failure = Some(error);
            ctx.cancel();
        }
    });
    let (highest, batches) = (session.watch.highest(), session.watch.batches());
    drop(session);
    // A journal that cannot be written is no reason for a run to fail.
    if batches > 0
        && let Err(error) = predicted.record(highest, &places.journal)
    {
        on_event(TrainEvent::Notice(format!("What the run took was not noted: {}", error_chain(&error))))?;
    }
    let released = ops::release(&chosen.device);
    heap::release();
    if let Some(failure) = failure {
        return Err(failure);
    }
    let ended = ended?;
    released?;
    let finished = match ended {
        Ended::Finished(finished) => finished,
        Ended::Paused => return Ok(Passed::Paused),
        Ended::Held(act) => return Ok(Passed::Held(act.sentence(batch_size, has_batch_norms))),
    };
    // The run is whole without its report, so nothing that is wrong with that fails it, but a cancel.
    let written = worker::run(|| report::write(task.folder(), Tiled { photos: validating, tiles }, &chosen, ctx));
    match written {
        Outcome::Finished(path) => return Ok(Passed::Whole(finished, Some(path))),
        Outcome::Canceled => ctx.check()?,
        Outcome::Failed(error) => {
            let reason = error_chain(&*error);
            on_event(TrainEvent::Notice(format!("The run is done, but its report could not be written: {reason}")))?;
        }
    }
    Ok(Passed::Whole(finished, None))
}

/// The same as a job on its own thread. `wake` is called whenever there is something to see.
pub fn start(task: TrainTask, places: Places, wake: impl Fn() + Send + Sync + 'static) -> std::io::Result<TrainJob> {
    Job::start("train", wake, move |ctx, events: &Events<TrainEvent>| {
        train(&task, &places, ctx, &mut |event| Ok(events.send(event)?))
    })
}

/// A session for a few steps, in a folder that will not stay.
pub fn open_for_trial(
    config: &TrainConfig,
    folder: &Path,
    places: &Places,
    ctx: &JobContext,
) -> Result<(Session, TrainStart), BoxError> {
    let Prepared { chosen, .. } = doctor::prepare(config.device, &places.verdicts, ctx)?;
    let task = TrainTask::Begin { config: Box::new(config.clone()), folder: folder.to_owned() };
    let Opened { session, start, .. } = open::open(&task, places, &chosen, ctx)?;
    Ok((session, start))
}

/// True when the folder holds a run that can be continued.
pub fn is_run(folder: &Path) -> bool {
    !matches!(crate::train::read_record(folder), Err(RunError::NoRun(_)))
}

/// Where resized photos are kept: `GALLEY_TILES`, or the user's folder for what can be made again.
pub fn default_tiles() -> PathBuf {
    let in_cache_folder = || Some(directories::ProjectDirs::from("", "", "Galley")?.cache_dir().join("tiles"));
    let named = std::env::var_os("GALLEY_TILES").filter(|name| !name.is_empty()).map(PathBuf::from);
    named.or_else(in_cache_folder).unwrap_or_else(|| "galley-tiles".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_may_go_on_where_its_device_failed_and_nothing_else() {
        let failure = |error: BoxError| of_device(&error);
        let source = || Box::new(TrainError::LossNotFinite);
        let at_step = TrainError::Device { step: 3, at_once: 1, snapshot: None, source: source() };
        assert_eq!(failure(at_step.into()), Some(Some(3)));
        assert_eq!(failure(TrainError::Halfway { source: source() }.into()), Some(None));
        assert_eq!(failure(TrainError::LossNotFinite.into()), None);
        assert_eq!(failure(BoxError::from("no photos")), None);
    }
}
