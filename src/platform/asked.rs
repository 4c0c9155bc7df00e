//! What the system asks of the window, from the first moment on: a file that is opened with the program arrives before there
//! is a window. It waits here until the window takes it.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::menu::Command;

/// Something a person asked of the system, for the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Files and folders that were opened with the program, or dropped on its icon.
    Open(Vec<PathBuf>),
    /// To quit, while work goes on.
    Quit,
    /// An item of the menu bar.
    Do(Command),
    /// Something hovers whose files are only promised: there is nothing to read.
    Promise,
}

struct Queue {
    waiting: Vec<Asked>,
    wake: Option<Box<dyn Fn() + Send>>,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { waiting: Vec::new(), wake: None });

/// Puts something before the window, and wakes it when it is there. Any thread may call it.
pub fn ask(asked: Asked) {
    let mut queue = queue();
    queue.waiting.push(asked);
    queue.wake.iter().for_each(|wake| wake());
}

/// Everything that waits, in the order it came.
pub fn take() -> Vec<Asked> {
    std::mem::take(&mut queue().waiting)
}

/// Calls `wake` from now on whenever something is asked.
pub fn wake_with(wake: impl Fn() + Send + 'static) {
    queue().wake = Some(Box::new(wake));
}

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn what_is_asked_before_the_window_is_there_waits_for_it() {
        ask(Asked::Open(vec!["/photos".into()]));
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = woken.clone();
        wake_with(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        ask(Asked::Quit);
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert_eq!(take(), [Asked::Open(vec!["/photos".into()]), Asked::Quit]);
        assert_eq!(take(), []);
    }
}
