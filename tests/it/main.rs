//! One test binary: real files, real jobs, independent oracles.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod accuracy;
mod bench;
mod bundle;
mod checkpoint;
mod classify;
mod cli;
mod compress;
#[cfg(feature = "window")]
mod compress_page;
#[cfg(target_os = "linux")]
mod control_group;
mod data;
mod decoding_memory;
#[cfg(feature = "window")]
mod desktop;
mod distill;
mod doctor;
#[cfg(feature = "window")]
mod download_page;
mod downloads;
#[cfg(feature = "window")]
mod evaluate_page;
mod evaluations;
mod export;
mod gradients;
mod guard;
mod hostile_checkpoints;
mod hostile_images;
mod images;
mod journal;
mod layers;
#[cfg(feature = "window")]
mod memory_page;
mod metal_kernels;
mod networks;
mod prune;
mod quantized;
mod readout;
mod runs;
mod sample_data;
mod searches;
#[cfg(feature = "window")]
mod settings_page;
mod shelf;
mod starter;
mod stream;
mod support;
#[cfg(feature = "window")]
mod train_page;
#[cfg(feature = "window")]
mod train_settings;
mod training;
#[cfg(feature = "window")]
mod window;
