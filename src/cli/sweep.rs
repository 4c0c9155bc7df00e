//! `galley sweep`: which batch sizes fit, and how fast they are, as a table or JSON lines.

use std::process::ExitCode;

use super::places::preferred_places;
use super::progress::Bar;
use super::train_arguments::SweepArguments;
use super::{CannotWrite, INTERRUPTED, failed, print, say, stop_on_interrupt, train};
use crate::format::{bytes_or_unknown, duration};
use crate::jobs::sweep::{ChildAnswer, SweepConfig, SweepRow, save_report, sweep, try_case};
use crate::worker::{self, BoxError, JobContext, Outcome};

pub fn run(arguments: SweepArguments) -> ExitCode {
    if let Some(case) = &arguments.try_case {
        return print(try_one(case));
    }
    let SweepArguments { batch_sizes, steps, settings, report, json, .. } = arguments;
    let config = SweepConfig { config: train::checked(settings), batch_sizes, steps };
    let ctx = JobContext::detached();
    if let Err(error) = stop_on_interrupt(&ctx) {
        return failed(&error.into());
    }
    let bar = Bar::start("Trying batch sizes");
    if !json {
        bar.aside(|| say(HEADING));
    }
    let mut rows = Vec::new();
    let outcome = worker::run(|| {
        sweep(&config, &preferred_places()?, &ctx, &mut |row| {
            let line = if json { serde_json::to_string(&row)? + "\n" } else { line(&row) };
            rows.push(row);
            bar.aside(|| super::write(&line))
        })?;
        if let Some(path) = &report {
            save_report(&config, &rows, path).map_err(|source| CannotWrite { path: path.clone(), source })?;
        }
        Ok(())
    });
    bar.finish();
    match outcome {
        Outcome::Finished(()) => ExitCode::SUCCESS,
        Outcome::Canceled => ExitCode::from(INTERRUPTED),
        Outcome::Failed(error) => failed(&error),
    }
}

/// The child's side, for the program that started it.
fn try_one(case: &str) -> Result<String, BoxError> {
    let case = serde_json::from_str(case)?;
    let answer: ChildAnswer = try_case(&case, &preferred_places()?, &JobContext::detached())
        .map_err(|error| crate::format::error_chain(error.as_ref()));
    Ok(serde_json::to_string(&answer)?)
}

const HEADING: &str = "batch  fits   photos/s  epoch         predicted   peak        computed twice";

fn line(row: &SweepRow) -> String {
    let fits = if row.fits { "yes" } else { "no" };
    let number = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.1}"));
    let epoch =
        row.seconds_per_epoch.map_or("–".to_owned(), |seconds| duration(std::time::Duration::from_secs_f64(seconds)));
    let blocks = row.recomputed_blocks.map_or("–".to_owned(), |blocks| format!("{blocks} blocks"));
    let problem = row.problem.as_ref().map_or(String::new(), |problem| format!("  {problem}"));
    format!(
        "{:>5}  {fits:<5}  {:>8}  {epoch:<12}  {:<10}  {:<10}  {blocks}{problem}\n",
        row.batch_size,
        number(row.photos_per_second),
        bytes_or_unknown(row.predicted_bytes),
        bytes_or_unknown(row.peak_bytes),
    )
}
