//! Predictions to CSV, JSON lines, and copies of the photos sorted into class folders.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::predict::Prediction;

/// What became of one photo.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub path: PathBuf,
    pub result: RowResult,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RowResult {
    /// The most likely classes, best first; `logits` only when asked for.
    Ok {
        predictions: Vec<Prediction>,
        logits: Option<Vec<f32>>,
    },
    Skipped {
        reason: String,
    },
}

/// How to write a run's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExportTarget {
    Csv(PathBuf),
    JsonLines(PathBuf),
    /// Copies each photo into a folder named after its best class (or "unsure"); originals are never touched.
    SortedFolders(PathBuf),
}
