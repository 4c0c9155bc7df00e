//! What the program can do, each as a plain function plus a context, and as a job on its own thread.

pub mod admission;
pub mod bench;
pub mod brought;
pub mod classify;
pub mod compress;
pub mod curves;
mod decoding;
pub mod doctor;
pub mod download;
pub mod evaluate;
pub mod export;
mod failures;
pub mod find_rate;
pub mod flush;
pub mod inference;
pub mod inspect;
pub mod models;
mod pace;
pub mod peaks;
pub mod prune;
pub mod runs;
pub mod sweep;
pub mod thumbnails;
pub mod train;
mod watched;

use std::path::PathBuf;

use models::Models;

/// Where jobs keep things, and the models that they share.
#[derive(Debug, Clone)]
pub struct Places {
    pub journal: PathBuf,
    /// The folder of what is known about devices.
    pub verdicts: PathBuf,
    /// The folder of photos that were resized for training.
    pub tiles: PathBuf,
    /// What is loaded and stays for the next job.
    pub models: Models,
    /// The folder of downloaded models.
    pub models_folder: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            journal: crate::journal::default_path(),
            verdicts: doctor::default_folder(),
            tiles: train::default_tiles(),
            models: Models::default(),
            models_folder: download::default_folder(),
        }
    }
}
