//! `galley classify`: rows on stdout as they come, a progress bar on a terminal, files at the end.

use std::process::ExitCode;

use super::arguments::{ClassifyArguments, Lenient};
use super::inspect::transform_text;
use super::places::{Preferred, places_and_model};
use super::progress::Bar;
use super::rows::{RowPrinter, RowStyle};
use super::{DONE_WITH_SKIPS, INTERRUPTED, failed, say, stop_on_interrupt, stream, usage};
use crate::export::{ExportOptions, ExportTarget, Exporter, Row};
use crate::format::{count, counted, duration};
use crate::jobs::classify::{ClassifyConfig, ClassifyEvent, ClassifySummary, ModelSummary, classify};
use crate::predict::{ModelSource, Strictness};
use crate::worker::{self, BoxError, Canceled, JobContext, Outcome};

pub fn run(arguments: ClassifyArguments) -> ExitCode {
    let targets = targets(&arguments);
    let writes_json = arguments.json || targets.iter().any(|target| matches!(target, ExportTarget::JsonLines(_)));
    if arguments.logits && !writes_json && !arguments.stdin {
        say("note: logits are only written with --json or --out FILE.jsonl");
    }
    let ctx = JobContext::detached();
    if let Err(error) = stop_on_interrupt(&ctx) {
        return failed(&error.into());
    }
    let (places, model) = match places_and_model(&Preferred::of(&arguments), arguments.model.as_deref(), &ctx) {
        Ok(found) => found,
        Err(code) => return code,
    };
    if arguments.stdin {
        return stream::run(&config(arguments, model), &places, &ctx);
    }
    let mut output = Output::new(&arguments, targets, ctx.clone());
    let config = config(arguments, model);
    let outcome = worker::run(|| {
        let summary = classify(&config, &places, &ctx, &mut |event| output.take(event))?;
        output.finish_exports()?;
        Ok(summary)
    });
    output.bar.finish();
    match outcome {
        Outcome::Finished(summary) => finished(&summary),
        Outcome::Canceled if output.printer.is_closed() && output.exporters.is_empty() => ExitCode::SUCCESS,
        Outcome::Canceled => {
            say("stopped; run the same command to continue");
            ExitCode::from(INTERRUPTED)
        }
        Outcome::Failed(error) => failed(&error),
    }
}

fn config(arguments: ClassifyArguments, model: ModelSource) -> ClassifyConfig {
    ClassifyConfig {
        transform: arguments.transform.overrides(),
        model,
        labels: arguments.labels,
        inputs: arguments.inputs,
        top_k: arguments.top_k.unwrap_or(ClassifyConfig::default().top_k),
        batch_size: arguments.batch_size,
        threads: arguments.threads.unwrap_or(0),
        device: arguments.device.choice(),
        strictness: arguments.lenient.map_or(Strictness::Strict, Lenient::strictness),
        precision: arguments.precision.into(),
        threshold: arguments.threshold,
        fresh: arguments.fresh,
        logits: arguments.logits,
        memory: arguments.memory.choice(),
    }
}

fn targets(arguments: &ClassifyArguments) -> Vec<ExportTarget> {
    let file = arguments.out.as_ref().map(|path| match ExportTarget::from_file_name(path) {
        Some(target) => target,
        None => usage(&format!("--out must end in .csv, .jsonl or .json: {}", path.display())),
    });
    file.into_iter().chain(arguments.sort_into.clone().map(ExportTarget::SortedFolders)).collect()
}

/// Where a run's events go.
struct Output {
    printer: RowPrinter,
    bar: Bar,
    targets: Vec<ExportTarget>,
    exporters: Vec<Exporter>,
    options: ExportOptions,
    ctx: JobContext,
}

impl Output {
    fn new(arguments: &ClassifyArguments, targets: Vec<ExportTarget>, ctx: JobContext) -> Self {
        let style = match arguments.json {
            true => RowStyle::Json,
            false => RowStyle::Text { classes: arguments.top_k.unwrap_or(1) },
        };
        let top_k = arguments.top_k.unwrap_or(ClassifyConfig::default().top_k);
        let options = ExportOptions { top_k, threshold: arguments.threshold };
        let bar = Bar::start("Reading model");
        Self { printer: RowPrinter::new(style, options), bar, targets, exporters: Vec::new(), options, ctx }
    }

    fn take(&mut self, event: ClassifyEvent) -> Result<(), BoxError> {
        match event {
            ClassifyEvent::Notice(notice) | ClassifyEvent::DeviceNotice(notice) => {
                self.bar.aside(|| say(&format!("note: {notice}")));
            }
            ClassifyEvent::Model(model) => self.begin(&model)?,
            ClassifyEvent::Rows { rows, .. } => {
                self.rows(&rows)?;
                self.bar.show(&self.ctx.progress());
            }
        }
        Ok(())
    }

    /// Files are begun before the first photo, so that a folder that cannot be written costs no time.
    fn begin(&mut self, model: &ModelSummary) -> Result<(), BoxError> {
        self.options.top_k = self.options.top_k.min(model.classes);
        for target in self.targets.drain(..) {
            self.exporters.push(Exporter::create(&target, self.options)?);
        }
        self.printer.begin(model);
        self.bar.aside(|| {
            let parameters = count(model.parameters);
            say(&format!("model: {} ({}), {parameters} parameters", model.title, model.name));
            say(&format!("classes: {} ({})", count(model.classes as u64), model.labels_from));
            say(&format!("input: {}; {}", transform_text(&model.transform), model.transform_from));
        });
        Ok(())
    }

    fn rows(&mut self, rows: &[Row]) -> Result<(), BoxError> {
        let printed = self.bar.aside(|| self.printer.print(rows));
        printed?;
        if self.printer.is_closed() && self.exporters.is_empty() {
            // Whoever read the rows has seen enough (`| head`), and no file is wanted.
            return Err(Canceled.into());
        }
        for exporter in &mut self.exporters {
            for row in rows {
                exporter.add(row)?;
            }
        }
        Ok(())
    }

    fn finish_exports(&mut self) -> Result<(), BoxError> {
        for exporter in self.exporters.drain(..) {
            let summary = exporter.finish()?;
            if summary.missing > 0 {
                let photos = counted(summary.missing, "photo");
                self.bar.aside(|| {
                    say(&format!("note: {photos} could not be copied, because they were gone or unreadable"))
                });
            }
        }
        Ok(())
    }
}

fn finished(summary: &ClassifySummary) -> ExitCode {
    let mut parts = vec![format!("{} classified", count(summary.ok))];
    if summary.skipped > 0 {
        parts.push(format!("{} skipped", count(summary.skipped)));
    }
    if summary.resumed > 0 {
        parts.push(format!("{} of them known from the journal", count(summary.resumed)));
    }
    let time = duration(std::time::Duration::from_secs_f64(summary.seconds));
    say(&format!("{}: {}, in {time}", counted(summary.photos, "photo"), parts.join(", ")));
    if summary.skipped > 0 { ExitCode::from(DONE_WITH_SKIPS) } else { ExitCode::SUCCESS }
}
