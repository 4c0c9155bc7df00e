//! What the program can do, each as a plain function plus a context, and as a job on its own thread.

pub mod bench;
pub mod brought;
pub mod classify;
pub mod curves;
mod decoding;
pub mod doctor;
pub mod download;
pub mod evaluate;
pub mod export;
pub mod find_rate;
pub mod inspect;
mod pace;
pub mod runs;
pub mod sweep;
pub mod thumbnails;
pub mod train;

use std::path::PathBuf;

/// Where jobs keep things.
#[derive(Debug, Clone)]
pub struct Places {
    pub journal: PathBuf,
    /// The folder of what is known about devices.
    pub verdicts: PathBuf,
    /// The folder of photos that were resized for training.
    pub tiles: PathBuf,
    /// The folder of downloaded models.
    pub models: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            journal: crate::journal::default_path(),
            verdicts: doctor::default_folder(),
            tiles: train::default_tiles(),
            models: download::default_folder(),
        }
    }
}
