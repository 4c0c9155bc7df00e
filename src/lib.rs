//! Galley trains and runs image classifiers in the memory you have.
//!
//! This file is the architecture document: the map of the modules and the one rule about imports.
//!
//! | layer | module | what it is for |
//! |---|---|---|
//! | front ends | `gui` | the window: pages draw state and return actions |
//! | | `cli` | the same jobs as commands |
//! | application | [`jobs`] | what the program can do, each as a job with progress, pause and cancel |
//! | | [`platform`] | what the window is to the system: menu bar, Dock, messages, files shown by other programs |
//! | | [`journal`] | SQLite: runs and predictions, written as they are made |
//! | | [`settings`] | preferences, always valid after reading |
//! | | [`report`] | evaluations and runs as pages of HTML with plots |
//! | | [`export`] | predictions as CSV, JSON lines or sorted folders |
//! | domain | [`compress`] | a network made smaller: in fewer bits, of fewer channels, or taught by a larger one |
//! | | [`train`] | a network learns from labelled photos |
//! | | [`predict`] | a classifier: network, labels and input transform |
//! | | [`data`] | labelled photos: folders and manifests, splits, augmented batches |
//! | | [`models`] | networks as lists of blocks; which one a checkpoint holds |
//! | foundation | [`checkpoint`] | tensors from `.pth`, `.safetensors` and `.gguf` files |
//! | | [`images`] | photos: decoding upright, and the transform to network input |
//! | | [`ops`] | the operations networks are made of |
//! | | [`memory`] | what the process uses and what it may use |
//! | | [`worker`] | one thread per job |
//! | | [`device`] | where tensors live, and why there |
//! | | [`format`] | bytes, durations, counts and error chains as text |
//!
//! **The layer rule.** Imports point down only:
//! `gui, cli → jobs, platform → journal, settings, export, report → compress → train, predict → data, models → checkpoint, images, ops → memory →
//! worker → device, format`.
//! The two front ends never import each other and never see a tensor. Only `gui` knows egui and only `cli` prints.
//! A network is computed in NHWC from the first pixel to the logits. `tests/it/layers.rs` holds this table against the code.

pub mod checkpoint;
pub mod cli;
pub mod compress;
pub mod data;
pub mod device;
pub mod export;
pub mod format;
#[cfg(feature = "window")]
pub mod gui;
pub mod images;
pub mod jobs;
pub mod journal;
pub mod memory;
pub mod models;
pub mod ops;
pub mod platform;
pub mod predict;
pub mod report;
pub mod settings;
pub mod train;
pub mod worker;
