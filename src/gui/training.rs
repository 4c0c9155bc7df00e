//! A training run as the window sees it: its job, its curves, and how it stands.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use egui::Context;

use super::tasks;
use crate::format;
use crate::jobs::Places;
use crate::jobs::admission::{self, MemoryChoice};
use crate::jobs::curves::Curves;
use crate::jobs::train::{self, TrainEvent, TrainJob, TrainStart, TrainSummary, TrainTask};
use crate::train::TrainConfig;
use crate::worker::{Outcome, Progress};

/// How long a frame may spend on taking records; the rest waits in the job's queue.
const DRAIN: Duration = Duration::from_millis(4);

/// Photos that cannot be read, and notices, are listed up to so many; all photos are counted.
const LISTED: usize = 100;

#[derive(Debug, Clone, PartialEq)]
pub enum TrainState {
    Running,
    /// A pause is asked for, and the step under way not over.
    Pausing,
    Paused,
    Stopping,
    Finished(TrainSummary),
    Stopped,
    /// The reason, for people.
    Failed(String),
}

pub struct Training {
    pub folder: PathBuf,
    /// What was started; none of a run that is fed by hand.
    task: Option<TrainTask>,
    pub state: TrainState,
    /// It was refused because it is predicted not to fit, and may be run anyway.
    pub is_refused: bool,
    /// What the run is about, once its model and photos are known.
    pub start: Option<Box<TrainStart>>,
    pub curves: Curves,
    pub notices: Vec<String>,
    /// Photos that could not be read: the first few, and how many.
    pub skipped: Vec<(PathBuf, String)>,
    pub skipped_count: u64,
    pub progress: Progress,
    pace: Pace,
    job: Option<TrainJob>,
}

impl Training {
    /// Starts the job; a run that cannot start is a failed run. `curves` are those it has already.
    pub fn start(task: TrainTask, curves: Curves, places: Places, ctx: &Context) -> Self {
        let ctx = ctx.clone();
        let mut training = Self::without_job(task.folder().to_owned());
        training.curves = curves;
        training.task = Some(task.clone());
        match train::start(task, places, move || super::wake(&ctx)) {
            Ok(job) => training.job = Some(job),
            Err(error) => training.state = TrainState::Failed(error.to_string()),
        }
        training
    }

    /// A run that is fed by hand.
    pub fn without_job(folder: PathBuf) -> Self {
        Self {
            folder,
            task: None,
            state: TrainState::Running,
            is_refused: false,
            start: None,
            curves: Curves::default(),
            notices: Vec::new(),
            skipped: Vec::new(),
            skipped_count: 0,
            progress: Progress::default(),
            pace: Pace::default(),
            job: None,
        }
    }

    /// The same task for one who wants it in spite of the prediction.
    pub fn task_anyway(&self) -> Option<TrainTask> {
        Some(match self.task.clone()? {
            TrainTask::Begin { config, folder } => {
                TrainTask::Begin { config: Box::new(TrainConfig { anyway: true, ..*config }), folder }
            }
            TrainTask::Resume { folder, memory } => {
                let memory = Some(MemoryChoice { anyway: true, ..memory.unwrap_or_default() });
                TrainTask::Resume { folder, memory }
            }
        })
    }

    /// True until the job has ended.
    pub fn is_active(&self) -> bool {
        use TrainState::{Paused, Pausing, Running, Stopping};
        matches!(self.state, Running | Pausing | Paused | Stopping)
    }

    pub fn set_paused(&mut self, paused: bool) {
        let Some(job) = &self.job else { return };
        self.state = match (&self.state, paused) {
            (TrainState::Running, true) => TrainState::Pausing,
            (TrainState::Pausing | TrainState::Paused, false) => TrainState::Running,
            _ => return,
        };
        self.pace = Pace::default();
        job.context().set_paused(paused);
    }

    /// Asks the job to stop. It writes a snapshot first, so that the run can be continued.
    pub fn stop(&mut self) {
        if let (Some(job), true) = (&self.job, self.is_active()) {
            job.context().cancel();
            self.state = TrainState::Stopping;
        }
    }

    /// Stops, and lets go of the job when it has not ended by the deadline.
    pub fn abandon(&mut self, deadline: Instant) {
        self.stop();
        if let Some(job) = self.job.take() {
            tasks::let_go(job, deadline);
            self.state = TrainState::Stopped;
        }
    }

    /// Takes what the job has sent, within a few milliseconds. Never waits. True when the job has ended.
    pub fn drain(&mut self) -> bool {
        let Some(mut job) = self.job.take() else { return false };
        let deadline = Instant::now() + DRAIN;
        // Asked before the queue is emptied: what a job sends before it ends is then taken before its outcome.
        let ended_before = job.is_done();
        self.progress = job.context().progress();
        let mut emptied = false;
        while !emptied && Instant::now() < deadline {
            match job.poll() {
                Some(TrainEvent::Paused) if job.context().is_paused() => self.state = TrainState::Paused,
                Some(event) => self.receive(event),
                None => emptied = true,
            }
        }
        // Before the first step, progress counts photos.
        if self.state == TrainState::Running && self.is_training() {
            self.pace.note(Instant::now(), self.progress.done);
        }
        match if ended_before && emptied { job.take_outcome() } else { None } {
            Some(outcome) => {
                let refusal = admission::refusal_of(&outcome);
                self.is_refused = refusal.is_some();
                self.state = refusal.map_or_else(|| ended(outcome), TrainState::Failed);
            }
            None => self.job = Some(job),
        }
        self.job.is_none()
    }

    pub fn receive(&mut self, event: TrainEvent) {
        match event {
            TrainEvent::Start(start) => {
                self.start = Some(start);
                self.pace = Pace::default();
            }
            TrainEvent::Record(record) => self.curves.add(&record),
            TrainEvent::Skipped { path, reason } => {
                self.skipped_count += 1;
                if self.skipped.len() < LISTED && self.skipped.iter().all(|(known, _)| *known != path) {
                    self.skipped.push((path, reason));
                }
            }
            TrainEvent::Notice(notice) => {
                if !self.notices.contains(&notice) && self.notices.len() < LISTED {
                    self.notices.push(notice);
                }
            }
            // The job has paused itself.
            TrainEvent::Held(reason) => {
                self.state = TrainState::Paused;
                self.notices.push(reason);
            }
            // The window shows what it knows of the device beside its pages.
            TrainEvent::DeviceNotice(_) | TrainEvent::Paused => {}
        }
    }

    /// What goes on, as few words: `Epoch 3 of 10`.
    pub fn phase(&self) -> Option<String> {
        match self.state {
            TrainState::Running if self.is_validating() => Some("Validating".to_owned()),
            TrainState::Running if self.progress.phase.is_empty() => Some("Starting".to_owned()),
            TrainState::Running => Some(self.progress.phase.clone()),
            TrainState::Pausing | TrainState::Stopping => Some("Saving".to_owned()),
            TrainState::Paused => Some("Paused".to_owned()),
            TrainState::Finished(_) | TrainState::Stopped | TrainState::Failed(_) => None,
        }
    }

    /// An epoch's batches are all trained on, and its record is not there.
    fn is_validating(&self) -> bool {
        let steps = self.start.as_ref().map_or(0, |start| start.steps_per_epoch as u64);
        let done = self.progress.done;
        self.is_training()
            && steps > 0
            && done > 0
            && done.is_multiple_of(steps)
            && (self.curves.epochs.len() as u64) < done / steps
    }

    /// Steps are taken: before, progress counts photos that are looked at.
    fn is_training(&self) -> bool {
        self.start.is_some() && self.progress.phase.starts_with("Epoch")
    }

    /// The share of the present phase that is done, where it is known.
    pub fn share(&self) -> Option<f32> {
        self.progress.share()
    }

    /// The share of the run's steps that are done, once steps are taken.
    pub fn share_of_run(&self) -> Option<f32> {
        self.share().filter(|_| self.is_training())
    }

    pub fn time_left(&self) -> Option<Duration> {
        let left = self.progress.total?.saturating_sub(self.progress.done);
        let rate = self.pace.per_second().filter(|_| self.is_training())?;
        Duration::try_from_secs_f64(left as f64 / rate).ok()
    }

    /// One line about where the run stands.
    pub fn status(&self) -> String {
        let so_far = || {
            let of = self.start.as_ref().map_or(String::new(), |start| format!(" of {}", start.config.epochs));
            format!("{}{of} done", format::counted(self.curves.epochs.len() as u64, "epoch"))
        };
        match &self.state {
            TrainState::Running => self.running(),
            TrainState::Pausing => "Pausing after this step, and writing a snapshot…".to_owned(),
            TrainState::Paused => format!("Paused · {} · the device is free meanwhile", so_far()),
            TrainState::Stopping => "Stopping after this step, and writing a snapshot…".to_owned(),
            TrainState::Finished(summary) => finished(summary),
            TrainState::Stopped => format!("Stopped · {} · continue whenever you like", so_far()),
            TrainState::Failed(_) => format!("Stopped by a problem · {}", so_far()),
        }
    }

    fn running(&self) -> String {
        let phase = self.phase().unwrap_or_default();
        let Some(total) = self.progress.total else { return format!("{phase}…") };
        let unit = if self.is_training() { "step" } else { "photo" };
        let done = format!("{phase} · {} of {}", format::count(self.progress.done), format::counted(total, unit));
        match self.time_left() {
            Some(left) => format!("{done} · {} left", format::duration(left)),
            None if self.is_training() => format!("{done} · measuring speed"),
            None => done,
        }
    }
}

fn ended(outcome: Outcome<TrainSummary>) -> TrainState {
    match outcome {
        Outcome::Finished(summary) => TrainState::Finished(summary),
        Outcome::Canceled => TrainState::Stopped,
        Outcome::Failed(error) => TrainState::Failed(format::error_chain(&*error)),
    }
}

fn finished(summary: &TrainSummary) -> String {
    let early = if summary.finished.early { ", stopped early because it no longer became better" } else { "" };
    let epochs = format::counted(summary.finished.epochs, "epoch");
    let time = format::duration(Duration::from_secs_f64(summary.seconds.max(0.0)));
    let best = summary
        .finished
        .best
        .map_or(String::new(), |best| format!(" · best in epoch {}: {:.1} % right", best.epoch + 1, 100.0 * best.top1));
    format!("Finished {epochs}{early} · {time}{best}")
}

/// How fast steps go, from those of the last minutes: long enough to see validations among them.
#[derive(Debug, Default)]
struct Pace {
    seen: VecDeque<(Instant, u64)>,
}

impl Pace {
    const WINDOW: Duration = Duration::from_secs(300);
    const LEAST: Duration = Duration::from_secs(3);

    fn note(&mut self, now: Instant, done: u64) {
        match self.seen.back() {
            Some((_, last)) if *last == done => return,
            // Another phase counts from the beginning.
            Some((_, last)) if *last > done => self.seen.clear(),
            _ => {}
        }
        self.seen.push_back((now, done));
        while self.seen.len() > 2 && self.seen.front().is_some_and(|(when, _)| now - *when > Self::WINDOW) {
            self.seen.pop_front();
        }
    }

    fn per_second(&self) -> Option<f64> {
        let ((begin, first), (end, last)) = (self.seen.front()?, self.seen.back()?);
        let time = end.duration_since(*begin);
        (time >= Self::LEAST && last > first).then(|| (last - first) as f64 / time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_last_minutes_and_begins_anew_with_a_phase() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        pace.note(at(0), 10);
        pace.note(at(1), 12);
        assert_eq!(pace.per_second(), None, "a second says too little");
        (2..1000).for_each(|second| pace.note(at(second), 10 + 2 * second.min(500) + 4 * second.saturating_sub(500)));
        assert_eq!(pace.per_second(), Some(4.0));
        pace.note(at(1000), 1);
        assert_eq!(pace.per_second(), None);
    }

    #[test]
    fn a_pause_that_is_taken_back_in_time_is_none() {
        let mut training = Training::without_job("run".into());
        training.receive(TrainEvent::Paused);
        assert_eq!(training.state, TrainState::Running);
        assert_eq!(training.phase().as_deref(), Some("Starting"));
    }
}
