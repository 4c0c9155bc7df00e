//! `galley evaluate`: how good a model is on labelled photos, as tables or one JSON object.

use std::process::ExitCode;

use super::arguments::EvaluateArguments;
use super::places::{Preferred, places_and_model};
use super::progress::Bar;
use super::{DONE_WITH_SKIPS, INTERRUPTED, failed, print, say, stop_on_interrupt, usage};
use crate::format::{counted, percent};
use crate::jobs::evaluate::{EvaluateConfig, EvaluateSummary, EvaluateTask, evaluate, save_report};
use crate::predict::{ClassScore, Evaluation};
use crate::worker::{self, BoxError, JobContext, Outcome};

/// Rows of the lists of mistakes.
const SHOWN: usize = 10;

/// Accuracies that a person may want to have.
const WANTED: [f64; 3] = [0.9, 0.95, 0.99];

pub fn run(arguments: EvaluateArguments) -> ExitCode {
    for path in [Some(&arguments.data), arguments.model.as_ref(), arguments.labels.as_ref()].into_iter().flatten() {
        if !path.exists() {
            usage(&format!("there is no file or folder of this name: {}", path.display()));
        }
    }
    let ctx = JobContext::detached();
    if let Err(error) = stop_on_interrupt(&ctx) {
        return failed(&error.into());
    }
    let (places, model) = match places_and_model(&Preferred::default(), arguments.model.as_deref(), &ctx) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let json = arguments.json;
    let config = EvaluateConfig {
        transform: arguments.transform.overrides(),
        model,
        labels: arguments.labels,
        data: arguments.data,
        batch_size: arguments.batch_size,
        device: arguments.device.choice(),
        precision: arguments.precision.into(),
        memory: arguments.memory.choice(),
    };
    let bar = Bar::start("Evaluating");
    let outcome = worker::run(|| {
        let summary = evaluate(&config, &places, &ctx)?;
        if let Some(path) = &arguments.report {
            save_report(&EvaluateTask::Photos(Box::new(config)), &summary, path, &ctx)?;
        }
        Ok(summary)
    });
    bar.finish();
    let summary = match outcome {
        Outcome::Finished(summary) => summary,
        Outcome::Canceled => return ExitCode::from(INTERRUPTED),
        Outcome::Failed(error) => return failed(&error),
    };
    tell(&summary);
    let printed = print(match json {
        true => serde_json::to_string(&summary).map(|text| text + "\n").map_err(BoxError::from),
        false => Ok(tables(&summary.evaluation)),
    });
    if summary.skipped.is_empty() { printed } else { ExitCode::from(DONE_WITH_SKIPS) }
}

/// What a person should know besides the result.
fn tell(summary: &EvaluateSummary) {
    summary.notices.iter().for_each(|notice| say(&format!("note: {notice}")));
    for (class, photos) in &summary.unknown {
        say(&format!("note: the model does not know {class}: {} left out", counted(*photos as u64, "photo")));
    }
    for (path, reason) in &summary.skipped {
        say(&format!("skipped: {}: {reason}", path.display()));
    }
}

fn tables(evaluation: &Evaluation) -> String {
    let Evaluation { photos, top1, top5, loss, calibration_error, .. } = evaluation;
    let mut text = format!(
        "{}: top-1 {}, top-5 {}, loss {loss:.4}, calibration error {}\n\n",
        counted(*photos as u64, "photo"),
        percent(*top1),
        percent(*top5),
        percent(*calibration_error),
    );
    let share = |share: Option<f64>| share.map_or("–".to_owned(), percent);
    let seen: Vec<&ClassScore> = evaluation.classes.iter().filter(|class| class.photos > 0).collect();
    let width = seen.iter().map(|class| class.name.chars().count()).max().unwrap_or(0).max("class".len());
    text += &format!("{:<width$}{:>8}{:>11}{:>9}{:>9}\n", "class", "photos", "precision", "recall", "F1");
    for ClassScore { name, photos, precision, recall, f1 } in seen {
        let shares = format!("{:>11}{:>9}{:>9}", share(*precision), share(*recall), share(*f1));
        text += &format!("{name:<width$}{photos:>8}{shares}\n");
    }
    text + &mistakes(evaluation) + &thresholds(evaluation)
}

/// From which confidence on answers are right as often as one may want.
fn thresholds(evaluation: &Evaluation) -> String {
    let line = |wanted: &f64| {
        let point = evaluation.threshold_for(*wanted)?;
        let answered = percent(point.answered);
        Some(format!("{:>5}  with --threshold {:.2}, which answers {answered}\n", percent(*wanted), point.threshold))
    };
    let lines: String = WANTED.iter().filter(|wanted| **wanted > evaluation.top1).filter_map(line).collect();
    if lines.is_empty() { lines } else { format!("\nto be right in\n{lines}") }
}

/// The classes most often taken for another, and the photos whose label is the least likely.
fn mistakes(evaluation: &Evaluation) -> String {
    let name = |class: usize| evaluation.classes[class].name.as_str();
    let pairs = evaluation.mistakes();
    let mut text = String::new();
    if !pairs.is_empty() {
        text += "\nmost often mistaken\n";
        for (class, other, photos) in pairs.iter().take(SHOWN) {
            text += &format!("{photos:>6}  {} called {}\n", name(*class), name(*other));
        }
        text += "\nleast likely to be what they are labelled\n";
        for one in evaluation.judged.iter().filter(|one| one.rank > 0).take(SHOWN) {
            let (confidence, path) = (percent(one.confidence), one.path.display());
            text += &format!(
                "{:>6.2}  {path}: {} called {} ({confidence})\n",
                one.loss,
                name(one.class),
                name(one.predicted)
            );
        }
    }
    text
}
