//! Labelled photos from folders and manifests to batches, most of it on real photos.

mod augment;
mod dataset;
mod loader;
mod survey;
mod tiles;
