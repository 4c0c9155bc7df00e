//! `galley quantize`: a model in fewer bits and what that cost, as a table or one JSON object.

use std::process::ExitCode;

use super::compress_arguments::{QuantizeArguments, RankingName};
use super::places::preferred_places;
use super::progress::Bar;
use super::{INTERRUPTED, failed, print, say, stop_on_interrupt, usage};
use crate::compress::{Figures, Proof, Report};
use crate::format::{bytes, count, counted, percent};
use crate::jobs::compress::{CompressConfig, Pruning, Size, compress, reports_of};
use crate::jobs::prune::{Ranking, Repair};
use crate::predict::ModelSource;
use crate::worker::{self, BoxError, JobContext, Outcome};

/// Classes that are listed.
const SHOWN: usize = 10;

pub fn run(arguments: QuantizeArguments) -> ExitCode {
    let QuantizeArguments { model, labels, check, calibrate, repair, .. } = &arguments;
    for path in
        [Some(model), labels.as_ref(), check.as_ref(), calibrate.as_ref(), repair.as_ref()].into_iter().flatten()
    {
        if !path.exists() {
            usage(&format!("there is no file or folder of this name: {}", path.display()));
        }
    }
    let ctx = JobContext::detached();
    if let Err(error) = stop_on_interrupt(&ctx) {
        return failed(&error.into());
    }
    let places = match preferred_places() {
        Ok(places) => places,
        Err(error) => return failed(&error),
    };
    let json = arguments.json;
    let config = config(arguments);
    let bar = Bar::start("Reading the model");
    let outcome = worker::run(|| compress(&config, &places, &ctx));
    bar.finish();
    let report = match outcome {
        Outcome::Finished(report) => report,
        Outcome::Canceled => return ExitCode::from(INTERRUPTED),
        Outcome::Failed(error) => return failed(&error),
    };
    report.notices.iter().for_each(|notice| say(&format!("note: {notice}")));
    print(match json {
        true => serde_json::to_string(&report).map(|text| text + "\n").map_err(BoxError::from),
        false => Ok(table(&report)),
    })
}

fn config(arguments: QuantizeArguments) -> CompressConfig {
    let size = match (arguments.kind, arguments.fit, arguments.max_loss) {
        (_, Some(bytes), _) => Size::Fit(bytes),
        (Some(kind), ..) => kind.into(),
        (None, None, Some(_)) => Size::Smallest,
        (None, None, None) => Size::Bits(crate::compress::quantize::Bits::Q8_0),
    };
    let prune = arguments.prune;
    let ranking = match (arguments.prune_by, &arguments.repair) {
        (RankingName::Taylor, Some(on)) => Ranking::Taylor { on: on.clone() },
        _ => Ranking::L1,
    };
    let repair = arguments.repair.map(|data| Repair { data, epochs: arguments.repair_epochs });
    CompressConfig {
        model: ModelSource::File(arguments.model),
        labels: arguments.labels,
        transform: arguments.transform.overrides(),
        output: arguments.output,
        prune: prune.map(|ratio| Pruning { ratio, ranking, repair }),
        size,
        max_loss: arguments.max_loss,
        check: arguments.check,
        calibrate: arguments.calibrate,
        device: arguments.device.choice(),
        memory: arguments.memory.choice(),
        overwrite: arguments.overwrite,
        save_anyway: arguments.save_anyway,
    }
}

fn table(report: &Report) -> String {
    let Report { network, output, steps, before, after, training_state_bytes, proof, .. } = report;
    let [_, page] = reports_of(output);
    let mut text = format!("{network}, {}: {}\nreport: {}\n\n", steps.join(", "), output.display(), page.display());
    text += &format!("{:<18}{:>12}{:>12}\n", "", "before", "after");
    let mut row = |name: &str, of: &dyn Fn(&Figures) -> String| {
        text += &format!("{name:<18}{:>12}{:>12}\n", of(before), of(after));
    };
    row("file", &|figures| bytes(figures.file_bytes));
    row("weights in memory", &|figures| bytes(figures.resident_bytes));
    if after.photos_per_second.is_some() {
        row("photos per second", &|figures| {
            figures.photos_per_second.map_or("–".to_owned(), |speed| format!("{speed:.1}"))
        });
    }
    if *training_state_bytes > 0 {
        let state = bytes(*training_state_bytes);
        text += &format!("\n{state} of the original are what training alone needs: leaving that out costs nothing\n");
    }
    text + &proof
        .as_ref()
        .map_or_else(|| "\nWhat it costs was not measured: name photos with --check\n".to_owned(), answers)
}

/// What became of the answers.
fn answers(proof: &Proof) -> String {
    let Proof { photos, right, same, classes, skipped, .. } = proof;
    let mut text = format!("\nof {}", counted(*photos as u64, "photo"));
    if let Some([before, after]) = right {
        let share = |right: &usize| percent(*right as f64 / (*photos).max(1) as f64);
        text += &format!(" {before} were judged right ({}), and {after} are now ({});", share(before), share(after));
    }
    text += &format!(" {} keep their answer ({})\n", count(*same as u64), percent(proof.agreement()));
    if !skipped.is_empty() {
        text += &format!("{} could not be read\n", counted(skipped.len() as u64, "photo"));
    }
    let mut changed: Vec<_> = classes.iter().filter(|class| class.right[0] != class.right[1]).collect();
    changed.sort_by_key(|class| class.right[1] as i64 - class.right[0] as i64);
    for class in changed.into_iter().take(SHOWN) {
        let [before, after] = class.right;
        text += &format!(
            "{:>6}  {} ({before} of {}, now {after})\n",
            format!("{:+}", after as i64 - before as i64),
            class.name,
            class.photos
        );
    }
    text
}
