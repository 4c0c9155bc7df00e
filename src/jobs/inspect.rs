//! What a checkpoint holds: architecture, sizes, input transform, and how it was recognised. Reads no tensor.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::worker::BoxError;

/// Bytes of one kind (weights, optimizer, other) or one element type.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Share {
    pub name: String,
    pub tensors: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Inspection {
    pub path: PathBuf,
    pub file_bytes: u64,
    /// `pytorch-zip`, `pytorch-legacy`, `safetensors`, `gguf`.
    pub container: String,
    /// `None` when Galley does not know the network; `unknown_because` then says why.
    pub architecture: Option<String>,
    pub title: Option<String>,
    pub unknown_because: Option<String>,
    pub recognised_by: Option<String>,
    pub found_as: String,
    pub parameters: Option<u64>,
    pub classes: Option<usize>,
    pub labels: Vec<String>,
    pub labels_from: Option<String>,
    pub transform: Option<crate::images::transform::Transform>,
    pub transform_from: Option<String>,
    pub by_kind: Vec<Share>,
    pub by_element: Vec<Share>,
}

pub fn inspect(_path: &Path) -> Result<Inspection, BoxError> {
    todo!()
}
