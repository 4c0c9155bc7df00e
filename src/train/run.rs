//! A run is a folder: its settings, its metrics line by line, its best and its last snapshot.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::config::TrainConfig;
use crate::checkpoint::save_atomically;
use crate::memory::guard::{Act, Cause};

/// What a run was begun with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    pub config: TrainConfig,
    /// In the order of the network's outputs.
    pub classes: Vec<String>,
    /// A number that is another for other photos or another split of them.
    pub photos: u64,
    /// Photos that are left out: damaged ones, and copies that were not wanted.
    pub left_out: Vec<PathBuf>,
    /// A number that is another for another teacher, or another way of asking it; none without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    pub galley: String,
}

/// One step of the optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// From 0.
    pub step: u64,
    pub epoch: u64,
    pub loss: f64,
    pub accuracy: f64,
    pub lr: f64,
    pub gradient_norm: f64,
}

/// One pass over the training photos, and the validation after it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 0.
    pub epoch: u64,
    pub step: u64,
    pub train_loss: f64,
    pub train_accuracy: f64,
    /// Of the validation photos; none without any.
    pub loss: Option<f64>,
    pub top1: Option<f64>,
    pub top5: Option<f64>,
    /// True when no epoch before was better.
    pub best: bool,
    pub lr: f64,
    /// Since the epoch began, or was taken up again.
    pub seconds: f64,
    pub photos_per_second: f64,
    /// The share of training's time in which it waited for photos.
    pub waiting: f64,
    pub peak_bytes: Option<u64>,
}

/// What was done to stay within the memory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GuardRecord {
    /// The step under way, from 0, and its epoch.
    pub step: u64,
    pub epoch: u64,
    pub act: Act,
    pub cause: Cause,
    /// Photos computed at once, and batches decoded ahead, from then on.
    pub at_once: usize,
    pub batches_ahead: usize,
}

/// A line of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    Step(StepRecord),
    Epoch(EpochRecord),
    Guard(GuardRecord),
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(
        "this folder holds a run already; continue it with: galley train --resume {}, or choose another folder",
        .0.display()
    )]
    Taken(PathBuf),
    #[error("this is no run of Galley's: it has no {CONFIG}: {}", .0.display())]
    NoRun(PathBuf),
    #[error("the run's {name} does not make sense ({reason}): {}", .path.display())]
    Damaged { path: PathBuf, name: &'static str, reason: String },
    #[error("failed to use the run's folder {}", .path.display())]
    Folder { path: PathBuf, source: io::Error },
}

const CONFIG: &str = "config.json";
const METRICS: &str = "metrics.jsonl";
const BEST: &str = "best.safetensors";
const LAST: &str = "last.safetensors";

/// The folder of a run, open for one who trains.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    metrics: File,
    bytes: u64,
}

impl RunFolder {
    /// Begins a run in a folder that is new, or holds none.
    pub fn create(path: &Path, record: &RunRecord) -> Result<Self, RunError> {
        if path.join(CONFIG).exists() {
            return Err(RunError::Taken(path.to_owned()));
        }
        let failed = |source| RunError::Folder { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(failed)?;
        // First, so that a folder with settings always has metrics.
        let metrics = Self::open_metrics(path).map_err(failed)?;
        let text = serde_json::to_string_pretty(record).map_err(io::Error::other).map_err(failed)?;
        save_atomically::<io::Error>(&path.join(CONFIG), |writer| writeln!(writer, "{text}")).map_err(failed)?;
        let mut run = Self { path: path.to_owned(), metrics, bytes: 0 };
        run.cut(0)?;
        Ok(run)
    }

    /// Opens a run to continue it.
    pub fn open(path: &Path) -> Result<(Self, RunRecord), RunError> {
        let record = read_record(path)?;
        let failed = |source| RunError::Folder { path: path.to_owned(), source };
        let metrics = Self::open_metrics(path).map_err(failed)?;
        let bytes = metrics.metadata().map_err(failed)?.len();
        Ok((Self { path: path.to_owned(), metrics, bytes }, record))
    }

    fn open_metrics(path: &Path) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(path.join(METRICS))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn best(&self) -> PathBuf {
        self.path.join(BEST)
    }

    pub fn last(&self) -> PathBuf {
        self.path.join(LAST)
    }

    /// The best weights of the run in a folder, which may have none yet.
    pub fn best_of(folder: &Path) -> PathBuf {
        folder.join(BEST)
    }

    /// When the run in a folder was begun, where the file system knows.
    pub fn begun(folder: &Path) -> Option<SystemTime> {
        // Settings are written once.
        std::fs::metadata(folder.join(CONFIG)).and_then(|metadata| metadata.modified()).ok()
    }

    pub fn write(&mut self, record: &Record) -> Result<(), RunError> {
        let line = serde_json::to_string(record).map_err(io::Error::other).map_err(|error| self.failed(error))? + "\n";
        self.metrics.write_all(line.as_bytes()).map_err(|error| self.failed(error))?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Makes sure that all lines are on disk, and says how many bytes they are.
    pub fn sync(&self) -> Result<u64, RunError> {
        self.metrics.sync_data().map_err(|error| self.failed(error))?;
        Ok(self.bytes)
    }

    /// Takes away what was written after the first `bytes`.
    pub fn cut(&mut self, bytes: u64) -> Result<(), RunError> {
        self.metrics.set_len(bytes).map_err(|error| self.failed(error))?;
        self.bytes = bytes;
        Ok(())
    }

    fn failed(&self, source: io::Error) -> RunError {
        RunError::Folder { path: self.path.clone(), source }
    }
}

/// The settings of the run in a folder.
pub fn read_record(path: &Path) -> Result<RunRecord, RunError> {
    let text = match std::fs::read_to_string(path.join(CONFIG)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(RunError::NoRun(path.to_owned())),
        Err(source) => return Err(RunError::Folder { path: path.to_owned(), source }),
    };
    let damaged =
        |error: serde_json::Error| RunError::Damaged { path: path.to_owned(), name: CONFIG, reason: error.to_string() };
    serde_json::from_str(&text).map_err(damaged)
}

/// The metrics of the run in a folder; a last line that was cut short is left out.
pub fn read_metrics(path: &Path) -> Result<Vec<Record>, RunError> {
    let failed = |source| RunError::Folder { path: path.to_owned(), source };
    let file = BufReader::new(File::open(path.join(METRICS)).map_err(failed)?);
    let lines: Vec<String> = file.lines().collect::<Result<_, _>>().map_err(failed)?;
    let mut records = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        match serde_json::from_str(line) {
            Ok(record) => records.push(record),
            Err(_) if index + 1 == lines.len() => {}
            Err(error) => {
                let reason = format!("line {}: {error}", index + 1);
                return Err(RunError::Damaged { path: path.to_owned(), name: METRICS, reason });
            }
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> RunRecord {
        let classes = vec!["a".to_owned(), "b".to_owned()];
        let (config, left_out) = (TrainConfig::default(), vec!["a/1.jpg".into()]);
        RunRecord { config, classes, photos: u64::MAX - 3, left_out, teacher: None, galley: "0.1.0".to_owned() }
    }

    fn step(step: u64) -> Record {
        let (loss, accuracy) = (1.0 / 3.0, 0.1 + 0.2);
        Record::Step(StepRecord { step, epoch: 0, loss, accuracy, lr: 1e-4, gradient_norm: 5e-324 })
    }

    #[test]
    fn metrics_read_back_to_the_last_bit_and_are_cut_where_asked() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = RunFolder::create(folder.path(), &record()).unwrap();
        run.write(&step(0)).unwrap();
        let bytes = run.sync().unwrap();
        run.write(&step(1)).unwrap();
        let cause = Cause::Swap { speed: 0.1 + 0.2 };
        let guard =
            Record::Guard(GuardRecord { step: 1, epoch: 0, act: Act::DropAhead, cause, at_once: 2, batches_ahead: 0 });
        run.write(&guard).unwrap();
        assert_eq!(read_metrics(folder.path()).unwrap(), [step(0), step(1), guard]);
        drop(run);
        let (mut run, read) = RunFolder::open(folder.path()).unwrap();
        assert_eq!(read, record());
        run.cut(bytes).unwrap();
        run.write(&step(7)).unwrap();
        assert_eq!(read_metrics(folder.path()).unwrap(), [step(0), step(7)]);
        run.metrics.write_all(b"{\"kind\":\"st").unwrap();
        assert_eq!(read_metrics(folder.path()).unwrap(), [step(0), step(7)]);
    }

    #[test]
    fn a_folder_that_holds_a_run_is_not_written_over_and_one_without_is_not_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let text = RunFolder::open(folder.path()).unwrap_err().to_string();
        assert!(text.contains("no run of Galley's"), "{text}");
        RunFolder::create(folder.path(), &record()).unwrap();
        let text = RunFolder::create(folder.path(), &record()).unwrap_err().to_string();
        assert!(text.contains("--resume"), "{text}");
        std::fs::write(folder.path().join(CONFIG), "{").unwrap();
        assert!(matches!(RunFolder::open(folder.path()), Err(RunError::Damaged { .. })));
    }
}
