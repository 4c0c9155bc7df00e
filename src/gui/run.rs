//! A classify run as the window sees it: its job, its rows, and how it stands.

use std::time::{Duration, Instant};

use egui::Context;

use super::results::Results;
use super::tasks;
use crate::format;
use crate::jobs::Places;
use crate::jobs::admission;
use crate::jobs::classify::{self, ClassifyConfig, ClassifyEvent, ClassifyJob, ClassifySummary, ModelSummary};
use crate::jobs::models;
use crate::worker::{Outcome, Progress};

/// How long a frame may spend on taking rows; the rest waits in the job's queue.
const DRAIN: Duration = Duration::from_millis(4);

#[derive(Debug, Clone, PartialEq)]
pub enum RunState {
    Running,
    Paused,
    Stopping,
    Finished(ClassifySummary),
    Canceled,
    /// The reason, for people.
    Failed(String),
}

pub struct Run {
    pub config: ClassifyConfig,
    pub state: RunState,
    pub results: Results,
    pub model: Option<ModelSummary>,
    pub progress: Progress,
    /// How many rows came from the journal.
    pub resumed: u64,
    pub notices: Vec<String>,
    /// It was refused because it is predicted not to fit, and may be run anyway.
    pub is_refused: bool,
    /// It was refused because of its model's size, there or on the shelf.
    pub is_too_large: bool,
    job: Option<ClassifyJob>,
}

impl Run {
    /// Starts the job; a run that cannot start is a failed run.
    pub fn start(config: ClassifyConfig, places: Places, ctx: &Context) -> Self {
        let ctx = ctx.clone();
        let mut run = Self::without_job(config);
        match classify::start(run.config.clone(), places, move || super::wake(&ctx)) {
            Ok(job) => run.job = Some(job),
            Err(error) => run.state = RunState::Failed(error.to_string()),
        }
        run
    }

    /// A run that is fed by hand.
    pub fn without_job(config: ClassifyConfig) -> Self {
        let results = Results::new(config.threshold);
        Self {
            config,
            state: RunState::Running,
            results,
            model: None,
            progress: Progress::default(),
            resumed: 0,
            notices: Vec::new(),
            is_refused: false,
            is_too_large: false,
            job: None,
        }
    }

    /// What it is expected to take at its most, by what takes it, in bytes beside what the process had before.
    pub fn expected(&self) -> Vec<(&'static str, u64)> {
        self.job.as_ref().map(|job| job.context().expected()).unwrap_or_default()
    }

    /// True until the job has ended.
    pub fn is_active(&self) -> bool {
        matches!(self.state, RunState::Running | RunState::Paused | RunState::Stopping)
    }

    pub fn set_paused(&mut self, paused: bool) {
        if let (Some(job), RunState::Running | RunState::Paused) = (&self.job, &self.state) {
            job.context().set_paused(paused);
            self.state = if paused { RunState::Paused } else { RunState::Running };
        }
    }

    /// Asks the job to stop. Its rows stay in the journal, and the job is let go of once its thread has ended.
    pub fn cancel(&mut self) {
        if let Some(job) = &self.job {
            job.context().cancel();
            self.state = RunState::Stopping;
        }
    }

    /// Cancels the job, and lets go of it when it has not ended by the deadline.
    pub fn abandon(&mut self, deadline: Instant) {
        self.cancel();
        if let Some(job) = self.job.take() {
            tasks::let_go(job, deadline);
            self.state = RunState::Canceled;
        }
    }

    /// Takes what the job has sent, within a few milliseconds. Never waits.
    pub fn drain(&mut self) {
        self.drain_until(Instant::now() + DRAIN);
    }

    fn drain_until(&mut self, deadline: Instant) {
        let Some(mut job) = self.job.take() else { return };
        // Asked before the queue is emptied: what a job sends before it ends is then taken before its outcome.
        let ended_before = job.is_done();
        self.progress = job.context().progress();
        let mut emptied = false;
        while !emptied && Instant::now() < deadline {
            match job.poll() {
                Some(event) => self.receive(event),
                None => emptied = true,
            }
        }
        match if ended_before && emptied { job.take_outcome() } else { None } {
            Some(outcome) => {
                let refusal = admission::refusal_of(&outcome);
                self.is_refused = refusal.is_some();
                let too_large = models::too_large(&outcome);
                self.is_too_large = refusal.is_some() || too_large.is_some();
                self.state = refusal.or(too_large).map_or_else(|| ended(outcome), RunState::Failed);
            }
            None => self.job = Some(job),
        }
    }

    pub fn receive(&mut self, event: ClassifyEvent) {
        match event {
            ClassifyEvent::Model(model) => {
                self.results.set_labels(&model.labels);
                self.model = Some(model);
            }
            ClassifyEvent::Rows { rows, resumed } => {
                if resumed {
                    self.resumed += rows.len() as u64;
                }
                rows.into_iter().for_each(|row| self.results.push(row));
            }
            ClassifyEvent::Notice(notice) => self.notices.push(notice),
            ClassifyEvent::DeviceNotice(_) => {}
        }
    }

    /// One line about where the run stands.
    pub fn status(&self) -> String {
        let progress = &self.progress;
        let rows = self.results.len() as u64;
        match &self.state {
            RunState::Running if rows == 0 && progress.done == 0 => {
                let phase = if progress.phase.is_empty() { "Starting" } else { &progress.phase };
                format!("{phase}…")
            }
            RunState::Running => format!("{} · {}", self.counted(), self.pace()),
            RunState::Paused => format!("Paused · {}", self.counted()),
            RunState::Stopping => "Stopping after this batch…".to_owned(),
            RunState::Finished(summary) => finished(summary),
            RunState::Canceled => {
                format!("Canceled after {} · start again to go on from here", format::counted(rows, "photo"))
            }
            RunState::Failed(_) => format!("Stopped after {}", format::counted(rows, "photo")),
        }
    }

    fn counted(&self) -> String {
        let done = format::count(self.progress.done.max(self.results.len() as u64));
        match self.progress.total {
            Some(total) => format!("{done} of {}", format::counted(total, "photo")),
            None => format!("{done} photos so far"),
        }
    }

    fn pace(&self) -> String {
        let rate = self.progress.per_second.map_or_else(
            || "measuring speed".to_owned(),
            |rate| if rate < 10.0 { format!("{rate:.1} photos/s") } else { format!("{rate:.0} photos/s") },
        );
        match self.progress.time_left() {
            Some(left) => format!("{rate} · {} left", format::duration(left)),
            None => rate,
        }
    }

    /// The share that is done, once the total is known.
    pub fn share(&self) -> Option<f32> {
        self.progress.share()
    }
}

fn ended(outcome: Outcome<ClassifySummary>) -> RunState {
    match outcome {
        Outcome::Finished(summary) => RunState::Finished(summary),
        Outcome::Canceled => RunState::Canceled,
        Outcome::Failed(error) => RunState::Failed(format::error_chain(&*error)),
    }
}

fn finished(summary: &ClassifySummary) -> String {
    let mut text = format!("{} classified", format::counted(summary.ok, "photo"));
    if summary.skipped > 0 {
        text += &format!(" · {} skipped", format::count(summary.skipped));
    }
    text + &format!(" · {}", format::duration(Duration::from_secs_f64(summary.seconds.max(0.0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Job;

    #[test]
    fn a_job_that_ends_before_its_rows_are_taken_still_ends_here() {
        let notice = |i: usize| ClassifyEvent::Notice(i.to_string());
        let job = Job::start(
            "count",
            || (),
            move |_, events| {
                (0..100).try_for_each(|i| events.send(notice(i)))?;
                Ok(ClassifySummary::default())
            },
        );
        let mut run = Run::without_job(ClassifyConfig::default());
        run.job = Some(job.unwrap());
        while !run.job.as_ref().is_some_and(Job::is_done) {
            std::thread::yield_now();
        }
        run.drain_until(Instant::now()); // a frame with no time left
        assert!(run.is_active() && run.notices.is_empty());
        run.drain_until(Instant::now() + Duration::from_secs(60));
        assert_eq!(run.notices.len(), 100);
        assert_eq!(run.state, RunState::Finished(ClassifySummary::default()));
    }
}
