//! An evaluation as a job on its own thread, of any model or of a run's best weights, and as a page of HTML.

use std::io;
use std::path::{Path, PathBuf};

use super::{EvaluateConfig, EvaluateError, EvaluateSummary, evaluate};
use crate::jobs::Places;
use crate::jobs::{runs, train};
use crate::predict::ModelSource;
use crate::report::{self, Judgement, Thumbnails};
use crate::train::RunFolder;
use crate::worker::{BoxError, Job, JobContext};

/// What is to be judged.
#[derive(Debug, Clone, PartialEq)]
pub enum EvaluateTask {
    /// A model on labelled photos.
    Photos(Box<EvaluateConfig>),
    /// The best weights of the run in this folder on its validation photos.
    Run(PathBuf),
}

impl EvaluateTask {
    /// The photos, in words.
    pub fn photos(&self) -> String {
        match self {
            Self::Photos(config) => format!("the photos of {}", config.data.display()),
            Self::Run(folder) => format!("the validation photos of the run {}", runs::name(folder)),
        }
    }

    /// The file of the model, in words.
    fn model(&self) -> String {
        match self {
            Self::Photos(config) => match &config.model {
                ModelSource::Starter => "the starter model".to_owned(),
                ModelSource::File(path) => path.display().to_string(),
            },
            Self::Run(folder) => RunFolder::best_of(folder).display().to_string(),
        }
    }
}

/// An evaluation, and where it lies as a page of HTML.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    pub summary: EvaluateSummary,
    /// A run's report has the same numbers.
    pub report: Option<PathBuf>,
}

pub type EvaluateJob = Job<Evaluated, ()>;

/// Starts the job. `wake` is called whenever there is something to see.
pub fn start(task: EvaluateTask, places: Places, wake: impl Fn() + Send + Sync + 'static) -> io::Result<EvaluateJob> {
    Job::start("evaluate", wake, move |ctx, _| match &task {
        EvaluateTask::Photos(config) => Ok(Evaluated { summary: evaluate(config, &places, ctx)?, report: None }),
        EvaluateTask::Run(folder) => {
            let report = Some(runs::report_of(folder)).filter(|report| report.exists());
            Ok(Evaluated { summary: train::evaluate_best(folder, &places, ctx)?, report })
        }
    })
}

/// Writes an evaluation as one page of HTML. Reads the photos that were judged the worst.
pub fn save_report(
    task: &EvaluateTask,
    summary: &EvaluateSummary,
    path: &Path,
    ctx: &JobContext,
) -> Result<(), BoxError> {
    let EvaluateSummary { model, evaluation, skipped, unknown, .. } = summary;
    let thumbnails = Thumbnails::of(evaluation, ctx)?;
    let lead = format!("{model} ({}) on {}", task.model(), task.photos());
    let judgement = Judgement { evaluation, skipped, unknown };
    let page = report::evaluation_page("An evaluation", &lead, &judgement, &thumbnails);
    page.save(path).map_err(|source| EvaluateError::Report { path: path.to_owned(), source })?;
    Ok(())
}
