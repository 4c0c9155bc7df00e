//! Where a pruned network may be written: never over the checkpoint that it is made from.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::PruneJobError;
use crate::checkpoint::Checkpoint;

/// Fails before any work for a place that cannot be written to or must not be.
pub fn check(out: &Path, checkpoint: &Checkpoint) -> Result<(), PruneJobError> {
    let place = || out.to_owned();
    // By what it is and not by its name, of which a file may have several.
    let identity = |path: &Path| path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let own = identity(out);
    if own.is_some() && checkpoint.files().iter().any(|file| identity(file) == own) {
        return Err(PruneJobError::Same(place()));
    }
    if out.is_dir() {
        return Err(PruneJobError::IsFolder(place()));
    }
    if out.extension().is_none_or(|ending| !ending.eq_ignore_ascii_case("safetensors")) {
        return Err(PruneJobError::Ending(place()));
    }
    match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            Err(PruneJobError::NoFolder(folder.to_owned()))
        }
        _ => Ok(()),
    }
}
