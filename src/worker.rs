//! One thread per job: cancel, pause, progress, events and the outcome. No other file starts a thread, except those that
//! decode photos.
//!
//! Progress is a latest-value slot: a job may report as often as it likes. Events go through a bounded queue: a job
//! waits while its listener is behind, so memory stays flat.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::device::scoped;

/// Any error a job may end with.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Stack of a job's thread, in bytes: as much as a program's first thread has. Systems give others a quarter of that or
/// less, and decoders and deep networks were written on first threads.
const STACK_BYTES: usize = 8 << 20;

/// How many events may wait for their listener before the job waits too.
const EVENT_QUEUE: usize = 256;

/// The error by which a canceled job unwinds. Canceling is an outcome, not a failure.
#[derive(Debug, thiserror::Error)]
#[error("canceled")]
pub struct Canceled;

/// How far a job has come.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// What is going on, as a person would say it: "Reading model", "Classifying".
    pub phase: String,
    /// Units finished (photos, steps, bytes).
    pub done: u64,
    /// Units in all, once known.
    pub total: Option<u64>,
    /// Units per second over the last seconds, once known.
    pub per_second: Option<f64>,
}

impl Progress {
    /// The share that is done, 0 to 1, once the total is known.
    pub fn share(&self) -> Option<f32> {
        let total = self.total.filter(|total| *total > 0)?;
        Some(self.done as f32 / total as f32)
    }

    /// Time left at the present rate, when both the rate and the total are known.
    pub fn time_left(&self) -> Option<Duration> {
        let left = self.total?.saturating_sub(self.done) as f64;
        let rate = self.per_second.filter(|rate| *rate > 0.0)?;
        Duration::try_from_secs_f64(left / rate).ok()
    }
}

/// How a job ended.
#[derive(Debug)]
pub enum Outcome<T> {
    Finished(T),
    Canceled,
    Failed(BoxError),
}

struct Shared {
    canceled: AtomicBool,
    paused: Mutex<bool>,
    resumed: Condvar,
    progress: Mutex<Progress>,
    expected: Mutex<Vec<(&'static str, u64)>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// What a job sees of the outside: shall I stop or wait, and whom do I tell.
#[derive(Clone)]
pub struct JobContext {
    shared: Arc<Shared>,
}

impl JobContext {
    /// A context that wakes nobody: for tests, and for jobs run on the calling thread.
    pub fn detached() -> Self {
        Self::waking(|| ())
    }

    /// A context that calls `wake` after each change a listener may want to see.
    pub fn waking(wake: impl Fn() + Send + Sync + 'static) -> Self {
        let shared = Shared {
            canceled: AtomicBool::new(false),
            paused: Mutex::new(false),
            resumed: Condvar::new(),
            progress: Mutex::default(),
            expected: Mutex::default(),
            wake: Box::new(wake),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Call once per batch: waits while paused, fails once canceled.
    pub fn check(&self) -> Result<(), Canceled> {
        let mut paused = lock(&self.shared.paused);
        while *paused && !self.is_canceled() {
            paused = self.shared.resumed.wait(paused).unwrap_or_else(PoisonError::into_inner);
        }
        if self.is_canceled() { Err(Canceled) } else { Ok(()) }
    }

    pub fn is_canceled(&self) -> bool {
        self.shared.canceled.load(Ordering::Acquire)
    }

    pub fn is_paused(&self) -> bool {
        *lock(&self.shared.paused)
    }

    /// Replaces the latest progress.
    pub fn report(&self, progress: Progress) {
        *lock(&self.shared.progress) = progress;
        (self.shared.wake)();
    }

    pub fn progress(&self) -> Progress {
        lock(&self.shared.progress).clone()
    }

    /// Replaces what the job is expected to take at its most, by what takes it, in bytes beside what the process had before.
    pub fn expect(&self, items: &[(&'static str, u64)]) {
        *lock(&self.shared.expected) = items.to_vec();
        (self.shared.wake)();
    }

    pub fn expected(&self) -> Vec<(&'static str, u64)> {
        lock(&self.shared.expected).clone()
    }

    /// Asks the job to stop at its next [`check`](Self::check), also while it is paused.
    pub fn cancel(&self) {
        self.shared.canceled.store(true, Ordering::Release);
        self.set_paused(false);
    }

    pub fn set_paused(&self, paused: bool) {
        *lock(&self.shared.paused) = paused;
        self.shared.resumed.notify_all();
        (self.shared.wake)();
    }
}

/// Where a job puts its events.
pub struct Events<E> {
    sender: SyncSender<E>,
    ctx: JobContext,
}

impl<E> Events<E> {
    /// Hands an event over; waits while the listener is behind, and fails only when the job is canceled or nobody
    /// listens any more.
    pub fn send(&self, mut event: E) -> Result<(), Canceled> {
        loop {
            match self.sender.try_send(event) {
                Ok(()) => {
                    (self.ctx.shared.wake)();
                    return Ok(());
                }
                Err(TrySendError::Full(back)) if !self.ctx.is_canceled() => {
                    event = back;
                    (self.ctx.shared.wake)();
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => return Err(Canceled),
            }
        }
    }
}

/// A running job, seen from outside. Dropping it cancels the job and waits for its thread.
pub struct Job<T, E> {
    ctx: JobContext,
    events: Receiver<E>,
    thread: Option<JoinHandle<Outcome<T>>>,
    started: Instant,
}

impl<T: Send + 'static, E: Send + 'static> Job<T, E> {
    /// Starts `work` on a thread of its own. `wake` is called, from that thread, whenever there is something to see.
    pub fn start<F>(name: &str, wake: impl Fn() + Send + Sync + 'static, work: F) -> std::io::Result<Self>
    where
        F: FnOnce(&JobContext, &Events<E>) -> Result<T, BoxError> + Send + 'static,
    {
        let ctx = JobContext::waking(wake);
        let (sender, events) = sync_channel(EVENT_QUEUE);
        let inside = ctx.clone();
        let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || {
            let events = Events { sender, ctx: inside.clone() };
            let outcome = run(|| work(&inside, &events));
            drop(events);
            (inside.shared.wake)();
            outcome
        })?;
        Ok(Self { ctx, events, thread: Some(thread), started: Instant::now() })
    }

    pub fn context(&self) -> &JobContext {
        &self.ctx
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    /// The next waiting event, if any. Never blocks.
    pub fn poll(&self) -> Option<E> {
        self.events.try_recv().ok()
    }

    /// True once the thread has ended; events may still wait.
    pub fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The outcome, once, after the thread has ended and every event has been taken.
    pub fn take_outcome(&mut self) -> Option<Outcome<T>> {
        if !self.is_done() {
            return None;
        }
        self.thread.take().map(join)
    }
}

impl<T, E> Drop for Job<T, E> {
    fn drop(&mut self) {
        self.ctx.cancel();
        if let Some(thread) = self.thread.take() {
            drop(join(thread));
        }
    }
}

fn join<T>(thread: JoinHandle<Outcome<T>>) -> Outcome<T> {
    thread.join().unwrap_or_else(|panic| Outcome::Failed(panic_message(&*panic).into()))
}

/// Runs `work` on the calling thread and sorts its end: a panic is `Failed`, a [`Canceled`] anywhere in the error's
/// chain is `Canceled`.
pub fn run<T>(work: impl FnOnce() -> Result<T, BoxError>) -> Outcome<T> {
    match catch_unwind(AssertUnwindSafe(|| scoped(work))) {
        Ok(Ok(value)) => Outcome::Finished(value),
        Ok(Err(error)) if is_canceled(&*error) => Outcome::Canceled,
        Ok(Err(error)) => Outcome::Failed(error),
        Err(panic) => Outcome::Failed(panic_message(&*panic).into()),
    }
}

/// Starts `work` on a thread that nobody waits for; the end of the program is its end too.
pub fn background(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

/// True when a [`Canceled`] is in the error's chain.
pub fn is_canceled(error: &(dyn Error + 'static)) -> bool {
    crate::format::chain(error).any(|error| error.is::<Canceled>())
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("internal error: {}", text.unwrap_or("the job panicked"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish<T: Send + 'static, E: Send + 'static>(mut job: Job<T, E>) -> (Vec<E>, Outcome<T>) {
        let mut events = Vec::new();
        loop {
            let done = job.is_done();
            while let Some(event) = job.poll() {
                events.push(event);
            }
            if done {
                return (events, job.take_outcome().expect("the thread has ended"));
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn events_arrive_in_order_past_the_queue_length() {
        let job = Job::start(
            "count",
            || (),
            |_, events| {
                for i in 0..1000 {
                    events.send(i)?;
                }
                Ok("done")
            },
        );
        let (events, outcome) = finish(job.unwrap());
        assert_eq!(events, (0..1000).collect::<Vec<_>>());
        assert!(matches!(outcome, Outcome::Finished("done")));
    }

    #[test]
    fn a_paused_job_waits_and_a_canceled_one_ends_as_canceled() {
        let job = Job::<(), u32>::start(
            "wait",
            || (),
            |ctx, _| loop {
                ctx.check()?;
                std::thread::yield_now();
            },
        )
        .unwrap();
        job.context().set_paused(true);
        assert!(job.context().is_paused());
        job.context().cancel();
        assert!(matches!(finish(job).1, Outcome::Canceled));
    }

    #[test]
    fn a_panic_is_a_failure_with_its_message() {
        let job = Job::<(), ()>::start("panic", || (), |_, _| panic!("no {}", "luck")).unwrap();
        let Outcome::Failed(error) = finish(job).1 else { panic!("not failed") };
        assert_eq!(error.to_string(), "internal error: no luck");
    }

    #[test]
    fn a_cancel_deep_in_the_chain_is_still_a_cancel() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] Canceled);
        assert!(matches!(run::<()>(|| Err(Outer(Canceled).into())), Outcome::Canceled));
    }
}
