//! Predictions to CSV, JSON lines, and copies of the photos sorted into class folders.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use crate::predict::{Row, RowResult};

/// How to write a run's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExportTarget {
    Csv(PathBuf),
    JsonLines(PathBuf),
    /// Copies each photo into a folder named after its best class (or "unsure"); originals are never touched.
    SortedFolders(PathBuf),
}

/// What is written besides the rows themselves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExportOptions {
    /// Columns of classes in a CSV.
    pub top_k: usize,
    /// Below this probability of the best class a photo is "unsure"; 0 turns that off.
    pub threshold: f32,
}

/// What an export did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportSummary {
    pub rows: u64,
    /// Photos copied into class folders; those that lay there already are not counted.
    pub copied: u64,
}
