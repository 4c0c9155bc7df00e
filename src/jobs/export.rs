//! Writes rows to files or sorted folders as a job, because copying thousands of photos takes a while.

use crate::export::{ExportOptions, ExportSummary, ExportTarget, Row};
use crate::worker::{BoxError, Job, JobContext};

pub type ExportJob = Job<ExportSummary, ()>;

/// Runs on the calling thread; progress counts rows. A canceled export leaves no half-written file.
pub fn export(
    _rows: impl IntoIterator<Item = Row>,
    _target: &ExportTarget,
    _options: &ExportOptions,
    _ctx: &JobContext,
) -> Result<ExportSummary, BoxError> {
    todo!()
}

/// The same as a job on its own thread.
pub fn start(
    rows: Vec<Row>,
    target: ExportTarget,
    options: ExportOptions,
    wake: impl Fn() + Send + Sync + 'static,
) -> std::io::Result<ExportJob> {
    Job::start("export", wake, move |ctx, _| export(rows, &target, &options, ctx))
}
