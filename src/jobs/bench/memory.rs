//! How well peaks are predicted: which configurations are tried, what is predicted of each, and how far that is off.

use super::{BenchNetwork, Case, Measurement, Work, median};
use crate::device::{Chosen, DeviceChoice};
use crate::jobs::admission::MemoryChoice;
use crate::jobs::train::Forecast;
use crate::memory::{Place, Plan};
use crate::models::{Architecture, InputRanges, Precision};
use crate::train::{Recompute, TrainConfig};
use crate::worker::BoxError;

/// Known networks of every family but those that train through a graph; each with the sides of its images.
const NETWORKS: [(&str, &[usize]); 6] = [
    ("convnext_tiny", &[160, 224]),
    ("mobilenetv3_large_100", &[160, 224]),
    ("efficientnet_b0", &[160, 224]),
    ("resnet50", &[160, 224]),
    ("squeezenet1_0", &[160, 224]),
    // Takes images of one size only.
    ("vit_tiny_patch16_224", &[224]),
];

pub(super) fn cases(threads: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, sides) in NETWORKS {
        for &side in sides {
            let mut add = |work, precision, batch, recompute| {
                cases.push(Case {
                    network: BenchNetwork::Arch(name.to_owned()),
                    image: Some(side),
                    batch,
                    precision,
                    input_ranges: InputRanges::default(),
                    work,
                    recompute,
                    micro_batch: None,
                    threads,
                    device: DeviceChoice::Cpu,
                    seconds: 0.0,
                    memory: MemoryChoice::default(),
                });
            };
            add(Work::Inference, Precision::F32, 1, false);
            add(Work::Inference, Precision::F32, 16, false);
            add(Work::Inference, Precision::Int8, 8, false);
            for recompute in [false, true] {
                add(Work::Training, Precision::F32, 4, recompute);
                add(Work::Training, Precision::F32, 12, recompute);
            }
        }
    }
    cases
}

/// What a case takes: the network, and a batch of made-up images in the form that it is given in.
pub(super) fn plan(case: &Case, architecture: &Architecture, side: usize, chosen: &Chosen) -> Result<Plan, BoxError> {
    let threads = if case.threads > 0 { case.threads } else { rayon::current_num_threads() };
    let place = Place { threads, is_metal: chosen.device.is_metal() };
    match case.work {
        Work::Inference => {
            let network = architecture.outline(&[], None, case.precision, &chosen.device)?;
            let peak = network.inference([case.batch, side, side, 3], false, place)?;
            Ok(Plan { weights: network.bytes(), ..Plan::default() }.with_peak(peak, 0, 0))
        }
        Work::Training => {
            let config = TrainConfig {
                batch_size: case.batch,
                micro_batch: case.micro_batch,
                batches_ahead: 0,
                recompute: if case.recompute { Recompute::All } else { Recompute::None },
                drop_path: 0.0,
                // Each step is read by itself.
                flush_train: 1,
                ..TrainConfig::default()
            };
            Ok(Forecast::new(architecture, 0, side, place)?.plan(&config, 0, u64::MAX).memory)
        }
    }
}

/// How far predictions are off, as parts of what was measured: above it positive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Errors {
    /// The middle of their sizes.
    pub median: f64,
    pub lowest: f64,
    pub highest: f64,
}

impl Errors {
    /// Of the heap's peaks.
    pub fn of_heap(measured: &[Measurement]) -> Option<Self> {
        Self::of(measured.iter().map(|one| (one.memory.plan.bytes(), one.memory.heap_bytes)))
    }

    /// Of the process's peaks, where the system tells them.
    pub fn of_process(measured: &[Measurement]) -> Option<Self> {
        Self::of(measured.iter().filter_map(|one| one.memory.predicted_peak_bytes.zip(one.peak_bytes)))
    }

    /// Of pairs of predicted and measured bytes.
    fn of(pairs: impl Iterator<Item = (u64, u64)>) -> Option<Self> {
        let errors: Vec<f64> =
            pairs.map(|(predicted, measured)| predicted as f64 / measured.max(1) as f64 - 1.0).collect();
        let [lowest, highest] = [f64::min, f64::max].map(|pick| errors.iter().copied().reduce(pick));
        let median = median(errors.iter().map(|error| error.abs()).collect());
        Some(Self { median, lowest: lowest?, highest: highest? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_parts_of_what_was_measured() {
        let errors = Errors::of([(90, 100), (103, 100), (202, 200)].into_iter()).unwrap();
        let rounded = [errors.median, errors.lowest, errors.highest].map(|error| (1000.0 * error).round());
        assert_eq!(rounded, [30.0, -100.0, 30.0]);
        assert_eq!(Errors::of(std::iter::empty()), None);
    }

    #[test]
    fn there_are_enough_cases_and_no_two_alike() {
        let cases = cases(2);
        assert!(cases.len() >= 60);
        assert!(cases.iter().enumerate().all(|(index, case)| !cases[..index].contains(case)));
    }
}
