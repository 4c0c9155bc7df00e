//! What is fetched, as the window sees it: its job, how far it is, and how it ended.

use std::path::{Path, PathBuf};
use std::time::Instant;

use egui::Context;

use super::tasks;
use crate::format;
use crate::jobs::download::{self, DownloadEvent, DownloadJob, catalog};
use crate::worker::{Outcome, Progress};

#[derive(Debug, Clone, PartialEq)]
pub enum FetchState {
    Running,
    Stopping,
    /// What came is kept.
    Stopped,
    /// The reason, for people.
    Failed(String),
}

/// One model on its way.
pub struct Fetching {
    /// A name of the catalog, or an address.
    pub what: String,
    pub state: FetchState,
    pub progress: Progress,
    /// The latest thing to know about it.
    pub notice: Option<String>,
    job: Option<DownloadJob>,
}

/// What can be fetched, and what is being fetched: one model at a time.
#[derive(Default)]
pub struct Downloads {
    /// What stands in the field for an address.
    pub address: String,
    /// Shown in place of a model's sheet.
    pub is_open: bool,
    /// The names of the catalog whose files are here.
    pub here: Vec<&'static str>,
    pub current: Option<Fetching>,
}

impl Downloads {
    /// Starts, or goes on with, the download of a name or an address.
    pub fn start(&mut self, what: String, models: &Path, ctx: &Context) {
        if self.is_active() {
            return;
        }
        let ctx = ctx.clone();
        let started = download::named(&what, models)
            .map_err(|error| error.to_string())
            .and_then(|config| download::start(config, move || super::wake(&ctx)).map_err(|error| error.to_string()));
        let (job, state) = match started {
            Ok(job) => (Some(job), FetchState::Running),
            Err(reason) => (None, FetchState::Failed(reason)),
        };
        self.current = Some(Fetching { what, state, progress: Progress::default(), notice: None, job });
    }

    /// Goes on with what was stopped or failed.
    pub fn go_on(&mut self, models: &Path, ctx: &Context) {
        if let Some(what) = self.current.as_ref().map(|fetching| fetching.what.clone()) {
            self.start(what, models, ctx);
        }
    }

    pub fn cancel(&mut self) {
        if let Some(Fetching { job: Some(job), state, .. }) = &mut self.current {
            job.context().cancel();
            *state = FetchState::Stopping;
        }
    }

    /// Takes what the job has sent. Never waits. The path of a model that has arrived, once.
    pub fn poll(&mut self) -> Option<PathBuf> {
        let fetching = self.current.as_mut()?;
        let mut job = fetching.job.take()?;
        fetching.progress = job.context().progress();
        let is_done = job.is_done();
        while let Some(DownloadEvent::Notice(text)) = job.poll() {
            fetching.notice = Some(text);
        }
        match if is_done { job.take_outcome() } else { None } {
            None => fetching.job = Some(job),
            Some(Outcome::Finished(summary)) => {
                self.current = None;
                return Some(summary.path);
            }
            Some(Outcome::Canceled) => fetching.state = FetchState::Stopped,
            Some(Outcome::Failed(error)) => fetching.state = FetchState::Failed(format::error_chain(&*error)),
        }
        None
    }

    /// How the last one came out; nothing when a person has stopped it.
    pub fn ended(&self) -> Option<String> {
        match self.current.as_ref().map(|fetching| &fetching.state) {
            None => Some("The model is here".to_owned()),
            Some(FetchState::Failed(reason)) => Some(reason.clone()),
            Some(_) => None,
        }
    }

    /// True until the job has ended.
    pub fn is_active(&self) -> bool {
        self.current.as_ref().is_some_and(|fetching| fetching.job.is_some())
    }

    /// Cancels, and lets go of the job when it has not ended by the deadline.
    pub fn abandon(&mut self, deadline: Instant) {
        self.cancel();
        if let Some(job) = self.current.as_mut().and_then(|fetching| fetching.job.take()) {
            tasks::let_go(job, deadline);
        }
    }
}

impl Fetching {
    /// One line about where it stands.
    pub fn status(&self) -> String {
        let Progress { phase, done, total, per_second } = &self.progress;
        let so_far = match total {
            Some(total) => format!("{} of {}", format::bytes(*done), format::bytes(*total)),
            None => format::bytes(*done),
        };
        match &self.state {
            FetchState::Running if phase.is_empty() => "Connecting…".to_owned(),
            FetchState::Running => {
                let rate = per_second.map(|rate| format!(" · {}/s", format::bytes(rate as u64))).unwrap_or_default();
                let left = self.progress.time_left();
                let left = left.map(|left| format!(" · {} left", format::duration(left))).unwrap_or_default();
                format!("{phase} · {so_far}{rate}{left}")
            }
            FetchState::Stopping => "Stopping…".to_owned(),
            FetchState::Stopped => format!("Stopped · {so_far} are kept · go on whenever you like"),
            FetchState::Failed(_) => "Stopped by a problem".to_owned(),
        }
    }

    /// The share that is there, once the length is known.
    pub fn share(&self) -> Option<f32> {
        self.progress.share()
    }
}

/// The names of the catalog whose files are in the folder of models. Asks the file system.
pub fn names_here(models: &Path) -> Vec<&'static str> {
    let here = catalog().iter().filter(|published| published.path(models).exists());
    here.map(|published| published.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_names_size_rate_and_time_left() {
        let progress = Progress {
            phase: "Downloading".to_owned(),
            done: 25_000_000,
            total: Some(100_000_000),
            per_second: Some(5e6),
        };
        let state = FetchState::Running;
        let mut fetching = Fetching { what: String::new(), state, progress, notice: None, job: None };
        assert_eq!(fetching.status(), "Downloading · 25.0 MB of 100 MB · 5.00 MB/s · 15 s left");
        assert_eq!(fetching.share(), Some(0.25));
        fetching.state = FetchState::Stopped;
        assert_eq!(fetching.status(), "Stopped · 25.0 MB of 100 MB are kept · go on whenever you like");
    }
}
