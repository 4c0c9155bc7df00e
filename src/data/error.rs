//! Why a set of labelled photos cannot be used, with the line of the manifest where there is one.

use std::io;
use std::path::PathBuf;

use crate::format;

#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("failed to read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("no photos in class folders; put the photos of each class into a folder of its own, or name a manifest: {}", .0.display())]
    NoClasses(PathBuf),
    #[error("this is neither a CSV nor a JSON-lines manifest, which are text; name one, or a folder with a folder per class: {}", .0.display())]
    NotText(PathBuf),
    #[error("the manifest has no column `{wanted}`, only {found}: {}", .path.display())]
    MissingColumn { path: PathBuf, wanted: &'static str, found: String },
    #[error("line {line} of the manifest {reason}: {}", .path.display())]
    Line { path: PathBuf, line: u64, reason: String },
    #[error("none of the {} in the manifest is there; paths count from the manifest's folder: {}", format::counted(*.photos, "photo"), .path.display())]
    AllMissing { path: PathBuf, photos: u64 },
    #[error("every photo is for validation or testing; name some to train on: {}", .0.display())]
    NothingToTrainOn(PathBuf),
    #[error("{part} has classes that training has not: {}", named(.classes))]
    Strangers { part: &'static str, classes: Vec<String> },
    #[error("photos must become squares of one size to make a batch; set a crop")]
    NoSquare,
    #[error("the validation fraction must be from 0 to below 1, not {0}")]
    Fraction(f64),
}

/// The first names and how many more there are.
fn named(classes: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = classes.iter().take(SHOWN).map(|class| format!("`{class}`")).collect::<Vec<_>>().join(", ");
    let more = classes.len().saturating_sub(SHOWN);
    if more == 0 { shown } else { format!("{shown} and {} more", format::count(more as u64)) }
}
