//! `galley prune`: a smaller network out of a checkpoint, with a table of what was taken out or one JSON object.

use std::process::ExitCode;
use std::time::Duration;

use super::compress_arguments::{PruneArguments, RankingName};
use super::places::preferred_places;
use super::progress::Bar;
use super::{INTERRUPTED, failed, print, say, stop_on_interrupt, usage};
use crate::format::{bytes, count, counted, duration};
use crate::jobs::prune::{Change, PruneEvent, PruneSummary, PruneTask, Ranking, Repair, What, Zeros, prune};
use crate::jobs::train::TrainEvent;
use crate::train::Record;
use crate::worker::{self, BoxError, JobContext, Outcome};

pub fn run(arguments: PruneArguments) -> ExitCode {
    let paths = [Some(&arguments.model), arguments.on.as_ref(), arguments.repair.as_ref()];
    if let Some(missing) = paths.into_iter().flatten().find(|path| !path.exists()) {
        usage(&format!("there is no file or folder of this name: {}", missing.display()));
    }
    let json = arguments.json;
    let task = task(arguments);
    let ctx = JobContext::detached();
    if let Err(error) = stop_on_interrupt(&ctx) {
        return failed(&error.into());
    }
    let bar = Bar::start("Reading the model");
    let outcome = worker::run(|| {
        let places = preferred_places()?;
        prune(&task, &places, &ctx, &mut |event| {
            tell(&bar, event, &ctx);
            Ok(())
        })
    });
    bar.finish();
    match outcome {
        Outcome::Finished(summary) => print(match json {
            true => serde_json::to_string(&summary).map(|text| text + "\n").map_err(BoxError::from),
            false => Ok(text(&summary)),
        }),
        Outcome::Canceled => ExitCode::from(INTERRUPTED),
        Outcome::Failed(error) => failed(&error),
    }
}

fn task(arguments: PruneArguments) -> PruneTask {
    let PruneArguments { model, out, ratio, by, on, unstructured, repair, repair_epochs, device, memory, .. } =
        arguments;
    let what = match (by, on) {
        _ if unstructured => What::Weights,
        (RankingName::L1, Some(_)) => usage("--on needs --by taylor: by l1 channels are ranked without photos"),
        (RankingName::Taylor, Some(on)) => What::Channels(Ranking::Taylor { on }),
        (_, None) => What::Channels(Ranking::L1),
    };
    let repair = repair.map(|data| Repair { data, epochs: repair_epochs });
    PruneTask { model, out, ratio, what, repair, device: device.choice(), memory: memory.choice() }
}

fn tell(bar: &Bar, event: PruneEvent, ctx: &JobContext) {
    let aside = |text: &str| bar.aside(|| say(text));
    match event {
        PruneEvent::Notice(notice) => aside(&format!("note: {notice}")),
        PruneEvent::Repair(TrainEvent::Notice(notice) | TrainEvent::DeviceNotice(notice)) => {
            aside(&format!("note: {notice}"));
        }
        PruneEvent::Repair(TrainEvent::Skipped { path, reason }) => {
            aside(&format!("skipped: {}: {reason}", path.display()));
        }
        PruneEvent::Repair(TrainEvent::Record(Record::Epoch(epoch))) => {
            let (number, accuracy) = (epoch.epoch + 1, 100.0 * epoch.train_accuracy);
            aside(&format!("repair, epoch {number}: loss {:.4}, top-1 {accuracy:.1} %", epoch.train_loss));
        }
        PruneEvent::Repair(TrainEvent::Record(Record::Step(_))) => bar.show_steps(&ctx.progress()),
        PruneEvent::Repair(_) => {}
    }
}

fn text(summary: &PruneSummary) -> String {
    let mut text = String::new();
    if !summary.layers.is_empty() {
        let width = summary.layers.iter().map(|layer| layer.layer.len()).max().unwrap_or(0).max("layer".len());
        text += &format!("{:<width$}{:>10}{:>8}\n", "layer", "channels", "after");
        for layer in &summary.layers {
            text += &format!("{:<width$}{:>10}{:>8}\n", layer.layer, layer.channels.before, layer.channels.after);
        }
        text.push('\n');
    }
    let change =
        |change: Change, shown: fn(u64) -> String| format!("{} → {}", shown(change.before), shown(change.after));
    text += &format!("{:<12}{}\n", "parameters", change(summary.parameters, count));
    text += &format!("{:<12}{}\n", "weights", change(summary.bytes, bytes));
    if let Some(zeros) = summary.zeros {
        text += &about_zeros(zeros);
    }
    if summary.photos > 0 {
        text += &format!("{:<12}{}\n", "ranked on", counted(summary.photos, "photo"));
    }
    if let Some(repaired) = summary.repaired {
        let time = duration(Duration::from_secs_f64(repaired.seconds));
        text += &format!("{:<12}{} in {time}\n", "repair", counted(repaired.epochs, "epoch"));
    }
    text + &format!("{:<12}{}\n", "written", summary.out.display())
}

/// With what zeros are not.
fn about_zeros(zeros: Zeros) -> String {
    let share = 100.0 * zeros.zeros as f64 / zeros.weights.max(1) as f64;
    format!(
        "{:<12}{} of {} weights ({share:.1} %)\n{:<12}{} if stored sparse; the file is as large as before, and computing takes as \
         long\n",
        "zeros",
        count(zeros.zeros),
        count(zeros.weights),
        "",
        bytes(zeros.sparse_bytes),
    )
}
