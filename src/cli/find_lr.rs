//! `galley find-lr`: which learning rate to train with, as a plot in the terminal, a number, or JSON lines.

use std::process::ExitCode;

use serde_json::json;

use super::places::preferred_places;
use super::plot::plot;
use super::progress::Bar;
use super::train_arguments::FindRateArguments;
use super::{CannotWrite, INTERRUPTED, failed, print, stop_on_interrupt, train};
use crate::format::{count, duration};
use crate::jobs::find_rate::{FindRateConfig, FindRateSummary, find_rate, save_report};
use crate::train::RatePoint;
use crate::worker::{self, JobContext, Outcome};

pub fn run(arguments: FindRateArguments) -> ExitCode {
    let FindRateArguments { steps, settings, report, json } = arguments;
    let config = FindRateConfig { config: train::checked(settings), steps };
    let ctx = JobContext::detached();
    if let Err(error) = stop_on_interrupt(&ctx) {
        return failed(&error.into());
    }
    let bar = Bar::start("Reading model and photos");
    let outcome = worker::run(|| {
        let summary = find_rate(&config, &preferred_places()?, &ctx, &mut |_| {
            bar.show_steps(&ctx.progress());
            Ok(())
        })?;
        if let Some(path) = &report {
            save_report(&config, &summary, path).map_err(|source| CannotWrite { path: path.clone(), source })?;
        }
        Ok(summary)
    });
    bar.finish();
    match outcome {
        Outcome::Finished(summary) => print(Ok(if json { lines(&summary) } else { text(&summary) })),
        Outcome::Canceled => ExitCode::from(INTERRUPTED),
        Outcome::Failed(error) => failed(&error),
    }
}

/// A line for each mini-batch, and one at the end.
fn lines(summary: &FindRateSummary) -> String {
    let FindRateSummary { model, tried, seconds } = summary;
    let (suggested, blew_up) = (tried.suggested, tried.blew_up);
    let step = |(point, smoothed): (&RatePoint, &f64)| {
        let line = json!({"kind": "step", "lr": point.lr, "loss": point.loss, "smoothed": smoothed});
        format!("{line}\n")
    };
    let mut lines: String = tried.points.iter().zip(&tried.smoothed).map(step).collect();
    let end = json!({
        "kind": "end",
        "model": model,
        "steps": tried.points.len(),
        "suggested": suggested,
        "blew_up": blew_up,
        "seconds": seconds,
    });
    lines += &format!("{end}\n");
    lines
}

fn text(summary: &FindRateSummary) -> String {
    let FindRateSummary { model, tried, seconds } = summary;
    // What is out of hand would flatten all else.
    let most = 2.0 * tried.smoothed.first().copied().unwrap_or_default();
    let points: Vec<(f64, f64)> = tried
        .points
        .iter()
        .zip(&tried.smoothed)
        .map(|(point, smoothed)| (point.lr.log10(), smoothed.min(most)))
        .collect();
    let mut text = format!("{model}: smoothed loss by learning rate\n\n");
    text += &plot(&points, tried.suggested.map(f64::log10), |power| format!("1e{power}"));
    let steps = count(tried.points.len() as u64);
    let time = duration(std::time::Duration::from_secs_f64(*seconds));
    let end = if tried.blew_up { "then the loss blew up" } else { "the loss never blew up" };
    text += &format!("\n{steps} mini-batches in {time}; {end}\n");
    text + &match tried.suggested {
        Some(rate) => format!("suggested: --lr {rate:.1e}\n"),
        None => "no rate lowered the loss, so there is no suggestion\n".to_owned(),
    }
}
