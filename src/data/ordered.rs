//! Work on several threads whose results come in order, no more of them ahead than was allowed.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// The results of tasks 0, 1, 2, …; one that panicked is an `Err`. Dropping it leaves what is not begun undone and
/// waits for the rest.
pub(super) struct Ordered<T> {
    shared: Arc<Shared<T>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared<T> {
    tasks: usize,
    ahead: Box<dyn Fn() -> usize + Send + Sync>,
    state: Mutex<State<T>>,
    /// Something was finished, and something may be begun.
    finished: Condvar,
    room: Condvar,
}

struct State<T> {
    begun: usize,
    taken: usize,
    /// Of the tasks from `taken` up to `begun`; `None` while in work.
    results: VecDeque<Option<thread::Result<T>>>,
    stopped: bool,
}

impl<T: Send + 'static> Ordered<T> {
    /// Starts tasks 0 to `tasks` on `threads` threads called `name`, each with a `worker` of its own. At most `ahead`
    /// tasks, asked before each, are in work or wait to be taken.
    pub fn start<W>(
        name: &str,
        threads: usize,
        tasks: usize,
        ahead: impl Fn() -> usize + Send + Sync + 'static,
        worker: impl Fn() -> W,
    ) -> io::Result<Self>
    where
        W: FnMut(usize) -> T + Send + 'static,
    {
        let state = State { begun: 0, taken: 0, results: VecDeque::new(), stopped: false };
        let shared = Shared {
            tasks,
            ahead: Box::new(ahead),
            state: Mutex::new(state),
            finished: Condvar::new(),
            room: Condvar::new(),
        };
        let mut ordered = Self { shared: Arc::new(shared), threads: Vec::new() };
        for number in 0..threads.max(1) {
            let (shared, mut worker) = (ordered.shared.clone(), worker());
            let thread = thread::Builder::new().name(format!("{name} {number}"));
            ordered.threads.push(thread.spawn(move || shared.work(&mut worker))?);
        }
        Ok(ordered)
    }
}

impl<T> Iterator for Ordered<T> {
    type Item = thread::Result<T>;

    fn next(&mut self) -> Option<thread::Result<T>> {
        let mut state = self.shared.lock();
        while state.taken < self.shared.tasks {
            if let Some(Some(_)) = state.results.front() {
                state.taken += 1;
                let result = state.results.pop_front().flatten();
                self.shared.room.notify_one();
                return result;
            }
            state = self.shared.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }
}

impl<T> Drop for Ordered<T> {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl<T> Shared<T> {
    fn work(&self, worker: &mut impl FnMut(usize) -> T) {
        while let Some(task) = self.begin() {
            // A lost thread would leave its task, and in the end the asker, waiting for ever.
            let result = catch_unwind(AssertUnwindSafe(|| worker(task)));
            let mut state = self.lock();
            let place = task - state.taken;
            state.results[place] = Some(result);
            drop(state);
            self.finished.notify_one();
        }
    }

    /// The next task, once there is room for its result; `None` when there will be none.
    fn begin(&self) -> Option<usize> {
        let mut state = self.lock();
        while !state.stopped && state.begun < self.tasks {
            if state.begun - state.taken < (self.ahead)().max(1) {
                state.begun += 1;
                state.results.push_back(None);
                return Some(state.begun - 1);
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        // Whoever still waits for room shall see the end too.
        self.room.notify_all();
        None
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_come_in_order_and_never_too_many_are_ahead() {
        let begun = Arc::new(AtomicUsize::new(0));
        let worker = || {
            let begun = begun.clone();
            move |task: usize| {
                begun.fetch_add(1, Ordering::SeqCst);
                // Later tasks are sooner done.
                thread::sleep(Duration::from_micros(200 * (7 - task as u64 % 7)));
                assert!(task != 5, "five");
                task * task
            }
        };
        let results = Ordered::start("test", 4, 60, || 3, worker).unwrap();
        for (task, result) in results.enumerate() {
            assert!(begun.load(Ordering::SeqCst) <= task + 1 + 3);
            match result {
                Ok(square) => assert_eq!(square, task * task),
                Err(_) => assert_eq!(task, 5),
            }
        }
        assert_eq!(begun.load(Ordering::SeqCst), 60);
    }

    #[test]
    fn dropping_it_ends_the_threads_with_work_left() {
        let alive = Arc::new(());
        let worker = || {
            let alive = alive.clone();
            move |task: usize| (task, Arc::strong_count(&alive))
        };
        let mut results = Ordered::start("test", 2, usize::MAX, || 4, worker).unwrap();
        assert_eq!(results.next().unwrap().unwrap().0, 0);
        drop(results);
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn no_tasks_are_no_results() {
        assert!(Ordered::start("test", 2, 0, || 4, || |task: usize| task).unwrap().next().is_none());
    }
}
