//! Runs in which several steps are read at once, as on a GPU.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use candle_core::{Device, Error};
use galley::jobs::train;
use galley::memory::guard::Sample;
use galley::train::{
    Ended, FitEvent, Method, Readout, Record, Session, StepRecord, TrainConfig, TrainError, Watch, read_metrics,
};
use galley::worker::JobContext;

use crate::runs::Kitchen;

/// A run of which at most so many steps are read at once.
fn session(kitchen: &Kitchen, config: &TrainConfig, run: &str, most: usize) -> Session {
    let (mut session, _) =
        train::open_for_trial(config, &kitchen.at(run), &kitchen.places(), &JobContext::detached()).unwrap();
    session.readout = Readout::of(most);
    session
}

/// Has a session's guard hear that all is well, until the device fails. Returns how often it asked.
fn watched(session: &mut Session, fails: Arc<AtomicBool>) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let source = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        match fails.load(Ordering::Relaxed) {
            true => Err(Error::wrap("the command buffer ran out of memory")),
            false => Ok(Sample::default()),
        }
    };
    let Session { config, watch, .. } = &*session;
    let new = Watch::new(config.micro_batch.unwrap_or(config.batch_size), 1, watch.batches_ahead(), &Device::Cpu);
    session.watch = new.with_source(Box::new(source), Duration::ZERO);
    asked
}

fn fit(session: &mut Session) -> Result<Ended, TrainError> {
    session.fit(&JobContext::detached(), &mut |_| {})
}

fn steps(kitchen: &Kitchen, run: &str) -> Vec<StepRecord> {
    let of_step = |record| if let Record::Step(step) = record { Some(step) } else { None };
    read_metrics(&kitchen.at(run)).unwrap().into_iter().filter_map(of_step).collect()
}

#[test]
fn steps_that_are_read_together_are_the_same_to_the_last_bit() {
    let kitchen = Kitchen::new(12);
    let base = TrainConfig { flush_train: 0, ..kitchen.config() };
    let ways = [
        TrainConfig { ema: Some(0.9), drop_path: 0.4, ..base.clone() },
        TrainConfig { optimizer: Method::Sgd, micro_batch: Some(3), clip_norm: None, ..base.clone() },
        // Read all the same: when caches are emptied, and before each snapshot.
        TrainConfig { flush_train: 2, clip_norm: Some(1e-3), ..base.clone() },
        TrainConfig { snapshot_minutes: 1e-9, ..base },
    ];
    for (index, way) in ways.iter().enumerate() {
        let [each, together] = ["each", "together"].map(|name| format!("{name}-{index}"));
        fit(&mut session(&kitchen, way, &each, 1)).unwrap();
        let mut session = session(&kitchen, way, &together, 4);
        let asked = watched(&mut session, Arc::default());
        fit(&mut session).unwrap();
        kitchen.assert_same_runs(&each, &together);
        let (asked, steps) = (asked.load(Ordering::Relaxed), steps(&kitchen, &together).len());
        let parts = if way.micro_batch.is_some() { 2 } else { 1 };
        let each_is_read = way.snapshot_minutes > 0.0 && way.snapshot_minutes < 1e-6;
        assert!(each_is_read || asked < parts * steps, "{index}: the device was waited for {asked} times");
    }
}

#[test]
fn a_run_is_paused_with_all_its_steps_read() {
    let kitchen = Kitchen::new(12);
    let config = TrainConfig { flush_train: 0, ..kitchen.config() };
    fit(&mut session(&kitchen, &config, "whole", 1)).unwrap();
    // After the third step, of which the second and third are unread.
    let shared = Arc::new(OnceLock::<JobContext>::new());
    let pausing = shared.clone();
    let ctx = JobContext::waking(move || {
        let ctx = pausing.get().unwrap();
        if ctx.progress().done == 3 && !ctx.is_paused() {
            ctx.set_paused(true);
        }
    });
    let ctx = shared.get_or_init(|| ctx);
    let ended = session(&kitchen, &config, "parts", 4).fit(ctx, &mut |_| {});
    assert_eq!(ended.unwrap(), Ended::Paused);
    assert_eq!(steps(&kitchen, "parts").len(), 3);
    kitchen.train(&kitchen.resume("parts")).unwrap();
    kitchen.assert_same_runs("whole", "parts");
}

#[test]
fn what_failed_behind_unread_steps_is_done_again_from_the_last_snapshot() {
    let kitchen = Kitchen::new(12);
    let config = TrainConfig { flush_train: 0, ..kitchen.config() };
    fit(&mut session(&kitchen, &config, "whole", 1)).unwrap();
    let mut failing = session(&kitchen, &config, "failed", 2);
    let fails = Arc::new(AtomicBool::new(false));
    watched(&mut failing, fails.clone());
    let mut told = 0;
    let ended = failing.fit(&JobContext::detached(), &mut |event| match event {
        FitEvent::Record(Record::Epoch(_)) => fails.store(true, Ordering::Relaxed),
        FitEvent::Record(Record::Step(_)) => told += 1,
        _ => {}
    });
    let error = ended.unwrap_err();
    assert!(matches!(error, TrainError::Halfway { .. }), "{error:?}");
    assert!(galley::format::error_chain(&error).contains("ran out of memory"), "{error}");
    // The weights may be wrong by then: neither they nor what their steps found are kept.
    let epoch = steps(&kitchen, "whole").iter().filter(|step| step.epoch == 0).count();
    assert_eq!((told, steps(&kitchen, "failed").len()), (epoch, epoch));
    drop(failing);
    kitchen.train(&kitchen.resume("failed")).unwrap();
    kitchen.assert_same_runs("whole", "failed");
}

#[test]
fn a_loss_that_is_no_number_is_found_at_its_step_however_late_it_is_read() {
    let kitchen = Kitchen::new(12);
    let wild = TrainConfig { flush_train: 0, ..kitchen.wild_config() };
    let astray = |run: &str, most: usize| {
        let error = fit(&mut session(&kitchen, &wild, run, most)).unwrap_err();
        let TrainError::Diverged { step, snapshot, .. } = error else { panic!("{error:?}") };
        assert_eq!(steps(&kitchen, run).len() as u64, step, "the steps before are written down");
        (step, snapshot.map(|path| kitchen.tensors(path.strip_prefix(kitchen.at("")).unwrap().to_str().unwrap())))
    };
    let (each, together) = (astray("each", 1), astray("together", 3));
    assert!(each == together, "another step, or another snapshot: {} and {}", each.0, together.0);
    assert_eq!(steps(&kitchen, "each"), steps(&kitchen, "together"));
}
