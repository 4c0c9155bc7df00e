//! The first step of a compression that prunes: a network of fewer channels.

use std::path::PathBuf;

use super::{CompressConfig, Pruning};
use crate::checkpoint::{Checkpoint, save_atomically};
use crate::format::{counted, percent};
use crate::jobs::Places;
use crate::jobs::prune::{PruneEvent, PruneTask, What, prune};
use crate::predict::{ModelSource, STARTER};
use crate::worker::{BoxError, JobContext};

/// What is left of a network: its file is open, and has no name any more.
pub struct PrunedModel {
    pub checkpoint: Checkpoint,
    /// What was done, in words.
    pub step: String,
    pub notices: Vec<String>,
}

impl PrunedModel {
    pub fn make(
        pruning: &Pruning,
        config: &CompressConfig,
        places: &Places,
        ctx: &JobContext,
    ) -> Result<Self, BoxError> {
        let folder = tempfile::tempdir()?;
        let task = PruneTask {
            model: file_of(&config.model, &folder)?,
            out: folder.path().join("pruned.safetensors"),
            ratio: pruning.ratio,
            what: What::Channels(pruning.ranking.clone()),
            repair: pruning.repair.clone(),
            device: config.device,
            memory: config.memory,
        };
        let mut notices = Vec::new();
        let summary = prune(&task, places, ctx, &mut |event| {
            if let PruneEvent::Notice(notice) = event {
                notices.push(notice);
            }
            Ok(())
        })?;
        let mut step = format!("{} of the channels inside blocks pruned by {}", percent(pruning.ratio), summary.by);
        if let Some(repaired) = summary.repaired {
            step += &format!(", then {} of repair", counted(repaired.epochs, "epoch"));
        }
        Ok(Self { checkpoint: Checkpoint::open(&task.out)?, step, notices })
    }
}

/// The model as a file, which the starter model is not.
fn file_of(model: &ModelSource, folder: &tempfile::TempDir) -> Result<PathBuf, BoxError> {
    match model {
        ModelSource::File(path) => Ok(path.clone()),
        ModelSource::Starter => {
            let path = folder.path().join("starter.safetensors");
            save_atomically(&path, |writer| std::io::Write::write_all(writer, STARTER))?;
            Ok(path)
        }
    }
}
