//! A run of training as a page: its curves, its settings, and how good its best weights are.

use serde_json::Value;

use super::evaluation::{self, Judgement};
use super::page::{Page, escape, table};
use super::plot::{Axis, Plot, Series, Shape, Unit};
use super::thumbnails::Thumbnails;
use crate::format::{bytes_or_unknown, count, counted, duration};
use crate::train::{EpochRecord, Record, RunRecord, StepRecord};

/// `judgement` is of the run's best weights and its validation photos, where there are any.
pub fn run_page(
    record: &RunRecord,
    metrics: &[Record],
    model: &str,
    judgement: Option<&Judgement>,
    thumbnails: &Thumbnails,
) -> Page {
    let classes = record.classes.len() as u64;
    let epochs = epochs(metrics).count() as u64;
    let lead = format!(
        "{model}, trained for {} on photos of {} classes in {}",
        counted(epochs, "epoch"),
        count(classes),
        record.config.data.display()
    );
    let mut page = Page::new("A run of training", &lead);
    if let Some(judgement) = judgement {
        page.add(&evaluation::figures(judgement.evaluation));
        let note =
            "Of the best weights (<code>best.safetensors</code>) and the validation photos, as all below the curves.";
        page.add(&format!("<p class=\"note\">{note}</p>\n"));
    }
    page.section("curves", "Curves", &curves(metrics));
    if let Some(judgement) = judgement {
        evaluation::add(&mut page, judgement, thumbnails);
    }
    page.section("settings", "Settings", &settings(record));
    page
}

fn epochs(metrics: &[Record]) -> impl Iterator<Item = &EpochRecord> {
    metrics.iter().filter_map(|record| match record {
        Record::Epoch(epoch) => Some(epoch),
        Record::Step(_) | Record::Guard(_) => None,
    })
}

fn curves(metrics: &[Record]) -> String {
    let of_steps = |value: fn(&StepRecord) -> f64| -> Vec<(f64, f64)> {
        let point = |record: &Record| match record {
            Record::Step(step) => Some((step.step as f64 + 1.0, value(step))),
            Record::Epoch(_) | Record::Guard(_) => None,
        };
        metrics.iter().filter_map(point).collect()
    };
    let of_epochs = |value: fn(&EpochRecord) -> Option<f64>| -> Vec<(f64, f64)> {
        epochs(metrics).filter_map(|epoch| Some((epoch.step as f64, value(epoch)?))).collect()
    };
    let curve = |name, color, shape, points| Series { name, color, shape, points };
    let last = of_steps(|step| step.loss).last().map_or(1.0, |point| point.0);
    let plot = |title, unit, series| Plot {
        title,
        x: Axis::new("step", Unit::Number).with_range(0.0, 1.02 * last),
        y: Axis::new(title, unit),
        series,
        marks: Vec::new(),
    };
    let plots = [
        plot(
            "Loss",
            Unit::Number,
            vec![
                curve("each step", 4, Shape::Faint, of_steps(|step| step.loss)),
                curve("training", 0, Shape::Dots, of_epochs(|epoch| Some(epoch.train_loss))),
                curve("validation", 1, Shape::Dots, of_epochs(|epoch| epoch.loss)),
            ],
        ),
        plot(
            "Accuracy",
            Unit::Share,
            vec![
                curve("training", 0, Shape::Dots, of_epochs(|epoch| Some(epoch.train_accuracy))),
                curve("validation, top-1", 1, Shape::Dots, of_epochs(|epoch| epoch.top1)),
                curve("validation, top-5", 2, Shape::Dashed, of_epochs(|epoch| epoch.top5)),
            ],
        ),
        plot("Learning rate", Unit::Number, vec![curve("rate", 3, Shape::Line, of_steps(|step| step.lr))]),
    ];
    let drawn: String =
        plots.iter().filter(|plot| plot.series.iter().any(|one| !one.points.is_empty())).map(Plot::figure).collect();
    format!(
        "<div class=\"plots\">{drawn}</div>\n<details><summary>Every epoch</summary>\n{}</details>\n",
        rows(metrics)
    )
}

fn rows(metrics: &[Record]) -> String {
    let percent = super::page::percent_or_dash;
    let row = |epoch: &EpochRecord| {
        let mark = if epoch.best { " (best)" } else { "" };
        vec![
            format!("{}{mark}", epoch.epoch + 1),
            format!("{:.4}", epoch.train_loss),
            percent(Some(epoch.train_accuracy)),
            epoch.loss.map_or("–".to_owned(), |loss| format!("{loss:.4}")),
            percent(epoch.top1),
            percent(epoch.top5),
            format!("{:.1e}", epoch.lr),
            format!("{:.1}", epoch.photos_per_second),
            duration(std::time::Duration::try_from_secs_f64(epoch.seconds).unwrap_or_default()),
            bytes_or_unknown(epoch.peak_bytes),
        ]
    };
    let headings =
        ["epoch", "loss", "top-1", "val. loss", "val. top-1", "val. top-5", "rate", "photos/s", "time", "peak"];
    table(&headings, epochs(metrics).map(row))
}

/// Every setting by its flag's name.
fn settings(record: &RunRecord) -> String {
    let mut rows = Vec::new();
    if let Ok(Value::Object(fields)) = serde_json::to_value(&record.config) {
        flatten(&fields, &mut rows);
    }
    rows.push(vec!["galley".to_owned(), escape(&record.galley)]);
    format!("<details><summary>All of them</summary>\n{}</details>\n", table(&["setting", "value"], rows))
}

fn flatten(fields: &serde_json::Map<String, Value>, rows: &mut Vec<Vec<String>>) {
    for (name, value) in fields {
        match value {
            Value::Null => {}
            Value::Object(inner) if name == "augment" => flatten(inner, rows),
            Value::String(text) => rows.push(vec![escape(name), escape(text)]),
            value => rows.push(vec![escape(&name.replace('_', "-")), escape(&value.to_string())]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::TrainConfig;

    #[test]
    fn a_run_without_validation_shows_its_curves_alone() {
        let config = TrainConfig { data: "/photos/<b>".into(), ..TrainConfig::default() };
        let record = RunRecord {
            config,
            classes: vec!["a".into()],
            photos: 1,
            left_out: Vec::new(),
            teacher: None,
            galley: "0".to_owned(),
        };
        let step = |step| StepRecord { step, epoch: 0, loss: 2.0, accuracy: 0.5, lr: 1e-3, gradient_norm: 1.0 };
        let metrics: Vec<Record> = (0..5).map(|number| Record::Step(step(number))).collect();
        let html = run_page(&record, &metrics, "A network", None, &Thumbnails::default()).html();
        assert!(html.contains("Learning rate") && html.contains("0 epochs") && !html.contains("<b>/"));
        assert!(html.contains("<td>batch-size</td><td>16</td>"));
        assert!(!html.contains("Confusion") && !html.contains("NaN"));
    }
}
