//! What a run will take of the memory, said before it begins; and if it does not fit, what would.

use super::arrange::lay_out;
use super::open::Model;
use crate::device::{self, DeviceChoice};
use crate::memory::heap;
use crate::models::Network;
use crate::train::{Footprint, Method, Recompute, TrainConfig, feature_bytes};
use crate::worker::{BoxError, Job, JobContext, Progress};

/// The part of the free memory that features of frozen blocks may take.
pub(super) const SHARE_FOR_FEATURES: f64 = 0.25;

/// What heap and threads take beside what is counted: with each further photo, SqueezeNet took a tenth more than that.
const MARGIN: f64 = 1.1;

/// Bytes of a number in f32.
const F32: u64 = 4;

/// A network's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub blocks: usize,
    /// The first block that learns.
    pub first: usize,
    /// Elements of all weights, and of those that learn.
    pub weights: u64,
    pub parameters: u64,
    /// Whether batch norms learn: what they compute depends on how many photos they see at once.
    pub has_batch_norms: bool,
}

impl Size {
    pub fn of(network: &Network, first: usize) -> Self {
        let weights = network.blocks.iter().map(|block| block.weights as u64).sum();
        let parameters = network.learned.iter().map(|parameter| parameter.var.elem_count() as u64).sum();
        Self { blocks: network.blocks.len(), first, weights, parameters, has_batch_norms: !network.running.is_empty() }
    }
}

/// What is measured of a network once: from it follows what a run with any batch and image size takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    footprint: Footprint,
    size: Size,
    /// Side of the network's input unless another is chosen.
    side: usize,
    /// Of what the frozen blocks make of a photo of that side.
    feature_bytes: u64,
}

/// What a run takes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Weights, and what optimizer and average remember of them.
    pub weights: u64,
    /// Gradients and activations of a step at their most.
    pub step: u64,
    /// Photos that are decoded ahead.
    pub photos: u64,
    /// What frozen blocks made of every photo.
    pub features: u64,
    /// Blocks that are computed twice.
    pub recomputed_blocks: usize,
}

impl MemoryPlan {
    /// `footprint` is not known off the CPU; `recompute` is by block, `features` the bytes that are kept of all photos.
    pub(super) fn new(
        config: &TrainConfig,
        size: Size,
        footprint: Option<&Footprint>,
        recompute: &[bool],
        side: usize,
        features: u64,
    ) -> Self {
        let at_once = at_once(config);
        let moments = if config.optimizer == Method::AdamW { 2 } else { 1 };
        let remembered = moments + u64::from(config.ema.is_some());
        let gradients = F32 * size.parameters;
        let waiting = (config.batches_ahead + 1) * config.batch_size + at_once;
        Self {
            weights: F32 * (size.weights + remembered * size.parameters),
            step: footprint
                .map_or(gradients, |footprint| (footprint.step(recompute, at_once, side) as f64 * MARGIN) as u64),
            photos: waiting as u64 * (side * side * 3) as u64 * F32,
            features,
            recomputed_blocks: recompute[size.first.min(recompute.len())..].iter().filter(|twice| **twice).count(),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.items().iter().map(|(_, bytes)| bytes).sum()
    }

    /// By what takes it.
    pub fn items(&self) -> Vec<(&'static str, u64)> {
        let Self { weights, step, photos, features, .. } = *self;
        vec![("weights", weights), ("step", step), ("photos", photos), ("features", features)]
    }
}

/// Photos that are computed at once.
fn at_once(config: &TrainConfig) -> usize {
    config.micro_batch.unwrap_or(config.batch_size).min(config.batch_size)
}

impl Forecast {
    /// What a run takes that trains and validates with so many photos, where `free` bytes are to be had, in the fastest
    /// layout that fits, or else in the leanest.
    pub fn plan(&self, config: &TrainConfig, photos: usize, free: u64) -> MemoryPlan {
        let side = self.side(config);
        let area = (side as f64 / self.side.max(1) as f64).powi(2);
        let of_all = (self.feature_bytes as f64 * area) as u64 * photos as u64;
        let is_kept = config.may_cache_features(self.size.first) && of_all as f64 <= free as f64 * SHARE_FOR_FEATURES;
        let features = if is_kept { of_all } else { 0 };
        lay_out(config, self.size, Some(&self.footprint), (side, features), free, free).plan
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

pub type ForecastJob = Job<Forecast, ()>;

/// Measures on a thread of its own. `classes` are those of the photos; none takes the checkpoint's.
pub fn start_forecast(
    config: TrainConfig,
    classes: Option<usize>,
    wake: impl Fn() + Send + Sync + 'static,
) -> std::io::Result<ForecastJob> {
    Job::start("forecast", wake, move |ctx, _| forecast(&config, classes, ctx))
}

/// Computes on the CPU whatever the run's device: tensors are of the same size there, and there they can be counted.
pub fn forecast(config: &TrainConfig, classes: Option<usize>, ctx: &JobContext) -> Result<Forecast, BoxError> {
    ctx.report(Progress { phase: "Measuring the network".to_owned(), ..Progress::default() });
    let config = TrainConfig { image_size: None, ..config.clone() };
    let chosen = device::choose(DeviceChoice::Cpu)?;
    let model = Model::of(&config)?;
    let network = model.network(&config, classes.filter(|classes| *classes != model.classes()), &chosen)?;
    let side = model.transform.output_size().map_or(0, |(height, _)| height);
    drop(model);
    ctx.check()?;
    let first = config.unfreeze.first(network.blocks.len());
    let footprint = Footprint::measure(&network, first, side)?;
    ctx.check()?;
    let feature_bytes = match first {
        0 => 0,
        frozen => feature_bytes(&network, frozen, side, &chosen.device)?,
    };
    let size = Size::of(&network, first);
    drop(network);
    heap::release();
    Ok(Forecast { footprint, size, side, feature_bytes })
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
        for free in [needed * 9 / 10, needed / 4, needed / 20] {
            let fitting = forecast.that_fits(&config, 1000, free).unwrap();
            assert!(forecast.plan(&fitting, 1000, free).bytes() <= free, "{fitting:?}");
            assert_eq!(fitting.batch_size, 256);
        }
        assert_eq!(forecast.that_fits(&config, 1000, 1_000_000), None);
    }
}
