//! The command line's words. Values are checked here, so a typing error is told before anything is read.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::compress_arguments::{PruneArguments, QuantizeArguments};
use super::train_arguments::{DistillArguments, FindRateArguments, SweepArguments, TrainArguments};
use crate::device::DeviceChoice;
use crate::format::parse_bytes;
use crate::images::transform::{Interpolation, Resize};
use crate::jobs::admission::MemoryChoice;
use crate::jobs::bench::CHILD_OPTION;
use crate::jobs::download::Checksum;
use crate::predict::{Precision, Strictness, TransformOverrides};

const EXAMPLES: &str = "\
Examples:
  galley                                    open the window
  galley classify sample-data/photos        classify photos with the starter model
  galley classify --model food.pth --out results.csv ~/Pictures
  galley train --data photos --model food.pth --out run
                                            fine-tune a checkpoint on a folder of photos per class
  galley find-lr --data photos --model food.pth
                                            which learning rate to train with
  galley download convnext_tiny.fb_in1k     fetch published weights; --list names them
  galley quantize food.pth food-8bit.gguf --check photos
                                            the same model in a quarter of the size, with proof
  galley prune food.pth small.safetensors   a smaller, faster network out of a checkpoint
  galley inspect food.pth                   what a checkpoint holds
  galley bench --arch resnet50 --batch 1,8  how fast this machine classifies, and in how much memory
  galley doctor                             does every operation compute rightly on this machine";

/// Classifies photos in the memory you have: a window, or the same work as commands.
#[derive(Parser)]
#[command(name = "galley", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Folders, photos or a checkpoint to open in the window
    pub paths: Vec<PathBuf>,
}

#[derive(Subcommand)]
pub enum Command {
    Classify(Box<ClassifyArguments>),
    Inspect(InspectArguments),
    Train(Box<TrainArguments>),
    Distill(Box<DistillArguments>),
    FindLr(Box<FindRateArguments>),
    Sweep(Box<SweepArguments>),
    Evaluate(Box<EvaluateArguments>),
    Quantize(Box<QuantizeArguments>),
    Bench(Box<BenchArguments>),
    Prune(Box<PruneArguments>),
    Doctor(DoctorArguments),
    Download(DownloadArguments),
}

const DOWNLOAD_NOTES: &str = "\
The download is tried again by itself when the connection breaks. Stopped or given up, it goes on where it was: run the
same command again. A file that is there already is only fetched anew when it has changed at the server.

Exit codes: 0 the model is there; 1 failed; 2 wrong usage; 130 stopped with Ctrl-C.
GALLEY_MODELS names another folder for downloaded models.";

/// Fetch a model: published weights by name, or any checkpoint by its address
#[derive(Args)]
#[command(after_help = DOWNLOAD_NOTES)]
pub struct DownloadArguments {
    /// A name from --list, or an address (https://…)
    #[arg(required_unless_present = "list", value_name = "NAME|URL")]
    pub model: Option<String>,
    /// List the published weights Galley knows by name, and which are here
    #[arg(long, conflicts_with_all = ["model", "quantized", "sha256"])]
    pub list: bool,
    /// Where the same model lies in fewer bits: tried first, and the plain one when it cannot be had
    #[arg(long, value_name = "URL")]
    pub quantized: Option<String>,
    /// Folder for the model [default: the folder of models in the user's data]
    #[arg(long, value_name = "FOLDER")]
    pub to: Option<PathBuf>,
    /// SHA-256 the plain file must have: all 64 digits, or the first 8 or more
    #[arg(long, value_name = "HEX", value_parser = checksum)]
    pub sha256: Option<Checksum>,
    /// One JSON object about the model, or one per line of the list
    #[arg(long)]
    pub json: bool,
}

/// Show what a checkpoint holds: network, classes, sizes, input transform
#[derive(Args)]
pub struct InspectArguments {
    /// A .pth, .pt, .safetensors or .gguf file (known by its content)
    pub file: PathBuf,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

const DOCTOR_NOTES: &str = "\
Later runs on the device compute what failed in a slower way. GALLEY_VERDICTS names another folder for this knowledge.

Exit codes: 0 all comparisons passed; 1 some failed.";

/// Compare every operation on this machine with the same computed slowly and exactly
#[derive(Args)]
#[command(after_help = DOCTOR_NOTES)]
pub struct DoctorArguments {
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub device: Device,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

const EVALUATE_NOTES: &str = "\
DATA is a folder with a subfolder of photos per class, or a .csv or .jsonl file of paths and labels. A class is the
model's of the same name, whatever the case and the signs between words.

Exit codes: 0 all done; 1 failed; 2 wrong usage; 3 done, and some photos were skipped; 130 stopped with Ctrl-C.";

/// Compare a model's answers with the true classes of labelled photos
#[derive(Args)]
#[command(after_help = EVALUATE_NOTES)]
pub struct EvaluateArguments {
    /// Folder of class folders, or a manifest (.csv, .jsonl)
    #[arg(value_name = "DATA")]
    pub data: PathBuf,
    /// Checkpoint to evaluate [default: that of GALLEY_MODEL_URL, else the starter model]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Class names: text with one per line, JSON or CSV [default: from the checkpoint or beside it]
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Photos per pass through the network
    #[arg(long, value_name = "N", default_value = "8", value_parser = |text: &str| whole(text, 1..=1024))]
    pub batch_size: usize,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub device: Device,
    /// What weights are held in and multiplied
    #[arg(long, value_enum, default_value = "stored")]
    pub precision: PrecisionName,
    /// Also write a page of HTML with plots, the confusion matrix and its photos
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// One JSON object instead of tables
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub memory: MemoryArguments,
    #[command(flatten)]
    pub transform: TransformArguments,
}

const BENCH_NOTES: &str = "\
Networks by name have random weights, those that a training begins with. Each configuration runs in a
process of its own, and rounds alternate between them. With --json there is one JSON object per configuration.";

/// Measure images per second, time per block and peak memory
#[derive(Args)]
#[command(after_help = BENCH_NOTES)]
pub struct BenchArguments {
    /// Checkpoint to measure
    #[arg(long, value_name = "FILE", conflicts_with = "arch")]
    pub model: Option<PathBuf>,
    /// Network by name, as timm or torchvision call it [default: convnext_tiny]
    #[arg(long, value_name = "NAME")]
    pub arch: Option<String>,
    /// Side of the input in pixels [default: what the network is used with]
    #[arg(long, value_name = "SIDE", value_parser = |text: &str| whole(text, 1..=4096))]
    pub image: Option<usize>,
    /// Images per pass through the network
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,8,32", value_parser = |text: &str| whole(text, 1..=1024))]
    pub batch: Vec<usize>,
    /// How weights are held and multiplied
    #[arg(long, value_enum, value_delimiter = ',', default_value = "f32")]
    pub precision: Vec<PrecisionName>,
    /// Measure steps of training: forward, loss, backward, and an update of every parameter
    #[arg(long)]
    pub train: bool,
    /// With int8 or int4: as if the network had been compressed with photos, which tell in what ranges its values lie;
    /// ResNet 50 to 152 are faster with that, on processors that code rows in eight bits
    #[arg(long, conflicts_with_all = ["train", "model"])]
    pub calibrated: bool,
    /// With --train: compute every block twice, for less memory
    #[arg(long, requires = "train")]
    pub recompute: bool,
    /// With --train: images that are computed at once, for less memory [default: the whole batch]
    #[arg(long, requires = "train", value_name = "N", value_parser = |text: &str| whole(text, 1..=1024))]
    pub micro_batch: Option<usize>,
    /// Measure how well peaks of memory are predicted instead: six networks on the CPU, in inference and training
    #[arg(long = "memory", conflicts_with_all = ["model", "arch", "image", "batch", "precision", "calibrated", "train", "device", "rounds", "seconds"])]
    pub predictions: bool,
    /// Threads that compute [default: one per core]
    #[arg(long, value_name = "N", value_parser = |text: &str| whole(text, 1..=1024))]
    pub threads: Option<usize>,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub device: Device,
    /// Measurements of each configuration, of which the median counts
    #[arg(long, value_name = "N", default_value = "3", value_parser = |text: &str| whole(text, 1..=1000))]
    pub rounds: usize,
    /// Time of one measurement
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    pub seconds: f64,
    #[command(flatten)]
    pub memory: MemoryArguments,
    /// JSON lines instead of tables
    #[arg(long)]
    pub json: bool,
    /// One measurement in this process, for the process that started it.
    #[arg(long = CHILD_OPTION, hide = true, value_name = "JSON")]
    pub measure_case: Option<String>,
}

/// What the process may take.
#[derive(Args, Clone, Copy)]
pub struct MemoryArguments {
    /// The most memory to use, such as 400MB or 2GB [default: what the system has free]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Memory")]
    pub memory_limit: Option<u64>,
    /// Run also what is predicted not to fit
    #[arg(long, help_heading = "Memory")]
    pub anyway: bool,
}

impl MemoryArguments {
    pub fn choice(self) -> MemoryChoice {
        MemoryChoice { limit: self.memory_limit, anyway: self.anyway }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum PrecisionName {
    /// As the file holds them: 8-bit and 4-bit blocks as they are, all else in f32
    Stored,
    F32,
    /// Rounded to 8 bits
    Int8,
    /// Rounded to 4 bits
    Int4,
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Self {
        match name {
            PrecisionName::Stored => Self::Stored,
            PrecisionName::F32 => Self::F32,
            PrecisionName::Int8 => Self::Int8,
            PrecisionName::Int4 => Self::Int4,
        }
    }
}

const CLASSIFY_NOTES: &str = "\
Every row is kept in a journal as it is predicted. A run that was stopped goes on where it was: run the same command
again. A photo is classified anew when it, the model, the labels or the input transform changed.

With --stdin nothing goes through the journal. The model is loaded before the first line is read; then a line with
\"ready\": true is written, and after it an answer for each line that is not empty, in their order: with \"status\" ok,
skipped or error, with the line's \"id\", and with all its other fields under \"fields\". A model of more than 350 MB is
refused unless a larger limit is set.

Exit codes: 0 all done; 1 failed; 2 wrong usage; 3 done, and some photos were skipped; 130 stopped with Ctrl-C.
GALLEY_JOURNAL names another file for the journal. GALLEY_MEMORY_LIMIT, GALLEY_SHELF, GALLEY_LARGEST_MODEL,
GALLEY_IDLE_TIME, GALLEY_LOAD_TIMEOUT and GALLEY_LIGHT_MODEL win over the settings of the same meaning.";

/// Classify photos and folders of photos
#[derive(Args)]
#[command(after_help = CLASSIFY_NOTES)]
pub struct ClassifyArguments {
    /// Folders (searched to any depth) and photos
    #[arg(required_unless_present = "stdin", value_name = "FOLDER|FILE")]
    pub inputs: Vec<PathBuf>,
    /// Read paths or JSON lines {"path": …, "id": …} from standard input until it ends, and answer each with a JSON line
    #[arg(long, conflicts_with_all = ["inputs", "out", "sort_into", "fresh"])]
    pub stdin: bool,
    /// Checkpoint to classify with [default: that of GALLEY_MODEL_URL, else the starter model]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Class names: text with one per line, JSON or CSV [default: from the checkpoint or beside it]
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Classes per photo [default: 5; the best one in lines for people]
    #[arg(long, value_name = "N", value_parser = |text: &str| whole(text, 1..=100_000))]
    pub top_k: Option<usize>,
    /// Photos per pass through the network
    #[arg(long, value_name = "N", default_value = "8", value_parser = |text: &str| whole(text, 1..=1024))]
    pub batch_size: usize,
    /// Threads that compute and that decode [default: one per core]
    #[arg(long, value_name = "N", value_parser = |text: &str| whole(text, 1..=1024))]
    pub threads: Option<usize>,
    /// Also write all rows to a .csv or .jsonl file
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// One JSON object per photo instead of lines for people
    #[arg(long)]
    pub json: bool,
    /// Add the network's raw outputs to JSON lines; classifies all photos anew
    #[arg(long)]
    pub logits: bool,
    /// Classify all photos anew, also those in the journal
    #[arg(long)]
    pub fresh: bool,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub device: Device,
    /// Load what fits of a checkpoint and report the rest; `all` accepts also less than half of the weights
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "half", value_name = "all")]
    pub lenient: Option<Lenient>,
    /// What weights are held in and multiplied: less memory and more speed for a little less accuracy
    #[arg(long, value_enum, default_value = "stored")]
    pub precision: PrecisionName,
    #[command(flatten)]
    pub memory: MemoryArguments,
    /// Call a photo "unsure" when its best class is less likely than this (0 to 1)
    #[arg(long, value_name = "X", default_value = "0", value_parser = probability)]
    pub threshold: f32,
    /// Also copy the photos into one folder per class; originals are never touched
    #[arg(long, value_name = "FOLDER")]
    pub sort_into: Option<PathBuf>,
    #[command(flatten)]
    pub models: ModelArguments,
    #[command(flatten)]
    pub transform: TransformArguments,
}

/// What may be loaded.
#[derive(Args)]
#[command(next_help_heading = "Models [default: from the environment, then from the settings]")]
pub struct ModelArguments {
    /// Refuse a model that takes more (400MB, 1.5GB) before it is read
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub largest_model: Option<u64>,
    /// Checkpoint to use when the model does not fit
    #[arg(long, value_name = "FILE")]
    pub light_model: Option<PathBuf>,
}

/// What the checkpoint does not say, or says wrongly, about its input.
#[derive(Args)]
#[command(next_help_heading = "Input transform [default: from the checkpoint, or its architecture's]")]
pub struct TransformArguments {
    /// Resize the shorter side to this (256), or to this height and width (256x256)
    #[arg(long, value_name = "SIZE", value_parser = resize)]
    pub resize: Option<Resize>,
    /// Cut a square of this side from the middle
    #[arg(long, value_name = "SIDE", value_parser = |text: &str| whole(text, 1..=4096).map(|side| side as u32))]
    pub crop: Option<u32>,
    /// How to resize
    #[arg(long, value_enum)]
    pub interpolation: Option<InterpolationName>,
    /// Mean of the channels red, green, blue on the scale 0 to 1
    #[arg(long, value_name = "R,G,B", value_parser = mean, allow_hyphen_values = true)]
    pub mean: Option<[f32; 3]>,
    /// Standard deviation of the channels
    #[arg(long, value_name = "R,G,B", value_parser = standard_deviation)]
    pub std: Option<[f32; 3]>,
}

impl TransformArguments {
    pub fn overrides(&self) -> TransformOverrides {
        let interpolation = self.interpolation.map(|name| match name {
            InterpolationName::Bilinear => Interpolation::Bilinear,
            InterpolationName::Bicubic => Interpolation::Bicubic,
        });
        TransformOverrides { resize: self.resize, crop: self.crop, interpolation, mean: self.mean, std: self.std }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum InterpolationName {
    Bilinear,
    Bicubic,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Device {
    Auto,
    Cpu,
    Metal,
}

impl Device {
    pub fn choice(self) -> DeviceChoice {
        match self {
            Self::Auto => DeviceChoice::Auto,
            Self::Cpu => DeviceChoice::Cpu,
            Self::Metal => DeviceChoice::Metal,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Lenient {
    /// Refuses when under half of the weights fit
    Half,
    /// Accepts whatever fits
    All,
}

impl Lenient {
    pub fn strictness(self) -> Strictness {
        match self {
            Self::Half => Strictness::Lenient,
            Self::All => Strictness::LenientWhatever,
        }
    }
}

pub fn whole(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("this must be a whole number from {} to {}", range.start(), range.end()))
}

fn checksum(text: &str) -> Result<Checksum, String> {
    Checksum::parse(text).map_err(|error| error.to_string())
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=3600.0).contains(number));
    number.ok_or_else(|| "this must be a number of seconds from 0 to 3600".to_owned())
}

fn probability(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "this must be a number from 0 to 1".to_owned())
}

/// `1%`, `0.5 %` or `0.01`.
pub fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let share = number.trim().parse::<f64>().ok().map(|number| number / unit);
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "this must be a share such as 1% or 0.01".to_owned())
}

fn resize(text: &str) -> Result<Resize, String> {
    let side = |text: &str| whole(text, 1..=4096).ok().map(|side| side as u32);
    let resize = match text.split_once('x') {
        Some((height, width)) => side(height).zip(side(width)).map(|(height, width)| Resize::Exact { height, width }),
        None => side(text).map(Resize::ShortSide),
    };
    resize.ok_or_else(|| "this must be a shorter side (256) or height and width (256x256), 1 to 4096".to_owned())
}

fn three(text: &str, valid: impl Fn(f32) -> bool) -> Option<[f32; 3]> {
    let numbers = text.split(',').map(|part| part.trim().parse().ok().filter(|number| valid(*number)));
    numbers.collect::<Option<Vec<f32>>>()?.try_into().ok()
}

fn mean(text: &str) -> Result<[f32; 3], String> {
    three(text, f32::is_finite).ok_or_else(|| "this must be three numbers, such as 0.485,0.456,0.406".to_owned())
}

fn standard_deviation(text: &str) -> Result<[f32; 3], String> {
    let numbers = three(text, |number| number.is_finite() && number > 0.0);
    numbers.ok_or_else(|| "this must be three numbers above 0, such as 0.229,0.224,0.225".to_owned())
}
