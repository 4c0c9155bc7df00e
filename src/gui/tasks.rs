//! Small jobs whose result is an action: dialogs, inspections, exports, looking at what was dropped.

use std::time::{Duration, Instant};

use egui::Context;

use super::Action;
use crate::worker::{BoxError, Job, JobContext, Outcome};

/// How long jobs may take to end when the window closes.
pub const GRACE: Duration = Duration::from_secs(2);

/// How long a run may take to write its snapshot when the program is ended without its window being closed.
pub const SNAPSHOT_GRACE: Duration = Duration::from_secs(10);

/// Jobs under way. Each ends in an action for the window, or in nothing.
#[derive(Default)]
pub struct Tasks {
    running: Vec<Job<Option<Action>, ()>>,
}

impl Tasks {
    /// Starts `work` away from the window.
    pub fn start<F>(&mut self, ctx: &Context, name: &str, work: F) -> std::io::Result<()>
    where
        F: FnOnce(&JobContext) -> Result<Option<Action>, BoxError> + Send + 'static,
    {
        let ctx = ctx.clone();
        let job = Job::start(name, move || super::wake(&ctx), move |job, _| work(job))?;
        self.running.push(job);
        Ok(())
    }

    /// What the finished ones ask for, in the order they were started.
    pub fn finished(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.running.retain_mut(|job| match job.take_outcome() {
            None => true,
            Some(outcome) => {
                match outcome {
                    Outcome::Finished(action) => actions.extend(action),
                    Outcome::Canceled => {}
                    Outcome::Failed(error) => actions.push(Action::Failed(crate::format::error_chain(&*error))),
                }
                false
            }
        });
        actions
    }

    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Cancels everything, and lets go of what has not ended by the deadline: an open file dialog would otherwise
    /// keep the program from ending.
    pub fn abandon(&mut self, deadline: Instant) {
        self.running.iter().for_each(|job| job.context().cancel());
        std::mem::take(&mut self.running).into_iter().for_each(|job| let_go(job, deadline));
    }
}

/// Jobs that were canceled and have not ended yet: dropping one would wait for its thread.
pub struct Leaving<T, E> {
    jobs: Vec<Job<T, E>>,
}

impl<T, E> Default for Leaving<T, E> {
    fn default() -> Self {
        Self { jobs: Vec::new() }
    }
}

impl<T: Send + 'static, E: Send + 'static> Leaving<T, E> {
    /// Cancels a job, if there is one, and lets it end by itself.
    pub fn add(&mut self, job: Option<Job<T, E>>) {
        job.iter().for_each(|job| job.context().cancel());
        self.jobs.extend(job);
    }

    pub fn poll(&mut self) {
        self.jobs.retain(|job| !job.is_done());
    }

    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }
}

/// Waits for a canceled job until the deadline, then forgets it; dropping it would wait for its thread.
pub fn let_go<T: Send + 'static, E: Send + 'static>(job: Job<T, E>, deadline: Instant) {
    while !job.is_done() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    if !job.is_done() {
        std::mem::forget(job);
    }
}
