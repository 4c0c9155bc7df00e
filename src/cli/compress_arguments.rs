//! The words of `galley quantize` and `galley prune`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::arguments::{Device, MemoryArguments, TransformArguments, share, whole};
use crate::compress::quantize::Bits;
use crate::format::parse_bytes;
use crate::jobs::compress::Size;

const QUANTIZE_NOTES: &str = "\
Training state is left out. With --check both models classify the photos of that folder: a subfolder per class, or any
folder, of which the share of photos with the same answer is measured. A report lies beside OUT, as .report.json and
.report.html. OUT appears when it is whole; a result that loses more than --max-loss is not saved.

Without --type, --fit and --max-loss all weights are stored in 8 bits. --max-loss alone finds the smallest model.

Exit codes: 0 done; 1 failed; 2 wrong usage; 130 stopped with Ctrl-C.";

/// Store a model in fewer bits: 8, 5, 4, or as many as fit a size or a loss
#[derive(Args)]
#[command(after_help = QUANTIZE_NOTES)]
pub struct QuantizeArguments {
    /// Checkpoint to read; it is kept as it is
    #[arg(value_name = "IN")]
    pub model: PathBuf,
    /// The smaller model, a .gguf file
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// What weights are stored in
    #[arg(long = "type", value_enum, value_name = "TYPE", conflicts_with = "fit")]
    pub kind: Option<SizeName>,
    /// Mixed types in a file of this size at most, such as 90MB
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub fit: Option<u64>,
    /// The share of --check's photos that may be judged wrongly which were not before, such as 1%
    #[arg(long, value_name = "SHARE", value_parser = share, requires = "check")]
    pub max_loss: Option<f64>,
    /// Photos to compare both models on
    #[arg(long, value_name = "FOLDER")]
    pub check: Option<PathBuf>,
    /// Photos that tell how to round, whatever their classes [default: those of --check]
    #[arg(long, value_name = "FOLDER")]
    pub calibrate: Option<PathBuf>,
    /// Before that take out this share of the channels inside blocks, such as 30% (see galley prune)
    #[arg(long, value_name = "SHARE", value_parser = real_share)]
    pub prune: Option<f64>,
    /// How channels are ranked; by taylor on the photos of --repair
    #[arg(long, value_enum, default_value_t = RankingName::L1, requires = "prune")]
    pub prune_by: RankingName,
    /// Photos that the pruned network learns from, a folder per class of the model
    #[arg(long, value_name = "FOLDER", requires = "prune", required_if_eq("prune_by", "taylor"))]
    pub repair: Option<PathBuf>,
    /// Passes over these photos
    #[arg(long, value_name = "N", default_value = "1", requires = "repair", value_parser = |text: &str| whole(text, 1..=1000))]
    pub repair_epochs: usize,
    /// Class names: text with one per line, JSON or CSV [default: from the checkpoint or beside it]
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub device: Device,
    /// Replace a file of OUT's name
    #[arg(long)]
    pub overwrite: bool,
    /// Save also what loses more than --max-loss
    #[arg(long, requires = "max_loss")]
    pub save_anyway: bool,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub memory: MemoryArguments,
    #[command(flatten)]
    pub transform: TransformArguments,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum SizeName {
    /// 8 bits, a scale per row: fast, and nearly as good as f32
    #[value(name = "q8_0")]
    Q8_0,
    /// 5 bits in the file, 8 in memory
    #[value(name = "q5_0")]
    Q5_0,
    /// 4 bits and a least value in the file, f32 in memory
    #[value(name = "q4_1")]
    Q4_1,
    /// 4 bits in the file and in memory
    #[value(name = "q4_0")]
    Q4_0,
    /// 16 bits in the file, f32 in memory
    F16,
    /// From 4 bits on, with more where they matter: a fifth of the size in f32
    Mixed,
}

impl From<SizeName> for Size {
    fn from(name: SizeName) -> Self {
        Self::Bits(match name {
            SizeName::Q8_0 => Bits::Q8_0,
            SizeName::Q5_0 => Bits::Q5_0,
            SizeName::Q4_1 => Bits::Q4_1,
            SizeName::Q4_0 => Bits::Q4_0,
            SizeName::F16 => Bits::F16,
            SizeName::Mixed => return Self::Mixed,
        })
    }
}

const PRUNE_NOTES: &str = "\
Channels inside blocks are taken out: a file that every other command opens, of a smaller and faster network. Kept widths are
multiples of 16 (of 8 below 128), which is what the processor multiplies at once. By l1 a channel counts as much as the weights
that make and take it; by taylor, as much as it matters to the loss on the photos of --on. --repair has the smaller network
learn from photos for a while. Folders of photos have a subfolder for each class of the model.

With --unstructured single weights become zero instead: then neither the file nor the time shrinks, only what the file is
compressed to.

Exit codes: 0 the new file is there; 1 failed; 2 wrong usage; 130 stopped with Ctrl-C, with no new file.";

/// Make a network smaller: take out the channels that matter least
#[derive(Args)]
#[command(after_help = PRUNE_NOTES)]
pub struct PruneArguments {
    /// Checkpoint to prune; it stays as it is
    #[arg(value_name = "IN")]
    pub model: PathBuf,
    /// The new file, a .safetensors
    pub out: PathBuf,
    /// Share of the channels, or of the weights, to take out
    #[arg(long, value_name = "SHARE", default_value = "0.3", value_parser = real_share)]
    pub ratio: f64,
    /// How channels are ranked within their layer
    #[arg(long, value_enum, default_value_t = RankingName::L1)]
    pub by: RankingName,
    /// With --by taylor: photos to rank channels on
    #[arg(long, value_name = "FOLDER", required_if_eq("by", "taylor"))]
    pub on: Option<PathBuf>,
    /// Set single weights to zero instead, the smallest of the whole network
    #[arg(long, conflicts_with_all = ["by", "on", "repair"])]
    pub unstructured: bool,
    /// Photos that the pruned network learns from
    #[arg(long, value_name = "FOLDER")]
    pub repair: Option<PathBuf>,
    /// Passes over these photos
    #[arg(long, value_name = "N", default_value = "1", requires = "repair", value_parser = |text: &str| whole(text, 1..=1000))]
    pub repair_epochs: usize,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub device: Device,
    #[command(flatten)]
    pub memory: MemoryArguments,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RankingName {
    /// By the size of their weights
    L1,
    /// By what they matter to the loss on photos
    Taylor,
}

/// A share above 0 and below 1.
fn real_share(text: &str) -> Result<f64, String> {
    let share = share(text).ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| "choose a share above 0 and below 1, such as 30% or 0.3".to_owned())
}
