//! Each rule of the shelf, with threads that really race: they meet at barriers and gates, never by sleeping.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::*;

type Names = Shelf<&'static str, String>;

const HOUR: Duration = Duration::from_secs(3600);
const PATIENT: &dyn Fn() -> bool = &|| false;

fn holding(capacity: u64) -> ShelfLimits {
    ShelfLimits { capacity: Some(capacity), ..ShelfLimits::NONE }
}

/// A thing of so many bytes that is its own key.
fn get(shelf: &Names, key: &'static str, bytes: u64) -> Result<Loan<&'static str, String>, ShelfError> {
    shelf.get(&key, bytes, move || Ok((key.to_owned(), bytes)), PATIENT)
}

fn names(shelf: &Names) -> Vec<&'static str> {
    shelf.contents().into_iter().map(|shelved| shelved.key).collect()
}

/// A load that goes on only when it is told to, and says when it has begun.
struct Gate {
    open: Sender<()>,
    begun: Receiver<()>,
}

fn gated<T: Send + 'static>(
    result: impl FnOnce() -> T + Send + 'static,
) -> (Gate, impl FnOnce() -> T + Send + 'static) {
    let ((open, opened), (tell, begun)) = (channel(), channel());
    let load = move || {
        tell.send(()).unwrap();
        opened.recv().unwrap();
        result()
    };
    (Gate { open, begun }, load)
}

/// Lets `askers` threads wait for the same load, opens its gate when all of them do, and returns what each was told.
fn race<T: Send>(
    shelf: &Names,
    askers: usize,
    loads: &AtomicUsize,
    result: impl Fn() -> Result<(String, u64), BoxError> + Send + Sync + Clone + 'static,
    told: impl Fn(Result<Loan<&'static str, String>, ShelfError>) -> T + Sync,
) -> Vec<T> {
    let (barrier, waiting) = (Barrier::new(askers), AtomicUsize::new(0));
    let (open, opened) = channel();
    let opened = Arc::new(Mutex::new(opened));
    let begun = Arc::new(AtomicUsize::new(0));
    let answers = thread::scope(|scope| {
        let ask = || {
            barrier.wait();
            let (opened, result, begun) = (opened.clone(), result.clone(), begun.clone());
            let first_time = std::cell::Cell::new(true);
            let load = move || {
                begun.fetch_add(1, SeqCst);
                opened.lock().unwrap().recv().unwrap();
                result()
            };
            // Asked while waiting: the last one who waits opens the gate.
            let gives_up = || {
                if first_time.replace(false) && waiting.fetch_add(1, SeqCst) + 1 == askers {
                    open.clone().send(()).unwrap();
                }
                false
            };
            told(shelf.get(&"model", 10, load, &gives_up))
        };
        let threads: Vec<_> = (0..askers).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    loads.fetch_add(begun.load(SeqCst), SeqCst);
    answers
}

#[test]
fn whoever_asks_at_the_same_time_shares_one_load() {
    let (shelf, loads) = (Names::new(ShelfLimits::NONE), AtomicUsize::new(0));
    let place = |loan: Result<Loan<_, String>, ShelfError>| loan.map(|loan| std::ptr::from_ref(&*loan).addr()).unwrap();
    let places = race(&shelf, 8, &loads, || Ok(("loaded".to_owned(), 10)), place);
    assert_eq!(loads.load(SeqCst), 1);
    assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
    assert_eq!((names(&shelf), shelf.bytes()), (vec!["model"], 10));
}

#[test]
fn a_load_that_fails_or_panics_is_told_to_all_and_can_be_tried_again() {
    let failing: fn() -> Result<(String, u64), BoxError> = || Err("the file is torn".into());
    let panicking: fn() -> Result<(String, u64), BoxError> = || panic!("a bug");
    for (result, reason) in [(failing, "the file is torn"), (panicking, "internal error: a bug")] {
        let (shelf, loads) = (Names::new(holding(10)), AtomicUsize::new(0));
        let told = race(&shelf, 8, &loads, result, |loan| loan.err().unwrap().to_string());
        assert_eq!(told, [reason; 8]);
        assert_eq!((loads.load(SeqCst), shelf.bytes(), names(&shelf).len()), (1, 0, 0));
        assert_eq!(*get(&shelf, "model", 10).unwrap(), "model");
    }
}

#[test]
fn the_least_recently_used_goes_first_and_no_more_than_has_to() {
    let shelf = Names::new(holding(30));
    for key in ["a", "b", "c", "a"] {
        drop(get(&shelf, key, 10).unwrap());
    }
    assert_eq!(names(&shelf), ["b", "c", "a"]);
    drop(get(&shelf, "d", 5).unwrap());
    assert_eq!(names(&shelf), ["c", "a", "d"]);
    drop(get(&shelf, "e", 15).unwrap());
    assert_eq!((names(&shelf), shelf.bytes()), (vec!["a", "d", "e"], 30));
}

#[test]
fn giving_back_counts_as_use() {
    let shelf = Names::new(holding(20));
    let long = get(&shelf, "long", 10).unwrap();
    drop(get(&shelf, "short", 10).unwrap());
    drop(long);
    drop(get(&shelf, "new", 10).unwrap());
    assert_eq!(names(&shelf), ["long", "new"]);
}

#[test]
fn what_is_pinned_or_in_use_stays_and_what_then_does_not_fit_is_refused_unread() {
    let shelf = Names::new(holding(30));
    drop(get(&shelf, "pinned", 10).unwrap());
    shelf.set_pinned(&"pinned", true);
    let used = get(&shelf, "used", 10).unwrap();
    drop(get(&shelf, "idle", 10).unwrap());
    let unread = || -> Result<(String, u64), BoxError> { panic!("it was read") };
    let refused = shelf.get(&"large", 11, unread, PATIENT).err().unwrap();
    assert!(matches!(refused, ShelfError::NoRoom { needed: 11, capacity: 30, taken: 20 }), "{refused}");
    assert_eq!(names(&shelf), ["pinned", "used", "idle"], "nothing goes for what cannot come");
    drop(get(&shelf, "fits", 10).unwrap());
    assert_eq!(names(&shelf), ["pinned", "used", "fits"]);
    drop(used);
    shelf.set_pinned(&"pinned", false);
    drop(get(&shelf, "large", 25).unwrap());
    assert_eq!(names(&shelf), ["large"]);
}

#[test]
fn the_largest_that_may_be_loaded_is_checked_before_reading() {
    let shelf = Names::new(ShelfLimits { largest: Some(100), ..ShelfLimits::NONE });
    let unread = || -> Result<(String, u64), BoxError> { panic!("it was read") };
    let refused = shelf.get(&"large", 101, unread, PATIENT).err().unwrap();
    assert!(matches!(refused, ShelfError::TooLarge { needed: 101, limit: 100 }), "{refused}");
    assert_eq!(*get(&shelf, "just right", 100).unwrap(), "just right");
}

#[test]
fn what_is_unloaded_in_use_stays_with_its_user_and_is_counted_until_given_back() {
    let shelf = Names::new(holding(15));
    let loan = get(&shelf, "old", 10).unwrap();
    shelf.unload(|key| *key == "old");
    assert_eq!((names(&shelf).len(), shelf.bytes(), &**loan), (0, 10, "old"));
    let refused = get(&shelf, "new", 10).err().unwrap();
    assert!(matches!(refused, ShelfError::NoRoom { taken: 10, .. }), "{refused}");
    drop(loan);
    assert_eq!(shelf.bytes(), 0);
    assert_eq!(*get(&shelf, "new", 10).unwrap(), "new");
}

#[test]
fn what_nobody_uses_for_the_idle_time_is_unloaded_and_what_is_used_or_pinned_is_not() {
    let shelf = Names::new(ShelfLimits { idle: Some(HOUR), ..ShelfLimits::NONE });
    drop(get(&shelf, "idle", 1).unwrap());
    drop(get(&shelf, "pinned", 1).unwrap());
    shelf.set_pinned(&"pinned", true);
    let used = get(&shelf, "used", 1).unwrap();
    let now = Instant::now();
    let due = shelf.tidy(now).unwrap();
    assert!(due <= HOUR && due > HOUR / 2, "{due:?}");
    assert_eq!(names(&shelf).len(), 3);
    assert_eq!(shelf.tidy(now + HOUR), None);
    assert_eq!(names(&shelf), ["pinned", "used"]);
    drop(used);
    shelf.tidy(Instant::now() + HOUR);
    assert_eq!(names(&shelf), ["pinned"]);
    shelf.set_limits(ShelfLimits::NONE);
    drop(get(&shelf, "kept", 1).unwrap());
    assert_eq!(shelf.tidy(Instant::now() + 1000 * HOUR), None);
    assert_eq!(names(&shelf), ["pinned", "kept"]);
}

#[test]
fn what_is_idle_can_be_unloaded_at_once_and_the_rest_stays() {
    let shelf = Names::new(ShelfLimits::NONE);
    let used = get(&shelf, "used", 1).unwrap();
    drop(get(&shelf, "pinned", 2).unwrap());
    shelf.set_pinned(&"pinned", true);
    drop(get(&shelf, "idle", 4).unwrap());
    let idle = shelf.idle_bytes();
    assert_eq!((shelf.unload_idle(), names(&shelf), shelf.bytes()), (1, vec!["used", "pinned"], 3));
    assert_eq!((idle, shelf.idle_bytes()), (4, 0));
    drop(used);
    assert_eq!((shelf.unload_idle(), shelf.unload_idle(), shelf.bytes()), (1, 0, 2));
}

#[test]
fn an_idle_time_of_zero_unloads_at_once_after_the_last_use() {
    let shelf = Names::new(ShelfLimits { idle: Some(Duration::ZERO), ..ShelfLimits::NONE });
    let (first, second) = (get(&shelf, "model", 1).unwrap(), get(&shelf, "model", 1).unwrap());
    drop(first);
    assert_eq!(names(&shelf), ["model"]);
    drop(second);
    assert_eq!((names(&shelf).len(), shelf.bytes()), (0, 0));
}

#[test]
fn lower_limits_unload_what_no_longer_fits() {
    let shelf = Names::new(ShelfLimits::NONE);
    for key in ["a", "b", "c"] {
        drop(get(&shelf, key, 10).unwrap());
    }
    shelf.set_limits(holding(20));
    assert_eq!(names(&shelf), ["b", "c"]);
}

#[test]
fn a_load_that_takes_too_long_is_an_error_for_who_waits_and_a_model_for_who_comes_later() {
    let shelf = Names::new(ShelfLimits { load_timeout: Some(Duration::from_millis(1)), ..ShelfLimits::NONE });
    let (gate, load) = gated(|| Ok(("slow".to_owned(), 10)));
    let late = shelf.get(&"model", 10, load, PATIENT).err().unwrap();
    assert!(matches!(late, ShelfError::TimedOut(_)), "{late}");
    gate.begun.recv().unwrap();
    assert!(shelf.contents()[0].is_loading);
    gate.open.send(()).unwrap();
    shelf.set_limits(ShelfLimits::NONE);
    assert_eq!(*get(&shelf, "model", 10).unwrap(), "slow");
}

/// Waits while it is freed, until it is told to go on.
struct Lingers(Mutex<Receiver<()>>, Arc<AtomicBool>);

impl Drop for Lingers {
    fn drop(&mut self) {
        let _ = self.0.get_mut().unwrap().recv();
        self.1.store(true, SeqCst);
    }
}

#[test]
fn nothing_is_loaded_into_room_that_another_is_still_freeing() {
    let shelf: Shelf<&str, Option<Lingers>> = Shelf::new(holding(30));
    let (go, told) = channel();
    let is_gone = Arc::new(AtomicBool::new(false));
    let lingers = Lingers(Mutex::new(told), is_gone.clone());
    drop(shelf.get(&"large", 25, || Ok((Some(lingers), 25)), PATIENT).unwrap());
    thread::scope(|scope| {
        // It frees what is large, and takes little of its room.
        scope.spawn(|| shelf.get(&"small", 6, || Ok((None, 6)), PATIENT).map(drop).unwrap());
        while shelf.contents().iter().all(|shelved| shelved.key != "small") {
            thread::yield_now();
        }
        let is_asked = std::cell::Cell::new(false);
        let gives_up = || {
            // A load that does not wait has been called before one who waits for it asks again.
            if is_asked.replace(true) {
                let _ = go.send(());
            }
            false
        };
        let at_load = Arc::new(AtomicBool::new(false));
        let (found, is_gone) = (at_load.clone(), is_gone.clone());
        let load = move || {
            found.store(is_gone.load(SeqCst), SeqCst);
            Ok((None, 10))
        };
        shelf.get(&"next", 10, load, &gives_up).map(drop).unwrap();
        let _ = go.send(());
        assert!(at_load.load(SeqCst), "it was loaded beside what had not gone yet");
    });
}

/// Tells when it is freed.
struct Tells(Sender<()>);

impl Drop for Tells {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[test]
fn a_late_load_is_dropped_where_nothing_is_kept_idle() {
    let (load_timeout, idle) = (Some(Duration::from_millis(1)), Some(Duration::ZERO));
    let shelf = Shelf::new(ShelfLimits { load_timeout, idle, ..ShelfLimits::NONE });
    let (freed, is_freed) = channel();
    let (gate, load) = gated(move || Ok((Tells(freed), 10)));
    assert!(matches!(shelf.get(&1, 10, load, PATIENT), Err(ShelfError::TimedOut(_))));
    gate.open.send(()).unwrap();
    is_freed.recv().unwrap();
    // It counts until the last of it is gone.
    while shelf.bytes() > 0 {
        thread::yield_now();
    }
    assert!(shelf.contents().is_empty());
}

#[test]
fn who_gives_up_waits_no_longer_and_the_load_goes_on() {
    let shelf = Names::new(ShelfLimits::NONE);
    let (gate, load) = gated(|| Ok(("slow".to_owned(), 10)));
    assert!(matches!(shelf.get(&"model", 10, load, &|| true), Err(ShelfError::GivenUp)));
    gate.open.send(()).unwrap();
    assert_eq!(*get(&shelf, "model", 10).unwrap(), "slow");
}

#[test]
fn what_takes_more_than_was_expected_is_lent_once_and_not_kept() {
    let shelf = Names::new(holding(10));
    let loan = shelf.get(&"model", 5, || Ok(("fat".to_owned(), 11)), PATIENT).unwrap();
    assert_eq!((names(&shelf).len(), shelf.bytes()), (0, 11));
    drop(loan);
    assert_eq!(shelf.bytes(), 0);
}

/// Counts the bytes of all that live.
struct Counted(Arc<AtomicU64>, u64);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, SeqCst);
    }
}

#[test]
fn threads_that_race_for_room_never_take_more_than_there_is() {
    const CAPACITY: u64 = 30;
    let shelf = Shelf::new(ShelfLimits { idle: Some(HOUR), ..holding(CAPACITY) });
    let (live, highest) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (lent, barrier) = (AtomicUsize::new(0), Barrier::new(4));
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (shelf, live, highest, lent, barrier) = (&shelf, &live, &highest, &lent, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..300_u64 {
                    let key = (thread * 7 + round * (thread + 3)) % 6;
                    let bytes = 8 + key;
                    let (live, highest) = (live.clone(), highest.clone());
                    let load = move || {
                        highest.fetch_max(live.fetch_add(bytes, SeqCst) + bytes, SeqCst);
                        Ok((Counted(live, bytes), bytes))
                    };
                    match shelf.get(&key, bytes, load, PATIENT) {
                        Ok(loan) => {
                            assert_eq!(loan.1, bytes);
                            lent.fetch_add(1, SeqCst);
                        }
                        Err(error) => assert!(matches!(error, ShelfError::NoRoom { .. }), "{error}"),
                    }
                    if round % 50 == thread {
                        shelf.unload(|other| *other == key);
                    }
                }
            });
        }
    });
    assert!(highest.load(SeqCst) <= CAPACITY, "{highest:?} bytes were live");
    assert!(lent.load(SeqCst) > 300 && shelf.bytes() == live.load(SeqCst), "{lent:?} {live:?}");
    shelf.unload(|_| true);
    assert_eq!(live.load(SeqCst), 0);
}
