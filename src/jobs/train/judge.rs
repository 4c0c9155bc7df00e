//! Judges the best weights of a run on the photos it validated with.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use super::{TrainJobError, open};
use crate::data::{Photo, Split};
use crate::jobs::Places;
use crate::jobs::admission::MemoryChoice;
use crate::jobs::doctor::{self, Prepared};
use crate::jobs::evaluate::{EvaluateSummary, JUDGED_AT_ONCE, Tiled, evaluate_tiled};
use crate::jobs::inference::ToLoad;
use crate::memory::heap;
use crate::ops;
use crate::predict::{Loading, ModelSource, TransformOverrides};
use crate::train::{RunFolder, read_record};
use crate::worker::{BoxError, JobContext, Progress};

/// Fails when the run had no validation photos, or they are no longer the same.
pub fn evaluate_best(folder: &Path, places: &Places, ctx: &JobContext) -> Result<EvaluateSummary, BoxError> {
    let started = Instant::now();
    let record = read_record(folder)?;
    let Prepared { chosen, mut notices } = doctor::prepare(record.config.device, &places.verdicts, ctx)?;
    ctx.report(Progress { phase: "Reading model and photos".to_owned(), ..Progress::default() });
    let dataset = open::dataset_of(&record)?.ok_or(TrainJobError::ValidationChanged)?;
    let photos: Vec<Photo> = dataset.part(Split::Validation).cloned().collect();
    if photos.is_empty() {
        return Err(TrainJobError::NoValidation.into());
    }
    let source = ModelSource::File(RunFolder::best_of(folder));
    let to_load = ToLoad {
        model: &source,
        labels: None,
        transform: &TransformOverrides::default(),
        loading: Loading::default(),
        batch_size: JUDGED_AT_ONCE,
        threads: 0,
        mode: "evaluate",
        choice: MemoryChoice::of(&record.config),
    };
    let (predicted, notice) = to_load.admit(folder.display().to_string(), &chosen, places)?;
    notices.extend(notice);
    predicted.iter().for_each(|predicted| ctx.expect(&predicted.items));
    // No other model may answer for the run.
    let classifier = places.models.lend_exactly(&to_load.wanted(), &chosen, ctx)?;
    let tiles = open::tiles(places, &classifier.description.transform, &dataset, u64::MAX, &mut notices)?;
    let (evaluation, skipped) = evaluate_tiled(&classifier, &Tiled { photos, tiles }, ctx)?;
    let model = classifier.network.architecture.title.clone();
    drop(classifier);
    ops::release(&chosen.device)?;
    heap::release();
    let (unknown, seconds) = (BTreeMap::new(), started.elapsed().as_secs_f64());
    Ok(EvaluateSummary { model, evaluation, skipped, unknown, notices, seconds })
}
