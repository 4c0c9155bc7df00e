//! One run: photos in the order of the scan, batches through the network, rows into the journal and then to the
//! listener. What the journal knows already takes its place in the same order.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rayon::ThreadPoolBuilder;
use sha2::{Digest as _, Sha256};

use super::progress::Pace;
use super::scan::{self, Found, Scan};
use super::{ClassifyConfig, ClassifyError, ClassifyEvent, ClassifySummary};
use crate::format::error_chain;
use crate::images::{ImageError, Input};
use crate::jobs::decoding::{Loader, Pending};
use crate::jobs::models::ModelLoan;
use crate::jobs::watched::{LendAgain, Watched};
use crate::journal::{Journal, PhotoIdentity, RunState, Stored};
use crate::ops;
use crate::predict::{ModelSource, Precision, Prediction, Row, RowResult, STARTER, top_k};
use crate::train::Pace as _;
use crate::worker::{BoxError, Canceled, Job, JobContext};

/// Network inputs that wait for their batch take at most so much memory together.
const LOOK_AHEAD_BYTES: usize = 64_000_000;

/// Rows that need no computing are handed on at least so often.
const MOST_ROWS_AT_ONCE: usize = 64;

pub struct Run<'a> {
    config: &'a ClassifyConfig,
    journal: Journal,
    /// Under which the journal keeps this classifier's predictions.
    journal_classifier: i64,
    network: Watched<'a, ModelLoan>,
    /// Classes kept per photo.
    kept_classes: usize,
    threads: usize,
    /// Bytes of memory left for decoding, see [`ImageBudget::with_left`](crate::images::ImageBudget::with_left).
    left: u64,
    ctx: &'a JobContext,
    on_event: &'a mut dyn FnMut(ClassifyEvent) -> Result<(), BoxError>,
    pace: Pace,
    started: Instant,
    summary: ClassifySummary,
}

/// How a run went.
pub struct Gone {
    pub summary: Result<ClassifySummary, BoxError>,
    /// Photos that went through the network together at most.
    pub most_at_once: usize,
    /// The highest footprint that was read.
    pub highest: Option<u64>,
    /// Whether the device gave back what it kept for the next batch.
    pub released: Result<(), BoxError>,
}

/// A photo's place in the order of the run, before its turn.
enum Place {
    Ready(Outcome),
    Decoding { path: PathBuf, identity: PhotoIdentity, pending: Pending },
}

/// A photo whose turn has come.
enum Outcome {
    /// From the journal.
    Resumed(Row),
    /// Skipped now; kept in the journal when there is an identity.
    Skipped {
        path: PathBuf,
        reason: String,
        identity: Option<PhotoIdentity>,
    },
    Decoded {
        path: PathBuf,
        identity: PhotoIdentity,
        input: Input,
    },
}

impl<'a> Run<'a> {
    pub fn start(
        config: &'a ClassifyConfig,
        journal: Journal,
        classifier: ModelLoan,
        lend_again: LendAgain<'a, ModelLoan>,
        left: u64,
        ctx: &'a JobContext,
        on_event: &'a mut dyn FnMut(ClassifyEvent) -> Result<(), BoxError>,
    ) -> Result<Self, BoxError> {
        let description = &classifier.description;
        let sha256 = match &config.model {
            ModelSource::Starter => Sha256::digest(STARTER).into(),
            ModelSource::File(_) => journal.model_sha256(&classifier.paths())?,
        };
        if let Some(path) = classifier.changed_file() {
            return Err(ClassifyError::ModelChanged(path.to_owned()).into());
        }
        let network = match config.precision {
            Precision::Stored => classifier.network.architecture.name.clone(),
            precision => format!("{} in {}", classifier.network.architecture.name, precision.name()),
        };
        let journal_classifier = journal.classifier(&sha256, &network, &description.labels, &description.transform)?;
        let run = journal.begin_run(journal_classifier, &config_text(config))?;
        let threads = threads_of(config);
        let inputs = config.inputs.clone();
        let compute = ThreadPoolBuilder::new().num_threads(threads).build()?;
        let counting = Job::start("count", || (), move |ctx, _| Ok(scan::count(&inputs, ctx)?))?;
        Ok(Self {
            config,
            journal,
            journal_classifier,
            kept_classes: config.top_k.min(description.labels.len()),
            network: Watched::new(classifier, config.batch_size, config.memory, compute.into()).renewed_by(lend_again),
            threads,
            left,
            ctx,
            on_event,
            pace: Pace::new(counting),
            started: Instant::now(),
            summary: ClassifySummary { run, ..ClassifySummary::default() },
        })
    }

    /// Classifies everything, and notes in the journal how it ended.
    pub fn go(mut self) -> Gone {
        let result = self.classify_all();
        let (most_at_once, highest) = (self.network.watch().most_at_once(), self.network.watch().highest());
        let released = ops::release(self.network.model().device()).map_err(BoxError::from);
        Gone { summary: self.end(result), most_at_once, highest, released }
    }

    fn end(mut self, result: Result<(), BoxError>) -> Result<ClassifySummary, BoxError> {
        let state = match &result {
            Ok(()) => RunState::Finished,
            Err(error) if crate::format::chain(&**error).any(|error| error.is::<Canceled>()) => RunState::Canceled,
            Err(_) => RunState::Failed,
        };
        let noted = self.journal.end_run(self.summary.run, state);
        result?;
        noted?;
        self.summary.seconds = self.started.elapsed().as_secs_f64();
        Ok(self.summary)
    }

    fn classify_all(&mut self) -> Result<(), BoxError> {
        let loader = Loader::start(self.threads, self.network.model().description.transform, self.left)?;
        let size = self.network.model().description.transform.output_size();
        let look_ahead = look_ahead(self.config.batch_size, size, self.threads);
        let mut scan = Scan::new(self.config.inputs.clone(), self.ctx.clone());
        let mut waiting = VecDeque::new();
        let mut batch = Vec::new();
        let mut inputs = 0;
        loop {
            // Enough for the next batch to be decoded while this one is computed, and no more.
            let most = if self.network.watch().batches_ahead() == 0 { 1 } else { look_ahead };
            while waiting.len() < most {
                let Some(found) = scan.next() else { break };
                waiting.extend(self.place(found, &loader)?);
            }
            let Some(place) = waiting.pop_front() else { break };
            batch.push(arrive(place));
            inputs += usize::from(matches!(batch.last(), Some(Outcome::Decoded { .. })));
            let batch_size = self.network.watch().at_once();
            if inputs >= batch_size || batch.len() >= MOST_ROWS_AT_ONCE.max(batch_size) {
                self.finish(std::mem::take(&mut batch))?;
                inputs = 0;
            }
        }
        self.finish(batch)?;
        match self.config.inputs.first() {
            Some(input) if self.summary.photos == 0 => Err(ClassifyError::NoPhotos(input.clone()).into()),
            _ => Ok(()),
        }
    }

    /// Looks a photo up in the journal, or asks for its decoding.
    fn place(&mut self, found: Found, loader: &Loader) -> Result<Option<Place>, BoxError> {
        let (path, identity) = match found {
            Found::Photo { path, identity } => (path, identity),
            Found::Unreadable { path, reason } => {
                return Ok(Some(Place::Ready(Outcome::Skipped { path, reason, identity: None })));
            }
            Found::Sorted(folder) => {
                let text = format!("Left out the copies Galley sorted into {}", folder.display());
                (self.on_event)(ClassifyEvent::Notice(text))?;
                return Ok(None);
            }
        };
        let known = match self.config.fresh || self.config.logits {
            true => None,
            false => self.journal.find(self.journal_classifier, &identity, self.kept_classes)?,
        };
        if let Some(stored) = known {
            return Ok(Some(Place::Ready(Outcome::Resumed(self.resumed(path, stored)))));
        }
        let pending = loader.load(path.clone());
        Ok(Some(Place::Decoding { path, identity, pending }))
    }

    fn resumed(&self, path: PathBuf, stored: Stored) -> Row {
        let result = match stored {
            Stored::Skipped(reason) => RowResult::Skipped { reason },
            Stored::Classes(classes) => {
                let labels = &self.network.model().description.labels;
                let prediction = |(index, probability): (usize, f32)| {
                    Some(Prediction { index, label: labels.get(index)?.clone(), probability })
                };
                let predictions = classes.into_iter().take(self.kept_classes).filter_map(prediction).collect();
                RowResult::Ok { predictions, logits: None }
            }
        };
        Row { path, result }
    }

    /// Computes a batch, writes it to the journal, and only then tells the listener.
    fn finish(&mut self, batch: Vec<Outcome>) -> Result<(), BoxError> {
        self.ctx.check()?;
        let mut logits = self.logits(&batch)?.into_iter();
        let mut rows = Vec::with_capacity(batch.len());
        let mut records = Vec::new();
        for outcome in batch {
            rows.push(match outcome {
                Outcome::Resumed(row) => (row, true),
                Outcome::Skipped { path, reason, identity } => {
                    records.extend(identity.map(|identity| (identity, Stored::Skipped(reason.clone()))));
                    (Row { path, result: RowResult::Skipped { reason } }, false)
                }
                Outcome::Decoded { path, identity, .. } => {
                    let labels = &self.network.model().description.labels;
                    let result = result_of(logits.next().unwrap_or_default(), labels, self.config);
                    records.push((identity, stored(&result)));
                    (Row { path, result }, false)
                }
            });
        }
        self.journal.record(self.summary.run, &records)?;
        self.tell(rows)
    }

    /// A row per photo that was decoded.
    fn logits(&mut self, batch: &[Outcome]) -> Result<Vec<Vec<f32>>, BoxError> {
        let inputs: Vec<&Input> = batch
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Decoded { input, .. } => Some(input),
                _ => None,
            })
            .collect();
        let rows = self.network.logits(&inputs)?;
        for notice in self.network.take_notices() {
            (self.on_event)(ClassifyEvent::Notice(notice))?;
        }
        Ok(rows)
    }

    /// Sends rows in their order, in runs of resumed and of new ones.
    fn tell(&mut self, rows: Vec<(Row, bool)>) -> Result<(), BoxError> {
        for (row, resumed) in &rows {
            self.summary.photos += 1;
            self.summary.resumed += u64::from(*resumed);
            match row.result {
                RowResult::Ok { .. } => self.summary.ok += 1,
                RowResult::Skipped { .. } => self.summary.skipped += 1,
            }
        }
        let mut rows = rows.into_iter().peekable();
        while let Some((first, resumed)) = rows.next() {
            let mut same = vec![first];
            while let Some((row, _)) = rows.next_if(|(_, next)| *next == resumed) {
                same.push(row);
            }
            (self.on_event)(ClassifyEvent::Rows { rows: same, resumed })?;
        }
        self.ctx.report(self.pace.at(self.summary.photos));
        Ok(())
    }
}

/// Threads that compute, and as many that decode.
pub fn threads_of(config: &ClassifyConfig) -> usize {
    match config.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

/// How many photos may be decoded before their batch is computed: few, when inputs are large. `size` is their height and
/// width, if it is one for all.
pub fn look_ahead(batch_size: usize, size: Option<(usize, usize)>, threads: usize) -> usize {
    let (height, width) = size.unwrap_or((4096, 4096));
    let fitting = LOOK_AHEAD_BYTES / (height * width * 3 * size_of::<f32>()).max(1);
    (batch_size + 2 * threads).min(fitting).max(1)
}

/// What a photo's logits mean.
pub fn result_of(logits: Vec<f32>, labels: &[Arc<str>], config: &ClassifyConfig) -> RowResult {
    if logits.is_empty() || !logits.iter().all(|logit| logit.is_finite()) {
        let reason = "the model gave no finite numbers for this photo; its weights may be damaged".to_owned();
        return RowResult::Skipped { reason };
    }
    let predictions = top_k(&logits, labels, config.top_k);
    RowResult::Ok { predictions, logits: config.logits.then_some(logits) }
}

/// Waits for a photo's turn to be ready.
fn arrive(place: Place) -> Outcome {
    let (path, identity, pending) = match place {
        Place::Ready(outcome) => return outcome,
        Place::Decoding { path, identity, pending } => (path, identity, pending),
    };
    match pending.wait() {
        Some(Ok(input)) => Outcome::Decoded { path, identity, input },
        Some(Err(error)) => {
            // A file that could not be read may be readable the next time without having changed: ask again then.
            // So is a kind that only this version cannot read, and one that there was too little memory for.
            let lasting = !matches!(
                error,
                ImageError::Read(_)
                    | ImageError::Refused { .. }
                    | ImageError::Unsupported { .. }
                    | ImageError::DecoderFailed(_)
                    | ImageError::TooMuchMemory { .. }
            );
            Outcome::Skipped { path, reason: error_chain(&error), identity: lasting.then_some(identity) }
        }
        None => Outcome::Skipped { path, reason: "decoding failed (an internal error)".to_owned(), identity: None },
    }
}

fn stored(result: &RowResult) -> Stored {
    match result {
        RowResult::Ok { predictions, .. } => {
            Stored::Classes(predictions.iter().map(|best| (best.index, best.probability)).collect())
        }
        RowResult::Skipped { reason } => Stored::Skipped(reason.clone()),
    }
}

/// The run's settings for people to read. JSON knows no file names that are not UTF-8: those runs are noted in debug form.
fn config_text(config: &ClassifyConfig) -> String {
    serde_json::to_string(config).unwrap_or_else(|_| serde_json::json!(format!("{config:?}")).to_string())
}
