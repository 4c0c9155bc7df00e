//! Evaluates: a model's answers to labelled photos against their true classes.

mod task;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rayon::ThreadPoolBuilder;
use serde::Serialize;

use crate::data::{self, DataOptions, Dataset, EpochOrder, Photo, Tiles};
use crate::device::DeviceChoice;
use crate::format::error_chain;
use crate::images::Input;
use crate::jobs::Places;
use crate::jobs::admission::MemoryChoice;
use crate::jobs::classify::look_ahead;
use crate::jobs::decoding::Loader;
use crate::jobs::doctor::{self, Prepared};
use crate::jobs::inference::ToLoad;
use crate::jobs::models::Lent;
use crate::jobs::watched::Watched;
use crate::memory::heap;
use crate::ops;
use crate::predict::{Answer, Classifier, Evaluation, Loading, ModelSource, Precision, TransformOverrides};
use crate::worker::{BoxError, JobContext, Progress};

pub use task::{EvaluateJob, EvaluateTask, Evaluated, save_report, start};

#[derive(Debug, Clone, Default, PartialEq)]
pub struct EvaluateConfig {
    pub model: ModelSource,
    pub labels: Option<PathBuf>,
    /// A folder of class folders, or a manifest.
    pub data: PathBuf,
    /// 0 is taken as 1.
    pub batch_size: usize,
    pub device: DeviceChoice,
    pub precision: Precision,
    pub transform: TransformOverrides,
    pub memory: MemoryChoice,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvaluateSummary {
    pub model: String,
    pub evaluation: Evaluation,
    /// Photos that could not be read, and why.
    pub skipped: Vec<(PathBuf, String)>,
    /// Classes of the photos that the model does not know, with their photos: left out.
    pub unknown: BTreeMap<String, usize>,
    pub notices: Vec<String>,
    pub seconds: f64,
}

#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    #[error(
        "the model knows none of these classes: {}. Its own begin with {}. Name the folders like its classes, or give \
         its class names with --labels", .0.join(", "), .1.join(", ")
    )]
    NoneKnown(Vec<String>, Vec<String>),
    #[error("failed to write the report {}", .path.display())]
    Report { path: PathBuf, source: std::io::Error },
    #[error("none of the {0} photos could be read; the first: {1}")]
    NoneRead(usize, String),
}

/// Photos whose tiles are kept that go through the network at once.
pub const JUDGED_AT_ONCE: usize = 8;

/// How many names a message shows.
const SHOWN: usize = 5;

/// Runs on the calling thread.
pub fn evaluate(config: &EvaluateConfig, places: &Places, ctx: &JobContext) -> Result<EvaluateSummary, BoxError> {
    let started = Instant::now();
    let Prepared { chosen, mut notices } = doctor::prepare(config.device, &places.verdicts, ctx)?;
    ctx.report(Progress { phase: "Reading model and photos".to_owned(), ..Progress::default() });
    let to_load = ToLoad {
        model: &config.model,
        labels: config.labels.as_deref(),
        transform: &config.transform,
        loading: Loading { precision: config.precision, ..Loading::default() },
        batch_size: config.batch_size.max(1),
        threads: 0,
        mode: "evaluate",
        choice: config.memory,
    };
    let (predicted, notice) = to_load.admit(format!("{config:?}"), &chosen, places)?;
    predicted.iter().for_each(|predicted| ctx.expect(&predicted.items));
    notices.extend(notice);
    let Lent { classifier, instead } = places.models.lend(&to_load.wanted(), &chosen, ctx)?;
    let lent = match &instead {
        Some((light, _)) => ToLoad { model: light, labels: None, transform: &TransformOverrides::default(), ..to_load },
        None => to_load,
    };
    notices.extend(instead.iter().map(|(_, notice)| notice.clone()));
    notices.extend(classifier.description.notices.iter().cloned());
    let (labels, model) = (classifier.description.labels.clone(), classifier.network.architecture.title.clone());
    let names: Vec<&str> = labels.iter().map(|label| &**label).collect();
    let Labelled { photos, mut skipped, unknown, notes } = labelled(&config.data, &names)?;
    notices.extend(notes);
    let left = predicted.as_ref().map_or(u64::MAX, |predicted| predicted.left);
    let lend_again = || lent.lend_again(config.device, places, ctx);
    let compute = ThreadPoolBuilder::new().build()?.into();
    let mut network = Watched::new(classifier, lent.batch_size, config.memory, compute).renewed_by(&lend_again);
    let answers = answers(&mut network, photos, (lent.batch_size, left), &mut skipped, ctx)?;
    notices.extend(network.take_notices());
    let watch = network.watch();
    let comparable = predicted.filter(|_| watch.most_at_once() >= lent.batch_size);
    if let Some(Err(error)) = comparable.map(|predicted| predicted.record(watch.highest(), &places.journal)) {
        notices.push(format!("What the evaluation took was not noted: {}", error_chain(&error)));
    }
    ops::release(network.model().device())?;
    heap::release();
    if let (true, Some((_, reason))) = (answers.is_empty(), skipped.first()) {
        return Err(EvaluateError::NoneRead(skipped.len(), reason.clone()).into());
    }
    let evaluation = Evaluation::new(answers, &names);
    Ok(EvaluateSummary { model, evaluation, skipped, unknown, notices, seconds: started.elapsed().as_secs_f64() })
}

/// Photos with their classes, as a model numbers these.
pub struct Labelled {
    pub photos: Vec<(PathBuf, usize)>,
    /// What could not be read of the folder or manifest, and why.
    pub skipped: Vec<(PathBuf, String)>,
    /// Classes that the model does not know, with their photos: left out.
    pub unknown: BTreeMap<String, usize>,
    pub notes: Vec<String>,
}

/// The photos of a folder of class folders or of a manifest whose classes are among `names`.
pub fn labelled(data: &Path, names: &[&str]) -> Result<Labelled, BoxError> {
    let options = DataOptions { validation_fraction: 0.0, ..DataOptions::default() };
    let dataset = Dataset::open(data, None, &options)?;
    let skipped = dataset.skipped.iter().map(|one| (one.path.clone(), one.reason.clone())).collect();
    let known = classes_of_model(&dataset.classes, names);
    let mut unknown = BTreeMap::new();
    let mut photos = Vec::with_capacity(dataset.photos.len());
    for photo in &dataset.photos {
        match known[photo.class] {
            Some(class) => photos.push((photo.path.clone(), class)),
            None => *unknown.entry(dataset.classes[photo.class].clone()).or_insert(0) += 1,
        }
    }
    if photos.is_empty() {
        let first = |names: &[&str]| names.iter().take(SHOWN).map(|name| (*name).to_owned()).collect();
        let theirs: Vec<&str> = dataset.classes.iter().map(String::as_str).collect();
        return Err(EvaluateError::NoneKnown(first(&theirs), first(names)).into());
    }
    Ok(Labelled { photos, skipped, unknown, notes: dataset.notes })
}

/// Photos whose class is one of the network's, and where they are kept resized as it wants them.
pub struct Tiled {
    pub photos: Vec<Photo>,
    pub tiles: Arc<Tiles>,
}

/// Judges photos whose tiles are kept. Also returns those that could not be read, and why.
pub fn evaluate_tiled(
    classifier: &Classifier,
    tiled: &Tiled,
    ctx: &JobContext,
) -> Result<(Evaluation, Vec<(PathBuf, String)>), BoxError> {
    const BATCHES_AHEAD: usize = 2;
    let Tiled { photos, tiles } = tiled;
    let compute = Arc::new(ThreadPoolBuilder::new().build()?);
    let names = &classifier.description.labels;
    let threads = compute.current_num_threads();
    let loader = data::Loader::new(photos.clone().into(), names.len(), tiles.clone(), None, threads, BATCHES_AHEAD)?;
    let (mut answers, mut skipped) = (Vec::with_capacity(photos.len()), Vec::new());
    let mut network = Watched::new(classifier, JUDGED_AT_ONCE, MemoryChoice::default(), compute);
    let order = EpochOrder { seed: 0, epoch: 0, shuffle: false, batch_size: JUDGED_AT_ONCE, first_batch: 0 };
    for batch in loader.epoch(order)? {
        ctx.check()?;
        skipped.extend(batch.skipped.iter().map(|(index, reason)| (photos[*index].path.clone(), reason.clone())));
        let rows = batch.pixels.chunks_exact(batch.size * batch.size * 3);
        let inputs = rows.map(|pixels| Input { height: batch.size, width: batch.size, pixels: pixels.to_vec() });
        let with_names = |(index, input)| {
            let Photo { path, class, .. } = &photos[index];
            (path.clone(), *class, input)
        };
        answers.extend(judge(&mut network, batch.indices.iter().copied().zip(inputs).map(with_names).collect())?);
        let (done, total) = ((answers.len() + skipped.len()) as u64, Some(photos.len() as u64));
        ctx.report(Progress { phase: "Evaluating the best weights".to_owned(), done, total, per_second: None });
    }
    Ok((Evaluation::new(answers, names), skipped))
}

/// For each class of the photos the model's class of the same name: letter by letter, or else whatever the case and the
/// signs between words, or else by the last folder's name.
fn classes_of_model(classes: &[String], labels: &[&str]) -> Vec<Option<usize>> {
    let plain =
        |name: &str| -> String { name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect() };
    let exact: HashMap<&str, usize> = labels.iter().enumerate().map(|(index, label)| (*label, index)).collect();
    let mut plainly: HashMap<String, Option<usize>> = HashMap::new();
    for (index, label) in labels.iter().enumerate() {
        // Of two that differ in signs alone, neither is meant for certain.
        plainly.entry(plain(label)).and_modify(|known| *known = None).or_insert(Some(index));
    }
    let of = |name: &str| exact.get(name).copied().or_else(|| plainly.get(&plain(name)).copied().flatten());
    classes.iter().map(|class| of(class).or_else(|| of(class.rsplit('/').next().unwrap_or(class)))).collect()
}

/// The logits of every photo that can be read, in order. `left` is the memory left for decoding.
pub(super) fn answers(
    network: &mut Watched<impl Deref<Target = Classifier>>,
    photos: Vec<(PathBuf, usize)>,
    (batch_size, left): (usize, u64),
    skipped: &mut Vec<(PathBuf, String)>,
    ctx: &JobContext,
) -> Result<Vec<Answer>, BoxError> {
    let transform = network.model().description.transform;
    let threads = network.threads();
    let loader = Loader::start(threads, transform, left)?;
    let look_ahead = look_ahead(batch_size, transform.output_size(), threads);
    let total = photos.len();
    let mut left = photos.into_iter();
    let mut waiting = VecDeque::new();
    let (mut batch, mut answers) = (Vec::new(), Vec::with_capacity(total));
    for done in 1..=total {
        let most = if network.watch().batches_ahead() == 0 { 1 } else { look_ahead };
        for (path, class) in left.by_ref().take(most.saturating_sub(waiting.len())) {
            waiting.push_back((loader.load(path.clone()), path, class));
        }
        let Some((pending, path, class)) = waiting.pop_front() else { break };
        match pending.wait() {
            Some(Ok(input)) => batch.push((path, class, input)),
            Some(Err(error)) => skipped.push((path, error_chain(&error))),
            None => skipped.push((path, "the decoder is gone".to_owned())),
        }
        if batch.len() == batch_size || done == total {
            ctx.check()?;
            answers.extend(judge(network, std::mem::take(&mut batch))?);
            let phase = "Evaluating".to_owned();
            ctx.report(Progress { phase, done: done as u64, total: Some(total as u64), per_second: None });
        }
    }
    Ok(answers)
}

fn judge(
    network: &mut Watched<impl Deref<Target = Classifier>>,
    batch: Vec<(PathBuf, usize, Input)>,
) -> Result<Vec<Answer>, BoxError> {
    let inputs: Vec<&Input> = batch.iter().map(|(_, _, input)| input).collect();
    let rows = network.logits(&inputs)?;
    Ok(batch.into_iter().zip(rows).map(|((path, class, _), logits)| Answer { path, class, logits }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_by_name_and_doubtful_ones_are_not() {
        let classes = ["hot_dog", "Fruit/Red-Apple", "pear", "kiwi"].map(str::to_owned);
        let labels = ["Hot Dog", "red apple", "Pear", "PEAR", "kiwi", "KiWi"];
        assert_eq!(classes_of_model(&classes, &labels), [Some(0), Some(1), None, Some(4)]);
    }
}
