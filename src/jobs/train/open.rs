//! Brings together what a run needs: model, photos, device, folder.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::ThreadPoolBuilder;

use super::arrange::{Answer, Arranged, Asked, Before, about_going_on, arranged_in};
use super::plan::MemoryPlan;
use super::solve::fewest_at_once;
use super::teach::{AskTeacher, absolute_teacher, teacher};
use super::{TrainJobError, TrainStart, TrainTask};
use crate::checkpoint::{Checkpoint, ElementType};
use crate::compress::distill::Unasked;
use crate::data::random::rank;
use crate::data::{self, Dataset, Duplicates, Loader, Photo, Split, Survey, Tiles};
use crate::device::Chosen;
use crate::format::{count, counted};
use crate::images::transform::{Resize, Transform};
use crate::jobs::admission::MemoryChoice;
use crate::jobs::{Places, peaks};
use crate::journal::PeakKind;
use crate::memory::{self, Reading, heap};
use crate::models::{self, Architecture, InitialWeights, Network, Strictness, Weights};
use crate::predict::{self, ModelSource, TransformOverrides};
use crate::train::{
    ClassWeights, Loss, Position, Readout, RunFolder, RunRecord, Segments, Session, SoftLoss, Supply, Teacher,
    TrainConfig, Trainer, Unfreeze, Watch, snapshot,
};
use crate::worker::{BoxError, JobContext};

/// Backward descends as deep as a block is long.
const STACK_BYTES: usize = 64 << 20;

/// A run that can begin.
pub struct Opened {
    pub session: Session,
    pub start: TrainStart,
    /// By their numbers in the session.
    pub training: Vec<Photo>,
    pub validating: Vec<Photo>,
    pub tiles: Arc<Tiles>,
    /// What a person should know.
    pub notices: Vec<String>,
    pub plan: MemoryPlan,
    /// The memory before the run took any.
    pub before: Reading,
}

pub fn open(task: &TrainTask, places: &Places, chosen: &Chosen, ctx: &JobContext) -> Result<Opened, BoxError> {
    match task {
        TrainTask::Begin { config, folder } => begin(config, folder, places, chosen, ctx),
        TrainTask::Resume { folder, memory } => resume(folder, *memory, places, chosen, ctx),
    }
}

/// The memory before a run takes any of it, and what runs of the same kind took.
fn before(choice: MemoryChoice, kind: &PeakKind, places: &Places) -> Before {
    heap::release();
    heap::reset_peak();
    Before { reading: memory::read_often(), choice, calibration: peaks::calibration(kind, &places.journal) }
}

fn begin(
    config: &TrainConfig,
    folder: &Path,
    places: &Places,
    chosen: &Chosen,
    ctx: &JobContext,
) -> Result<Opened, BoxError> {
    config.check()?;
    let absolute = |path: &PathBuf| std::path::absolute(path);
    let config = TrainConfig {
        data: absolute(&config.data)?,
        val: config.val.as_ref().map(absolute).transpose()?,
        model: config.model.as_ref().map(absolute).transpose()?,
        distill: config.distill.as_ref().map(absolute_teacher).transpose()?,
        ..config.clone()
    };
    let model = Model::of(&config)?;
    let kind = peaks::kind(&model.architecture.name, "train", chosen);
    let mut dataset = dataset(&config)?;
    let is_known = model.take_order(&mut dataset);
    // Before photos are looked at, which may take long, and before the folder: a wrong choice leaves nothing behind.
    let new_head = (!is_known).then_some(dataset.classes.len());
    let architecture = model.architecture_of(new_head)?;
    let (teacher, cost) = teacher(&config, &dataset.classes, chosen)?;
    let (side, photos) = (model.side(), dataset.part(Split::Train).count() + dataset.part(Split::Validation).count());
    let now = || before(MemoryChoice::of(&config), &kind, places);
    let (answer, before) = arranged_in(&places.models, now, |before| {
        Asked { config: &config, architecture: &architecture, side, photos, teacher: cost, before, chosen }.arrange()
    })?;
    let arranged = match answer {
        Answer::Runs(arranged) => *arranged,
        Answer::WithSmaller(side) => {
            drop((model, dataset, teacher));
            let smaller = TrainConfig { image_size: Some(side), may_shrink_images: false, ..config };
            let mut opened = begin(&smaller, folder, places, chosen, ctx)?;
            opened.notices.push(format!("Photos of {side} pixels are used, as they may be smaller to fit"));
            return Ok(opened);
        }
    };
    let mut notices = model.notices.clone();
    notices.extend(dataset.notes.iter().cloned());
    notices.extend(dataset.skipped.iter().map(|one| format!("Left out {}: {}", one.path.display(), one.reason)));
    let tiles = tiles(places, &model.transform, &dataset, arranged.left, &mut notices)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // Keeps the tiles of all photos on the way.
    let survey = data::survey(&dataset, &tiles, threads, ctx)?;
    notices.extend(findings(&survey, &dataset, config.duplicates));
    let left_out = survey.left_out(&dataset.photos, config.duplicates);
    let left_out = left_out.into_iter().map(|index| dataset.photos[index].path.clone()).collect();
    dataset.leave_out(&survey, config.duplicates);
    check_classes(&dataset)?;
    notices.extend(dataset.imbalance_warning());
    let record = RunRecord {
        photos: fingerprint(&dataset),
        classes: dataset.classes.clone(),
        left_out,
        teacher: teacher.as_ref().map(|teacher| teacher.name().to_owned()),
        galley: env!("CARGO_PKG_VERSION").to_owned(),
        config,
    };
    if !is_known && record.config.arch.is_none() {
        let (before, now) = (model.architecture.classes as u64, dataset.classes.len() as u64);
        let (before, now) = (count(before), count(now));
        notices.push(format!("The classifier is new: the checkpoint's {before} classes are not these {now}"));
    }
    let asking = AskTeacher { places, transform: &model.transform, left: arranged.left, chosen };
    let teacher = asking.ask(teacher, &dataset, &mut notices, ctx)?;
    let network = model.network(&record.config, new_head, chosen)?;
    let folder = RunFolder::create(folder, &record)?;
    let position = Position { initial: snapshot::fingerprint(&network.learned)?, ..Position::default() };
    let parts = Parts { record, model, dataset, tiles, teacher, network, folder, position, notices, arranged, before };
    session(parts, chosen)
}

/// What the survey found, as sentences.
fn findings(survey: &Survey, dataset: &Dataset, duplicates: Duplicates) -> Vec<String> {
    let name =
        |index: usize| dataset.photos[index].path.strip_prefix(&dataset.root).unwrap_or(&dataset.photos[index].path);
    let mut notices: Vec<String> =
        survey.corrupt.iter().map(|(index, reason)| format!("Left out {}: {reason}", name(*index).display())).collect();
    for (groups, what) in [(&survey.exact, "the same file"), (&survey.near, "look the same")] {
        let leaks = groups.iter().filter(|group| group.leaks).count() as u64;
        let differ = groups.iter().filter(|group| group.labels_differ).count() as u64;
        let Some(first) = groups.first() else { continue };
        let (one, other) = (name(first.photos[0]).display(), name(first.photos[1]).display());
        let groups = counted(groups.len() as u64, "group");
        notices.push(format!(
            "{groups} of photos {what} ({one} and {other}): {} lie both in training and in validation, {} in different \
             classes",
            count(leaks),
            count(differ)
        ));
    }
    let left = survey.left_out(&dataset.photos, duplicates).len() - survey.corrupt.len();
    if left > 0 {
        notices.push(format!("{} left out of training as copies", counted(left as u64, "photo")));
    }
    notices
}

fn resume(
    folder: &Path,
    memory: Option<MemoryChoice>,
    places: &Places,
    chosen: &Chosen,
    ctx: &JobContext,
) -> Result<Opened, BoxError> {
    let (mut folder, record) = RunFolder::open(folder)?;
    let config = &record.config;
    let last = folder.last();
    let has_snapshot = last.exists();
    let model = match has_snapshot {
        true => Model::open(&ModelSource::File(last.clone()), config)?,
        false => Model::of(config)?,
    };
    let kind = peaks::kind(&model.architecture.name, "train", chosen);
    let dataset = dataset_of(&record)?.ok_or(TrainJobError::PhotosChanged { last: last.clone() })?;
    let (teacher, cost) = teacher(config, &record.classes, chosen)?;
    if teacher.as_ref().map(Unasked::name) != record.teacher.as_deref() {
        return Err(TrainJobError::TeacherChanged { last }.into());
    }
    let is_known = has_snapshot || model.labels == record.classes;
    let new_head = (!is_known).then_some(record.classes.len());
    let (architecture, side) = (model.architecture_of(new_head)?, model.side());
    let left_off = model.position.clone().filter(|_| has_snapshot);
    let position = left_off.clone().unwrap_or_default();
    let mut notices: Vec<String> = about_going_on(config, position.at_once).into_iter().collect();
    // As it was left: batch norms, and the last bits of gradients, depend on how many photos are computed at once.
    let arrange = |micro_batch, before: &Before| {
        let batches_ahead = position.batches_ahead.unwrap_or(config.batches_ahead);
        let config = &TrainConfig { micro_batch, batches_ahead, may_shrink_images: false, ..config.clone() };
        let photos = dataset.part(Split::Train).count() + dataset.part(Split::Validation).count();
        Asked { config, architecture: &architecture, side, photos, teacher: cost, before, chosen }.arrange()
    };
    let now = || before(memory.unwrap_or(MemoryChoice::of(config)), &kind, places);
    let (answer, before) = arranged_in(&places.models, now, |before| {
        // There may be less memory than there was.
        arrange(position.at_once.or(config.micro_batch), before).or_else(|_| arrange(config.micro_batch, before))
    })?;
    let Answer::Runs(arranged) = answer else { unreachable!("photos of a run that goes on may not become smaller") };
    folder.cut(position.metrics_bytes)?;
    let tiles = tiles(places, &model.transform, &dataset, arranged.left, &mut notices)?;
    let arranged = *arranged;
    let asking = AskTeacher { places, transform: &model.transform, left: arranged.left, chosen };
    let teacher = asking.ask(teacher, &dataset, &mut notices, ctx)?;
    let network = model.network(&record.config, new_head, chosen)?;
    let position = match left_off {
        Some(position) => position,
        None => Position { initial: snapshot::fingerprint(&network.learned)?, ..Position::default() },
    };
    let parts = Parts { record, model, dataset, tiles, teacher, network, folder, position, notices, arranged, before };
    let mut opened = session(parts, chosen)?;
    if has_snapshot {
        let (checkpoint, session) = (Checkpoint::open(&last)?, &mut opened.session);
        snapshot::restore(&mut session.trainer, &checkpoint, session.position.steps)?;
    }
    Ok(opened)
}

/// The photos of a run that has begun; none when they are no longer the same.
pub(super) fn dataset_of(record: &RunRecord) -> Result<Option<Dataset>, BoxError> {
    let mut dataset = dataset(&record.config)?;
    order(&mut dataset, &record.classes);
    let left_out: HashSet<PathBuf> = record.left_out.iter().cloned().collect();
    let wanted: Vec<bool> = dataset.photos.iter().map(|photo| !left_out.contains(&photo.path)).collect();
    dataset.retain(|index| wanted[index]);
    Ok((fingerprint(&dataset) == record.photos).then_some(dataset))
}

pub(super) fn source(config: &TrainConfig) -> ModelSource {
    config.model.clone().map_or(ModelSource::Starter, ModelSource::File)
}

pub(super) fn dataset(config: &TrainConfig) -> Result<Dataset, BoxError> {
    let dataset = Dataset::open(&config.data, config.val.as_deref(), &config.data_options())?;
    check_classes(&dataset)?;
    Ok(dataset)
}

fn check_classes(dataset: &Dataset) -> Result<(), TrainJobError> {
    if dataset.part(Split::Train).next().is_none() {
        return Err(TrainJobError::NoPhotos(dataset.root.clone()));
    }
    match dataset.classes.as_slice() {
        [] | [_] => Err(TrainJobError::OneClass(dataset.classes.join(""))),
        _ => Ok(()),
    }
}

/// The store of resized photos, with room for these. `left` is for [`Tiles::decoding_with`].
pub(super) fn tiles(
    places: &Places,
    transform: &Transform,
    dataset: &Dataset,
    left: u64,
    notices: &mut Vec<String>,
) -> Result<Arc<Tiles>, BoxError> {
    let tiles = match Tiles::in_folder(&places.tiles, transform, Tiles::LIMIT_BYTES) {
        Ok(tiles) => tiles,
        Err(error) => {
            notices.push(format!("Photos are decoded anew in each epoch, because tiles cannot be kept: {error}"));
            Tiles::new(transform)
        }
    };
    tiles.make_room(dataset.photos.iter().map(|photo| photo.path.as_path()))?;
    Ok(Arc::new(tiles.decoding_with(left)))
}

/// Gives the dataset's classes another order.
fn order(dataset: &mut Dataset, classes: &[String]) {
    let places: HashMap<&str, usize> = classes.iter().enumerate().map(|(place, name)| (name.as_str(), place)).collect();
    let new: Option<Vec<usize>> = dataset.classes.iter().map(|name| places.get(name.as_str()).copied()).collect();
    if let Some(new) = new.filter(|new| new.len() == classes.len()) {
        dataset.photos.iter_mut().for_each(|photo| photo.class = new[photo.class]);
        dataset.classes = classes.to_vec();
    }
}

/// A number that is another for other photos, classes or parts.
fn fingerprint(dataset: &Dataset) -> u64 {
    let photo = |photo: &Photo| {
        let path = photo.path.strip_prefix(&dataset.root).unwrap_or(&photo.path);
        format!("{:?} {} {:?}\n", photo.split, photo.class, path)
    };
    let text: String = dataset.photos.iter().map(photo).collect();
    rank(0, "photos", (dataset.classes.join("\n") + "\n\n" + &text).as_bytes())
}

/// What a run begins from: weights with what is known about them.
pub(super) struct Model {
    weights: Box<dyn Weights + Send + Sync>,
    /// Of the snapshot that it is.
    position: Option<Position>,
    pub(super) architecture: Architecture,
    labels: Vec<String>,
    pub(super) transform: Transform,
    notices: Vec<String>,
}

impl Model {
    /// What a run with these settings begins from.
    pub(super) fn of(config: &TrainConfig) -> Result<Self, BoxError> {
        match &config.arch {
            Some(name) => Self::new(name, config),
            None => Self::open(&source(config), config),
        }
    }

    pub(super) fn classes(&self) -> usize {
        self.architecture.classes
    }

    /// Its architecture, with a new classifier of so many classes unless its own stays.
    fn architecture_of(&self, new_head: Option<usize>) -> Result<Architecture, BoxError> {
        Ok(match new_head {
            Some(classes) => self.architecture.with_classes(classes)?,
            None => self.architecture.clone(),
        })
    }

    /// Of the network's input; 0 where it is not one size.
    fn side(&self) -> usize {
        self.transform.output_size().map_or(0, |(height, _)| height)
    }

    pub(super) fn open(source: &ModelSource, config: &TrainConfig) -> Result<Self, BoxError> {
        let checkpoint = predict::open(source)?;
        let architecture = predict::recognise(&checkpoint)?;
        let quantized = checkpoint.tensors().iter().filter(|info| matches!(info.element, ElementType::Quantized(_)));
        match quantized.count() {
            0 => {}
            tensors => return Err(TrainJobError::Quantized(tensors).into()),
        }
        let described = predict::describe(&checkpoint, &architecture, None, &TransformOverrides::default())?;
        let transform = config.image_size.map_or(described.transform, |side| of_size(described.transform, side));
        let labels = described.labels.iter().map(ToString::to_string).collect();
        let (position, notices) = (snapshot::position(&checkpoint), described.notices);
        Ok(Self { weights: Box::new(checkpoint), position, architecture, labels, transform, notices })
    }

    /// A known network before any training, whose classes are still to come.
    fn new(name: &str, config: &TrainConfig) -> Result<Self, BoxError> {
        if config.unfreeze != Unfreeze::All {
            return Err(TrainJobError::FrozenBeginning.into());
        }
        let architecture = models::named(name, 1)?;
        let weights = Box::new(InitialWeights::of(&architecture, config.seed)?);
        let usual = architecture.default_transform();
        let transform = config.image_size.map_or(usual, |side| of_size(usual, side));
        Ok(Self { weights, position: None, architecture, labels: Vec::new(), transform, notices: Vec::new() })
    }

    /// Orders the photos' classes as the model's, if these are the same. Says whether they are.
    fn take_order(&self, dataset: &mut Dataset) -> bool {
        order(dataset, &self.labels);
        dataset.classes == self.labels
    }

    /// The network to train, with a new classifier of so many classes unless its own stays.
    pub(super) fn network(
        &self,
        config: &TrainConfig,
        new_head: Option<usize>,
        chosen: &Chosen,
    ) -> Result<Network, BoxError> {
        let first = config.unfreeze.first(self.architecture.block_names()?.len());
        let build = |weights: &dyn Weights, architecture: &Architecture| {
            models::build_trainable(weights, architecture, Strictness::Strict, first, &chosen.device)
        };
        let Some(classes) = new_head else { return Ok(build(self.weights.as_ref(), &self.architecture)?.0) };
        let (architecture, weights) =
            models::replace_head(&self.architecture, self.weights.as_ref(), classes, config.seed)?;
        Ok(build(&weights, &architecture)?.0)
    }
}

/// The transform for squares of another side, with the same share cut off.
fn of_size(transform: Transform, side: u32) -> Transform {
    let short = match (transform.resize, transform.crop) {
        (Resize::ShortSide(short), Some(crop)) => (u64::from(short) * u64::from(side)).div_ceil(u64::from(crop)) as u32,
        _ => side,
    };
    Transform { resize: Resize::ShortSide(short), crop: Some(side), ..transform }
}

struct Parts {
    record: RunRecord,
    model: Model,
    dataset: Dataset,
    tiles: Arc<Tiles>,
    teacher: Option<Teacher>,
    network: Network,
    folder: RunFolder,
    position: Position,
    notices: Vec<String>,
    arranged: Arranged,
    /// The memory before the run took any.
    before: Reading,
}

fn session(parts: Parts, chosen: &Chosen) -> Result<Opened, BoxError> {
    let Parts { record, model, dataset, tiles, teacher, network, folder, mut position, mut notices, arranged, before } =
        parts;
    let RunRecord { config, classes, .. } = record;
    let Arranged {
        layout,
        plan,
        first,
        parameters,
        has_batch_norms,
        keeps_features,
        allowance,
        notices: about_memory,
        ..
    } = arranged;
    notices.extend(about_memory);
    let compute = ThreadPoolBuilder::new().stack_size(STACK_BYTES).thread_name(|n| format!("train {n}")).build()?;
    let transform = model.transform;
    let part = |split: Split| dataset.part(split).cloned().collect::<Vec<Photo>>();
    let (training, validating) = (part(Split::Train), part(Split::Validation));
    let threads = compute.current_num_threads();
    let loader = |photos: &[Photo], augment| {
        Loader::new(photos.into(), classes.len(), tiles.clone(), augment, threads, layout.batches_ahead)
    };
    let validation = if validating.is_empty() { None } else { Some(Supply::Photos(loader(&validating, None)?)) };
    let train = Supply::Photos(loader(&training, Some(config.augment))?);
    let side = transform.output_size().map_or(0, |(height, _)| height);
    (position.at_once, position.batches_ahead) = (Some(layout.at_once), Some(layout.batches_ahead));
    let counts = |split| dataset.class_counts(split);
    let start = TrainStart {
        model: network.architecture.title.clone(),
        train_counts: counts(Split::Train),
        validation_counts: counts(Split::Validation),
        blocks: network.blocks.len(),
        trained_blocks: network.blocks.len() - first,
        recomputed_blocks: plan.recomputed_blocks,
        parameters,
        plan: plan.memory,
        feature_bytes: keeps_features.then_some(plan.memory.features),
        at_once: layout.at_once,
        has_batch_norms,
        image_size: side,
        steps_per_epoch: train.batches(config.batch_size),
        epoch: position.epoch,
        classes: classes.clone(),
        config: config.clone(),
    };
    let about = BTreeMap::from([
        ("architecture".to_owned(), network.architecture.name.clone()),
        ("title".to_owned(), network.architecture.title.clone()),
        ("labels".to_owned(), serde_json::to_string(&classes)?),
        ("transform".to_owned(), serde_json::to_string(&transform)?),
        ("trained_on".to_owned(), trained_on(&start)),
    ]);
    let soft = config.distill.as_ref().map(SoftLoss::from);
    let loss = Loss { label_smoothing: config.label_smoothing, class_weights: class_weights(&config, &start), soft };
    let watch = Watch::new(
        layout.at_once,
        fewest_at_once(config.batch_size, has_batch_norms),
        layout.batches_ahead,
        &chosen.device,
    )
    .over(allowance);
    let segments = Segments { first, recompute: layout.recompute };
    let mut trainer = Trainer::new(network, segments, loss, config.optimizer_settings(), &chosen.device)?;
    if let Some(share) = config.ema {
        trainer.keep_average(share)?;
    }
    let (base, device, readout) = (model.weights, chosen.device.clone(), Readout::on(&chosen.device, &config));
    let session = Session {
        config,
        trainer,
        base,
        train,
        teacher,
        validation,
        keeps_features,
        about,
        position,
        folder,
        compute,
        device,
        watch,
        readout,
    };
    Ok(Opened { session, start, training, validating, tiles, notices, plan, before })
}

fn trained_on(start: &TrainStart) -> String {
    let photos = start.train_counts.iter().sum::<usize>() as u64;
    format!("{} of {} classes", counted(photos, "photo"), count(start.classes.len() as u64))
}

fn class_weights(config: &TrainConfig, start: &TrainStart) -> Option<Vec<f32>> {
    if config.class_weights == ClassWeights::None {
        return None;
    }
    let (photos, classes) = (start.train_counts.iter().sum::<usize>() as f32, start.classes.len() as f32);
    Some(start.train_counts.iter().map(|count| photos / (classes * (*count).max(1) as f32)).collect())
}
