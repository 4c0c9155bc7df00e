//! Photos through a network, as many at once as the memory allows while a watch looks at it.

use rayon::ThreadPool;

use crate::format::counted;
use crate::images::Input;
use crate::jobs::admission::MemoryChoice;
use crate::memory::guard::Act;
use crate::predict::Classifier;
use crate::train::{GuardRecord, Pace as _, Watch};
use crate::worker::BoxError;

/// Batches whose photos are decoded while one is computed.
const BATCHES_AHEAD: usize = 1;

/// Over a job that takes batches of this size through a network.
pub fn watch(batch_size: usize, choice: MemoryChoice, classifier: &Classifier) -> Watch {
    Watch::new(batch_size, 1, BATCHES_AHEAD, classifier.device()).without_pause().over(Some(choice.allowance()))
}

/// A row of logits per photo. What fails on the device is tried again with fewer photos at once.
pub fn logits(
    watch: &mut Watch,
    compute: &ThreadPool,
    classifier: &Classifier,
    inputs: &[&Input],
) -> Result<Vec<Vec<f32>>, BoxError> {
    let mut rows = Vec::with_capacity(inputs.len());
    while rows.len() < inputs.len() {
        let next = &inputs[rows.len()..(rows.len() + watch.at_once()).min(inputs.len())];
        match compute.install(|| classifier.logits(next)) {
            Ok(more) => {
                rows.extend(more);
                watch.computed(next.len())?;
            }
            Err(error) if error.is_of_device() && watch.failed() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(rows)
}

/// What was done about the memory since the last call, and why.
pub fn notices(watch: &mut Watch) -> Vec<String> {
    watch.take_done().iter().map(sentence).collect()
}

fn sentence(act: &GuardRecord) -> String {
    let (reason, at_once) = (act.reason(), counted(act.at_once as u64, "photo"));
    match act.act {
        Act::Flush => format!("Caches were emptied, because {reason}"),
        Act::Halve => format!("From now on {at_once} at once, because {reason}"),
        Act::DropAhead | Act::Pause => format!("From now on no photos are decoded ahead, because {reason}"),
    }
}
