//! What a run does when memory runs short, forced by readings that are made up and by devices that fail.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use candle_core::{Device, Error};
use galley::jobs::train::{self, TrainEvent, TrainTask};
use galley::memory::guard::{Act, Cause, Sample};
use galley::memory::{self, heap};
use galley::train::{Ended, FitEvent, GuardRecord, Record, Session, TrainConfig, TrainError, Watch, read_metrics};
use galley::worker::{BoxError, JobContext, Outcome};

use crate::runs::Kitchen;

const GB: u64 = 1_000_000_000;

/// A network without batch norms, of which a step must not depend on how it is divided.
fn without_norms(kitchen: &Kitchen) -> TrainConfig {
    TrainConfig { arch: Some("squeezenet1_1".to_owned()), image_size: Some(64), batch_size: 8, ..kitchen.config() }
}

fn share_of_budget(share: f64) -> candle_core::Result<Sample> {
    Ok(Sample { used: Some((share * GB as f64) as u64), budget: Some(GB), ..Sample::default() })
}

fn failure() -> candle_core::Result<Sample> {
    Err(Error::wrap("the command buffer ran out of memory"))
}

/// A run whose guard hears these readings one after the other, then nothing but that all is well.
fn session(kitchen: &Kitchen, config: &TrainConfig, run: &str, readings: Vec<candle_core::Result<Sample>>) -> Session {
    let mut readings = VecDeque::from(readings);
    watched(kitchen, config, run, move || readings.pop_front().unwrap_or_else(|| share_of_budget(0.5)))
}

fn watched(
    kitchen: &Kitchen,
    config: &TrainConfig,
    run: &str,
    source: impl FnMut() -> candle_core::Result<Sample> + Send + 'static,
) -> Session {
    let (mut session, _) =
        train::open_for_trial(config, &kitchen.at(run), &kitchen.places(), &JobContext::detached()).unwrap();
    let fewest = if session.trainer.network.running.is_empty() { 1 } else { 2 };
    let watch = Watch::new(config.batch_size, fewest, config.batches_ahead, &Device::Cpu);
    session.watch = watch.with_source(Box::new(source), Duration::ZERO);
    session
}

fn fit(session: &mut Session) -> Result<(Ended, Vec<GuardRecord>), TrainError> {
    let mut acts = Vec::new();
    let ended = session.fit(&JobContext::detached(), &mut |event| {
        if let FitEvent::Record(Record::Guard(act)) = event {
            acts.push(act);
        }
    })?;
    Ok((ended, acts))
}

fn losses(kitchen: &Kitchen, run: &str) -> Vec<f64> {
    let records = read_metrics(&kitchen.at(run)).unwrap();
    let of_epoch = |record: &Record| match record {
        Record::Epoch(epoch) => Some(epoch.train_loss),
        _ => None,
    };
    records.iter().filter_map(of_epoch).collect()
}

/// The losses of another way to compute the same steps, which differ in the order of sums alone.
fn assert_near(one: &[f64], other: &[f64]) {
    assert_eq!(one.len(), other.len());
    assert!(!one.is_empty());
    for (one, other) in one.iter().zip(other) {
        assert!((one - other).abs() < 1e-4 * other.abs(), "{one} {other}");
    }
}

fn shown(acts: &[GuardRecord]) -> Vec<(Act, usize, usize)> {
    acts.iter().map(|act| (act.act, act.at_once, act.batches_ahead)).collect()
}

#[test]
fn a_guard_that_never_acts_changes_no_bit() {
    let kitchen = Kitchen::new(8);
    for config in [without_norms(&kitchen), TrainConfig { micro_batch: Some(3), ..kitchen.config() }] {
        let runs = ["watched", "alone"].map(|name| format!("{name} {:?}", config.arch));
        let mut one = session(&kitchen, &config, &runs[0], Vec::new());
        let at_once = config.micro_batch.unwrap_or(config.batch_size);
        one.watch =
            Watch::new(at_once, 1, 3, &Device::Cpu).with_source(Box::new(|| share_of_budget(0.9)), Duration::ZERO);
        assert_eq!(fit(&mut one).unwrap().1, []);
        let mut other = session(&kitchen, &config, &runs[1], Vec::new());
        other.watch = Watch::new(at_once, 1, 3, &Device::Cpu);
        fit(&mut other).unwrap();
        kitchen.assert_same_runs(&runs[0], &runs[1]);
    }
}

#[test]
fn a_run_above_its_budget_does_without_more_and_more_and_its_steps_stay_the_same() {
    let kitchen = Kitchen::new(8);
    let config = without_norms(&kitchen);
    fit(&mut session(&kitchen, &config, "calm", Vec::new())).unwrap();
    // Halved within the first step: gradients of photos that are done must count as much as the rest.
    let readings = (0..9).map(|_| share_of_budget(1.2)).collect();
    let mut tight = session(&kitchen, &config, "tight", readings);
    let (ended, acts) = fit(&mut tight).unwrap();
    assert!(matches!(ended, Ended::Finished(_)));
    let expected =
        [(Act::Flush, 8, 3), (Act::Halve, 4, 3), (Act::Halve, 2, 3), (Act::Halve, 1, 3), (Act::DropAhead, 1, 0)];
    assert_eq!(shown(&acts), expected);
    assert_eq!(acts[0].cause, Cause::Budget { used: GB + GB / 5, budget: GB });
    assert_near(&losses(&kitchen, "tight"), &losses(&kitchen, "calm"));
    let written = read_metrics(&kitchen.at("tight")).unwrap();
    let written: Vec<GuardRecord> = written
        .into_iter()
        .filter_map(|record| if let Record::Guard(act) = record { Some(act) } else { None })
        .collect();
    assert_eq!(written, acts);
    // Readers of runs see the same curves.
    assert_eq!(tight.position.at_once, Some(1));
}

#[test]
fn a_run_that_nothing_helps_is_saved_and_paused_and_goes_on_as_it_was_left() {
    let kitchen = Kitchen::new(8);
    let config = without_norms(&kitchen);
    fit(&mut session(&kitchen, &config, "calm", Vec::new())).unwrap();
    let mut full = watched(&kitchen, &config, "full", || share_of_budget(2.0));
    let (ended, acts) = fit(&mut full).unwrap();
    let Ended::Held(last) = ended else { panic!("{ended:?}") };
    assert_eq!((last.act, acts.last()), (Act::Pause, Some(&last)));
    let text = last.sentence(8, false);
    assert!(text.contains("paused and saved") && text.contains("2.00 GB of its 1.00 GB"), "{text}");
    drop(full);
    let (_, events) = kitchen.train(&TrainTask::Resume { folder: kitchen.at("full"), memory: None }).unwrap();
    let start = crate::runs::start(&events);
    assert_eq!((start.at_once, start.config.batch_size), (1, 8));
    let notice = |event: &TrainEvent| matches!(event, TrainEvent::Notice(text) if text.contains("1 photo at once"));
    assert!(events.iter().any(notice), "{events:?}");
    assert_near(&losses(&kitchen, "full"), &losses(&kitchen, "calm"));
}

#[test]
fn a_step_that_fails_on_the_device_is_done_again_with_fewer_at_once() {
    let kitchen = Kitchen::new(8);
    let config = without_norms(&kitchen);
    fit(&mut session(&kitchen, &config, "calm", Vec::new())).unwrap();
    for (failures, at_once) in [(1, 4), (2, 2)] {
        let run = format!("failed {failures} times");
        let fine = || share_of_budget(0.5);
        let readings = [fine(), fine()].into_iter().chain((0..failures).map(|_| failure())).collect();
        let (_, acts) = fit(&mut session(&kitchen, &config, &run, readings)).unwrap();
        assert_eq!(acts.len(), failures);
        assert!(acts.iter().all(|act| act.act == Act::Halve && act.cause == Cause::DeviceError && act.step == 2));
        assert_eq!(acts.last().unwrap().at_once, at_once);
        assert_near(&losses(&kitchen, &run), &losses(&kitchen, "calm"));
    }
}

#[test]
fn a_device_that_always_fails_ends_the_run_and_what_was_learned_is_kept() {
    let kitchen = Kitchen::new(8);
    let config = without_norms(&kitchen);
    fit(&mut session(&kitchen, &config, "calm", Vec::new())).unwrap();
    let mut readings = 0;
    let mut broken = watched(&kitchen, &config, "broken", move || {
        readings += 1;
        if readings <= 2 { share_of_budget(0.5) } else { failure() }
    });
    let error = fit(&mut broken).unwrap_err();
    let TrainError::Device { step: 2, at_once: 1, .. } = error else { panic!("{error:?}") };
    assert!(galley::format::error_chain(&error).contains("ran out of memory"), "{error}");
    drop(broken);
    // The two steps before are in the snapshot, and the third is done once.
    kitchen.train(&TrainTask::Resume { folder: kitchen.at("broken"), memory: None }).unwrap();
    assert_near(&losses(&kitchen, "broken"), &losses(&kitchen, "calm"));
}

#[test]
fn what_is_wrong_in_itself_is_not_tried_again() {
    let kitchen = Kitchen::new(4);
    let readings = vec![Err(Error::Msg("a shape that does not fit".to_owned()))];
    let mut wrong = session(&kitchen, &kitchen.config(), "wrong", readings);
    let error = fit(&mut wrong).unwrap_err();
    assert!(matches!(error, TrainError::Compute(_)), "{error:?}");
}

#[test]
fn a_run_that_swaps_and_slows_down_computes_fewer_at_once() {
    let kitchen = Kitchen::new(12);
    let config = TrainConfig { epochs: 8, ..without_norms(&kitchen) };
    let (mut readings, mut swapped_out, started) = (0, 0, Instant::now());
    let mut usual = Duration::from_secs(1);
    let mut slow = watched(&kitchen, &config, "slow", move || {
        readings += 1;
        if readings == 12 {
            // A busy machine is slow from the beginning.
            usual = usual.max(started.elapsed() / 2);
        }
        if readings > 12 && readings <= 15 {
            std::thread::sleep(usual);
            swapped_out += 100_000_000;
        }
        Ok(Sample { swapped_out: Some(swapped_out), ..Sample::default() })
    });
    let (_, acts) = fit(&mut slow).unwrap();
    let [GuardRecord { act: Act::Flush, cause: Cause::Swap { speed }, .. }] = acts[..] else { panic!("{acts:?}") };
    assert!(speed < 0.5, "{speed}");
}

#[test]
fn batch_norms_keep_two_photos_and_the_notice_speaks_of_them() {
    let kitchen = Kitchen::new(8);
    let (ended, acts) = fit(&mut watched(&kitchen, &kitchen.config(), "norms", || share_of_budget(2.0))).unwrap();
    assert!(matches!(ended, Ended::Held(_)));
    assert_eq!(shown(&acts)[..2], [(Act::Flush, 4, 3), (Act::Halve, 2, 3)]);
    assert!(acts.iter().all(|act| act.at_once >= 2));
    assert!(acts[1].sentence(4, true).contains("batch norms see no more than these together"));
}

#[test]
fn what_is_predicted_not_to_fit_is_refused_and_runs_when_it_is_told_to() {
    let kitchen = Kitchen::new(8);
    let config = TrainConfig { memory_limit: Some(2_000_000), ..without_norms(&kitchen) };
    let refused = kitchen.train(&kitchen.begin(config.clone(), "run")).unwrap_err();
    assert!(refused.contains("the memory budget is 2.00 MB, your own limit"), "{refused}");
    assert!(refused.contains("--anyway"), "{refused}");
    assert!(!kitchen.at("run").exists(), "a refusal leaves nothing behind");
    let config = TrainConfig { anyway: true, ..config };
    let (_, events) = kitchen.train(&kitchen.begin(config, "run")).unwrap();
    let notice = |event: &TrainEvent| matches!(event, TrainEvent::Notice(text) if text.contains("It runs anyway"));
    assert!(events.iter().any(notice), "{events:?}");
    // What it took is in the journal, and that it was told not to.
    let journal = galley::journal::Journal::open(&kitchen.places().journal).unwrap();
    let peaks = journal.peaks(None, 9).unwrap();
    let [peak] = &peaks[..] else { panic!("{peaks:?}") };
    assert!(peak.anyway && peak.predicted > 0 && peak.heap > 0, "{peak:?}");
    assert_eq!((peak.kind.network.as_str(), peak.kind.mode.as_str()), ("squeezenet1_1", "train"));
    assert_eq!(peak.items.iter().map(|(_, bytes)| bytes).sum::<u64>(), peak.predicted);
}

/// With the readings of this very process, in which something else takes memory meanwhile.
#[test]
fn a_job_whose_memory_is_taken_pauses_itself_and_goes_on_when_it_is_let() {
    let kitchen = Kitchen::new(8);
    let limit = memory::read_often().footprint.unwrap() + 900_000_000;
    let config = TrainConfig { memory_limit: Some(limit), epochs: 1000, ..without_norms(&kitchen) };
    let (ctx, mut taken, mut held, mut at_once) = (JobContext::detached(), Vec::new(), None, Vec::new());
    let mut take = |event| -> Result<(), BoxError> {
        match event {
            TrainEvent::Start(start) => {
                at_once.push(start.at_once);
                match held.is_none() {
                    true => taken = vec![1_u8; 1_500_000_000],
                    false => ctx.cancel(),
                }
            }
            TrainEvent::Held(reason) => {
                assert!(ctx.is_paused());
                held = Some(reason);
                taken = Vec::new();
                heap::release();
                ctx.set_paused(false);
            }
            _ => {}
        }
        Ok(())
    };
    let task = kitchen.begin(config, "run");
    let outcome = galley::worker::run(|| train::train(&task, &kitchen.places(), &ctx, &mut take));
    assert!(matches!(outcome, Outcome::Canceled), "{outcome:?}");
    assert_eq!(at_once, [8, 1]);
    assert!(held.unwrap().contains("nothing left to do without"));
    assert!(taken.is_empty());
}
