//! A pruned network as a file.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::PruneError;
use crate::checkpoint::{Planned, save_safetensors};
use crate::models::Weights;

/// Writes all weights of `weights` in their order, one tensor in memory at a time, after `change` has seen them in that order.
///
/// As [`save_safetensors`]: `path` holds the whole new file or what it held before. An error of `check`, which is asked before
/// each tensor, ends the writing.
pub fn save<E: From<PruneError> + From<io::Error>>(
    path: &Path,
    weights: &dyn Weights,
    about: &BTreeMap<String, String>,
    mut check: impl FnMut() -> Result<(), E>,
    mut change: impl FnMut(&str, &mut [f32]),
) -> Result<(), E> {
    let planned = |name: &str, shape: &[usize]| Planned { name: name.to_owned(), shape: shape.to_vec() };
    let tensors: Vec<Planned> = weights.tensors().iter().map(|tensor| planned(&tensor.name, &tensor.shape)).collect();
    save_safetensors(path, about, &tensors, |index| {
        check()?;
        let name = &tensors[index].name;
        let mut values = weights.read_f32(name).map_err(PruneError::from)?;
        change(name, &mut values);
        Ok(values)
    })
}
