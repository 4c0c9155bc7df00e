//! The photos on which a model is compared with a smaller one, and what each answers to them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rayon::ThreadPoolBuilder;

use crate::compress::Judged;
use crate::data::DataError;
use crate::images::Input;
use crate::images::transform::Transform;
use crate::jobs::admission::MemoryChoice;
use crate::jobs::classify::photos_in;
use crate::jobs::decoding::Loader;
use crate::jobs::evaluate::{EvaluateError, Labelled, answers, labelled};
use crate::jobs::watched::Watched;
use crate::predict::Classifier;
use crate::worker::{BoxError, JobContext, Progress};

/// Photos per pass through a network.
pub const BATCH: usize = 8;

/// Photos that are looked at to find out how to round.
const CALIBRATION_PHOTOS: usize = 32;

/// How long the speed of a network is measured.
const MEASURING: Duration = Duration::from_secs(1);

/// A model's answers.
pub struct Judgement {
    pub judged: Vec<Judged>,
    /// Photos that could not be read, and why.
    pub skipped: Vec<(PathBuf, String)>,
}

/// Photos with their true classes, where these are known.
pub struct Photos {
    pub folder: PathBuf,
    pub photos: Vec<(PathBuf, Option<usize>)>,
    pub skipped: Vec<(PathBuf, String)>,
    pub notices: Vec<String>,
}

impl Photos {
    /// The labelled photos of a folder or manifest; those of a folder without the model's classes too, without labels.
    pub fn find(folder: &Path, names: &[&str], ctx: &JobContext) -> Result<Self, BoxError> {
        let folder = folder.to_owned();
        let error = match labelled(&folder, names) {
            Ok(Labelled { photos, skipped, unknown, notes }) => {
                let photos = photos.into_iter().map(|(path, class)| (path, Some(class))).collect();
                let unknown = unknown.iter().map(|(class, photos)| {
                    format!("The model does not know the class {class}: its {photos} photos were left out")
                });
                return Ok(Self { folder, photos, skipped, notices: notes.into_iter().chain(unknown).collect() });
            }
            Err(error) => error,
        };
        let has_no_labels = matches!(error.downcast_ref(), Some(DataError::NoClasses(_)))
            || matches!(error.downcast_ref(), Some(EvaluateError::NoneKnown(..)));
        if !has_no_labels || !folder.is_dir() {
            return Err(error);
        }
        let (photos, skipped) = photos_in(&folder, ctx);
        if photos.is_empty() {
            return Err(error);
        }
        let photos = photos.into_iter().map(|path| (path, None)).collect();
        let notice =
            "The photos' true classes are not known: what is measured is how many keep their answer".to_owned();
        Ok(Self { folder, photos, skipped, notices: vec![notice] })
    }

    /// Some of them from all parts of the folder, as network input; those that cannot be read are left out.
    pub fn sample(&self, transform: Transform, ctx: &JobContext) -> Result<Vec<Input>, BoxError> {
        let loader = Loader::start(threads(), transform, u64::MAX)?;
        let step = self.photos.len().div_ceil(CALIBRATION_PHOTOS).max(1);
        let waiting: Vec<_> = self.photos.iter().step_by(step).map(|(path, _)| loader.load(path.clone())).collect();
        let mut inputs = Vec::with_capacity(waiting.len());
        for pending in waiting {
            ctx.check()?;
            inputs.extend(pending.wait().and_then(Result::ok));
        }
        Ok(inputs)
    }

    /// What a model answers to all of them. `left` is the memory left for decoding.
    pub fn judge(
        &self,
        classifier: &Classifier,
        (choice, left): (MemoryChoice, u64),
        ctx: &JobContext,
    ) -> Result<Judgement, BoxError> {
        let photos = self.photos.iter().enumerate().map(|(index, (path, _))| (path.clone(), index)).collect();
        let mut network = Watched::new(classifier, BATCH, choice, ThreadPoolBuilder::new().build()?.into());
        let mut skipped = self.skipped.clone();
        let answers = answers(&mut network, photos, (BATCH, left), &mut skipped, ctx)?;
        let judged = answers.into_iter().map(|answer| Judged {
            class: self.photos[answer.class].1,
            path: answer.path,
            logits: answer.logits,
        });
        Ok(Judgement { judged: judged.collect(), skipped })
    }
}

/// Photos per second through each of the networks, which take turns, without decoding.
pub fn photos_per_second(classifiers: &[&Classifier], ctx: &JobContext) -> Result<Vec<f64>, BoxError> {
    let compute = ThreadPoolBuilder::new().build()?;
    let inputs: Vec<Vec<Input>> = classifiers.iter().map(|classifier| made_up(classifier)).collect();
    let mut fastest = vec![f64::INFINITY; classifiers.len()];
    let started = Instant::now();
    // The first pass takes buffers and touches pages, and does not count.
    for pass in 0.. {
        ctx.check()?;
        if pass > 2 && started.elapsed() > MEASURING * classifiers.len() as u32 {
            break;
        }
        ctx.report(Progress { phase: "Measuring the speed".to_owned(), ..Progress::default() });
        for ((classifier, inputs), fastest) in classifiers.iter().zip(&inputs).zip(&mut fastest) {
            let begun = Instant::now();
            compute.install(|| classifier.logits(&inputs.iter().collect::<Vec<_>>()))?;
            if pass > 0 {
                *fastest = fastest.min(begun.elapsed().as_secs_f64());
            }
        }
    }
    Ok(fastest.into_iter().map(|seconds| BATCH as f64 / seconds).collect())
}

fn made_up(classifier: &Classifier) -> Vec<Input> {
    let (height, width) = classifier.description.transform.output_size().unwrap_or((224, 224));
    let pixels: Vec<f32> = (0..height * width * 3).map(|place| (place as f32 * 0.013).sin()).collect();
    vec![Input { height, width, pixels }; BATCH]
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
