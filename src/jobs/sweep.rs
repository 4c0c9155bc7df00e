//! Tries batch sizes: a few steps of training for each, in a process of its own, so that none can hurt this one.

use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::data::{Dataset, Split};
use crate::format;
use crate::jobs::Places;
use crate::jobs::admission::MemoryChoice;
use crate::jobs::doctor;
use crate::jobs::train;
use crate::memory;
use crate::report::{Axis, Page, Plot, Series, Shape, Unit, escape, table};
use crate::train::TrainConfig;
use crate::worker::{BoxError, Events, Job, JobContext, Progress};

/// The option by which a child is told what to try.
pub const CHILD_OPTION: &str = "try-case";

#[derive(Debug, Clone, PartialEq)]
pub struct SweepConfig {
    /// What a run would have; its batch size is not looked at.
    pub config: TrainConfig,
    /// Tried in this order.
    pub batch_sizes: Vec<usize>,
    /// Steps that are measured, after one that is not.
    pub steps: usize,
}

/// What a child tries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    pub config: TrainConfig,
    pub steps: usize,
}

/// What a child found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    pub photos_per_second: f64,
    /// For the process, before the first step.
    pub predicted_bytes: u64,
    pub peak_bytes: Option<u64>,
    pub recomputed_blocks: usize,
}

/// What a child prints.
pub type ChildAnswer = Result<Tried, String>;

/// One batch size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SweepRow {
    pub batch_size: usize,
    /// Whether its steps were taken, within the memory there was.
    pub fits: bool,
    pub seconds_per_epoch: Option<f64>,
    pub photos_per_second: Option<f64>,
    pub predicted_bytes: Option<u64>,
    pub peak_bytes: Option<u64>,
    pub recomputed_blocks: Option<usize>,
    /// Why there are no figures, or that memory was exceeded.
    pub problem: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("there is no photo to train on in {0}")]
pub struct NoPhotos(String);

/// Tries every batch size in turn; each row goes to `on_row` as it is known.
pub fn sweep(
    sweep: &SweepConfig,
    places: &Places,
    ctx: &JobContext,
    on_row: &mut dyn FnMut(SweepRow) -> Result<(), BoxError>,
) -> Result<(), BoxError> {
    let config = &sweep.config;
    config.check()?;
    // Here, so that no child has the memory of a comparison in its peak.
    doctor::prepare(config.device, &places.verdicts, ctx)?;
    let photos = training_photos(config)?;
    for (done, &batch_size) in sweep.batch_sizes.iter().enumerate() {
        ctx.check()?;
        let total = Some(sweep.batch_sizes.len() as u64);
        let phase = format!("Trying batches of {batch_size}");
        ctx.report(Progress { phase, done: done as u64, total, per_second: None });
        let max_photos = photos.min(batch_size * (sweep.steps + 1));
        let config = TrainConfig { batch_size, max_photos: Some(max_photos), ..config.clone() };
        let budget = MemoryChoice::of(&config).allowance().budget(&memory::read(), None).map(|budget| budget.bytes);
        let answer = in_child(&Case { config, steps: sweep.steps }, ctx)?;
        on_row(row(batch_size, answer, budget, photos))?;
    }
    Ok(())
}

pub type SweepJob = Job<(), SweepRow>;

/// The same as a job on its own thread. `wake` is called whenever there is something to see.
pub fn start(config: SweepConfig, places: Places, wake: impl Fn() + Send + Sync + 'static) -> io::Result<SweepJob> {
    Job::start("sweep", wake, move |ctx, events: &Events<SweepRow>| {
        sweep(&config, &places, ctx, &mut |row| Ok(events.send(row)?))
    })
}

/// Writes what was found as a page of HTML.
pub fn save_report(sweep: &SweepConfig, rows: &[SweepRow], path: &Path) -> io::Result<()> {
    let lead = format!("Steps of training on the photos of {}", sweep.config.data.display());
    let mut page = Page::new("Batch sizes", &lead);
    let series = |name, color, shape, value: fn(&SweepRow) -> Option<f64>| {
        let mut points: Vec<(f64, f64)> =
            rows.iter().filter_map(|row| Some((row.batch_size as f64, value(row)?))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series { name, color, shape, points }
    };
    let plot =
        |title, y, series| Plot { title, x: Axis::new("batch size", Unit::Number), y, series, marks: Vec::new() };
    let plots = [
        plot(
            "Speed",
            Axis::new("photos per second", Unit::Number),
            vec![series("photos per second", 2, Shape::Dots, |row| row.photos_per_second)],
        ),
        plot(
            "Memory",
            Axis::new("bytes", Unit::Bytes),
            vec![
                series("measured peak of the process", 0, Shape::Dots, |row| row.peak_bytes.map(|bytes| bytes as f64)),
                series("predicted", 1, Shape::Dashed, |row| row.predicted_bytes.map(|bytes| bytes as f64)),
            ],
        ),
    ];
    let number = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.1}"));
    let row = |row: &SweepRow| {
        let epoch = row.seconds_per_epoch.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
        vec![
            row.batch_size.to_string(),
            if row.fits { "yes".to_owned() } else { "no".to_owned() },
            number(row.photos_per_second),
            epoch.map_or("–".to_owned(), format::duration),
            format::bytes_or_unknown(row.predicted_bytes),
            format::bytes_or_unknown(row.peak_bytes),
            row.recomputed_blocks.map_or("–".to_owned(), |blocks| blocks.to_string()),
            escape(row.problem.as_deref().unwrap_or_default()),
        ]
    };
    let headings =
        ["batch", "fits", "photos/s", "epoch", "predicted", "peak", "blocks computed twice", "what went wrong"];
    let figures: String = plots.iter().map(Plot::figure).collect();
    let rows = table(&headings, rows.iter().map(row));
    page.section("sizes", "Speed and memory", &format!("<div class=\"plots\">{figures}</div>\n{rows}"));
    page.save(path)
}

/// How many photos an epoch has.
fn training_photos(config: &TrainConfig) -> Result<usize, BoxError> {
    let dataset = Dataset::open(&config.data, config.val.as_deref(), &config.data_options())?;
    match dataset.part(Split::Train).count() {
        0 => Err(NoPhotos(config.data.display().to_string()).into()),
        photos => Ok(photos),
    }
}

fn row(batch_size: usize, answer: ChildAnswer, budget: Option<u64>, photos: usize) -> SweepRow {
    let tried = match answer {
        Ok(tried) => tried,
        Err(problem) => {
            return SweepRow {
                batch_size,
                fits: false,
                seconds_per_epoch: None,
                photos_per_second: None,
                predicted_bytes: None,
                peak_bytes: None,
                recomputed_blocks: None,
                problem: Some(problem),
            };
        }
    };
    let exceeded = tried.peak_bytes.zip(budget).is_some_and(|(peak, budget)| peak > budget);
    SweepRow {
        batch_size,
        fits: !exceeded,
        seconds_per_epoch: Some(photos as f64 / tried.photos_per_second),
        photos_per_second: Some(tried.photos_per_second),
        predicted_bytes: Some(tried.predicted_bytes),
        peak_bytes: tried.peak_bytes,
        recomputed_blocks: Some(tried.recomputed_blocks),
        problem: exceeded.then(|| "it took more memory than it may".to_owned()),
    }
}

/// Ends the child when the job is canceled: a large batch may take minutes.
fn in_child(case: &Case, ctx: &JobContext) -> Result<ChildAnswer, BoxError> {
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("sweep").arg(format!("--{CHILD_OPTION}")).arg(serde_json::to_string(case)?);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if let Err(canceled) = ctx.check() {
            child.kill()?;
            child.wait()?;
            return Err(canceled.into());
        }
        std::thread::sleep(LOOK_EVERY);
    };
    // An answer is a line, which a pipe holds until it is read.
    let mut answer = Vec::new();
    child.stdout.take().map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut answer))?;
    let ended = |_| Err(format!("its process ended early ({status}), as when memory runs out"));
    Ok(serde_json::from_slice(&answer).unwrap_or_else(ended))
}

/// The child's side: some steps of a run that leaves nothing behind.
pub fn try_case(case: &Case, places: &Places, ctx: &JobContext) -> Result<Tried, BoxError> {
    let folder = tempfile::tempdir()?;
    let before = memory::read().footprint.unwrap_or(0);
    let (mut session, start) = train::open_for_trial(&case.config, folder.path(), places, ctx)?;
    let mut batches = session.trial_batches()?;
    let first = batches.next().ok_or_else(|| NoPhotos(case.config.data.display().to_string()))?;
    session.trial_step(&first)?;
    let (mut photos, mut seconds) = (0, 0.0);
    for batch in std::iter::once(first).chain(batches).take(case.steps.max(1)) {
        ctx.check()?;
        let started = Instant::now();
        session.trial_step(&batch)?;
        seconds += started.elapsed().as_secs_f64();
        photos += batch.labels.len();
    }
    Ok(Tried {
        photos_per_second: photos as f64 / seconds,
        predicted_bytes: before + start.plan.bytes(),
        peak_bytes: memory::read().peak,
        recomputed_blocks: start.recomputed_blocks,
    })
}
