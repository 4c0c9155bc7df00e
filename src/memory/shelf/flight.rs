//! One load under way, and everyone who waits for it.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Item, ShelfError};
use crate::worker::BoxError;

/// How often one who waits asks whether it should go on waiting.
const PATIENCE: Duration = Duration::from_millis(50);

/// Why a load failed; everyone who waited for it is told the same.
#[derive(Debug, Clone)]
pub struct LoadError(Arc<dyn Error + Send + Sync>);

impl From<BoxError> for LoadError {
    fn from(error: BoxError) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for LoadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

pub(super) type Landed<V> = Result<Arc<Item<V>>, LoadError>;

/// Holds what came of the load until the last who waits for it has taken it, and no longer: it would seem in use.
pub(super) struct Flight<V> {
    seats: Mutex<Seats<V>>,
    changed: Condvar,
}

struct Seats<V> {
    landed: Option<Landed<V>>,
    waiting: usize,
}

impl<V> Flight<V> {
    /// With one who waits.
    pub(super) fn new() -> Self {
        Self { seats: Mutex::new(Seats { landed: None, waiting: 1 }), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Seats<V>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more who waits; [`Self::wait`] must follow.
    pub(super) fn join(&self) {
        self.lock().waiting += 1;
    }

    pub(super) fn land(&self, landed: Landed<V>) {
        let mut seats = self.lock();
        if seats.waiting > 0 {
            seats.landed = Some(landed);
        }
        drop(seats);
        self.changed.notify_all();
    }

    /// What came of the load, unless that takes longer than `timeout` or `gives_up` says so first.
    pub(super) fn wait(
        &self,
        timeout: Option<Duration>,
        gives_up: &dyn Fn() -> bool,
    ) -> Result<Arc<Item<V>>, ShelfError> {
        let began = Instant::now();
        let mut seats = self.lock();
        let reason = loop {
            if seats.landed.is_some() {
                seats.waiting -= 1;
                let landed = if seats.waiting == 0 { seats.landed.take() } else { seats.landed.clone() };
                return landed.expect("it was there").map_err(ShelfError::Load);
            }
            if gives_up() {
                break ShelfError::GivenUp;
            }
            let left = timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
            if let Some(timeout) = timeout.filter(|_| left == Some(Duration::ZERO)) {
                break ShelfError::TimedOut(timeout);
            }
            let pause = left.unwrap_or(PATIENCE).min(PATIENCE);
            seats = self.changed.wait_timeout(seats, pause).unwrap_or_else(PoisonError::into_inner).0;
        };
        seats.waiting -= 1;
        Err(reason)
    }
}
