//! Measures one configuration in this process, the way a classification or a run computes it.

use std::time::{Duration, Instant};

use rayon::ThreadPool;

use super::steps::Steps;
use super::{BenchError, BenchNetwork, BlockTime, Case, Measurement, MemoryCheck, Work, median};
use crate::checkpoint::Checkpoint;
use crate::device::{self, Chosen, DeviceChoice};
use crate::images::transform::Transform;
use crate::jobs::doctor::{self, Prepared};
use crate::jobs::inference::Inference;
use crate::jobs::{Places, train};
use crate::memory::{self, heap};
use crate::models::{self, Architecture, BlockCost, InitialWeights, InputRanges, Network, Trial, Weights};
use crate::ops::work;
use crate::predict::{self, Loading, ModelSource, Precision, Strictness, TransformOverrides};
use crate::worker::{BoxError, JobContext};

/// Classes of a network that is given by name, as in ImageNet.
const CLASSES: usize = 1000;

/// Passes before the clock counts: buffers are taken and pages touched for the first time.
const WARM_UPS: usize = 2;

/// Passes at least, however long they take.
pub const FEWEST_PASSES: usize = 3;

/// Backward descends as deep as the network is long.
pub const STACK_BYTES: usize = 64 << 20;

/// The share of the measuring time that is spent on passes block by block.
const SHARE_FOR_BLOCKS: f64 = 0.3;

/// Fails when the network cannot be had, and when the job is canceled.
pub fn measure(case: &Case, places: &Places, ctx: &JobContext) -> Result<Measurement, BoxError> {
    let Prepared { chosen, notices } = doctor::prepare(case.device, &places.verdicts, ctx)?;
    let before = memory::read_often();
    let admitted = admit(case, &chosen, places)?;
    heap::reset_peak();
    let (network, transform) = network(case, &chosen)?;
    let architecture = network.architecture.clone();
    let usual = transform.output_size().map(|(height, width)| height.max(width));
    let image = case.image.or(usual).unwrap_or(224);
    let plan = super::memory::plan(case, &architecture, image, &chosen)?;
    if case.work == Work::Training {
        train::admit_steps(&architecture, image, case.batch, case.recompute, (before, case.memory), &chosen)?;
    }
    let compute = rayon::ThreadPoolBuilder::new().num_threads(case.threads).stack_size(STACK_BYTES).build()?;
    let measured = match case.work {
        Work::Inference => inference(case, network, image, &chosen, &compute, ctx)?,
        Work::Training => training(case, network, image, &chosen, &compute, ctx)?,
    };
    let Measured { seconds, gflops, peak_bytes, heap_bytes, blocks } = measured;
    let heap_bytes = heap_bytes.saturating_sub(before.heap_live);
    let predicted_peak_bytes = before.peak.map(|peak| peak + plan.process_bytes());
    let notices = notices.into_iter().chain(admitted).collect();
    Ok(Measurement {
        network: architecture.name,
        title: architecture.title,
        batch: case.batch,
        precision: case.precision,
        work: case.work,
        recompute: case.recompute,
        threads: compute.current_num_threads(),
        device: chosen.name.to_owned(),
        image,
        images_per_second: case.batch as f64 / seconds,
        peak_bytes,
        memory: MemoryCheck { plan, heap_bytes, predicted_peak_bytes },
        gflops_per_second: gflops / seconds,
        blocks,
        notices,
    })
}

/// Fails unless passes of inference fit; a sentence when they run anyway.
fn admit(case: &Case, chosen: &Chosen, places: &Places) -> Result<Option<String>, BoxError> {
    if case.work == Work::Training {
        return Ok(None);
    }
    let architecture = match &case.network {
        BenchNetwork::Arch(name) => models::named(name, CLASSES)?,
        BenchNetwork::File(path) => predict::recognise(&Checkpoint::open(path)?)?,
    };
    let usual = architecture.default_transform().output_size().map_or(0, |(height, width)| height.max(width));
    let inference = Inference {
        architecture: &architecture,
        stored: &[],
        precision: case.precision,
        batch_size: case.batch,
        side: case.image.unwrap_or(usual),
        decodes: false,
        is_loaded: false,
        threads: if case.threads > 0 { case.threads } else { rayon::current_num_threads() },
    };
    let settings = serde_json::to_string(case)?;
    Ok(inference.admit("bench", settings, case.memory, chosen, &places.journal)?.1)
}

/// What a pass or step took.
struct Measured {
    seconds: f64,
    gflops: f64,
    peak_bytes: Option<u64>,
    /// With what was there before.
    heap_bytes: u64,
    blocks: Vec<BlockTime>,
}

fn inference(
    case: &Case,
    network: Network,
    image: usize,
    chosen: &Chosen,
    compute: &ThreadPool,
    ctx: &JobContext,
) -> Result<Measured, BoxError> {
    let trial = Trial::new(network, case.batch, image, &chosen.device)?;
    let mut pass = || compute.install(|| trial.pass());
    let gflops = warm_up(&mut pass, ctx)?;
    let seconds = median_seconds(repeat(case.seconds * (1.0 - SHARE_FOR_BLOCKS), ctx, pass)?);
    // Block by block, every image of the batch is held at once, as in no classification.
    let (peak_bytes, heap_bytes) = (memory::read().peak, heap::peak());
    let blocks = blocks(&trial, compute, case.seconds * SHARE_FOR_BLOCKS, ctx)?;
    Ok(Measured { seconds, gflops, peak_bytes, heap_bytes, blocks })
}

fn training(
    case: &Case,
    network: Network,
    image: usize,
    chosen: &Chosen,
    compute: &ThreadPool,
    ctx: &JobContext,
) -> Result<Measured, BoxError> {
    // Backward has two products for each of forward.
    let operations = compute.install(|| models::forward_operations(&network, image, &chosen.device))?;
    let gflops = 3.0 * case.batch as f64 * operations as f64 / 1e9;
    let mut steps = Steps::new(network, case, image, chosen)?;
    let mut step = || compute.install(|| steps.step());
    warm_up(&mut step, ctx)?;
    let seconds = median_seconds(repeat(case.seconds, ctx, step)?);
    let peak_bytes = memory::read().peak;
    Ok(Measured { seconds, gflops, peak_bytes, heap_bytes: heap::peak(), blocks: Vec::new() })
}

/// Billions of operations of one pass or step.
fn warm_up<E: Into<BoxError>>(
    pass: &mut impl FnMut() -> Result<Duration, E>,
    ctx: &JobContext,
) -> Result<f64, BoxError> {
    let before = work::total();
    for _ in 0..WARM_UPS {
        ctx.check()?;
        pass().map_err(Into::into)?;
    }
    Ok((work::total() - before) as f64 / 1e9 / WARM_UPS as f64)
}

fn median_seconds(passes: Vec<Duration>) -> f64 {
    median(passes.iter().map(Duration::as_secs_f64).collect())
}

fn network(case: &Case, chosen: &Chosen) -> Result<(Network, Transform), BoxError> {
    if case.work == Work::Training {
        return trainable(case, chosen);
    }
    let loading = Loading { precision: case.precision, ..Loading::default() };
    match &case.network {
        BenchNetwork::Arch(name) => {
            let architecture = models::named(name, CLASSES)?;
            let weights = InitialWeights::of(&architecture, 0)?.knowing(case.input_ranges.clone());
            let (network, _) = models::build(&weights, &architecture, loading, &chosen.device)?;
            Ok((network, architecture.default_transform()))
        }
        BenchNetwork::File(path) => {
            let source = ModelSource::File(path.clone());
            let overrides = TransformOverrides::default();
            let classifier = predict::load(&source, None, &overrides, loading, &chosen.device)?;
            Ok((classifier.network, classifier.description.transform))
        }
    }
}

/// What the layers of a network are given that has only a name.
pub fn input_ranges(name: &str, image: Option<usize>) -> Result<InputRanges, BoxError> {
    let architecture = models::named(name, CLASSES)?;
    let usual = architecture.default_transform().output_size().map_or(224, |(height, width)| height.max(width));
    let device = device::choose(DeviceChoice::Cpu)?.device;
    let (network, inputs) = models::build_watched(&InitialWeights::of(&architecture, 0)?, &architecture, &device)?;
    Trial::new(network, 1, image.unwrap_or(usual), &device)?.pass()?;
    Ok(InputRanges::watched(&architecture.layers()?, &inputs))
}

/// The same with every parameter a variable.
fn trainable(case: &Case, chosen: &Chosen) -> Result<(Network, Transform), BoxError> {
    if !matches!(case.precision, Precision::F32 | Precision::Stored) {
        return Err(BenchError::TrainsInFloats.into());
    }
    let build = |weights: &dyn Weights, architecture: &Architecture| {
        models::build_trainable(weights, architecture, Strictness::Strict, 0, &chosen.device)
    };
    match &case.network {
        BenchNetwork::Arch(name) => {
            let architecture = models::named(name, CLASSES)?;
            let (network, _) = build(&InitialWeights::of(&architecture, 0)?, &architecture)?;
            Ok((network, architecture.default_transform()))
        }
        BenchNetwork::File(path) => {
            let checkpoint = Checkpoint::open(path)?;
            let architecture = predict::recognise(&checkpoint)?;
            let description = predict::describe(&checkpoint, &architecture, None, &TransformOverrides::default())?;
            Ok((build(&checkpoint, &architecture)?.0, description.transform))
        }
    }
}

/// Calls `pass` for so many seconds, and some times at least.
fn repeat<T, E: Into<BoxError>>(
    seconds: f64,
    ctx: &JobContext,
    mut pass: impl FnMut() -> Result<T, E>,
) -> Result<Vec<T>, BoxError> {
    let (start, limit) = (Instant::now(), Duration::try_from_secs_f64(seconds)?);
    let mut results = Vec::new();
    while results.len() < FEWEST_PASSES || start.elapsed() < limit {
        ctx.check()?;
        results.push(pass().map_err(Into::into)?);
    }
    Ok(results)
}

/// The median time of each block.
fn blocks(trial: &Trial, compute: &ThreadPool, seconds: f64, ctx: &JobContext) -> Result<Vec<BlockTime>, BoxError> {
    let passes = repeat(seconds, ctx, || compute.install(|| trial.blocks()))?;
    let Some(first) = passes.first() else { return Ok(Vec::new()) };
    let time = |(index, cost): (usize, &BlockCost)| {
        let times = passes.iter().map(|pass| pass[index].elapsed.as_secs_f64() * 1e3).collect();
        BlockTime::new(cost.name.clone(), median(times), cost.operations as f64 / 1e9)
    };
    Ok(first.iter().enumerate().map(time).collect())
}
