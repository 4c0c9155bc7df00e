//! What a run will take of the memory, said before it begins; and if it does not fit, what would.

use std::sync::Arc;

use super::arrange::lay_out;
use super::open::Model;
use super::solve::Layout;
use crate::compress::distill::{self, OpenTeacher};
use crate::device::{self, Chosen, DeviceChoice};
use crate::images::ImageBudget;
use crate::jobs::inference::Inference;
use crate::memory::{F32, Place, Plan, Tally};
use crate::models::{Architecture, NetworkOutline, Precision};
use crate::train::outline::{self, StepCost, StepShape};
use crate::train::{Method, Recompute, TrainConfig};
use crate::worker::{BoxError, Job, JobContext};

/// The part of the free memory that features of frozen blocks may take.
const SHARE_FOR_FEATURES: f64 = 0.25;

/// Of a photo's answer on disk, while all of them are found: a key and a number in a table that may be half empty.
const PLACE_BYTES: usize = 48;

/// A network's blocks: from them follows what a run with any batch and image size takes, by arithmetic alone.
#[derive(Clone)]
pub struct Forecast {
    network: Arc<NetworkOutline>,
    /// The first block that learns.
    pub(super) first: usize,
    /// Side of the network's input unless another is chosen.
    side: usize,
    place: Place,
    teacher: Option<TeacherCost>,
}

/// What a run's teacher takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct TeacherCost {
    /// While it is asked.
    asked: Plan,
    /// Numbers of its answer to a photo.
    width: usize,
}

impl TeacherCost {
    pub fn of(teacher: &OpenTeacher, classes: usize, chosen: &Chosen) -> Self {
        let asked = Inference {
            architecture: teacher.architecture(),
            stored: teacher.tensors(),
            precision: Precision::default(),
            batch_size: distill::AT_ONCE,
            side: teacher.side(),
            decodes: true,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            is_loaded: false,
        };
        Self { asked: asked.plan(chosen), width: teacher.width(classes) }
    }

    /// Of the answers to so many photos: their places on disk, and of a batch the answers themselves, once as they are read
    /// and once as they are learned.
    fn answers(&self, photos: usize, batch_size: usize) -> u64 {
        (photos * PLACE_BYTES + batch_size * 2 * self.width * F32 as usize) as u64
    }
}

/// What a run takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    pub memory: Plan,
    /// Without a teacher's part, which comes before: what steps are measured against.
    pub training: Plan,
    /// Blocks that are computed twice.
    pub recomputed_blocks: usize,
}

impl MemoryPlan {
    /// What the process comes to take for it.
    pub fn bytes(&self) -> u64 {
        self.memory.process_bytes()
    }
}

/// Photos on their way into the network.
#[derive(Clone, Copy)]
pub(super) struct Intake {
    pub side: usize,
    /// Bytes of what frozen blocks made of them, if that is kept.
    pub features: u64,
    /// Bytes for decoding them.
    pub decoding: u64,
    /// How many there are.
    pub photos: usize,
}

impl Intake {
    pub fn of(side: usize, photos: usize, features: u64) -> Self {
        Self { side, features, photos, decoding: if photos > 0 { ImageBudget::LEAST_BYTES } else { 0 } }
    }
}

impl Forecast {
    /// Of a network that learns from block `first` on and takes squares of this side, computed on `place`.
    pub fn new(architecture: &Architecture, first: usize, side: usize, place: Place) -> Result<Self, BoxError> {
        let network = Arc::new(architecture.training_outline(first)?);
        Ok(Self { network, first, side, place, teacher: None })
    }

    /// The same of a run that learns from a teacher, if it has one.
    pub(super) fn taught_by(self, teacher: Option<TeacherCost>) -> Self {
        Self { teacher, ..self }
    }

    /// What a run takes that trains and validates with so many photos, where `free` bytes are to be had, in the fastest
    /// layout that fits, or else in the leanest. Of photos that are too small for the network no step is counted: such a run
    /// does not begin.
    pub fn plan(&self, config: &TrainConfig, photos: usize, free: u64) -> MemoryPlan {
        let of_all = self.feature_bytes(config, self.side(config)) * photos as u64;
        let features = if may_keep(of_all, free) { of_all } else { 0 };
        lay_out(config, self, Intake::of(self.side(config), photos, features), free, free).plan
    }

    /// What a run takes in a layout.
    pub(super) fn in_layout(&self, config: &TrainConfig, layout: &Layout, intake: Intake) -> MemoryPlan {
        let (Self { network, first, teacher, .. }, Intake { side, features, decoding, photos }) = (self, intake);
        let learned = network.learned(*first);
        let memory = Plan {
            weights: network.bytes(),
            optimizer: remembered(config) * learned,
            photos: waiting_bytes(config, layout, side) + decoding,
            features,
            answers: teacher.map_or(0, |teacher| teacher.answers(photos, config.batch_size)),
            ..Plan::default()
        };
        let step = self.step(config, layout, side, memory.photos + features + memory.answers);
        let training = memory.with_peak(step.peak, F32 * learned, step.kept.iter().sum());
        let memory = teacher.map_or(training, |teacher| training.after_teacher(&teacher.asked));
        MemoryPlan { memory, training, recomputed_blocks: layout.recomputed_blocks() }
    }

    /// By block: what it keeps of a batch of photos of this side, if it is not computed twice.
    pub(super) fn kept(&self, config: &TrainConfig, side: usize) -> Vec<u64> {
        let blocks = self.network.blocks.len();
        let layout = Layout { at_once: config.batch_size, recompute: vec![false; blocks], batches_ahead: 0 };
        let kept = self.step(config, &layout, side, 0).kept;
        if kept.is_empty() { vec![0; blocks] } else { kept }
    }

    fn step(&self, config: &TrainConfig, layout: &Layout, side: usize, waiting: u64) -> StepCost {
        let shape = StepShape {
            first: self.first,
            recompute: &layout.recompute,
            at_once: layout.at_once,
            batch: config.batch_size,
            unread: config.steps_unread(),
            photo: [side, side, 3],
            drops_paths: config.drop_path > 0.0,
            compares_features: config.distill.as_ref().is_some_and(|distill| distill.features.is_some()),
            remembered: remembered(config),
            waiting,
        };
        outline::step(&self.network, shape, self.place).unwrap_or_default()
    }

    /// Of what the frozen blocks make of one photo of this side, if that may be kept.
    pub(super) fn feature_bytes(&self, config: &TrainConfig, side: usize) -> u64 {
        if !config.may_cache_features(self.first) {
            return 0;
        }
        let photo = Tally::new(self.place).tensor(&[1, side, side, 3]);
        self.network.features(self.first, &photo).map_or(0, |features| F32 * features.elements() as u64)
    }

    /// Whether the network takes photos of this side.
    pub(super) fn takes(&self, side: usize) -> bool {
        let photo = Tally::new(self.place).tensor(&[1, side, side, 3]);
        self.network.blocks.iter().try_fold(photo, |xs, block| block.outline(xs)).is_ok()
    }

    /// Elements that learn.
    pub(super) fn parameters(&self) -> u64 {
        self.network.learned(self.first)
    }

    /// Whether batch norms learn: what they compute depends on how many photos they see at once.
    pub(super) fn has_batch_norms(&self) -> bool {
        self.network.blocks.iter().any(|block| block.looks_at_all)
    }

    /// Settings near these with which a run fits into `free` bytes and whose steps are the same: blocks computed twice as
    /// needed, fewer photos at once; if that is not enough, smaller photos. None when nothing helps.
    pub fn that_fits(&self, config: &TrainConfig, photos: usize, free: u64) -> Option<TrainConfig> {
        let with = |recompute, at_once: usize, side: Option<usize>| TrainConfig {
            recompute,
            micro_batch: if at_once < config.batch_size { Some(at_once) } else { config.micro_batch },
            image_size: side.map_or(config.image_size, |side| Some(side as u32)),
            ..config.clone()
        };
        let now = at_once(config);
        let fewer = || std::iter::successors(Some(now), |count| (*count > 1).then_some(count / 2)).skip(1);
        let needed = if config.recompute == Recompute::None { Recompute::Auto } else { config.recompute };
        let smaller = (1..self.side(config).div_ceil(32)).rev().map(|steps| 32 * steps);
        std::iter::once(with(needed, now, None))
            .chain(fewer().map(|count| with(needed, count, None)))
            .chain(std::iter::once(with(Recompute::All, now, None)))
            .chain(fewer().map(|count| with(Recompute::All, count, None)))
            .chain(smaller.map(|side| with(Recompute::All, 1, Some(side))))
            .find(|config| self.plan(config, photos, free).bytes() <= free)
    }

    fn side(&self, config: &TrainConfig) -> usize {
        config.image_size.map_or(self.side, |side| side as usize)
    }
}

/// Whether features of all photos may be kept where `free` bytes are to be had.
pub(super) fn may_keep(features: u64, free: u64) -> bool {
    features > 0 && features as f64 <= free as f64 * SHARE_FOR_FEATURES
}

/// Bytes that optimizer and average remember of each element that learns.
fn remembered(config: &TrainConfig) -> u64 {
    let moments = if config.optimizer == Method::AdamW { 2 } else { 1 };
    F32 * (moments + u64::from(config.ema.is_some()))
}

/// Of the photos that are decoded before their turn.
fn waiting_bytes(config: &TrainConfig, layout: &Layout, side: usize) -> u64 {
    ((layout.batches_ahead + 1) * config.batch_size * side * side * 3) as u64 * F32
}

/// Photos that are computed at once.
fn at_once(config: &TrainConfig) -> usize {
    config.micro_batch.unwrap_or(config.batch_size).min(config.batch_size)
}

pub type ForecastJob = Job<Forecast, ()>;

/// On a thread of its own. `classes` are those of the photos; none takes the checkpoint's.
pub fn start_forecast(
    config: TrainConfig,
    classes: Option<usize>,
    wake: impl Fn() + Send + Sync + 'static,
) -> std::io::Result<ForecastJob> {
    Job::start("forecast", wake, move |ctx, _| forecast(&config, classes, ctx))
}

/// Reads the checkpoint's table of tensors, and none of them.
pub fn forecast(config: &TrainConfig, classes: Option<usize>, ctx: &JobContext) -> Result<Forecast, BoxError> {
    let config = TrainConfig { image_size: None, ..config.clone() };
    let model = Model::of(&config)?;
    ctx.check()?;
    let side = model.transform.output_size().map_or(0, |(height, _)| height);
    let architecture = match classes.filter(|classes| *classes != model.classes()) {
        Some(classes) => model.architecture.with_classes(classes)?,
        None => model.architecture,
    };
    let first = config.unfreeze.first(architecture.block_names()?.len());
    let teacher = match &config.distill {
        Some(distill) => {
            let opened = OpenTeacher::open(distill, config.augment.flip > 0.0)?;
            Some(TeacherCost::of(&opened, architecture.classes, &device::choose(config.device)?))
        }
        None => None,
    };
    Ok(Forecast::new(&architecture, first, side, place(config.device))?.taught_by(teacher))
}

/// Where a run on this device computes.
pub(super) fn place(choice: DeviceChoice) -> Place {
    let is_metal = device::choose(choice).is_ok_and(|chosen| chosen.device.is_metal());
    Place { is_metal, ..Place::cpu(std::thread::available_parallelism().map_or(1, usize::from)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the starter model, which has eight classes.
    fn starter() -> Forecast {
        forecast(&TrainConfig::default(), None, &JobContext::detached()).unwrap()
    }

    #[test]
    fn a_plan_grows_with_every_lever_of_memory() {
        let forecast = starter();
        let bytes = |change: &dyn Fn(&mut TrainConfig)| {
            let mut config = TrainConfig { recompute: Recompute::None, ..TrainConfig::default() };
            change(&mut config);
            forecast.plan(&config, 1000, u64::MAX).bytes()
        };
        let before = bytes(&|_| ());
        assert!(bytes(&|config| config.batch_size = 32) > before);
        assert!(bytes(&|config| config.image_size = Some(320)) > before);
        assert!(bytes(&|config| config.ema = Some(0.99)) > before);
        assert!(bytes(&|config| config.micro_batch = Some(4)) < before);
        assert!(bytes(&|config| config.recompute = Recompute::All) < before);
        assert!(bytes(&|config| config.optimizer = Method::Sgd) < before);
    }

    #[test]
    fn what_does_not_fit_is_answered_with_what_does_and_the_batch_stays() {
        let forecast = starter();
        let config = TrainConfig { batch_size: 256, recompute: Recompute::None, ..TrainConfig::default() };
        let needed = forecast.plan(&config, 1000, u64::MAX).bytes();
        for free in [needed * 9 / 10, needed / 4, needed / 10] {
            let fitting = forecast.that_fits(&config, 1000, free).unwrap();
            assert!(forecast.plan(&fitting, 1000, free).bytes() <= free, "{fitting:?}");
            assert_eq!(fitting.batch_size, 256);
        }
        assert_eq!(forecast.that_fits(&config, 1000, 1_000_000), None);
    }
}
