//! Small pictures for the window, decoded away from it. The newest wish wins: a photo that is no longer wanted is
//! never decoded, so scrolling past ten thousand photos costs only the ones still in sight.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::images::{self, ImageBudget, Limits, Picture};
use crate::worker::{BoxError, Events, Job};

/// Two decoders keep a screen of photos coming and leave the other cores to the running job.
const DECODERS: usize = 2;

/// What the decoders may hold together while they work.
const DECODE_BYTES: u64 = 96_000_000;

/// A picture that would be good to have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wish {
    pub path: PathBuf,
    /// The longest side of the picture, in pixels.
    pub side: u32,
}

/// What became of a wish: a picture no longer than `side` on any side, or the reason why there is none.
#[derive(Debug, Clone)]
pub struct Thumbnail {
    pub wish: Wish,
    pub picture: Result<Picture, String>,
}

#[derive(Default)]
struct State {
    /// Most wanted last.
    wishes: Vec<Wish>,
    in_hand: HashSet<Wish>,
    closed: bool,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most wanted wish; waits for one, and ends with the service.
    fn next(&self) -> Option<Wish> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(wish) = state.wishes.pop() {
                state.in_hand.insert(wish.clone());
                return Some(wish);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The service: decoders that wait for wishes.
pub struct Thumbnails {
    queue: Arc<Queue>,
    decoders: Vec<Job<(), Thumbnail>>,
}

impl Thumbnails {
    /// Starts the decoders. `wake` is called, from their threads, when a picture is ready.
    pub fn start(wake: impl Fn() + Send + Sync + Clone + 'static) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let budget = Arc::new(ImageBudget::new(DECODE_BYTES));
        let decoder = |_| {
            let (queue, budget) = (queue.clone(), budget.clone());
            Job::start("thumbnails", wake.clone(), move |_, events| serve(&queue, &budget, events))
        };
        let decoders = (0..DECODERS).map(decoder).collect::<Result<_, _>>()?;
        Ok(Self { queue, decoders })
    }

    /// Replaces every wish that is not in a decoder's hands yet. Best first.
    pub fn want(&self, wishes: impl DoubleEndedIterator<Item = Wish>) {
        let mut state = self.queue.lock();
        let mut fresh: Vec<Wish> = wishes.rev().filter(|wish| !state.in_hand.contains(wish)).collect();
        std::mem::swap(&mut state.wishes, &mut fresh);
        let waiting = !state.wishes.is_empty();
        drop(state);
        if waiting {
            self.queue.changed.notify_all();
        }
    }

    /// The next finished wish, if any. Never blocks.
    pub fn poll(&self) -> Option<Thumbnail> {
        let done = self.decoders.iter().find_map(Job::poll)?;
        self.queue.lock().in_hand.remove(&done.wish);
        Some(done)
    }
}

impl Drop for Thumbnails {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
    }
}

fn serve(queue: &Queue, budget: &ImageBudget, events: &Events<Thumbnail>) -> Result<(), BoxError> {
    while let Some(wish) = queue.next() {
        let picture = shrunk(&wish.path, wish.side, budget);
        events.send(Thumbnail { wish, picture })?;
    }
    Ok(())
}

fn shrunk(path: &Path, side: u32, budget: &ImageBudget) -> Result<Picture, String> {
    let picture = images::decode(path, Some(side), &Limits::default(), budget);
    picture.map(|picture| picture.shrunk_to(side)).map_err(|error| crate::format::error_chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_wishes_replace_the_older_ones_and_the_best_comes_first() {
        let wish = |name: &str| Wish { path: name.into(), side: 8 };
        let thumbnails = Thumbnails { queue: Arc::default(), decoders: Vec::new() };
        thumbnails.want(["a", "b"].map(wish).into_iter());
        assert_eq!(thumbnails.queue.next(), Some(wish("a")));
        thumbnails.want(["a", "c", "d"].map(wish).into_iter());
        assert_eq!(thumbnails.queue.next(), Some(wish("c")), "a is in hand, b is no longer wanted");
        assert_eq!(thumbnails.queue.next(), Some(wish("d")));
        assert!(thumbnails.queue.lock().wishes.is_empty());
    }
}
