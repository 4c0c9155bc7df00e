//! What a person chooses for a run: at once the flags, the page's fields and the record in the run's folder.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::optimizer::{Method, OptimizerSettings};
use super::schedule::{Course, Schedule};
use crate::data::{Augment, AugmentError, DataOptions, Duplicates};
use crate::device::DeviceChoice;

/// Which blocks learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unfreeze {
    /// The last block, which holds the classifier.
    Head,
    /// So many blocks, counted from the end.
    Last(usize),
    #[default]
    All,
}

impl Unfreeze {
    /// The first block that learns, of so many.
    pub fn first(self, blocks: usize) -> usize {
        match self {
            Self::All => 0,
            Self::Head => blocks.saturating_sub(1),
            Self::Last(count) => blocks.saturating_sub(count.max(1)),
        }
    }
}

impl std::str::FromStr for Unfreeze {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "head" => Ok(Self::Head),
            "all" => Ok(Self::All),
            text => match text.parse() {
                Ok(count @ 1..) => Ok(Self::Last(count)),
                _ => Err(format!("{text} is neither head, all, nor a number of blocks from 1 on")),
            },
        }
    }
}

/// Which blocks are computed again in backward instead of being kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    None,
    /// What the memory asks for.
    #[default]
    Auto,
    All,
}

/// Whether what frozen blocks make of a photo is kept from epoch to epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheFeatures {
    /// Where it stays the same (no random changes to photos, no stochastic depth) and there is memory for it.
    #[default]
    Auto,
    Never,
}

/// How classes of different size are weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeights {
    /// Every photo counts the same.
    #[default]
    None,
    /// Every class counts the same: each weight is photos / (classes · photos of the class).
    Balanced,
}

/// A network whose answers are learned beside the labels, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Distill {
    /// Its checkpoint; none is the embedded starter model.
    pub teacher: Option<PathBuf>,
    /// What logits are divided by before they become probabilities: the higher, the more the less likely classes tell.
    pub temperature: f64,
    /// The teacher's share of the loss; the rest is the labels'.
    pub weight: f64,
    /// What it counts beside to find photos as alike as the teacher does, by the features before the classifier; none does
    /// not look at them.
    pub features: Option<f64>,
}

impl Distill {
    /// The weight of features in the paper, see [`super::similarity`].
    pub const FEATURES: f64 = 3000.0;
}

impl Default for Distill {
    fn default() -> Self {
        Self { teacher: None, temperature: 4.0, weight: 0.7, features: None }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TrainConfig {
    /// A folder of class folders, or a manifest.
    pub data: PathBuf,
    /// A validation part of its own.
    pub val: Option<PathBuf>,
    /// The checkpoint to begin from; none is the embedded starter model.
    pub model: Option<PathBuf>,
    /// Instead of a checkpoint: the name of a network that begins with random weights, drawn by the seed.
    pub arch: Option<String>,
    /// Whose answers are learned too; none learns from the labels alone.
    pub distill: Option<Distill>,
    pub epochs: usize,
    /// Photos whose gradients make one step.
    pub batch_size: usize,
    /// Photos computed at once; none computes the whole batch at once, or as much of it as fits.
    pub micro_batch: Option<usize>,
    /// Side of the network's input; none is the checkpoint's own.
    pub image_size: Option<u32>,
    /// Most training photos of a class, and of all.
    pub per_class: Option<usize>,
    pub max_photos: Option<usize>,
    /// Share of the photos kept for validation when the data has no such part.
    pub validation_fraction: f64,
    /// What is done about copies among the photos.
    pub duplicates: Duplicates,
    /// Random changes to training photos.
    pub augment: Augment,
    pub unfreeze: Unfreeze,
    pub recompute: Recompute,
    pub cache_features: CacheFeatures,
    /// The device's cache is given back every so many batches; 0: only when memory asks.
    pub flush_train: usize,
    pub flush_val: usize,
    /// Batches decoded ahead, at most.
    pub batches_ahead: usize,
    /// The most the process may take, in bytes; none is what the system has.
    pub memory_limit: Option<u64>,
    /// Photos may be made smaller where nothing else fits.
    pub may_shrink_images: bool,
    /// Run also what is predicted not to fit.
    pub anyway: bool,

    pub optimizer: Method,
    /// The learning rate at its height.
    pub lr: f64,
    pub weight_decay: f64,
    pub momentum: f64,
    pub schedule: Course,
    /// Epochs in which the learning rate grows to its height.
    pub warmup_epochs: f64,
    /// Where the cosine ends, as a share of `lr`.
    pub min_lr: f64,
    /// Epochs between two multiplications of the schedule `step`, and the factor.
    pub step_epochs: f64,
    pub step_factor: f64,
    pub label_smoothing: f64,
    pub class_weights: ClassWeights,
    /// The gradients together are scaled down to this length.
    pub clip_norm: Option<f64>,
    /// Share of the old average in a step's new average of the weights; none keeps no average.
    pub ema: Option<f64>,
    /// What each block's learning rate is of the rate of the block behind it.
    pub layer_decay: f64,
    /// Chance that a photo skips the last residual block; those before it in proportion.
    pub drop_path: f64,
    /// Epochs without a better validation before the run stops.
    pub patience: Option<usize>,

    /// Minutes between two snapshots within an epoch.
    pub snapshot_minutes: f64,
    pub seed: u64,
    pub device: DeviceChoice,
}

impl Default for TrainConfig {
    fn default() -> Self {
        let optimizer = OptimizerSettings::default();
        Self {
            data: PathBuf::new(),
            val: None,
            model: None,
            arch: None,
            distill: None,
            epochs: 10,
            batch_size: 16,
            micro_batch: None,
            image_size: None,
            per_class: None,
            max_photos: None,
            validation_fraction: 0.15,
            duplicates: Duplicates::WithoutExact,
            // Not as small parts as networks are trained with from scratch: of a plate, a tenth may be the table.
            augment: Augment { crop_scale: [0.35, 1.0], ..Augment::default() },
            unfreeze: Unfreeze::All,
            recompute: Recompute::Auto,
            cache_features: CacheFeatures::Auto,
            flush_train: 5,
            flush_val: 3,
            batches_ahead: 3,
            memory_limit: None,
            may_shrink_images: false,
            anyway: false,
            optimizer: optimizer.method,
            lr: 3e-4,
            weight_decay: optimizer.weight_decay,
            momentum: optimizer.momentum,
            schedule: Course::Cosine,
            warmup_epochs: 0.5,
            min_lr: 0.01,
            step_epochs: 5.0,
            step_factor: 0.3,
            label_smoothing: 0.1,
            class_weights: ClassWeights::None,
            clip_norm: Some(1.0),
            ema: None,
            layer_decay: 1.0,
            drop_path: 0.0,
            patience: None,
            snapshot_minutes: 5.0,
            seed: 0,
            device: DeviceChoice::Auto,
        }
    }
}

/// Settings for a purpose, each only a set of the same fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// See within minutes whether it learns.
    Quick,
    Full,
    /// As little memory as possible.
    Safe,
}

impl Preset {
    pub fn apply(self, config: TrainConfig) -> TrainConfig {
        match self {
            Self::Quick => TrainConfig { max_photos: Some(500), epochs: 10, batch_size: 16, ..config },
            Self::Full => TrainConfig { max_photos: None, epochs: 50, batch_size: 24, ..config },
            Self::Safe => TrainConfig { batch_size: 4, recompute: Recompute::All, ..config },
        }
    }
}

/// A setting that no run can have.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{field} is {value}; choose {range}")]
    Range { field: &'static str, value: String, range: &'static str },
    #[error(transparent)]
    Augment(#[from] AugmentError),
}

impl TrainConfig {
    /// Fails for the first setting that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let whole = |field, value: usize, least: usize, most: usize, range| {
            if (least..=most).contains(&value) { Ok(()) } else { Err(wrong(field, value, range)) }
        };
        whole("epochs", self.epochs, 1, 100_000, "from 1 to 100,000")?;
        whole("batch-size", self.batch_size, 1, 256, "from 1 to 256")?;
        whole("micro-batch", self.micro_batch.unwrap_or(1), 1, 256, "from 1 to 256")?;
        whole("image-size", self.image_size.unwrap_or(224) as usize, 32, 1024, "from 32 to 1,024 pixels")?;
        whole("batches-ahead", self.batches_ahead, 0, 64, "from 0 to 64")?;
        whole("per-class", self.per_class.unwrap_or(1), 1, usize::MAX, "1 or more")?;
        whole("max-photos", self.max_photos.unwrap_or(1), 1, usize::MAX, "1 or more")?;
        whole("patience", self.patience.unwrap_or(1), 1, usize::MAX, "1 or more")?;
        let real = |field, value: f64, fits: bool, range| {
            if fits { Ok(()) } else { Err(wrong(field, value, range)) }
        };
        real("lr", self.lr, self.lr > 0.0 && self.lr <= 100.0, "a rate above 0, such as 0.0003")?;
        for (field, value) in [
            ("validation-fraction", self.validation_fraction),
            ("momentum", self.momentum),
            ("label-smoothing", self.label_smoothing),
            ("drop-path", self.drop_path),
            ("ema", self.ema.unwrap_or(0.0)),
        ] {
            real(field, value, (0.0..1.0).contains(&value), "from 0 to below 1")?;
        }
        for (field, value) in
            [("min-lr", self.min_lr), ("layer-decay", self.layer_decay), ("step-factor", self.step_factor)]
        {
            real(field, value, (0.0..=1.0).contains(&value), "from 0 to 1")?;
        }
        for (field, value) in [
            ("weight-decay", self.weight_decay),
            ("warmup-epochs", self.warmup_epochs),
            ("snapshot-minutes", self.snapshot_minutes),
        ] {
            real(field, value, value >= 0.0 && value.is_finite(), "0 or more")?;
        }
        for (field, value) in [("step-epochs", self.step_epochs), ("clip-norm", self.clip_norm.unwrap_or(1.0))] {
            real(field, value, value > 0.0 && value.is_finite(), "more than 0")?;
        }
        if let Some(distill) = &self.distill {
            distill.check(self.unfreeze)?;
        }
        Ok(self.augment.check()?)
    }

    /// Most steps whose loss and accuracy stay on a GPU: they are read when its cache is given back, which waits for it
    /// anyway. The photos of all of them lie there until then.
    pub fn steps_unread(&self) -> usize {
        const MOST: usize = 10;
        if self.flush_train == 0 { MOST } else { self.flush_train.min(MOST) }
    }

    /// Which of the photos a run has.
    pub fn data_options(&self) -> DataOptions {
        let Self { validation_fraction, seed, per_class, max_photos, .. } = *self;
        DataOptions { validation_fraction, seed, per_class, max_photos }
    }

    /// Whether what the first `frozen` blocks make of a photo is the same in every epoch, and may be kept.
    pub fn may_cache_features(&self, frozen: usize) -> bool {
        let changes = self.augment.changes_photos() || self.drop_path > 0.0;
        self.cache_features == CacheFeatures::Auto && frozen > 0 && !changes
    }

    pub fn optimizer_settings(&self) -> OptimizerSettings {
        OptimizerSettings {
            method: self.optimizer,
            weight_decay: self.weight_decay,
            momentum: self.momentum,
            layer_decay: self.layer_decay,
            clip_norm: self.clip_norm,
            ..OptimizerSettings::default()
        }
    }

    /// The learning rates of a run of so many steps per epoch.
    pub fn learning_rates(&self, steps_per_epoch: usize) -> Schedule {
        let steps = |epochs: f64| (epochs * steps_per_epoch as f64).round() as u64;
        Schedule {
            course: self.schedule,
            rate: self.lr,
            least: self.min_lr,
            warm_up: steps(self.warmup_epochs),
            steps: (self.epochs * steps_per_epoch) as u64,
            every: steps(self.step_epochs),
            factor: self.step_factor,
        }
    }
}

impl Distill {
    fn check(&self, unfreeze: Unfreeze) -> Result<(), ConfigError> {
        let Self { temperature, weight, .. } = *self;
        if !(0.1..=100.0).contains(&temperature) {
            return Err(wrong("temperature", temperature, "from 0.1 to 100"));
        }
        if !(0.0..=1.0).contains(&weight) {
            return Err(wrong("distill-weight", weight, "from 0 to 1"));
        }
        let Some(features) = self.features else { return Ok(()) };
        if !(features > 0.0 && features <= 1e6) {
            return Err(wrong("features", features, "more than 0, up to 1,000,000"));
        }
        // They are those before the last block.
        if unfreeze.first(2) == 1 {
            return Err(wrong("features", features, "none, or let more than the classifier learn with --unfreeze"));
        }
        Ok(())
    }
}

fn wrong(field: &'static str, value: impl ToString, range: &'static str) -> ConfigError {
    ConfigError::Range { field, value: value.to_string(), range }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_out_of_range_is_named_with_its_range() {
        let fine = TrainConfig::default();
        assert!(fine.check().is_ok());
        let wrong = |config: TrainConfig| config.check().unwrap_err().to_string();
        let text = wrong(TrainConfig { batch_size: 0, ..fine.clone() });
        assert_eq!(text, "batch-size is 0; choose from 1 to 256");
        assert!(wrong(TrainConfig { lr: f64::NAN, ..fine.clone() }).starts_with("lr is NaN"));
        assert!(wrong(TrainConfig { ema: Some(1.0), ..fine.clone() }).starts_with("ema is 1"));
        assert!(wrong(TrainConfig { image_size: Some(9), ..fine.clone() }).starts_with("image-size is 9"));
        let distill = |distill, unfreeze| TrainConfig { distill: Some(distill), unfreeze, ..fine.clone() };
        assert!(distill(Distill::default(), Unfreeze::Head).check().is_ok());
        let text = wrong(distill(Distill { temperature: 0.0, ..Distill::default() }, Unfreeze::All));
        assert_eq!(text, "temperature is 0; choose from 0.1 to 100");
        let features = Distill { features: Some(Distill::FEATURES), ..Distill::default() };
        assert!(distill(features.clone(), Unfreeze::Last(2)).check().is_ok());
        assert!(wrong(distill(features, Unfreeze::Last(1))).contains("--unfreeze"));
        let augment = Augment { flip: 2.0, ..Augment::default() };
        assert!(wrong(TrainConfig { augment, ..fine }).starts_with("flip must be"));
    }

    #[test]
    fn presets_change_their_fields_alone() {
        let base = TrainConfig { lr: 0.5, ..TrainConfig::default() };
        let safe = Preset::Safe.apply(base.clone());
        assert_eq!((safe.batch_size, safe.recompute, safe.lr), (4, Recompute::All, 0.5));
        assert_eq!(Preset::Quick.apply(base.clone()).max_photos, Some(500));
        assert_eq!(Preset::Full.apply(base).epochs, 50);
    }

    #[test]
    fn a_record_reads_back_and_misses_nothing() {
        let distill = Some(Distill { teacher: Some("t.pth".into()), ..Distill::default() });
        let config = TrainConfig { unfreeze: Unfreeze::Last(3), ema: Some(0.99), distill, ..TrainConfig::default() };
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<TrainConfig>(&text).unwrap(), config);
        assert!(serde_json::from_str::<TrainConfig>(r#"{"learning-rate": 1}"#).is_err());
    }

    #[test]
    fn what_learns_is_counted_from_the_end() {
        assert_eq!(Unfreeze::All.first(9), 0);
        assert_eq!(Unfreeze::Head.first(9), 8);
        assert_eq!("3".parse(), Ok(Unfreeze::Last(3)));
        assert_eq!(Unfreeze::Last(3).first(9), 6);
        assert_eq!(Unfreeze::Last(30).first(9), 0);
        assert!("0".parse::<Unfreeze>().is_err() && "most".parse::<Unfreeze>().is_err());
    }
}
