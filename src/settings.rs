//! Preferences: always valid after reading, with warnings for the rest.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Settings {
    /// Checkpoints shown on the Models page, newest first.
    pub recent_models: Vec<PathBuf>,
    pub recent_folders: Vec<PathBuf>,
}
