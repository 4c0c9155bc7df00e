//! SQLite: runs, predictions and known models, written as they are made.

use std::path::PathBuf;

/// The journal's place: `GALLEY_JOURNAL`, or the user's data folder.
pub fn default_path() -> PathBuf {
    std::env::var_os("GALLEY_JOURNAL").map_or_else(|| "journal.sqlite".into(), PathBuf::from)
}
