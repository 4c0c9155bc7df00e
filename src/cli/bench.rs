//! `galley bench`: a line per configuration and the time of each block, as tables for people or JSON lines.

use std::process::ExitCode;

use super::arguments::BenchArguments;
use super::progress::Bar;
use super::{print, say};
use crate::format::{bytes_or_unknown, error_chain};
use crate::jobs::bench::{self, BenchConfig, BenchNetwork, ChildAnswer, Measurement, Work};
use crate::jobs::{Places, doctor};
use crate::predict::Precision;
use crate::worker::{BoxError, JobContext};

/// Measured unless told otherwise: the network the goals for speed are set with.
const DEFAULT_ARCH: &str = "convnext_tiny";

pub fn run(arguments: BenchArguments) -> ExitCode {
    print(match &arguments.measure_case {
        Some(case) => measure_case(case),
        None => bench_all(arguments),
    })
}

/// The child's side: one measurement, for the program that started it.
fn measure_case(case: &str) -> Result<String, BoxError> {
    let case = serde_json::from_str(case)?;
    let answer: ChildAnswer =
        bench::measure(&case, &Places::default(), &JobContext::detached()).map_err(|error| error_chain(error.as_ref()));
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
    match json {
        true => {
            let lines = measured.iter().map(|one| Ok(serde_json::to_string(one)? + "\n"));
            lines.collect::<Result<String, serde_json::Error>>().map_err(BoxError::from)
        }
        false => Ok(summary(&measured) + "\n" + &blocks(&measured)),
    }
}

fn config(arguments: BenchArguments) -> BenchConfig {
    let arch = || BenchNetwork::Arch(arguments.arch.unwrap_or_else(|| DEFAULT_ARCH.to_owned()));
    BenchConfig {
        network: arguments.model.map_or_else(arch, BenchNetwork::File),
        image: arguments.image,
        batches: arguments.batch,
        precisions: arguments.precision.into_iter().map(Precision::from).collect(),
        work: if arguments.train { Work::Training } else { Work::Inference },
        recompute: arguments.recompute,
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
