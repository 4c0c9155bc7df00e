//! `galley classify --stdin`: a line of JSON for each line of standard input, in the same order, each as soon as it is there.

use std::io::{self, BufReader, BufWriter, ErrorKind, Stdout, Write as _};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{DONE_WITH_SKIPS, INTERRUPTED, failed, say};
use crate::export::{ExportOptions, json_answer};
use crate::format::{count, counted};
use crate::jobs::Places;
use crate::jobs::classify::{Answer, ClassifyConfig, ModelSummary, StreamEvent, StreamSummary, stream};
use crate::worker::{self, BoxError, Canceled, JobContext, Outcome};

pub fn run(config: &ClassifyConfig, places: &Places, ctx: &JobContext) -> ExitCode {
    let options = ExportOptions { top_k: config.top_k, threshold: config.threshold };
    let mut output = Output { stdout: BufWriter::new(io::stdout()), options, is_closed: false };
    let lines = Box::new(BufReader::new(io::stdin()));
    let outcome = worker::run(|| stream(config, places, lines, ctx, &mut |event| output.take(event)));
    let is_closed = output.is_closed;
    // What is buffered for a reader that has gone can go nowhere.
    drop(output.stdout.into_parts());
    match outcome {
        Outcome::Finished(summary) => finished(summary),
        Outcome::Canceled if is_closed => ExitCode::SUCCESS,
        Outcome::Canceled => ExitCode::from(INTERRUPTED),
        Outcome::Failed(error) => failed(&error),
    }
}

struct Output {
    stdout: BufWriter<Stdout>,
    options: ExportOptions,
    /// Nobody reads the answers any more.
    is_closed: bool,
}

impl Output {
    fn take(&mut self, event: StreamEvent) -> Result<(), BoxError> {
        let lines = match event {
            StreamEvent::Notice(notice) => {
                say(&format!("note: {notice}"));
                return Ok(());
            }
            StreamEvent::Ready(model) => {
                self.options.top_k = self.options.top_k.min(model.classes);
                vec![ready(&model).to_string()]
            }
            StreamEvent::Answers(answers) => answers.iter().map(|answer| self.line(answer)).collect(),
        };
        match lines.iter().try_for_each(|line| writeln!(self.stdout, "{line}")).and_then(|()| self.stdout.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Err(Canceled.into())
            }
            result => Ok(result?),
        }
    }

    fn line(&self, answer: &Answer) -> String {
        match answer {
            Answer::Row(echo, row) => json_answer(row, &self.options, echo.id.as_ref(), &echo.fields),
            Answer::BadLine { line, echo, reason } => {
                let mut object = json!({ "status": "error", "line": line, "reason": reason });
                if let Some(id) = &echo.id {
                    object["id"] = id.clone();
                }
                if !echo.fields.is_empty() {
                    object["fields"] = Value::Object(echo.fields.clone());
                }
                object.to_string()
            }
        }
    }
}

/// The first line: whoever started the program may now send photos.
fn ready(model: &ModelSummary) -> Value {
    let labels: Vec<&str> = model.labels.iter().map(|label| &**label).collect();
    json!({
        "status": "ready",
        "ready": true,
        "model": model.name,
        "title": model.title,
        "parameters": model.parameters,
        "bytes": model.bytes,
        "labels": labels,
    })
}

fn finished(summary: StreamSummary) -> ExitCode {
    let StreamSummary { ok, skipped, bad_lines } = summary;
    let mut text = format!("{} classified", counted(ok, "photo"));
    if skipped > 0 {
        text += &format!(", {} skipped", count(skipped));
    }
    if bad_lines > 0 {
        text += &format!(", {} not understood", counted(bad_lines, "line"));
    }
    say(&text);
    if skipped + bad_lines > 0 { ExitCode::from(DONE_WITH_SKIPS) } else { ExitCode::SUCCESS }
}
