//! What it costs training to give back every few steps what the device keeps for reuse.

use std::time::{Duration, Instant};

use super::measure::{FEWEST_PASSES, STACK_BYTES};
use super::steps::Steps;
use super::{BenchNetwork, Case, Work, median};
use crate::device::Chosen;
use crate::models::{self, InputRanges, Precision, RandomWeights};
use crate::ops;
use crate::predict::Strictness;
use crate::train::TrainConfig;
use crate::worker::{BoxError, JobContext};

/// Small enough for seconds, and in the form of most networks: wide and narrow layers, windows, batch norms.
const NETWORK: &str = "mobilenetv3_small_100";
const BATCH: usize = 16;
const SIDE: usize = 96;

/// How often it is given back while the clock runs.
const FLUSHES: usize = 8;

/// The share of training's time that a flush takes every so many batches as is usual: its own time, and how much longer the
/// step after it takes than others. Medians of steps; below a hundredth the noise of most machines is as large.
pub fn flush_cost(chosen: &Chosen, ctx: &JobContext) -> Result<f64, BoxError> {
    let every = TrainConfig::default().flush_train;
    let compute = rayon::ThreadPoolBuilder::new().stack_size(STACK_BYTES).build()?;
    let mut steps = steps(chosen)?;
    let mut step = || {
        ctx.check()?;
        compute.install(|| steps.step()).map_err(BoxError::from)
    };
    for _ in 0..FEWEST_PASSES {
        step()?;
    }
    let (mut flushes, mut first, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..FLUSHES {
        let started = Instant::now();
        ops::release(&chosen.device)?;
        flushes.push(started.elapsed());
        first.push(step()?);
        for _ in 1..every {
            others.push(step()?);
        }
    }
    let [flush, first, other] = [flushes, first, others].map(seconds);
    Ok((flush + first - other) / (every as f64 * other))
}

fn seconds(times: Vec<Duration>) -> f64 {
    median(times.iter().map(Duration::as_secs_f64).collect())
}

fn steps(chosen: &Chosen) -> Result<Steps, BoxError> {
    let case = Case {
        network: BenchNetwork::Arch(NETWORK.to_owned()),
        image: Some(SIDE),
        batch: BATCH,
        precision: Precision::F32,
        input_ranges: InputRanges::default(),
        work: Work::Training,
        recompute: false,
        micro_batch: None,
        threads: 0,
        device: Default::default(),
        seconds: 0.0,
        memory: Default::default(),
    };
    let architecture = models::named(NETWORK, 10)?;
    let weights = RandomWeights::of(&architecture)?;
    let (network, _) = models::build_trainable(&weights, &architecture, Strictness::Strict, 0, &chosen.device)?;
    Ok(Steps::new(network, &case, SIDE, chosen)?)
}
