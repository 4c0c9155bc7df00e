//! Measures inference or training: images per second, time per block and peak memory, at given batch sizes and precisions,
//! and how well the peaks are predicted.
//!
//! Each measurement is a child process of this program, so that its peak memory is its own and nothing is left over
//! from the one before. Rounds alternate between the configurations, because machines change speed over minutes.

mod flushing;
mod measure;
mod memory;
mod steps;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::device::DeviceChoice;
use crate::jobs::admission::MemoryChoice;
use crate::jobs::doctor;
use crate::memory::Plan;
use crate::models::{InputRanges, Precision};
use crate::worker::{BoxError, JobContext, Progress};

pub use flushing::flush_cost;
pub use measure::measure;
pub use memory::Errors;

/// The option of `galley bench` by which a child is told its [`Case`], as JSON.
pub const CHILD_OPTION: &str = "measure-case";

/// What to measure: every batch size at every precision.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchConfig {
    pub network: BenchNetwork,
    /// Side of the square input in pixels; none: what the network is used with.
    pub image: Option<usize>,
    pub batches: Vec<usize>,
    pub precisions: Vec<Precision>,
    /// Whether the ranges of what layers are given are known, as in files that were compressed with photos. A file says that
    /// itself.
    pub calibrated: bool,
    pub work: Work,
    /// While training, every block is computed twice: less memory, more time.
    pub recompute: bool,
    /// While training: images that are computed at once; none: the whole batch.
    pub micro_batch: Option<usize>,
    /// 0: one per core.
    pub threads: usize,
    pub device: DeviceChoice,
    pub rounds: usize,
    /// Measuring time of one configuration in one round.
    pub seconds: f64,
    pub memory: MemoryChoice,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BenchNetwork {
    /// A known network with random weights and 1,000 classes.
    Arch(String),
    File(PathBuf),
}

/// What is repeated while the clock runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// Passes forward.
    Inference,
    /// Steps: forward, loss, backward, and an update of every parameter.
    Training,
}

/// One configuration, measured once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    pub network: BenchNetwork,
    pub image: Option<usize>,
    pub batch: usize,
    pub precision: Precision,
    #[serde(default)]
    pub input_ranges: InputRanges,
    pub work: Work,
    /// While training, every block is computed twice: less memory, more time.
    pub recompute: bool,
    /// While training: images that are computed at once; none: the whole batch.
    pub micro_batch: Option<usize>,
    pub threads: usize,
    pub device: DeviceChoice,
    pub seconds: f64,
    #[serde(default)]
    pub memory: MemoryChoice,
}

/// What was measured of one configuration: medians of times, the highest peak.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    pub network: String,
    pub title: String,
    pub batch: usize,
    pub precision: Precision,
    pub work: Work,
    pub recompute: bool,
    pub threads: usize,
    pub device: String,
    pub image: usize,
    pub images_per_second: f64,
    /// Highest memory use of a process that does nothing else, from its start; none where the system does not tell.
    pub peak_bytes: Option<u64>,
    pub memory: MemoryCheck,
    /// Counts the arithmetic of convolutions, matrix products and attention; a step of training, as is usual, three
    /// times that of its forward pass.
    pub gflops_per_second: f64,
    /// None of training.
    pub blocks: Vec<BlockTime>,
    /// What a person should know about the device: operations it computed in a slower way.
    pub notices: Vec<String>,
}

/// A job's peaks as they were predicted before it began, and as they were.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MemoryCheck {
    pub plan: Plan,
    /// Of the heap, without what was there before.
    pub heap_bytes: u64,
    /// Of the process: what it held before, and the plan.
    pub predicted_peak_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockTime {
    pub name: String,
    /// Of one pass with the whole batch.
    pub milliseconds: f64,
    /// 10⁹ floating point operations of one pass.
    pub gflops: f64,
    pub gflops_per_second: f64,
}

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("training computes in f32 only; leave --precision out or leave --train out")]
    TrainsInFloats,
    #[error("the process that measures batch {batch} in {precision} ended early ({status})")]
    Ended { batch: usize, precision: &'static str, status: std::process::ExitStatus },
    #[error("{0}")]
    Child(String),
}

/// Measures every configuration in child processes; results come in the order of batch sizes, precisions within.
pub fn bench(config: &BenchConfig, verdicts: &Path, ctx: &JobContext) -> Result<Vec<Measurement>, BoxError> {
    // Here, so that no child has the memory of a comparison in its peak.
    doctor::prepare(config.device, verdicts, ctx)?;
    let input_ranges = match &config.network {
        BenchNetwork::Arch(name) if config.calibrated => measure::input_ranges(name, config.image)?,
        _ => InputRanges::default(),
    };
    let cases = cases(config, &input_ranges);
    let mut rounds: Vec<Vec<Measurement>> = vec![Vec::new(); cases.len()];
    let total = (cases.len() * config.rounds) as u64;
    for done in 0..config.rounds * cases.len() {
        ctx.check()?;
        let case = &cases[done % cases.len()];
        let phase = format!("Measuring batch {} in {}", case.batch, case.precision.name());
        ctx.report(Progress { phase, done: done as u64, total: Some(total), per_second: None });
        rounds[done % cases.len()].push(in_child(case)?);
    }
    Ok(rounds.into_iter().filter_map(merged).collect())
}

/// How well peaks are predicted: networks, inference and training, batch and image sizes, each in a process of its own.
pub fn memory(threads: usize, verdicts: &Path, ctx: &JobContext) -> Result<Vec<Measurement>, BoxError> {
    doctor::prepare(DeviceChoice::Cpu, verdicts, ctx)?;
    let cases = memory::cases(threads);
    let total = Some(cases.len() as u64);
    let measure = |(done, case): (usize, &Case)| {
        ctx.check()?;
        ctx.report(Progress { phase: "Measuring".to_owned(), done: done as u64, total, per_second: None });
        in_child(case)
    };
    cases.iter().enumerate().map(measure).collect()
}

fn cases(config: &BenchConfig, input_ranges: &InputRanges) -> Vec<Case> {
    let pairs =
        config.batches.iter().flat_map(|batch| config.precisions.iter().map(move |precision| (batch, precision)));
    pairs
        .map(|(&batch, &precision)| Case {
            network: config.network.clone(),
            image: config.image,
            batch,
            precision,
            input_ranges: input_ranges.clone(),
            work: config.work,
            recompute: config.recompute,
            micro_batch: config.micro_batch,
            threads: config.threads,
            device: config.device,
            seconds: config.seconds,
            memory: config.memory,
        })
        .collect()
}

/// What a child prints: its measurement, or why there is none.
pub type ChildAnswer = Result<Measurement, String>;

fn in_child(case: &Case) -> Result<Measurement, BoxError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("bench").arg(format!("--{CHILD_OPTION}")).arg(serde_json::to_string(case)?);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    match serde_json::from_slice::<ChildAnswer>(&output.stdout) {
        Ok(answer) => Ok(answer.map_err(BenchError::Child)?),
        Err(_) => {
            let Case { batch, precision, .. } = *case;
            Err(BenchError::Ended { batch, precision: precision.name(), status: output.status }.into())
        }
    }
}

/// One measurement of several rounds.
fn merged(rounds: Vec<Measurement>) -> Option<Measurement> {
    let middle = |value: &dyn Fn(&Measurement) -> f64| median(rounds.iter().map(value).collect());
    let mut merged = rounds.first()?.clone();
    merged.images_per_second = middle(&|round| round.images_per_second);
    merged.gflops_per_second = middle(&|round| round.gflops_per_second);
    merged.peak_bytes = rounds.iter().map(|round| round.peak_bytes).max().flatten();
    merged.memory.heap_bytes = rounds.iter().map(|round| round.memory.heap_bytes).max().unwrap_or(0);
    for (index, block) in merged.blocks.iter_mut().enumerate() {
        let milliseconds = |round: &Measurement| round.blocks.get(index).map_or(f64::NAN, |block| block.milliseconds);
        *block = BlockTime::new(std::mem::take(&mut block.name), middle(&milliseconds), block.gflops);
    }
    Some(merged)
}

impl BlockTime {
    fn new(name: String, milliseconds: f64, gflops: f64) -> Self {
        Self { name, milliseconds, gflops, gflops_per_second: 1e3 * gflops / milliseconds }
    }
}

/// The middle value; of an even number the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        _ if values.is_empty() => f64::NAN,
        0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_give_the_median_time_and_the_highest_peak() {
        let round = |images_per_second, peak, milliseconds| Measurement {
            network: "n".to_owned(),
            title: "N".to_owned(),
            batch: 2,
            precision: Precision::F32,
            work: Work::Inference,
            recompute: false,
            threads: 1,
            device: "CPU".to_owned(),
            image: 32,
            images_per_second,
            peak_bytes: Some(peak),
            memory: MemoryCheck { plan: Plan::default(), heap_bytes: peak / 2, predicted_peak_bytes: Some(peak) },
            gflops_per_second: images_per_second,
            blocks: vec![BlockTime::new("stem".to_owned(), milliseconds, 4.0)],
            notices: Vec::new(),
        };
        let merged = merged(vec![round(5.0, 10, 9.0), round(1.0, 30, 2.0), round(4.0, 20, 1.0)]).unwrap();
        assert_eq!((merged.images_per_second, merged.gflops_per_second, merged.peak_bytes), (4.0, 4.0, Some(30)));
        assert_eq!(merged.memory.heap_bytes, 15);
        assert_eq!(merged.blocks, [BlockTime::new("stem".to_owned(), 2.0, 4.0)]);
        assert_eq!(merged.blocks[0].gflops_per_second, 2000.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
    }
}
