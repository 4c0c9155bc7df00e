//! Keeps what is costly to load for whoever asks for it next: models, which are loaded at their first use, once however
//! many ask, and unloaded when others need the room or when nobody has used them for a while.
//!
//! The shelf knows neither models nor files: it is told a key, how many bytes the thing will take, and how to load it. What
//! is lent stays until its last user gives it back, whatever happens to its place, and is counted until then.

mod flight;
#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

pub use flight::LoadError;
use flight::{Flight, Landed};

use crate::format::{bytes, duration};
use crate::worker::{self, BoxError, Outcome};

/// How much a shelf holds, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShelfLimits {
    /// Bytes of all it holds, lends and loads together; `None`: whatever is asked for.
    pub capacity: Option<u64>,
    /// Bytes of the largest thing it loads.
    pub largest: Option<u64>,
    /// What nobody has used for so long is unloaded; zero: at once, `None`: never.
    pub idle: Option<Duration>,
    /// How long one who asks waits for a load; `None`: as long as it takes.
    pub load_timeout: Option<Duration>,
}

impl ShelfLimits {
    /// No limit at all.
    pub const NONE: Self = Self { capacity: None, largest: None, idle: None, load_timeout: None };
}

#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// Found before anything was loaded.
    #[error("it takes {} of memory, and the largest model allowed is {}", bytes(*.needed), bytes(*.limit))]
    TooLarge { needed: u64, limit: u64 },
    /// Found before anything was loaded: what is pinned or in use leaves too little room.
    #[error(
        "it takes {} of memory, and of the {} for loaded models {} are in use or pinned",
        bytes(*.needed), bytes(*.capacity), bytes(*.taken)
    )]
    NoRoom { needed: u64, capacity: u64, taken: u64 },
    /// The load goes on; who asks again waits for the same one.
    #[error("loading it takes longer than {}", duration(*.0))]
    TimedOut(Duration),
    #[error("nobody waits for it any more")]
    GivenUp,
    #[error(transparent)]
    Load(LoadError),
    #[error("no thread could be started to load it")]
    Thread(#[source] std::io::Error),
}

/// One thing on the shelf, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct Shelved<K> {
    pub key: K,
    pub bytes: u64,
    /// Being loaded still: `bytes` is what it is expected to take.
    pub is_loading: bool,
    pub is_pinned: bool,
    pub is_in_use: bool,
    pub last_used: Instant,
}

/// A handle: clones share one shelf.
pub struct Shelf<K, V>(Arc<Shared<K, V>>);

struct Shared<K, V> {
    limits: Mutex<ShelfLimits>,
    state: Mutex<State<K, V>>,
    /// Something that had lost its place is gone.
    freed: Condvar,
}

struct State<K, V> {
    /// The least recently used first.
    held: Vec<Held<K, V>>,
    loading: Vec<Loading<K, V>>,
    /// What has lost its place and is there still.
    leaving: Vec<Leaving>,
}

struct Leaving {
    presence: Weak<()>,
    bytes: u64,
    /// Somebody uses it; otherwise the shelf is freeing it.
    is_lent: bool,
}

impl Leaving {
    fn is_there(&self) -> bool {
        self.presence.strong_count() > 0
    }
}

struct Item<V> {
    value: V,
    bytes: u64,
    /// After the value: it is there until the value is freed.
    presence: Arc<()>,
}

impl<V> Item<V> {
    fn new((value, bytes): (V, u64)) -> Arc<Self> {
        Arc::new(Self { value, bytes, presence: Arc::new(()) })
    }

    fn leave(&self, is_lent: bool) -> Leaving {
        Leaving { presence: Arc::downgrade(&self.presence), bytes: self.bytes, is_lent }
    }
}

struct Held<K, V> {
    key: K,
    item: Arc<Item<V>>,
    is_pinned: bool,
    last_used: Instant,
}

impl<K, V> Held<K, V> {
    /// Asked under the shelf's lock, under which loans are given: meanwhile one can only be given back.
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.item) > 1
    }

    fn can_go(&self) -> bool {
        !self.is_pinned && !self.is_in_use()
    }
}

struct Loading<K, V> {
    key: K,
    flight: Arc<Flight<V>>,
    /// What it is expected to take.
    bytes: u64,
    since: Instant,
}

/// What has lost its place: freed when it goes out of scope, which must not be under the lock.
type Freed<V> = Vec<Arc<Item<V>>>;

/// Something lent by a shelf, which has it until this is dropped.
pub struct Loan<K: Clone + PartialEq, V> {
    /// Taken only by drop.
    item: Option<Arc<Item<V>>>,
    key: K,
    shelf: Arc<Shared<K, V>>,
}

impl<K: Clone + PartialEq, V> Loan<K, V> {
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Clone + PartialEq, V> Deref for Loan<K, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.item.as_ref().expect("only drop takes it").value
    }
}

impl<K: Clone + PartialEq, V> Drop for Loan<K, V> {
    fn drop(&mut self) {
        // Before the lock: of something that has lost its place this may be the end.
        self.item = None;
        let limits = self.shelf.limits();
        let mut state = self.shelf.lock();
        state.touch(&self.key);
        let freed = state.tidy(&limits, Instant::now());
        self.shelf.free(state, freed);
    }
}

impl<K, V> Clone for Shelf<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> std::fmt::Debug for Shelf<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").finish_non_exhaustive()
    }
}

impl<K, V> Shared<K, V> {
    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limits(&self) -> ShelfLimits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free(&self, state: MutexGuard<'_, State<K, V>>, freed: Freed<V>) {
        drop(state);
        if freed.is_empty() {
            return;
        }
        drop(freed);
        // Whoever has just seen it here waits before the lock is to be had.
        drop(self.lock());
        self.freed.notify_all();
    }

    /// Waits until the shelf has freed what it is freeing, whose room is given away before it is gone.
    fn wait_for_room(&self) {
        let state = self.lock();
        drop(self.freed.wait_while(state, |state| state.is_freeing()).unwrap_or_else(PoisonError::into_inner));
    }
}

impl<K, V> Shelf<K, V>
where
    K: Clone + PartialEq + Send + 'static,
    V: Send + Sync + 'static,
{
    pub fn new(limits: ShelfLimits) -> Self {
        let state = State { held: Vec::new(), loading: Vec::new(), leaving: Vec::new() };
        Self(Arc::new(Shared { limits: Mutex::new(limits), state: Mutex::new(state), freed: Condvar::new() }))
    }

    pub fn limits(&self) -> ShelfLimits {
        self.0.limits()
    }

    /// Sets other limits. What no longer fits is unloaded, unless it is pinned or in use.
    pub fn set_limits(&self, limits: ShelfLimits) {
        *self.0.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
        self.tidy(Instant::now());
    }

    /// Lends the thing of this key if it is there already.
    pub fn find(&self, key: &K) -> Option<Loan<K, V>> {
        let item = self.0.lock().touch(key)?;
        Some(Loan { item: Some(item), key: key.clone(), shelf: self.0.clone() })
    }

    /// Lends the thing of this key, and loads it before when it has to: once, whoever asks meanwhile.
    ///
    /// `needed` is how many bytes it will take: room is made, and what does not fit refused, before `load` is called, on a
    /// thread of its own. It returns the thing and the bytes that it takes. Everyone who waits is told when it fails, and
    /// whoever asks next tries again. `gives_up` is asked while waiting. A load that nobody waits for any more is finished,
    /// and its result kept.
    pub fn get(
        &self,
        key: &K,
        needed: u64,
        load: impl FnOnce() -> Result<(V, u64), BoxError> + Send + 'static,
        gives_up: &dyn Fn() -> bool,
    ) -> Result<Loan<K, V>, ShelfError> {
        let limits = self.limits();
        let flight = match self.find_or_begin(key, needed, &limits)? {
            Found::Here(loan) => return Ok(loan),
            Found::Loading(flight) => flight,
            Found::Begun(flight) => {
                let (shelf, landing, inside) = (self.clone(), key.clone(), flight.clone());
                let loading = move || {
                    shelf.0.wait_for_room();
                    let landed = match worker::run(load) {
                        Outcome::Finished(loaded) => Ok(Item::new(loaded)),
                        Outcome::Canceled => Err(BoxError::from(worker::Canceled).into()),
                        Outcome::Failed(error) => Err(error.into()),
                    };
                    shelf.land(&landing, &inside, landed);
                    shelf.tidy(Instant::now());
                };
                if let Err(error) = worker::background("load", loading) {
                    self.0.lock().loading.retain(|loading| !Arc::ptr_eq(&loading.flight, &flight));
                    let told = std::io::Error::new(error.kind(), error.to_string());
                    flight.land(Err(BoxError::from(told).into()));
                    return Err(ShelfError::Thread(error));
                }
                flight
            }
        };
        let landed = flight.wait(limits.load_timeout, gives_up);
        landed.map(|item| Loan { item: Some(item), key: key.clone(), shelf: self.0.clone() })
    }

    fn find_or_begin(&self, key: &K, needed: u64, limits: &ShelfLimits) -> Result<Found<K, V>, ShelfError> {
        let mut state = self.0.lock();
        if let Some(item) = state.touch(key) {
            return Ok(Found::Here(Loan { item: Some(item), key: key.clone(), shelf: self.0.clone() }));
        }
        if let Some(loading) = state.loading.iter().find(|loading| loading.key == *key) {
            loading.flight.join();
            return Ok(Found::Loading(loading.flight.clone()));
        }
        if let Some(limit) = limits.largest.filter(|limit| needed > *limit) {
            return Err(ShelfError::TooLarge { needed, limit });
        }
        let freed = state.make_room(needed, limits)?;
        let flight = Arc::new(Flight::new());
        let loading = Loading { key: key.clone(), flight: flight.clone(), bytes: needed, since: Instant::now() };
        state.loading.push(loading);
        self.0.free(state, freed);
        Ok(Found::Begun(flight))
    }

    /// Gives a load's result a place, if there is one, and tells everyone who waits.
    fn land(&self, key: &K, flight: &Arc<Flight<V>>, landed: Landed<V>) {
        let limits = self.limits();
        let mut state = self.0.lock();
        state.loading.retain(|loading| !Arc::ptr_eq(&loading.flight, flight));
        let mut freed = Vec::new();
        if let Ok(item) = &landed {
            match state.make_room(item.bytes, &limits) {
                Ok(gone) => {
                    freed = gone;
                    let (key, item) = (key.clone(), item.clone());
                    state.held.push(Held { key, item, is_pinned: false, last_used: Instant::now() });
                }
                // It took more than was expected: whoever waits has it, and nobody after.
                Err(_) => state.leaving.push(item.leave(true)),
            }
        }
        // Under the lock, so that nobody begins a second load in between or finds it idle.
        flight.land(landed);
        self.0.free(state, freed);
    }

    /// Unloads what has been idle for too long at `now`, and what is too much. How long until the next one is due.
    pub fn tidy(&self, now: Instant) -> Option<Duration> {
        let limits = self.limits();
        let mut state = self.0.lock();
        let freed = state.tidy(&limits, now);
        let waiting = state.held.iter().filter(|held| held.can_go());
        let since = waiting.map(|held| now.saturating_duration_since(held.last_used)).max();
        self.0.free(state, freed);
        Some(limits.idle?.saturating_sub(since?))
    }

    /// Takes the things of these keys off the shelf, pinned or not. Who uses one keeps it.
    pub fn unload(&self, is_meant: impl Fn(&K) -> bool) {
        let mut state = self.0.lock();
        let freed = state.remove(|held| is_meant(&held.key));
        self.0.free(state, freed);
    }

    /// Takes everything off the shelf that is neither pinned nor in use; how many things that were.
    pub fn unload_idle(&self) -> usize {
        let mut state = self.0.lock();
        let freed = state.remove(Held::can_go);
        let count = freed.len();
        self.0.free(state, freed);
        count
    }

    /// Bytes of what [`Self::unload_idle`] would unload.
    pub fn idle_bytes(&self) -> u64 {
        self.0.lock().held.iter().filter(|held| held.can_go()).map(|held| held.item.bytes).sum()
    }

    /// A pinned thing stays however long nobody uses it and whatever else is loaded.
    pub fn set_pinned(&self, key: &K, is_pinned: bool) {
        let mut state = self.0.lock();
        state.held.iter_mut().filter(|held| held.key == *key).for_each(|held| held.is_pinned = is_pinned);
        drop(state);
        self.tidy(Instant::now());
    }

    /// All that is on the shelf or on its way there, the least recently used first.
    pub fn contents(&self) -> Vec<Shelved<K>> {
        let state = self.0.lock();
        let held = state.held.iter().map(|held| Shelved {
            key: held.key.clone(),
            bytes: held.item.bytes,
            is_loading: false,
            is_pinned: held.is_pinned,
            is_in_use: held.is_in_use(),
            last_used: held.last_used,
        });
        let loading = state.loading.iter().map(|loading| Shelved {
            key: loading.key.clone(),
            bytes: loading.bytes,
            is_loading: true,
            is_pinned: false,
            is_in_use: true,
            last_used: loading.since,
        });
        held.chain(loading).collect()
    }

    /// Bytes of all that is held or being loaded, and of what lost its place and is in use or being freed still.
    pub fn bytes(&self) -> u64 {
        self.0.lock().bytes()
    }
}

enum Found<K: Clone + PartialEq, V> {
    Here(Loan<K, V>),
    Loading(Arc<Flight<V>>),
    /// The caller has to load it.
    Begun(Arc<Flight<V>>),
}

impl<K, V> State<K, V> {
    fn is_freeing(&self) -> bool {
        self.leaving.iter().any(|leaving| !leaving.is_lent && leaving.is_there())
    }
}

impl<K: PartialEq, V> State<K, V> {
    /// Makes the thing of this key the most recently used.
    fn touch(&mut self, key: &K) -> Option<Arc<Item<V>>> {
        let place = self.held.iter().position(|held| held.key == *key)?;
        let mut held = self.held.remove(place);
        held.last_used = Instant::now();
        let item = held.item.clone();
        self.held.push(held);
        Some(item)
    }

    fn bytes(&mut self) -> u64 {
        let staying = self.staying();
        staying + self.leaving.iter().filter(|leaving| !leaving.is_lent).map(|leaving| leaving.bytes).sum::<u64>()
    }

    /// Bytes of all but what the shelf is freeing.
    fn staying(&mut self) -> u64 {
        self.leaving.retain(Leaving::is_there);
        let held = self.held.iter().map(|held| held.item.bytes);
        let loading = self.loading.iter().map(|loading| loading.bytes);
        let lent = self.leaving.iter().filter(|leaving| leaving.is_lent).map(|leaving| leaving.bytes);
        held.chain(loading).chain(lent).sum()
    }

    /// Takes the least recently used away until `needed` more bytes fit; nothing when that does not help.
    ///
    /// The room is empty after [`Shared::wait_for_room`].
    fn make_room(&mut self, needed: u64, limits: &ShelfLimits) -> Result<Freed<V>, ShelfError> {
        let Some(capacity) = limits.capacity else { return Ok(Vec::new()) };
        let can_go: u64 = self.held.iter().filter(|held| held.can_go()).map(|held| held.item.bytes).sum();
        let taken = self.staying() - can_go;
        if taken.saturating_add(needed) > capacity {
            return Err(ShelfError::NoRoom { needed, capacity, taken });
        }
        Ok(self.shrink_to(capacity - needed))
    }

    /// Takes the least recently used away until no more than `most` bytes stay, or nothing more can go.
    fn shrink_to(&mut self, most: u64) -> Freed<V> {
        let mut freed = Vec::new();
        while self.staying() > most
            && let Some(place) = self.held.iter().position(Held::can_go)
        {
            let item = self.held.remove(place).item;
            self.leaving.push(item.leave(false));
            freed.push(item);
        }
        freed
    }

    fn tidy(&mut self, limits: &ShelfLimits, now: Instant) -> Freed<V> {
        let is_over = |held: &Held<K, V>| {
            let idle = now.saturating_duration_since(held.last_used);
            held.can_go() && limits.idle.is_some_and(|limit| idle >= limit)
        };
        let mut freed = self.remove(is_over);
        freed.extend(self.shrink_to(limits.capacity.unwrap_or(u64::MAX)));
        freed
    }

    fn remove(&mut self, is_meant: impl Fn(&Held<K, V>) -> bool) -> Freed<V> {
        let gone: Vec<Held<K, V>> = self.held.extract_if(.., |held| is_meant(held)).collect();
        self.leaving.extend(gone.iter().map(|held| held.item.leave(held.is_in_use())));
        gone.into_iter().map(|held| held.item).collect()
    }
}
