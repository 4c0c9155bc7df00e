//! The words of `galley train`: every field of its settings is a flag of the same name.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::arguments::{Device, MemoryArguments, whole};
use super::usage;
use crate::data::{Augment, Duplicates};
use crate::jobs::sweep::CHILD_OPTION;
use crate::train::{CacheFeatures, ClassWeights, Course, Distill, Method, Preset, Recompute, TrainConfig, Unfreeze};

const TRAIN_NOTES: &str = "\
DATA is a folder with a subfolder of photos per class (or train/, val/ and test/ with such), or a .csv or .jsonl file of
paths and labels. RUN becomes a folder with the settings, a line of metrics per step, best.safetensors and
last.safetensors. A run that was stopped in any way goes on where its last snapshot was: galley train --resume RUN.

Exit codes: 0 done; 1 failed; 2 wrong usage; 130 stopped with Ctrl-C, after a snapshot.
GALLEY_TILES names another folder for resized photos.";

/// The word for the embedded model.
const STARTER: &str = "starter";

/// Train a network on labelled photos
#[derive(Args)]
#[command(after_help = TRAIN_NOTES)]
pub struct TrainArguments {
    /// Continue the run in this folder
    #[arg(long, value_name = "RUN", exclusive = true, required_unless_present = "data")]
    pub resume: Option<PathBuf>,
    #[command(flatten)]
    pub settings: TrainSettings,
    /// The folder of the new run
    #[arg(long, value_name = "RUN", required_unless_present = "resume")]
    pub out: Option<PathBuf>,
    /// A JSON object per epoch and one at the end, instead of lines for people
    #[arg(long)]
    pub json: bool,
}

const DISTILL_NOTES: &str = "\
The student learns from the labels of DATA and from what TEACHER answers to its photos. TEACHER knows all classes of DATA by
name, in any order; each of the two networks gets photos as it wants them. The teacher is asked once about each photo as it
is and, unless --flip is 0, about its mirror image; its answers are kept beside the resized photos, so that a further run
asks about new photos alone. A run that was stopped goes on with: galley train --resume RUN. The other settings are those of
galley train.

Exit codes: 0 done; 1 failed; 2 wrong usage; 130 stopped with Ctrl-C, after a snapshot.";

/// Train a small network on what a larger one answers
#[derive(Args)]
#[command(after_help = DISTILL_NOTES)]
pub struct DistillArguments {
    /// Checkpoint of the network to learn from; `starter` is the starter model
    #[arg(value_name = "TEACHER")]
    pub from: PathBuf,
    /// Folder of class folders, or a manifest (.csv, .jsonl)
    #[arg(value_name = "DATA")]
    pub photos: PathBuf,
    /// Who learns: a known network with random weights, such as mobilenetv3_small_050, or a checkpoint
    #[arg(long, value_name = "ARCH|CHECKPOINT")]
    pub student: String,
    /// The folder of the new run
    #[arg(long, value_name = "RUN")]
    pub out: PathBuf,
    /// A JSON object per epoch and one at the end, instead of lines for people
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub teaching: Teaching,
    #[command(flatten)]
    pub options: TrainOptions,
}

impl DistillArguments {
    pub fn train(self) -> TrainArguments {
        let Self { from, photos, student, out, json, teaching, options } = self;
        let file = PathBuf::from(&student);
        let is_file = file.exists() || file.components().count() > 1 || file.extension().is_some();
        let (model, arch) = if is_file { (Some(file), None) } else { (None, Some(student)) };
        let sources = Sources { data: Some(photos), model, arch, teacher: Some(from) };
        let settings = TrainSettings { sources, teaching, options };
        TrainArguments { resume: None, settings, out: Some(out), json }
    }
}

const FIND_RATE_NOTES: &str = "\
From mini-batch to mini-batch the learning rate grows, from 1e-7 to 1, until the loss is four times its lowest. Suggested is
the rate at which the smoothed loss falls fastest. Nothing is kept but the report. The settings are those of galley train.";

/// Find a learning rate: try growing ones on a copy of the network
#[derive(Args)]
#[command(after_help = FIND_RATE_NOTES)]
pub struct FindRateArguments {
    /// Mini-batches [default: 100, or those of four epochs if they are fewer, but at least 40]
    #[arg(long, value_name = "N", value_parser = |text: &str| whole(text, 10..=10_000))]
    pub steps: Option<usize>,
    #[command(flatten)]
    pub settings: TrainSettings,
    /// Also write a page of HTML with the plot
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// JSON lines instead of a plot
    #[arg(long)]
    pub json: bool,
}

const SWEEP_NOTES: &str = "\
Each batch size takes a few steps in a process of its own. `predicted` is what it was expected to take, from a few
made-up photos that went through the network; `peak` is what it took. The settings are those of galley train.";

/// Try batch sizes: which fit, and how fast they train
#[derive(Args)]
#[command(after_help = SWEEP_NOTES)]
pub struct SweepArguments {
    /// Batch sizes to try, 1 to 256
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "4,8,16,24,32", value_parser = |text: &str| whole(text, 1..=256))]
    pub batch_sizes: Vec<usize>,
    /// Steps that are measured for each
    #[arg(long, value_name = "N", default_value = "3", value_parser = |text: &str| whole(text, 1..=1000))]
    pub steps: usize,
    #[command(flatten)]
    pub settings: TrainSettings,
    /// Also write a page of HTML with plots
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// JSON lines instead of a table
    #[arg(long)]
    pub json: bool,
    /// One batch size in this process, for the process that started it.
    #[arg(long = CHILD_OPTION, hide = true, value_name = "JSON")]
    pub try_case: Option<String>,
}

#[derive(Args)]
pub struct TrainSettings {
    #[command(flatten)]
    pub sources: Sources,
    #[command(flatten)]
    pub teaching: Teaching,
    #[command(flatten)]
    pub options: TrainOptions,
}

/// What a run begins from.
#[derive(Args)]
pub struct Sources {
    /// Folder of class folders, or a manifest (.csv, .jsonl)
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Checkpoint to begin from [default: the starter model]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Begin without a checkpoint: a known network with random weights, such as mobilenet_v3_small
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    pub arch: Option<String>,
    /// Also learn from the answers of this checkpoint, as galley distill does; `starter` is the starter model
    #[arg(long, value_name = "FILE", help_heading = "Teacher")]
    pub teacher: Option<PathBuf>,
}

/// How a teacher is learned from.
#[derive(Args)]
pub struct Teaching {
    /// What logits are divided by before they are compared: the higher, the more the less likely classes tell [default: 4]
    #[arg(long, value_name = "X", help_heading = "Teacher")]
    pub temperature: Option<f64>,
    /// The teacher's share of the loss; the rest is the labels' [default: 0.7]
    #[arg(long, value_name = "X", help_heading = "Teacher")]
    pub distill_weight: Option<f64>,
    /// Also learn to find photos as alike as the teacher does, with this weight [default: off; without a number 3000]
    #[arg(long, value_name = "X", num_args = 0..=1, default_missing_value = "3000", help_heading = "Teacher")]
    pub features: Option<f64>,
}

#[derive(Args)]
pub struct TrainOptions {
    /// Photos to validate with [default: the data's own, or a part of it]
    #[arg(long, value_name = "DATA")]
    pub val: Option<PathBuf>,
    /// Settings for a purpose; single ones may differ
    #[arg(long, value_enum)]
    pub preset: Option<PresetName>,
    /// Passes over the photos [default: 10]
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Where to compute [default: auto]
    #[arg(long, value_enum)]
    pub device: Option<Device>,
    /// What every random choice follows from [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Photos of one step, 1 to 256 [default: 16]
    #[arg(long, value_name = "N", help_heading = "Memory")]
    pub batch_size: Option<usize>,
    /// Photos computed at once, the step staying the same [default: the batch]
    #[arg(long, value_name = "N", help_heading = "Memory")]
    pub micro_batch: Option<usize>,
    /// Side of the network's input in pixels [default: the checkpoint's]
    #[arg(long, value_name = "N", help_heading = "Memory")]
    pub image_size: Option<u32>,
    /// Which blocks are computed twice instead of being kept [default: auto, what memory asks for]
    #[arg(long, value_enum, help_heading = "Memory")]
    pub recompute: Option<RecomputeName>,
    /// Whether what frozen blocks make of the photos is kept in memory: auto, when no photo is changed at random (--flip 0
    /// --random-crop false) and a quarter of the free memory is enough [default: auto]
    #[arg(long, value_enum, help_heading = "Memory")]
    pub cache_features: Option<CacheFeaturesName>,
    /// Empty the device's cache every N training batches; 0: never. A GPU tells a step's loss then too, at least every 10
    /// batches; with 1 each step is known to be right before it moves the weights [default: 5]
    #[arg(long, value_name = "N", help_heading = "Memory")]
    pub flush_train: Option<usize>,
    /// The same for validation batches [default: 3]
    #[arg(long, value_name = "N", help_heading = "Memory")]
    pub flush_val: Option<usize>,
    /// Batches decoded ahead [default: 3]
    #[arg(long, value_name = "N", help_heading = "Memory")]
    pub batches_ahead: Option<usize>,
    /// Make photos smaller where nothing else fits
    #[arg(long, help_heading = "Memory")]
    pub may_shrink_images: bool,
    #[command(flatten)]
    pub memory: MemoryArguments,

    /// Most training photos of each class
    #[arg(long, value_name = "N", help_heading = "Photos")]
    pub per_class: Option<usize>,
    /// Most training photos of all
    #[arg(long, value_name = "N", help_heading = "Photos")]
    pub max_photos: Option<usize>,
    /// Share kept for validation when the data has no such part [default: 0.15]
    #[arg(long, value_name = "X", help_heading = "Photos")]
    pub validation_fraction: Option<f64>,
    /// What is done about copies: keep all, leave exact ones out, or also what looks the same across training and
    /// validation [default: without-exact]
    #[arg(long, value_enum, help_heading = "Photos")]
    pub duplicates: Option<DuplicatesName>,
    /// How often a photo is mirrored [default: 0.5]
    #[arg(long, value_name = "X", help_heading = "Photos")]
    pub flip: Option<f64>,
    /// Whether random parts are cut out instead of the middle [default: true]
    #[arg(long, value_name = "true|false", help_heading = "Photos")]
    pub random_crop: Option<bool>,
    /// The part's share of the area [default: 0.35,1]
    #[arg(long, value_name = "LEAST,MOST", value_parser = pair, help_heading = "Photos")]
    pub crop_scale: Option<[f64; 2]>,
    /// Its width divided by its height [default: 0.75,1.333]
    #[arg(long, value_name = "LEAST,MOST", value_parser = pair, help_heading = "Photos")]
    pub crop_ratio: Option<[f64; 2]>,
    /// Random change of brightness, from 0 to 1 [default: 0]
    #[arg(long, value_name = "X", help_heading = "Photos")]
    pub brightness: Option<f64>,
    /// Random change of contrast [default: 0]
    #[arg(long, value_name = "X", help_heading = "Photos")]
    pub contrast: Option<f64>,
    /// Random change of saturation [default: 0]
    #[arg(long, value_name = "X", help_heading = "Photos")]
    pub saturation: Option<f64>,
    /// How often a box is painted over [default: 0]
    #[arg(long, value_name = "X", help_heading = "Photos")]
    pub erase: Option<f64>,
    /// Blends pairs of photos: parameter of the Beta distribution, such as 0.2 [default: 0, off]
    #[arg(long, value_name = "X", help_heading = "Photos")]
    pub mixup: Option<f64>,
    /// Puts a box of one photo into another: the same, such as 1 [default: 0, off]
    #[arg(long, value_name = "X", help_heading = "Photos")]
    pub cutmix: Option<f64>,

    /// What learns: head, all, or the last N blocks [default: all]
    #[arg(long, value_name = "head|N|all", help_heading = "Learning")]
    pub unfreeze: Option<Unfreeze>,
    /// [default: adamw]
    #[arg(long, value_enum, help_heading = "Learning")]
    pub optimizer: Option<MethodName>,
    /// Learning rate at its height [default: 0.0003]
    #[arg(long, value_name = "X", help_heading = "Learning")]
    pub lr: Option<f64>,
    /// [default: 0.05]
    #[arg(long, value_name = "X", help_heading = "Learning")]
    pub weight_decay: Option<f64>,
    /// Of sgd [default: 0.9]
    #[arg(long, value_name = "X", help_heading = "Learning")]
    pub momentum: Option<f64>,
    /// Course of the learning rate [default: cosine]
    #[arg(long, value_enum, help_heading = "Learning")]
    pub schedule: Option<CourseName>,
    /// Epochs in which the learning rate grows [default: 0.5]
    #[arg(long, value_name = "X", help_heading = "Learning")]
    pub warmup_epochs: Option<f64>,
    /// Where the cosine ends, as a share of the height [default: 0.01]
    #[arg(long, value_name = "X", help_heading = "Learning")]
    pub min_lr: Option<f64>,
    /// Epochs between two steps of the schedule `step` [default: 5]
    #[arg(long, value_name = "X", help_heading = "Learning")]
    pub step_epochs: Option<f64>,
    /// What the rate is multiplied by at these [default: 0.3]
    #[arg(long, value_name = "X", help_heading = "Learning")]
    pub step_factor: Option<f64>,
    /// Share of the target spread over all classes [default: 0.1]
    #[arg(long, value_name = "X", help_heading = "Learning")]
    pub label_smoothing: Option<f64>,
    /// Whether rare classes count more [default: none]
    #[arg(long, value_enum, help_heading = "Learning")]
    pub class_weights: Option<ClassWeightsName>,
    /// Length the gradients are scaled down to; 0: as they are [default: 1]
    #[arg(long, value_name = "X", help_heading = "Learning")]
    pub clip_norm: Option<f64>,
    /// Keep a moving average of the weights with this share of the old, such as 0.999; 0: none [default: none]
    #[arg(long, value_name = "X", help_heading = "Learning")]
    pub ema: Option<f64>,
    /// Learning rate of each block as a share of the next one's [default: 1]
    #[arg(long, value_name = "X", help_heading = "Learning")]
    pub layer_decay: Option<f64>,
    /// Chance that a photo skips the last residual block [default: 0]
    #[arg(long, value_name = "X", help_heading = "Learning")]
    pub drop_path: Option<f64>,
    /// Stop after so many epochs without a better validation
    #[arg(long, value_name = "N", help_heading = "Learning")]
    pub patience: Option<usize>,
    /// Minutes between snapshots within an epoch; 0: only at its end [default: 5]
    #[arg(long, value_name = "X", help_heading = "Learning")]
    pub snapshot_minutes: Option<f64>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum PresetName {
    /// 500 photos, 10 epochs, batch 16
    Quick,
    /// 50 epochs, batch 24
    Full,
    /// Batch 4, every block computed twice
    Safe,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum RecomputeName {
    None,
    Auto,
    All,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum CacheFeaturesName {
    Auto,
    Never,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum MethodName {
    Adamw,
    Sgd,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum CourseName {
    Cosine,
    Step,
    Constant,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum ClassWeightsName {
    None,
    Balanced,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum DuplicatesName {
    Keep,
    WithoutExact,
    WithoutNear,
}

fn pair(text: &str) -> Result<[f64; 2], String> {
    let numbers =
        text.split_once(',').and_then(|(one, other)| Some([one.trim().parse().ok()?, other.trim().parse().ok()?]));
    numbers.ok_or_else(|| "this must be two numbers, such as 0.35,1".to_owned())
}

impl Teaching {
    fn is_given(&self) -> bool {
        self.temperature.is_some() || self.distill_weight.is_some() || self.features.is_some()
    }

    fn by(&self, teacher: &Path) -> Distill {
        let base = Distill::default();
        let is_starter = teacher.as_os_str() == STARTER && !teacher.exists();
        Distill {
            teacher: (!is_starter).then(|| teacher.to_owned()),
            temperature: self.temperature.unwrap_or(base.temperature),
            weight: self.distill_weight.unwrap_or(base.weight),
            features: self.features,
        }
    }
}

impl TrainSettings {
    /// The settings, beginning from the preset's.
    pub fn config(self) -> TrainConfig {
        let Self { sources: Sources { data, model, arch, teacher }, teaching, options } = self;
        if teacher.is_none() && teaching.is_given() {
            usage("--temperature, --distill-weight and --features are about a teacher: name it with --teacher FILE");
        }
        let distill = teacher.map(|teacher| teaching.by(&teacher));
        TrainConfig { data: data.unwrap_or_default(), model, arch, distill, ..options.config() }
    }
}

impl TrainOptions {
    /// The settings of a run without its sources, beginning from the preset's.
    fn config(self) -> TrainConfig {
        let preset = self.preset.map(|name| match name {
            PresetName::Quick => Preset::Quick,
            PresetName::Full => Preset::Full,
            PresetName::Safe => Preset::Safe,
        });
        let base = TrainConfig::default();
        let base = preset.map_or(base.clone(), |preset| preset.apply(base));
        let or_none =
            |given: Option<f64>, base: Option<f64>| given.map_or(base, |given| (given != 0.0).then_some(given));
        TrainConfig {
            val: self.val,
            epochs: self.epochs.unwrap_or(base.epochs),
            batch_size: self.batch_size.unwrap_or(base.batch_size),
            micro_batch: self.micro_batch.or(base.micro_batch),
            image_size: self.image_size.or(base.image_size),
            per_class: self.per_class.or(base.per_class),
            max_photos: self.max_photos.or(base.max_photos),
            validation_fraction: self.validation_fraction.unwrap_or(base.validation_fraction),
            duplicates: self.duplicates.map_or(base.duplicates, |name| match name {
                DuplicatesName::Keep => Duplicates::Keep,
                DuplicatesName::WithoutExact => Duplicates::WithoutExact,
                DuplicatesName::WithoutNear => Duplicates::WithoutNear,
            }),
            augment: Augment {
                flip: self.flip.unwrap_or(base.augment.flip),
                random_crop: self.random_crop.unwrap_or(base.augment.random_crop),
                crop_scale: self.crop_scale.unwrap_or(base.augment.crop_scale),
                crop_ratio: self.crop_ratio.unwrap_or(base.augment.crop_ratio),
                brightness: self.brightness.unwrap_or(base.augment.brightness),
                contrast: self.contrast.unwrap_or(base.augment.contrast),
                saturation: self.saturation.unwrap_or(base.augment.saturation),
                erase: self.erase.unwrap_or(base.augment.erase),
                mixup: self.mixup.unwrap_or(base.augment.mixup),
                cutmix: self.cutmix.unwrap_or(base.augment.cutmix),
            },
            unfreeze: self.unfreeze.unwrap_or(base.unfreeze),
            recompute: self.recompute.map_or(base.recompute, |name| match name {
                RecomputeName::None => Recompute::None,
                RecomputeName::Auto => Recompute::Auto,
                RecomputeName::All => Recompute::All,
            }),
            cache_features: self.cache_features.map_or(base.cache_features, |name| match name {
                CacheFeaturesName::Auto => CacheFeatures::Auto,
                CacheFeaturesName::Never => CacheFeatures::Never,
            }),
            flush_train: self.flush_train.unwrap_or(base.flush_train),
            flush_val: self.flush_val.unwrap_or(base.flush_val),
            batches_ahead: self.batches_ahead.unwrap_or(base.batches_ahead),
            memory_limit: self.memory.memory_limit,
            may_shrink_images: self.may_shrink_images,
            anyway: self.memory.anyway,
            optimizer: self.optimizer.map_or(base.optimizer, |name| match name {
                MethodName::Adamw => Method::AdamW,
                MethodName::Sgd => Method::Sgd,
            }),
            lr: self.lr.unwrap_or(base.lr),
            weight_decay: self.weight_decay.unwrap_or(base.weight_decay),
            momentum: self.momentum.unwrap_or(base.momentum),
            schedule: self.schedule.map_or(base.schedule, |name| match name {
                CourseName::Cosine => Course::Cosine,
                CourseName::Step => Course::Step,
                CourseName::Constant => Course::Constant,
            }),
            warmup_epochs: self.warmup_epochs.unwrap_or(base.warmup_epochs),
            min_lr: self.min_lr.unwrap_or(base.min_lr),
            step_epochs: self.step_epochs.unwrap_or(base.step_epochs),
            step_factor: self.step_factor.unwrap_or(base.step_factor),
            label_smoothing: self.label_smoothing.unwrap_or(base.label_smoothing),
            class_weights: self.class_weights.map_or(base.class_weights, |name| match name {
                ClassWeightsName::None => ClassWeights::None,
                ClassWeightsName::Balanced => ClassWeights::Balanced,
            }),
            clip_norm: or_none(self.clip_norm, base.clip_norm),
            ema: or_none(self.ema, base.ema),
            layer_decay: self.layer_decay.unwrap_or(base.layer_decay),
            drop_path: self.drop_path.unwrap_or(base.drop_path),
            patience: self.patience.or(base.patience),
            snapshot_minutes: self.snapshot_minutes.unwrap_or(base.snapshot_minutes),
            seed: self.seed.unwrap_or(base.seed),
            device: self.device.map_or(base.device, Device::choice),
            ..base
        }
    }
}
