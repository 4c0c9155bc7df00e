//! Decodes photos to network input on threads of its own. An answer waits with whoever asked for it, so the order is
//! the asker's, and no more is in memory than was asked for.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::images::transform::Transform;
use crate::images::{ImageBudget, ImageError, Input, Limits, load_input};

/// The decoding threads. Dropping it leaves what is not begun undone and waits for the rest.
pub struct Loader {
    tasks: Option<Sender<Task>>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    tasks: Mutex<Receiver<Task>>,
    stopped: AtomicBool,
    transform: Transform,
    limits: Limits,
    budget: ImageBudget,
}

struct Task {
    path: PathBuf,
    answer: SyncSender<Answer>,
}

type Answer = Result<Input, ImageError>;

/// A photo's input, sooner or later.
pub struct Pending(Receiver<Answer>);

impl Pending {
    /// `None` only when the loader is gone.
    pub fn wait(self) -> Option<Answer> {
        self.0.recv().ok()
    }

    /// The same when it is there already; itself when it is not.
    pub fn ready(self) -> Result<Option<Answer>, Self> {
        match self.0.try_recv() {
            Ok(answer) => Ok(Some(answer)),
            Err(TryRecvError::Disconnected) => Ok(None),
            Err(TryRecvError::Empty) => Err(self),
        }
    }
}

impl Loader {
    /// `left` is for [`ImageBudget::with_left`].
    pub fn start(threads: usize, transform: Transform, left: u64) -> io::Result<Self> {
        let (sender, receiver) = channel();
        let (budget, limits) = ImageBudget::with_left(left);
        let shared = Arc::new(Shared {
            tasks: Mutex::new(receiver),
            stopped: AtomicBool::new(false),
            transform,
            limits,
            budget,
        });
        let mut loader = Self { tasks: Some(sender), shared, threads: Vec::new() };
        for number in 0..threads {
            let shared = loader.shared.clone();
            let thread = thread::Builder::new().name(format!("decode {number}"));
            loader.threads.push(thread.spawn(move || shared.work())?);
        }
        Ok(loader)
    }

    /// Asks for a photo. The queue is as long as the asker lets it grow.
    pub fn load(&self, path: PathBuf) -> Pending {
        let (answer, pending) = sync_channel(1);
        if let Some(tasks) = &self.tasks {
            // The receiver lives as long as this loader, so this cannot fail.
            drop(tasks.send(Task { path, answer }));
        }
        Pending(pending)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.tasks = None;
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn work(&self) {
        while let Some(task) = self.next() {
            let load = || load_input(&task.path, &self.transform, &self.limits, &self.budget);
            // A lost thread would leave its photos, and in the end the run, waiting for ever.
            let answer = catch_unwind(AssertUnwindSafe(load)).unwrap_or(Err(ImageError::DecoderFailed("photo")));
            // The asker may have gone: then nobody misses the answer.
            drop(task.answer.send(answer));
        }
    }

    /// The next task; `None` when there will be none.
    fn next(&self) -> Option<Task> {
        let task = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()?;
        (!self.stopped.load(Ordering::Acquire)).then_some(task)
    }
}
