//! `galley download`: a model by name or address, with a progress bar; and the list of names.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::arguments::DownloadArguments;
use super::places::preferred_places;
use super::progress::Bar;
use super::{INTERRUPTED, failed, print, say, stop_on_interrupt};
use crate::format::bytes;
use crate::jobs::Places;
use crate::jobs::download::{
    self, DownloadConfig, DownloadEvent, DownloadJob, DownloadSummary, MODEL_URL, Published, catalog, from_environment,
    named,
};
use crate::predict::ModelSource;
use crate::worker::{BoxError, JobContext, Outcome};

/// How often the bar is drawn and Ctrl-C is looked for.
const LOOK: Duration = Duration::from_millis(50);

pub fn run(arguments: DownloadArguments) -> ExitCode {
    let models = match preferred_places() {
        Ok(places) => arguments.to.clone().unwrap_or(places.models_folder),
        Err(error) => return failed(&error),
    };
    let Some(text) = &arguments.model else { return print(Ok(list(&models, arguments.json))) };
    let config = match named(text, &models) {
        Ok(config) => with_options(config, &arguments),
        Err(error) => return failed(&error.into()),
    };
    let ctx = JobContext::detached();
    if let Err(error) = stop_on_interrupt(&ctx) {
        return failed(&error.into());
    }
    match fetch(config, &ctx) {
        Outcome::Finished(summary) => finished(&summary, arguments.json),
        Outcome::Canceled => {
            say("stopped; run the same command to go on");
            ExitCode::from(INTERRUPTED)
        }
        Outcome::Failed(error) => failed(&error),
    }
}

fn with_options(mut config: DownloadConfig, arguments: &DownloadArguments) -> DownloadConfig {
    config.quantized = arguments.quantized.clone();
    config.checksum = arguments.sha256.clone().or(config.checksum);
    config
}

/// The model a command computes with: the one named, the one the environment names, or the starter model.
pub fn model(named: Option<&Path>, places: &Places, ctx: &JobContext) -> Outcome<ModelSource> {
    if let Some(path) = named {
        return Outcome::Finished(ModelSource::File(path.to_owned()));
    }
    let config = match from_environment(&places.models_folder) {
        Ok(Some(config)) => config,
        Ok(None) => return Outcome::Finished(ModelSource::Starter),
        Err(error) => return Outcome::Failed(format!("{MODEL_URL}: {error}").into()),
    };
    match fetch(config, ctx) {
        Outcome::Finished(summary) => Outcome::Finished(ModelSource::File(summary.path)),
        Outcome::Canceled => Outcome::Canceled,
        Outcome::Failed(error) => Outcome::Failed(error),
    }
}

/// Downloads on a thread of its own, and shows how far it is meanwhile.
fn fetch(config: DownloadConfig, ctx: &JobContext) -> Outcome<DownloadSummary> {
    let mut job = match download::start(config, || ()) {
        Ok(job) => job,
        Err(error) => return Outcome::Failed(error.into()),
    };
    let bar = Bar::start("Connecting");
    let outcome = loop {
        if ctx.is_canceled() {
            job.context().cancel();
        }
        bar.show_bytes(&job.context().progress());
        let is_done = job.is_done();
        tell(&job, &bar);
        if let Some(outcome) = is_done.then(|| job.take_outcome()).flatten() {
            break outcome;
        }
        std::thread::sleep(LOOK);
    };
    bar.finish();
    outcome
}

fn tell(job: &DownloadJob, bar: &Bar) {
    while let Some(DownloadEvent::Notice(text)) = job.poll() {
        bar.aside(|| say(&format!("note: {text}")));
    }
}

fn finished(summary: &DownloadSummary, is_json: bool) -> ExitCode {
    if is_json {
        return print(serde_json::to_string(summary).map(|text| text + "\n").map_err(BoxError::from));
    }
    let DownloadSummary { path, bytes: length, sha256, received, .. } = summary;
    let how = if *received == 0 { "here already, unchanged" } else { "verified" };
    say(&format!("{}, SHA-256 {sha256}: {how}", bytes(*length)));
    print(Ok(format!("{}\n", path.display())))
}

fn list(models: &Path, is_json: bool) -> String {
    let here = |published: &Published| Some(published.path(models)).filter(|path| path.exists());
    match is_json {
        true => catalog().iter().map(|published| json_line(published, here(published))).collect(),
        false => table(&here),
    }
}

fn json_line(published: &Published, path: Option<PathBuf>) -> String {
    let mut line = json!(published);
    line["path"] = json!(path);
    format!("{line}\n")
}

fn table(here: &dyn Fn(&Published) -> Option<PathBuf>) -> String {
    let width = catalog().iter().map(|published| published.name.len()).max().unwrap_or(0);
    let mut text = format!("{:<width$}  {:>9}  {:>16}  {:<12}\n", "name", "about", "ImageNet top-1", "licence");
    for published in catalog() {
        let Published { name, approximate_bytes, licence, .. } = published;
        let top1 = published.top1.zip(published.top1_side).map(|(top1, side)| format!("{top1:.1} % ({side} px)"));
        let (size, top1) = (bytes(*approximate_bytes), top1.unwrap_or_default());
        let mark = if here(published).is_some() { "here" } else { "" };
        text += format!("{name:<width$}  {size:>9}  {top1:>16}  {licence:<12}  {mark}").trim_end();
        text += "\n";
    }
    text
}
