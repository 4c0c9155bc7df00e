//! `galley bench`: a line per configuration and the time of each block, as tables for people or JSON lines.

use std::process::ExitCode;

use super::arguments::BenchArguments;
use super::places::preferred_places;
use super::progress::Bar;
use super::{print, say};
use crate::format::{bytes_or_unknown, error_chain};
use crate::jobs::bench::{self, BenchConfig, BenchNetwork, ChildAnswer, Errors, Measurement, MemoryCheck, Work};
use crate::jobs::doctor;
use crate::predict::Precision;
use crate::worker::{BoxError, JobContext};

/// Measured unless told otherwise: the network the goals for speed are set with.
const DEFAULT_ARCH: &str = "convnext_tiny";

pub fn run(arguments: BenchArguments) -> ExitCode {
    print(match &arguments.measure_case {
        Some(case) => measure_case(case),
        None if arguments.predictions => bench_memory(&arguments),
        None => bench_all(arguments),
    })
}

/// The child's side: one measurement, for the program that started it.
fn measure_case(case: &str) -> Result<String, BoxError> {
    let case = serde_json::from_str(case)?;
    let answer: ChildAnswer = bench::measure(&case, &preferred_places()?, &JobContext::detached())
        .map_err(|error| error_chain(error.as_ref()));
    Ok(serde_json::to_string(&answer)?)
}

fn bench_all(arguments: BenchArguments) -> Result<String, BoxError> {
    let json = arguments.json;
    let bar = Bar::start("Measuring");
    let measured = bench::bench(&config(arguments), &doctor::default_folder(), &JobContext::detached());
    bar.finish();
    let measured = measured?;
    if let Some(first) = measured.first() {
        first.notices.iter().for_each(|notice| say(&format!("note: {notice}")));
    }
    if json { json_lines(&measured) } else { Ok(summary(&measured) + "\n" + &blocks(&measured)) }
}

fn bench_memory(arguments: &BenchArguments) -> Result<String, BoxError> {
    let bar = Bar::start("Measuring");
    let threads = arguments.threads.unwrap_or(0);
    let measured = bench::memory(threads, &doctor::default_folder(), &JobContext::detached());
    bar.finish();
    let measured = measured?;
    if arguments.json { json_lines(&measured) } else { Ok(predictions(&measured)) }
}

fn json_lines(measured: &[Measurement]) -> Result<String, BoxError> {
    let lines = measured.iter().map(|one| Ok(serde_json::to_string(one)? + "\n"));
    lines.collect::<Result<String, serde_json::Error>>().map_err(BoxError::from)
}

/// Predicted and measured peaks, a line per configuration, and how far they are apart.
fn predictions(measured: &[Measurement]) -> String {
    let mut text = format!(
        "{:<22} {:<24} {:>4} {:>5} {:>10} {:>9} {:>6} {:>10} {:>9} {:>6}\n",
        "network", "work", "px", "batch", "heap pred.", "measured", "", "process", "measured", ""
    );
    let megabytes =
        |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), |bytes| format!("{:.1}", bytes as f64 / 1e6));
    let apart = |predicted: Option<u64>, measured: Option<u64>| {
        let pair = predicted.zip(measured.filter(|bytes| *bytes > 0));
        pair.map_or(String::new(), |(predicted, measured)| {
            format!("{:+.1}%", 100.0 * (predicted as f64 / measured as f64 - 1.0))
        })
    };
    for one in measured {
        let MemoryCheck { plan, heap_bytes, predicted_peak_bytes } = one.memory;
        let work = kind(one);
        let (heap, measured) = (Some(plan.bytes()), Some(heap_bytes));
        text += &format!(
            "{:<22} {work:<24} {:>4} {:>5} {:>10} {:>9} {:>6} {:>10} {:>9} {:>6}\n",
            one.network,
            one.image,
            one.batch,
            megabytes(heap),
            megabytes(measured),
            apart(heap, measured),
            megabytes(predicted_peak_bytes),
            megabytes(one.peak_bytes),
            apart(predicted_peak_bytes, one.peak_bytes),
        );
    }
    let mut kinds: Vec<String> = measured.iter().map(kind).collect();
    kinds.sort();
    kinds.dedup();
    for name in kinds {
        let of_kind: Vec<Measurement> = measured.iter().filter(|one| kind(one) == name).cloned().collect();
        text += &errors(&name, &of_kind);
    }
    text + &errors("all", measured) + "\nMB are 10⁶ bytes"
}

fn kind(one: &Measurement) -> String {
    match one.work {
        Work::Inference => format!("inference {}", one.precision.name()),
        Work::Training if one.recompute => "training, recomputed".to_owned(),
        Work::Training => "training".to_owned(),
    }
}

/// How far predictions of these are off, a line.
fn errors(name: &str, measured: &[Measurement]) -> String {
    let mut text = format!("\n{name:<22} {:>3}", measured.len());
    for (what, errors) in [("heap", Errors::of_heap(measured)), ("process", Errors::of_process(measured))] {
        let Some(Errors { median, lowest, highest }) = errors else { continue };
        let [median, lowest, highest] = [median, lowest, highest].map(|error| 100.0 * error);
        text += &format!("  {what}: median error {median:.1}%, from {lowest:+.1}% to {highest:+.1}%");
    }
    text
}

fn config(arguments: BenchArguments) -> BenchConfig {
    let arch = || BenchNetwork::Arch(arguments.arch.unwrap_or_else(|| DEFAULT_ARCH.to_owned()));
    BenchConfig {
        network: arguments.model.map_or_else(arch, BenchNetwork::File),
        image: arguments.image,
        batches: arguments.batch,
        precisions: arguments.precision.into_iter().map(Precision::from).collect(),
        calibrated: arguments.calibrated,
        work: if arguments.train { Work::Training } else { Work::Inference },
        recompute: arguments.recompute,
        micro_batch: arguments.micro_batch,
        threads: arguments.threads.unwrap_or(0),
        device: arguments.device.choice(),
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        memory: arguments.memory.choice(),
    }
}

/// A line per configuration.
fn summary(measured: &[Measurement]) -> String {
    let Some(first) = measured.first() else { return String::new() };
    let Measurement { title, network, work, image, device, threads, .. } = first;
    let (work, time) = match work {
        Work::Inference => ("", "ms/batch"),
        Work::Training => ("training ", "ms/step "),
    };
    let mut text = format!("{work}{title} ({network}), {image} px, {device}, threads: {threads}\n\n");
    text += &format!("batch  precision  images/s  {time}  GFLOP/s  peak memory\n");
    for one in measured {
        let milliseconds = 1e3 * one.batch as f64 / one.images_per_second;
        text += &format!(
            "{:>5}  {:<9} {:>9.1} {milliseconds:>9.2} {:>8.1}  {:>11}\n",
            one.batch,
            one.precision.name(),
            one.images_per_second,
            one.gflops_per_second,
            bytes_or_unknown(one.peak_bytes),
        );
    }
    text
}

/// Milliseconds and GFLOP/s of each block, a column per configuration.
fn blocks(measured: &[Measurement]) -> String {
    let Some(first) = measured.first().filter(|first| !first.blocks.is_empty()) else { return String::new() };
    let width = first.blocks.iter().map(|block| block.name.len()).max().unwrap_or(0);
    let heads = measured.iter().map(|one| format!("{:>20}", format!("{} × {}", one.batch, one.precision.name())));
    let mut text = format!("{:<width$}{}   ms (GFLOP/s)\n", "block", heads.collect::<String>());
    for (index, block) in first.blocks.iter().enumerate() {
        let columns = measured.iter().filter_map(|one| one.blocks.get(index));
        let columns = columns.map(|block| {
            let cell = format!("{:.2} ({:.0})", block.milliseconds, block.gflops_per_second);
            format!("{cell:>20}")
        });
        text += &format!("{:<width$}{}\n", block.name, columns.collect::<String>());
    }
    text
}
