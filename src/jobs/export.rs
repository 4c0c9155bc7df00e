//! Writes rows to a file or to sorted folders, for a job: copying thousands of photos takes a while.

use crate::export::{ExportOptions, ExportSummary, ExportTarget, Exporter, Row};
use crate::worker::{BoxError, JobContext, Progress};

/// Runs on the calling thread; progress counts rows. A canceled export leaves no half-written file.
pub fn export(
    rows: impl IntoIterator<Item = Row, IntoIter: ExactSizeIterator>,
    target: &ExportTarget,
    options: ExportOptions,
    ctx: &JobContext,
) -> Result<ExportSummary, BoxError> {
    let rows = rows.into_iter();
    let total = rows.len() as u64;
    let mut exporter = Exporter::create(target, options)?;
    for (done, row) in (1..).zip(rows) {
        ctx.check()?;
        exporter.add(&row)?;
        if done % 64 == 0 {
            ctx.report(Progress { phase: "Exporting".to_owned(), done, total: Some(total), per_second: None });
        }
    }
    Ok(exporter.finish()?)
}
