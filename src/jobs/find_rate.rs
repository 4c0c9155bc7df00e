//! Finds a learning rate: mini-batches with growing rates on a copy of the network, which leaves nothing behind.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::jobs::Places;
use crate::jobs::train::open_for_trial;
use crate::memory::heap;
use crate::report::{Axis, Mark, Page, Plot, Series, Shape, Unit, table};
use crate::train::{RatePoint, RateSearch, RatesTried, TrainConfig};
use crate::worker::{BoxError, Events, Job, JobContext, Progress};

#[derive(Debug, Clone, PartialEq)]
pub struct FindRateConfig {
    /// What a run would have; its learning rate and its schedule are not looked at.
    pub config: TrainConfig,
    /// Mini-batches; none is 100, or those of four epochs if they are fewer, but at least 40.
    pub steps: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FindRateSummary {
    pub model: String,
    #[serde(flatten)]
    pub tried: RatesTried,
    pub seconds: f64,
}

pub type FindRateJob = Job<FindRateSummary, RatePoint>;

/// Runs on the calling thread. Each mini-batch goes to `on_point` as it is done.
pub fn find_rate(
    config: &FindRateConfig,
    places: &Places,
    ctx: &JobContext,
    on_point: &mut dyn FnMut(RatePoint) -> Result<(), BoxError>,
) -> Result<FindRateSummary, BoxError> {
    let started = Instant::now();
    ctx.report(Progress { phase: "Reading model and photos".to_owned(), ..Progress::default() });
    config.config.check()?;
    let folder = tempfile::tempdir()?;
    let (mut session, start) = open_for_trial(&config.config, folder.path(), places, ctx)?;
    let steps = config.steps.unwrap_or(RateSearch::of(start.steps_per_epoch).steps);
    let search = RateSearch { steps, ..RateSearch::of(start.steps_per_epoch) };
    let mut failure = None;
    let tried = session.try_rates(search, ctx, &mut |point| {
        if failure.is_none()
            && let Err(error) = on_point(point)
        {
            failure = Some(error);
            ctx.cancel();
        }
    });
    drop(session);
    heap::release();
    match failure {
        Some(failure) => Err(failure),
        None => Ok(FindRateSummary { model: start.model, tried: tried?, seconds: started.elapsed().as_secs_f64() }),
    }
}

/// The same as a job on its own thread.
pub fn start(
    config: FindRateConfig,
    places: Places,
    wake: impl Fn() + Send + Sync + 'static,
) -> std::io::Result<FindRateJob> {
    Job::start("find rate", wake, move |ctx, events: &Events<RatePoint>| {
        find_rate(&config, &places, ctx, &mut |point| Ok(events.send(point)?))
    })
}

/// Writes what was found as a page of HTML.
pub fn save_report(config: &FindRateConfig, summary: &FindRateSummary, path: &Path) -> std::io::Result<()> {
    let FindRateSummary { model, tried: RatesTried { points, smoothed, suggested, blew_up }, .. } = summary;
    let lead = format!("{model} on the photos of {}", config.config.data.display());
    let mut page = Page::new("A search for the learning rate", &lead);
    let end = if *blew_up { "until it was out of hand" } else { "and was never out of hand" };
    let found = match suggested {
        Some(rate) => {
            format!("Suggested is <strong>{rate:.1e}</strong>, the rate at which the smoothed loss falls fastest.")
        }
        None => "No rate lowered the loss, so there is no suggestion.".to_owned(),
    };
    let note = format!("<p>The rate grew from mini-batch to mini-batch; the loss followed it {end}. {found}</p>\n");
    let (low, high) =
        smoothed.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), loss| (low.min(*loss), high.max(*loss)));
    let first = smoothed.first().copied().unwrap_or(1.0);
    let loss = Axis::new("loss", Unit::Number);
    let series = |name, color, shape, values: Vec<f64>| {
        let points = points.iter().zip(values).map(|(point, value)| (point.lr, value)).collect();
        Series { name, color, shape, points }
    };
    let losses = points.iter().map(|point| point.loss).collect();
    let plot = Plot {
        title: "Loss by learning rate",
        x: Axis::new("learning rate", Unit::Number).logarithmic(),
        // What is out of hand would flatten all else.
        y: if low < high { loss.with_range(0.9 * low, (1.1 * high).min(1.6 * first)) } else { loss },
        series: vec![
            series("each mini-batch", 4, Shape::Faint, losses),
            series("smoothed", 0, Shape::Line, smoothed.clone()),
        ],
        marks: suggested.iter().map(|rate| Mark { x: *rate, label: format!("suggested: {rate:.1e}") }).collect(),
    };
    let row = |(point, smoothed): (&RatePoint, &f64)| {
        vec![format!("{:.2e}", point.lr), format!("{:.4}", point.loss), format!("{smoothed:.4}")]
    };
    let rows = table(&["rate", "loss", "smoothed"], points.iter().zip(smoothed).map(row));
    let details = format!("<details><summary>Every mini-batch</summary>\n{rows}</details>\n");
    page.section("plot", "Plot", &(note + &plot.figure() + &details));
    page.save(path)
}
