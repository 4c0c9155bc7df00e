//! Predictions to CSV, JSON lines, and copies of the photos sorted into class folders. Files appear whole or not at
//! all: written under a temporary name, synced, renamed. Originals are only ever read.

mod folders;
mod json;

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use self::folders::SortedFolders;
pub use self::json::{json_answer, json_line};
pub use crate::images::folder::SORTED_MARK;
use crate::predict::Prediction;
pub use crate::predict::{Row, RowResult};

/// The class of photos whose best class is less likely than the threshold.
pub const UNSURE: &str = "unsure";

/// How to write a run's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExportTarget {
    /// Columns `path, status, label, label_1, probability_1, …, reason`; `label` is the best class or "unsure". Paths
    /// are the bytes of the file name, also where these are not UTF-8.
    Csv(PathBuf),
    /// One object per line, as [`json_line`] writes it.
    JsonLines(PathBuf),
    /// Copies each photo into a folder named after its best class (or "unsure"); originals are never touched.
    SortedFolders(PathBuf),
}

impl ExportTarget {
    /// CSV or JSON lines by the extension: `.csv`, `.jsonl`, `.json`.
    pub fn from_file_name(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "csv" => Some(Self::Csv(path.to_owned())),
            "jsonl" | "ndjson" | "json" => Some(Self::JsonLines(path.to_owned())),
            _ => None,
        }
    }
}

/// What is written besides the rows themselves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExportOptions {
    /// Columns of classes in a CSV.
    pub top_k: usize,
    /// Below this probability of the best class a photo is "unsure"; 0 turns that off.
    pub threshold: f32,
}

impl ExportOptions {
    /// The label a photo goes by: its best class, or "unsure" below the threshold.
    pub fn label<'a>(&self, predictions: &'a [Prediction]) -> Option<&'a str> {
        let best = predictions.first()?;
        Some(if best.probability < self.threshold { UNSURE } else { &best.label })
    }
}

/// What an export did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportSummary {
    pub rows: u64,
    /// Photos copied into class folders; those that lay there already are not counted.
    pub copied: u64,
    /// Photos that were gone or could not be read when they were to be copied.
    pub missing: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("failed to write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("choose another name to export to; this is no file: {}", .0.display())]
    NotAFile(PathBuf),
    #[error("choose an empty folder to sort into, or one Galley sorted into before: {}", .0.display())]
    NotEmpty(PathBuf),
}

/// Takes rows one by one; [`finish`](Self::finish) makes files appear under their name.
pub struct Exporter {
    sink: Sink,
    options: ExportOptions,
    summary: ExportSummary,
}

enum Sink {
    Csv { path: PathBuf, writer: Box<csv::Writer<NamedTempFile>> },
    JsonLines { path: PathBuf, writer: BufWriter<NamedTempFile> },
    Sorted(SortedFolders),
}

impl Exporter {
    pub fn create(target: &ExportTarget, options: ExportOptions) -> Result<Self, ExportError> {
        let sink = match target {
            ExportTarget::Csv(path) => {
                let mut writer = Box::new(csv::Writer::from_writer(temporary_beside(path)?));
                writer.write_record(csv_header(options.top_k)).map_err(|error| failed(path, error.into()))?;
                Sink::Csv { path: path.clone(), writer }
            }
            ExportTarget::JsonLines(path) => {
                Sink::JsonLines { path: path.clone(), writer: BufWriter::new(temporary_beside(path)?) }
            }
            ExportTarget::SortedFolders(folder) => Sink::Sorted(SortedFolders::create(folder)?),
        };
        Ok(Self { sink, options, summary: ExportSummary::default() })
    }

    pub fn add(&mut self, row: &Row) -> Result<(), ExportError> {
        self.summary.rows += 1;
        match &mut self.sink {
            Sink::Csv { path, writer } => {
                let written = writer.write_byte_record(&csv_record(row, &self.options));
                written.map_err(|error| failed(path, error.into()))
            }
            Sink::JsonLines { path, writer } => {
                let line = json_line(row, &self.options);
                writeln!(writer, "{line}").map_err(|error| failed(path, error))
            }
            Sink::Sorted(folders) => folders.add(row, &self.options, &mut self.summary),
        }
    }

    pub fn finish(self) -> Result<ExportSummary, ExportError> {
        match self.sink {
            Sink::Csv { path, writer } => {
                let file = writer.into_inner().map_err(|error| failed(&path, error.into_error()))?;
                put_in_place(file, &path)?;
            }
            Sink::JsonLines { path, writer } => {
                let file = writer.into_inner().map_err(|error| failed(&path, error.into_error()))?;
                put_in_place(file, &path)?;
            }
            Sink::Sorted(_) => {}
        }
        Ok(self.summary)
    }
}

fn csv_header(classes: usize) -> Vec<String> {
    let mut header = ["path", "status", "label"].map(str::to_owned).to_vec();
    header.extend((1..=classes).flat_map(|rank| [format!("label_{rank}"), format!("probability_{rank}")]));
    header.push("reason".to_owned());
    header
}

fn csv_record(row: &Row, options: &ExportOptions) -> csv::ByteRecord {
    let (status, predictions, reason) = match &row.result {
        RowResult::Ok { predictions, .. } => ("ok", predictions.as_slice(), ""),
        RowResult::Skipped { reason } => ("skipped", [].as_slice(), reason.as_str()),
    };
    let mut record = csv::ByteRecord::new();
    record.push_field(row.path.as_os_str().as_encoded_bytes());
    record.push_field(status.as_bytes());
    record.push_field(options.label(predictions).unwrap_or_default().as_bytes());
    for rank in 0..options.top_k {
        let class = predictions.get(rank);
        record.push_field(class.map_or(&b""[..], |class| class.label.as_bytes()));
        record.push_field(class.map(|class| class.probability.to_string()).unwrap_or_default().as_bytes());
    }
    record.push_field(reason.as_bytes());
    record
}

/// A temporary file in the folder of `path`, with the permissions of an ordinary new file.
fn temporary_beside(path: &Path) -> Result<NamedTempFile, ExportError> {
    // Renaming over a device or a folder would replace or lose it.
    if path.exists() && !path.is_file() {
        return Err(ExportError::NotAFile(path.to_owned()));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).and_then(|()| temporary_in(folder)).map_err(|error| failed(path, error))
}

fn temporary_in(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".galley-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less what the umask takes
    builder.tempfile_in(folder)
}

fn put_in_place(file: NamedTempFile, path: &Path) -> Result<(), ExportError> {
    file.as_file().sync_all().map_err(|error| failed(path, error))?;
    file.persist(path).map(drop).map_err(|error| failed(path, error.error))
}

fn failed(path: &Path, source: io::Error) -> ExportError {
    ExportError::Write { path: path.to_owned(), source }
}
