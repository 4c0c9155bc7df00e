//! What a run leaves for people: its curves, and how good its best weights are on the validation photos.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::device::Chosen;
use crate::jobs::evaluate::{Tiled, evaluate_tiled};
use crate::jobs::runs;
use crate::memory::heap;
use crate::ops;
use crate::predict::{self, ModelSource, Strictness, TransformOverrides};
use crate::report::{Judgement, Thumbnails, run_page};
use crate::train::{RunFolder, read_metrics, read_record};
use crate::worker::{BoxError, JobContext};

/// Writes the report of a run that has ended into its folder.
pub fn write(folder: &Path, validation: Tiled, chosen: &Chosen, ctx: &JobContext) -> Result<PathBuf, BoxError> {
    let (record, metrics) = (read_record(folder)?, read_metrics(folder)?);
    let source = ModelSource::File(RunFolder::best_of(folder));
    let classifier = predict::load(&source, None, &TransformOverrides::default(), Strictness::Strict, &chosen.device)?;
    let model = classifier.network.architecture.title.clone();
    let judged = match validation.photos.is_empty() {
        true => None,
        false => Some(evaluate_tiled(&classifier, &validation, ctx)?),
    };
    drop(classifier);
    ops::release(&chosen.device)?;
    heap::release();
    let thumbnails = match &judged {
        Some((evaluation, _)) => Thumbnails::of(evaluation, ctx)?,
        None => Thumbnails::default(),
    };
    let unknown = BTreeMap::new();
    let judgement = judged.as_ref().map(|(evaluation, skipped)| Judgement { evaluation, skipped, unknown: &unknown });
    let path = runs::report_of(folder);
    run_page(&record, &metrics, &model, judgement.as_ref(), &thumbnails).save(&path)?;
    Ok(path)
}
