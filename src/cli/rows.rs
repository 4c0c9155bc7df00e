//! Rows on stdout: one JSON object per photo for programs, or one line per photo for people.

use std::io::{self, BufWriter, ErrorKind, Stdout, Write};

use crate::export::{ExportOptions, Row, RowResult, UNSURE, json_line};
use crate::jobs::classify::ModelSummary;
use crate::predict::Prediction;

/// The label column for people is as wide as the longest label, up to this.
const WIDEST_LABEL: usize = 28;

pub enum RowStyle {
    Json,
    /// The best classes of a photo, so many.
    Text {
        classes: usize,
    },
}

/// Prints until stdout is closed by its reader, which is no failure.
pub struct RowPrinter {
    style: RowStyle,
    options: ExportOptions,
    label_width: usize,
    stdout: Option<BufWriter<Stdout>>,
}

impl RowPrinter {
    pub fn new(style: RowStyle, options: ExportOptions) -> Self {
        Self { style, options, label_width: 0, stdout: Some(BufWriter::new(io::stdout())) }
    }

    pub fn begin(&mut self, model: &ModelSummary) {
        let longest = model.labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
        self.label_width = longest.max("skipped".len()).min(WIDEST_LABEL);
    }

    /// True once the reader of stdout has gone.
    pub fn is_closed(&self) -> bool {
        self.stdout.is_none()
    }

    /// Prints and flushes: what a reader sees is as fresh as the journal.
    pub fn print(&mut self, rows: &[Row]) -> io::Result<()> {
        let lines: String = rows.iter().map(|row| self.line(row) + "\n").collect();
        let Some(stdout) = &mut self.stdout else { return Ok(()) };
        match stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                // What is buffered can go nowhere; dropping it in the usual way would try again.
                drop(self.stdout.take().map(BufWriter::into_parts));
                Ok(())
            }
            result => result,
        }
    }

    fn line(&self, row: &Row) -> String {
        match self.style {
            RowStyle::Json => json_line(row, &self.options),
            RowStyle::Text { classes } => printable(&self.text(row, classes)),
        }
    }

    fn text(&self, row: &Row, classes: usize) -> String {
        let path = row.path.to_string_lossy();
        let width = self.label_width;
        match &row.result {
            RowResult::Skipped { reason } => format!("   –     {:<width$}  {path}: {reason}", "skipped"),
            RowResult::Ok { predictions, .. } => {
                let Some((best, others)) = predictions.split_first() else { return path.into_owned() };
                let unsure = self.options.label(predictions) == Some(UNSURE);
                let label = if unsure { UNSURE } else { &best.label };
                let shown = if unsure { predictions } else { others };
                let shown = shown.iter().take(classes.saturating_sub(usize::from(!unsure)));
                let rest: Vec<String> = shown.map(|other| format!("{} {}", other.label, percent(other))).collect();
                let rest = if rest.is_empty() { String::new() } else { format!("  ({})", rest.join(", ")) };
                format!("{:>7}  {label:<width$}  {path}{rest}", percent(best))
            }
        }
    }
}

fn percent(prediction: &Prediction) -> String {
    format!("{:.1} %", prediction.probability * 100.0)
}

/// Text on one line and without codes for the terminal, whatever a file's name or a stranger's label holds.
pub fn printable(text: &str) -> String {
    let shown = text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() });
    shown.collect()
}
