//! `galley train`: a line per epoch, a progress bar on a terminal.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::places::preferred_places;
use super::progress::Bar;
use super::train_arguments::{TrainArguments, TrainSettings};
use super::{INTERRUPTED, failed, print, say, stop_on_interrupt, usage};
use crate::format::{bytes_or_unknown, count, counted, duration};
use crate::jobs::admission::MemoryChoice;
use crate::jobs::train::{TrainEvent, TrainStart, TrainSummary, TrainTask, train};
use crate::train::{EpochRecord, Record, TrainConfig};
use crate::worker::{self, BoxError, JobContext, Outcome};

/// Photos that cannot be read are named up to so many times; in the end they are counted.
const NAMED: u64 = 10;

pub fn run(arguments: TrainArguments) -> ExitCode {
    let json = arguments.json;
    let task = task(arguments);
    let folder = task.folder().to_owned();
    let ctx = JobContext::detached();
    if let Err(error) = stop_on_interrupt(&ctx) {
        return failed(&error.into());
    }
    let mut output =
        Output { bar: Bar::start("Reading model and photos"), json, skipped: 0, held: None, ctx: ctx.clone() };
    let outcome = worker::run(|| train(&task, &preferred_places()?, &ctx, &mut |event| output.take(event)));
    output.bar.finish();
    match outcome {
        Outcome::Finished(summary) => output.finished(&summary),
        Outcome::Canceled if let Some(reason) = &output.held => {
            say(&format!("error: {reason} with: galley train --resume {}", folder.display()));
            ExitCode::FAILURE
        }
        Outcome::Canceled => {
            say(&format!("stopped; continue with: galley train --resume {}", folder.display()));
            ExitCode::from(INTERRUPTED)
        }
        Outcome::Failed(error) => failed(&error),
    }
}

fn task(arguments: TrainArguments) -> TrainTask {
    if let Some(folder) = arguments.resume {
        let memory = arguments.settings.options.memory.choice();
        return TrainTask::Resume { folder, memory: (memory != MemoryChoice::default()).then_some(memory) };
    }
    let config = Box::new(checked(arguments.settings));
    TrainTask::Begin { config, folder: arguments.out.unwrap_or_else(|| PathBuf::from("run")) }
}

/// The settings, if a run can have them and their files are there; else the program ends.
pub fn checked(settings: TrainSettings) -> TrainConfig {
    let config = settings.config();
    if let Err(error) = config.check() {
        usage(&format!("--{error}"));
    }
    if config.data.as_os_str().is_empty() {
        usage("name the photos with --data FOLDER");
    }
    let teacher = config.distill.as_ref().and_then(|distill| distill.teacher.as_ref());
    if let Some(missing) = [Some(&config.data), config.val.as_ref(), config.model.as_ref(), teacher]
        .into_iter()
        .flatten()
        .find(|path| !path.exists())
    {
        usage(&format!("there is no file or folder of this name: {}", missing.display()));
    }
    config
}

struct Output {
    bar: Bar,
    json: bool,
    skipped: u64,
    /// Why the run had to leave off.
    held: Option<String>,
    ctx: JobContext,
}

impl Output {
    fn take(&mut self, event: TrainEvent) -> Result<(), BoxError> {
        match event {
            TrainEvent::Notice(notice) | TrainEvent::DeviceNotice(notice) => self.aside(&format!("note: {notice}")),
            TrainEvent::Start(start) => self.start(&start),
            TrainEvent::Record(Record::Step(_)) => self.bar.show_steps(&self.ctx.progress()),
            TrainEvent::Record(Record::Epoch(epoch)) => self.epoch(&epoch)?,
            TrainEvent::Record(Record::Guard(act)) => {
                if self.json {
                    let line = serde_json::to_string(&Record::Guard(act))? + "\n";
                    self.bar.aside(|| super::write(&line))?;
                }
            }
            TrainEvent::Skipped { path, reason } => {
                self.skipped += 1;
                if self.skipped <= NAMED {
                    self.aside(&format!("skipped: {}: {reason}", path.display()));
                }
            }
            TrainEvent::Paused => self.aside("paused"),
            TrainEvent::Held(reason) => {
                // Nobody is there who could let it go on later.
                self.held = Some(reason);
                self.ctx.cancel();
            }
        }
        Ok(())
    }

    fn aside(&self, text: &str) {
        self.bar.aside(|| say(text));
    }

    fn start(&self, start: &TrainStart) {
        let sum = |counts: &[usize]| counts.iter().sum::<usize>() as u64;
        let (training, validating) = (sum(&start.train_counts), sum(&start.validation_counts));
        self.aside(&format!(
            "model: {}, {} pixels; {} of {} blocks learn ({} parameters), {} of them computed twice",
            start.model,
            start.image_size,
            start.trained_blocks,
            start.blocks,
            count(start.parameters),
            start.recomputed_blocks,
        ));
        if let Some(bytes) = start.feature_bytes {
            let size = bytes_or_unknown(Some(bytes));
            self.aside(&format!("note: what the frozen blocks make of the photos is computed once and kept: {size}"));
        }
        let classes = count(start.classes.len() as u64);
        let photos = counted(training, "photo");
        self.aside(&format!("data: {photos} of {classes} classes; {} to validate with", count(validating)));
    }

    fn epoch(&self, epoch: &EpochRecord) -> Result<(), BoxError> {
        if self.json {
            let line = serde_json::to_string(&Record::Epoch(*epoch))? + "\n";
            return self.bar.aside(|| super::write(&line));
        }
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let mut line = format!(
            "epoch {:>3}: loss {:.4}, top-1 {}",
            epoch.epoch + 1,
            epoch.train_loss,
            percent(epoch.train_accuracy)
        );
        if let (Some(loss), Some(top1)) = (epoch.loss, epoch.top1) {
            let mark = if epoch.best { " (best)" } else { "" };
            line += &format!("; validation loss {loss:.4}, top-1 {}{mark}", percent(top1));
        }
        line += &format!("; {:.1} photos/s, peak {}\n", epoch.photos_per_second, bytes_or_unknown(epoch.peak_bytes));
        self.bar.aside(|| super::write(&line))
    }

    fn finished(&self, summary: &TrainSummary) -> ExitCode {
        let finished = &summary.finished;
        let time = duration(std::time::Duration::from_secs_f64(summary.seconds));
        if self.skipped > 0 {
            say(&format!("{} skipped, because they could not be read", counted(self.skipped, "photo")));
        }
        if self.json {
            let best = finished.best.map(|best| json!({"epoch": best.epoch, "top1": best.top1, "loss": best.loss}));
            let line = json!({
                "kind": "end",
                "run": summary.folder,
                "epochs": finished.epochs,
                "early": finished.early,
                "best": best,
                "skipped": self.skipped,
                "report": summary.report,
                "seconds": summary.seconds,
            });
            return print(Ok(format!("{line}\n")));
        }
        let best = finished.best.map_or(String::new(), |best| {
            format!(", best in epoch {} with top-1 {:.1} %", best.epoch + 1, 100.0 * best.top1)
        });
        let early = if finished.early { " (stopped early)" } else { "" };
        let epochs = counted(finished.epochs, "epoch");
        say(&format!("{epochs}{early} in {time}{best}: {}", summary.folder.join("best.safetensors").display()));
        if let Some(report) = &summary.report {
            say(&format!("report: {}", report.display()));
        }
        ExitCode::SUCCESS
    }
}
