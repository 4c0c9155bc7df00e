//! Compresses: a model with fewer channels, repaired, in fewer bits, compared with the one it came from on a person's own photos.

mod bits;
mod photos;
mod pruned;
mod work;

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use work::Work;

use crate::compress::quantize::Bits;
use crate::compress::{Proof, Report};
use crate::device::DeviceChoice;
use crate::format::{bytes, count};
use crate::jobs::Places;
use crate::jobs::admission::MemoryChoice;
use crate::jobs::prune::{Ranking, Repair};
use crate::predict::{ModelSource, TransformOverrides};
use crate::worker::{BoxError, Job, JobContext};

/// How small a model shall become.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Size {
    /// All blocks alike.
    Bits(Bits),
    /// A file of so many bytes at most, with more bits where they matter.
    Fit(u64),
    /// A fifth of what the weights take as f32, in the same manner.
    Mixed,
    /// As small as keeps the loss within [`CompressConfig::max_loss`].
    Smallest,
}

/// Channels that are taken out before weights are rounded.
#[derive(Debug, Clone, PartialEq)]
pub struct Pruning {
    /// The share of the channels inside blocks, above 0 and below 1.
    pub ratio: f64,
    pub ranking: Ranking,
    /// A short training of what is left.
    pub repair: Option<Repair>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CompressConfig {
    pub model: ModelSource,
    pub labels: Option<PathBuf>,
    pub transform: TransformOverrides,
    pub output: PathBuf,
    pub prune: Option<Pruning>,
    pub size: Size,
    /// The share of photos that may be judged right no more, or, without labels, differently.
    pub max_loss: Option<f64>,
    /// Photos to compare both models on: a folder of class folders, a manifest, or any folder.
    pub check: Option<PathBuf>,
    /// Photos that tell how to round; none are those of `check`. Their classes are not looked at.
    pub calibrate: Option<PathBuf>,
    pub device: DeviceChoice,
    pub memory: MemoryChoice,
    /// Replace a file of the output's name.
    pub overwrite: bool,
    /// Save also what loses more than it may.
    pub save_anyway: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum CompressJobError {
    #[error("there is a file of this name already; choose another, or replace it with --overwrite: {}", .0.display())]
    Exists(PathBuf),
    #[error("this is the model itself, which is kept as it is; choose another name: {}", .0.display())]
    Itself(PathBuf),
    #[error("there is no folder for the smaller model; make it first: {}", .0.display())]
    NoFolder(PathBuf),
    #[error("the smaller model is a .gguf file; name it so: {}", .0.display())]
    Ending(PathBuf),
    #[error("a loss is measured on photos: name a folder of them with --check")]
    NothingToMeasureOn,
    #[error("the loss cannot be measured, because the original does not fit in memory: {0}")]
    OriginalDoesNotFit(String),
    #[error("the smaller model was not compared and not saved, because it does not fit in memory either: {0}")]
    ResultDoesNotFit(String),
    #[error("not saved: {}. To save it all the same: --save-anyway", too_much(.proof, *.allowed))]
    LosesTooMuch { allowed: f64, proof: Box<Proof> },
    #[error(
        "{title} does not fit in {}: with all weights in 4 bits it takes {}. Prune it before, or take a smaller network",
        bytes(*.wanted), bytes(*.least)
    )]
    TooSmall { title: String, wanted: u64, least: u64 },
    #[error("failed to write {}", .path.display())]
    Save { path: PathBuf, source: io::Error },
}

/// What a smaller model loses, and that this is too much, for people.
pub fn too_much(proof: &Proof, allowed: f64) -> String {
    let photos = count(proof.photos as u64);
    let lost = match proof.right {
        Some([before, after]) => format!("of {photos} photos {after} are judged right, and {before} were before"),
        None => format!("of {photos} photos {} get another answer", proof.photos - proof.same),
    };
    // A photo of many is less than a tenth of a percent.
    let [loss, allowed] = [proof.loss(), allowed].map(|share| format!("{:.2} %", 100.0 * share));
    format!("{lost}: a loss of {loss}, where {allowed} is allowed")
}

/// Where the report of a smaller model lies, as JSON and as a page.
pub fn reports_of(output: &Path) -> [PathBuf; 2] {
    ["report.json", "report.html"].map(|ending| output.with_extension(ending))
}

impl Size {
    /// A part of a file's name.
    fn mark(self) -> String {
        match self {
            Self::Bits(Bits::Q8_0) => "8bit".to_owned(),
            Self::Bits(bits) => bits.name().to_owned(),
            Self::Fit(most) => bytes(most).replace(' ', ""),
            Self::Mixed => "mixed".to_owned(),
            Self::Smallest => "small".to_owned(),
        }
    }
}

/// A name that no file has, for a smaller model beside the original, or in `folder` where that is no file.
pub fn output_for(model: &ModelSource, size: Size, folder: &Path) -> PathBuf {
    let beside = match model {
        ModelSource::Starter => folder.join("starter"),
        ModelSource::File(path) => path.clone(),
    };
    let stem = beside.file_stem().unwrap_or(beside.as_os_str()).to_string_lossy();
    let name = |number: u32| match number {
        0 => format!("{stem}-{}.gguf", size.mark()),
        number => format!("{stem}-{}-{}.gguf", size.mark(), number + 1),
    };
    let mut free = (0..).map(|number| beside.with_file_name(name(number))).filter(|path| !path.exists());
    free.next().unwrap_or_else(|| beside.with_file_name(name(0)))
}

/// The reports of smaller models of this one that lie where [`output_for`] puts them, the oldest first. A folder that was moved
/// as a whole keeps them.
pub fn variants_of(model: &ModelSource, folder: &Path) -> Vec<Report> {
    let folder = match model {
        ModelSource::Starter => folder,
        ModelSource::File(path) => folder_of(path),
    };
    let name = |path: &str| Path::new(path).file_name().map(ToOwned::to_owned);
    let read = |entry: std::fs::DirEntry| -> Option<(SystemTime, Report)> {
        let file = entry.file_name().into_string().ok()?;
        let output = entry.path().with_file_name(format!("{}.gguf", file.strip_suffix(".report.json")?));
        let report: Report = serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok()?;
        let is_of_it = name(&report.source) == name(&model.name()) && output.is_file();
        is_of_it.then_some((entry.metadata().ok()?.modified().ok()?, Report { output, ..report }))
    };
    let mut found: Vec<_> = folder.read_dir().into_iter().flatten().flatten().filter_map(read).collect();
    found.sort_by_key(|(written, _)| *written);
    found.into_iter().map(|(_, report)| report).collect()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub type CompressJob = Job<Report, ()>;

/// Starts the job. `wake` is called whenever there is something to see.
pub fn start(
    config: CompressConfig,
    places: Places,
    wake: impl Fn() + Send + Sync + 'static,
) -> io::Result<CompressJob> {
    Job::start("compress", wake, move |ctx, _| {
        // The folder of models is made when it is first needed.
        if config.output.starts_with(&places.models_folder) {
            std::fs::create_dir_all(&places.models_folder)?;
        }
        compress(&config, &places, ctx)
    })
}

/// Runs on the calling thread.
pub fn compress(config: &CompressConfig, places: &Places, ctx: &JobContext) -> Result<Report, BoxError> {
    config.check()?;
    Work::prepare(config, places, ctx)?.run()
}

impl CompressConfig {
    /// What is wrong with the settings, before anything is read.
    fn check(&self) -> Result<(), CompressJobError> {
        let Self { model, output, size, max_loss, check, overwrite, .. } = self;
        if output.extension().is_none_or(|ending| !ending.eq_ignore_ascii_case("gguf")) {
            return Err(CompressJobError::Ending(output.clone()));
        }
        let is_output =
            |path: &Path| path.canonicalize().ok().is_some_and(|path| output.canonicalize().ok() == Some(path));
        if matches!(model, ModelSource::File(path) if is_output(path)) {
            return Err(CompressJobError::Itself(output.clone()));
        }
        if !folder_of(output).is_dir() {
            return Err(CompressJobError::NoFolder(folder_of(output).to_owned()));
        }
        if output.exists() && !overwrite {
            return Err(CompressJobError::Exists(output.clone()));
        }
        let measures = max_loss.is_some() || *size == Size::Smallest;
        if measures && check.is_none() { Err(CompressJobError::NothingToMeasureOn) } else { Ok(()) }
    }
}
