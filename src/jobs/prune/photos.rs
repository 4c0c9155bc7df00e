//! What pruning does with photos: it asks how much each channel matters to them, and has the pruned network learn from them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Original, PruneEvent, PruneJobError, PruneTask, Ranking, Repair, Repaired};
use crate::compress::prune::Taylor;
use crate::data::{Augment, DataOptions, Dataset, Duplicates};
use crate::jobs::Places;
use crate::jobs::train::{TrainEvent, TrainTask, open_for_trial, train};
use crate::memory::heap;
use crate::models::Inner;
use crate::predict::Description;
use crate::train::{CacheFeatures, RunFolder, TrainConfig, TrainError};
use crate::worker::{BoxError, JobContext};

/// Of a repair, at its height: a tenth of what a new classifier is trained with.
const REPAIR_RATE: f64 = 1e-4;

/// Photos whose gradients are added up before they are squared, where batch norms need several to learn from.
const WITH_BATCH_NORMS: usize = 8;

/// How many names a message shows.
const SHOWN: usize = 5;

/// The folders of photos that are asked for.
pub fn folders<'a>(ranking: &'a Ranking, repair: Option<&'a Repair>) -> impl Iterator<Item = &'a Path> {
    let on = match ranking {
        Ranking::L1 => None,
        Ranking::Taylor { on } => Some(on.as_path()),
    };
    on.into_iter().chain(repair.map(|repair| repair.data.as_path()))
}

/// Fails for photos of other classes than the model's: with these it would get a new classifier.
pub fn check(data: &Path, described: &Description) -> Result<(), BoxError> {
    let dataset = Dataset::open(data, None, &DataOptions { validation_fraction: 0.0, ..DataOptions::default() })?;
    let theirs: BTreeSet<&str> = dataset.classes.iter().map(String::as_str).collect();
    let own: BTreeSet<&str> = described.labels.iter().map(|label| &**label).collect();
    if theirs == own {
        return Ok(());
    }
    let first = |names: &BTreeSet<&str>| {
        let more = if names.len() > SHOWN { "…" } else { "" };
        let shown = names.iter().take(SHOWN).copied();
        shown.chain(Some(more).filter(|more| !more.is_empty())).map(str::to_owned).collect()
    };
    Err(PruneJobError::OtherClasses(first(&theirs), first(&own)).into())
}

/// What both have in common: the photos as they are.
fn config(model: PathBuf, data: &Path, task: &PruneTask) -> TrainConfig {
    TrainConfig {
        model: Some(model),
        data: data.to_owned(),
        validation_fraction: 0.0,
        augment: Augment::NONE,
        device: task.device,
        memory_limit: task.memory.limit,
        anyway: task.memory.anyway,
        ..TrainConfig::default()
    }
}

/// The scores of all channels, and how many photos they are from.
pub fn taylor(
    inner: &[Inner],
    on: &Path,
    original: &Original,
    task: &PruneTask,
    places: &Places,
    ctx: &JobContext,
) -> Result<(u64, Vec<Vec<f64>>), BoxError> {
    let has_batch_norms = original.architecture.tensors()?.iter().any(|(name, _)| name.ends_with("running_mean"));
    let config = TrainConfig {
        batch_size: if has_batch_norms { WITH_BATCH_NORMS } else { 1 },
        cache_features: CacheFeatures::Never,
        duplicates: Duplicates::Keep,
        ..config(task.model.clone(), on, task)
    };
    let folder = tempfile::tempdir()?;
    let (mut session, _) = open_for_trial(&config, folder.path(), places, ctx)?;
    let mut taylor = Taylor::new(inner);
    let photos = session.look(ctx, &mut |parameters, gradients| taylor.add(parameters, gradients));
    drop(session);
    heap::release();
    let (photos, scores) = (photos?, taylor.scores());
    if photos == 0 {
        return Err(PruneJobError::NoPhotos.into());
    }
    match scores.iter().flatten().all(|score| score.is_finite()) {
        true => Ok((photos, scores)),
        false => Err(TrainError::GradientNotFinite.into()),
    }
}

/// Has the network in `model` learn, and returns where the result is: inside `folder`.
pub fn repair(
    repair: &Repair,
    model: &Path,
    folder: &Path,
    task: &PruneTask,
    places: &Places,
    ctx: &JobContext,
    on_event: &mut dyn FnMut(PruneEvent) -> Result<(), BoxError>,
) -> Result<(Repaired, PathBuf), BoxError> {
    let config = TrainConfig {
        epochs: repair.epochs,
        lr: REPAIR_RATE,
        warmup_epochs: 0.1,
        augment: Augment { flip: 0.5, ..Augment::NONE },
        label_smoothing: 0.0,
        ..config(model.to_owned(), &repair.data, task)
    };
    let folder = folder.join("run");
    let run = TrainTask::Begin { config: Box::new(config), folder: folder.clone() };
    let summary = train(&run, places, ctx, &mut |event| {
        // A run that is to be held would wait for somebody: here nothing is lost by giving up.
        if let TrainEvent::Held(reason) = event {
            return Err(PruneJobError::Held(reason).into());
        }
        on_event(PruneEvent::Repair(event))
    })?;
    let top1 = summary.finished.best.map(|best| best.top1);
    let repaired = Repaired { epochs: summary.finished.epochs, top1, seconds: summary.seconds };
    Ok((repaired, RunFolder::best_of(&folder)))
}
