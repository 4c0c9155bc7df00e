//! Runs of training: what they learn and leave behind, and that nothing which interrupts them changes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use candle_core::Device;
use galley::checkpoint::Checkpoint;
use galley::data::Augment;
use galley::jobs::Places;
use galley::jobs::train::{self, TrainEvent, TrainStart, TrainSummary, TrainTask};
use galley::predict::{self, ModelSource, Strictness, TransformOverrides};
use galley::train::{CacheFeatures, Method, Preset, Recompute, Record, TrainConfig, Unfreeze, read_metrics, snapshot};
use galley::worker::{BoxError, JobContext, Outcome};

const CLASSES: [(&str, [u8; 3]); 3] = [("beetroot", [150, 20, 60]), ("pea", [60, 170, 40]), ("plum", [60, 40, 130])];

pub struct Kitchen {
    folder: tempfile::TempDir,
}

/// Pictures of one color each, with a pattern that follows from their number.
pub fn write_picture(path: &Path, color: [u8; 3], number: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let level = |level: u8, noise: u32| (u32::from(level) + noise % 60) as u8;
    let picture = image::RgbImage::from_fn(40, 40, |x, y| {
        let noise = (x / 5 * 31 + y / 5 * 17 + number * 97).wrapping_mul(2_654_435_761) >> 20;
        image::Rgb(color.map(|channel| level(channel, noise)))
    });
    picture.save(path).unwrap();
}

impl Kitchen {
    pub fn new(photos: u32) -> Self {
        let kitchen = Self { folder: tempfile::tempdir().unwrap() };
        for (class, color) in CLASSES {
            for number in 0..photos {
                write_picture(&kitchen.at(&format!("photos/{class}/{number:02}.png")), color, number);
            }
        }
        kitchen
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn places(&self) -> Places {
        Places {
            journal: self.at("journal.sqlite"),
            verdicts: self.at("verdicts"),
            tiles: self.at("tiles"),
            models: Default::default(),
            models_folder: self.at("models"),
        }
    }

    /// Small and quick, from the starter model, which has batch norms.
    pub fn config(&self) -> TrainConfig {
        TrainConfig {
            data: self.at("photos"),
            epochs: 2,
            batch_size: 4,
            image_size: Some(32),
            validation_fraction: 0.25,
            lr: 1e-3,
            ..TrainConfig::default()
        }
    }

    /// With steps so large that the weights soon are no numbers.
    pub fn wild_config(&self) -> TrainConfig {
        TrainConfig {
            optimizer: Method::Sgd,
            lr: 100.0,
            clip_norm: None,
            warmup_epochs: 0.0,
            epochs: 20,
            ..self.config()
        }
    }

    pub fn begin(&self, config: TrainConfig, run: &str) -> TrainTask {
        TrainTask::Begin { config: Box::new(config), folder: self.at(run) }
    }

    pub fn train(&self, task: &TrainTask) -> Result<(TrainSummary, Vec<TrainEvent>), String> {
        let mut heard = Vec::new();
        let mut take = |event| {
            heard.push(event);
            Ok(())
        };
        let summary = train::train(task, &self.places(), &JobContext::detached(), &mut take);
        summary.map(|summary| (summary, heard)).map_err(|error| galley::format::error_chain(&*error))
    }

    /// The same, canceled after so many steps.
    pub fn train_until(&self, task: &TrainTask, steps: usize) {
        let (ctx, mut seen) = (JobContext::detached(), 0);
        let mut take = |event: TrainEvent| -> Result<(), BoxError> {
            seen += usize::from(matches!(event, TrainEvent::Record(Record::Step(_))));
            if seen == steps {
                ctx.cancel();
            }
            Ok(())
        };
        let outcome = galley::worker::run(|| train::train(task, &self.places(), &ctx, &mut take));
        assert!(matches!(outcome, Outcome::Canceled), "{outcome:?}");
    }

    pub fn resume(&self, run: &str) -> TrainTask {
        TrainTask::Resume { folder: self.at(run), memory: None }
    }

    /// The run's metrics without what the clock says.
    pub fn metrics(&self, run: &str) -> Vec<Record> {
        let timeless = |record| match record {
            Record::Epoch(epoch) => Record::Epoch(galley::train::EpochRecord {
                seconds: 0.0,
                photos_per_second: 0.0,
                waiting: 0.0,
                peak_bytes: None,
                ..epoch
            }),
            step => step,
        };
        read_metrics(&self.at(run)).unwrap().into_iter().map(timeless).collect()
    }

    /// Every tensor of a snapshot, optimizer state too.
    pub fn tensors(&self, file: &str) -> Vec<(String, Vec<f32>)> {
        let checkpoint = Checkpoint::open(&self.at(file)).unwrap();
        checkpoint.tensors().iter().map(|info| (info.name.clone(), checkpoint.read_f32(&info.name).unwrap())).collect()
    }

    pub fn assert_same_runs(&self, one: &str, other: &str) {
        assert_eq!(self.metrics(one), self.metrics(other));
        for file in ["last.safetensors", "best.safetensors"] {
            assert!(self.tensors(&format!("{one}/{file}")) == self.tensors(&format!("{other}/{file}")), "{file}");
        }
    }
}

pub fn start(events: &[TrainEvent]) -> &TrainStart {
    let start = events.iter().find_map(|event| match event {
        TrainEvent::Start(start) => Some(&**start),
        _ => None,
    });
    start.unwrap()
}

#[test]
fn a_run_learns_and_leaves_a_checkpoint_that_everyone_can_open() {
    let kitchen = Kitchen::new(12);
    // So few steps are enough for the classifier alone.
    let config = TrainConfig { epochs: 8, lr: 0.02, unfreeze: Unfreeze::Head, ..kitchen.config() };
    let (summary, events) = kitchen.train(&kitchen.begin(config, "run")).unwrap();
    assert_eq!(
        (start(&events).train_counts.as_slice(), start(&events).validation_counts.as_slice()),
        (&[9; 3][..], &[3; 3][..])
    );
    let is_new = |event: &TrainEvent| matches!(event, TrainEvent::Notice(text) if text.contains("classifier is new"));
    assert!(events.iter().any(is_new));
    let best = summary.finished.best.unwrap();
    assert_eq!((summary.finished.epochs, best.top1), (8, 1.0));
    let metrics = kitchen.metrics("run");
    assert_eq!(metrics.len(), 8 * (7 + 1));
    let losses: Vec<f64> = metrics
        .iter()
        .filter_map(|record| match record {
            Record::Epoch(epoch) => Some(epoch.train_loss),
            Record::Step(_) | Record::Guard(_) => None,
        })
        .collect();
    assert!(losses[7] < 0.8 * losses[0], "{losses:?}");

    let source = ModelSource::File(kitchen.at("run/best.safetensors"));
    let overrides = TransformOverrides::default();
    let classifier = predict::load(&source, None, &overrides, Strictness::Strict, &Device::Cpu).unwrap();
    let labels: Vec<&str> = classifier.description.labels.iter().map(|label| &**label).collect();
    assert_eq!(labels, CLASSES.map(|(class, _)| class));
    assert_eq!(classifier.description.transform.output_size(), Some((32, 32)));
    assert!(classifier.description.notices.is_empty(), "{:?}", classifier.description.notices);
    // The weights are the run's: the position within says so, and a network for training takes them up again.
    let checkpoint = Checkpoint::open(&kitchen.at("run/best.safetensors")).unwrap();
    assert_eq!(snapshot::position(&checkpoint).unwrap().best, Some(best));
    let again = TrainConfig { model: Some(kitchen.at("run/best.safetensors")), epochs: 1, ..kitchen.config() };
    let (_, events) = kitchen.train(&kitchen.begin(again, "again")).unwrap();
    assert!(!events.iter().any(is_new), "the same classes keep their classifier");
}

#[test]
fn a_run_that_was_canceled_or_paused_anywhere_equals_the_one_that_was_not() {
    let kitchen = Kitchen::new(8);
    kitchen.train(&kitchen.begin(kitchen.config(), "whole")).unwrap();
    // In the first epoch, at its last step (before the validation), and in the second.
    kitchen.train_until(&kitchen.begin(kitchen.config(), "parts"), 2);
    kitchen.train_until(&kitchen.resume("parts"), 3);
    kitchen.train_until(&kitchen.resume("parts"), 3);
    kitchen.train(&kitchen.resume("parts")).unwrap();
    kitchen.assert_same_runs("whole", "parts");

    let task = kitchen.begin(kitchen.config(), "paused");
    let job = train::start(task, kitchen.places(), || ()).unwrap();
    let mut job = job;
    let (mut steps, mut pauses) = (0, 0);
    let outcome = loop {
        let done = job.is_done();
        while let Some(event) = job.poll() {
            match event {
                TrainEvent::Record(Record::Step(_)) => {
                    steps += 1;
                    job.context().set_paused(steps == 2 || steps == 7);
                }
                TrainEvent::Paused => {
                    pauses += 1;
                    job.context().set_paused(false);
                }
                _ => {}
            }
        }
        if done {
            break job.take_outcome().unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(matches!(outcome, Outcome::Finished(_)), "{outcome:?}");
    assert!(pauses >= 1);
    kitchen.assert_same_runs("whole", "paused");
}

#[test]
fn every_way_to_train_goes_on_as_it_would_have() {
    let kitchen = Kitchen::new(8);
    let base = kitchen.config();
    let ways = [
        TrainConfig { ema: Some(0.9), drop_path: 0.4, recompute: Recompute::All, ..base.clone() },
        TrainConfig { optimizer: Method::Sgd, micro_batch: Some(3), layer_decay: 0.8, ..base.clone() },
        TrainConfig { unfreeze: Unfreeze::Last(3), label_smoothing: 0.0, clip_norm: None, ..base.clone() },
        TrainConfig { unfreeze: Unfreeze::Head, flush_train: 1, flush_val: 1, ..base.clone() },
        // From nothing: before the first snapshot the weights follow from the seed.
        TrainConfig { arch: Some("mobilenet_v3_small".to_owned()), ..base },
    ];
    for (index, way) in ways.into_iter().enumerate() {
        let (whole, parts) = (format!("whole-{index}"), format!("parts-{index}"));
        kitchen.train(&kitchen.begin(way.clone(), &whole)).unwrap();
        kitchen.train_until(&kitchen.begin(way, &parts), 3);
        kitchen.train(&kitchen.resume(&parts)).unwrap();
        kitchen.assert_same_runs(&whole, &parts);
    }
}

fn keeps_features(events: &[TrainEvent]) -> bool {
    events.iter().any(|event| matches!(event, TrainEvent::Start(start) if start.feature_bytes.is_some()))
}

#[test]
fn kept_features_change_nothing_wherever_the_run_is_interrupted() {
    let kitchen = Kitchen::new(8);
    let base = TrainConfig { augment: Augment::NONE, epochs: 3, unfreeze: Unfreeze::Head, ..kitchen.config() };
    let ways = [
        TrainConfig { ema: Some(0.9), micro_batch: Some(3), ..base.clone() },
        TrainConfig { unfreeze: Unfreeze::Last(3), layer_decay: 0.7, recompute: Recompute::All, ..base },
    ];
    for (index, way) in ways.into_iter().enumerate() {
        let names = ["anew", "kept", "parts"].map(|name| format!("{name}-{index}"));
        let never = TrainConfig { cache_features: CacheFeatures::Never, ..way.clone() };
        let (_, events) = kitchen.train(&kitchen.begin(never, &names[0])).unwrap();
        assert!(!keeps_features(&events));
        let (_, events) = kitchen.train(&kitchen.begin(way.clone(), &names[1])).unwrap();
        assert!(keeps_features(&events));
        kitchen.assert_same_runs(&names[0], &names[1]);
        kitchen.train_until(&kitchen.begin(way, &names[2]), 2);
        kitchen.train_until(&kitchen.resume(&names[2]), 6);
        kitchen.train(&kitchen.resume(&names[2])).unwrap();
        kitchen.assert_same_runs(&names[0], &names[2]);
    }
    // Where a photo is another each time, nothing is kept.
    let flips = Augment { flip: 0.5, ..Augment::NONE };
    let config = TrainConfig { augment: flips, unfreeze: Unfreeze::Head, epochs: 1, ..kitchen.config() };
    assert!(!keeps_features(&kitchen.train(&kitchen.begin(config, "flips")).unwrap().1));
}

#[test]
fn random_weights_to_begin_with_follow_the_seed() {
    let kitchen = Kitchen::new(4);
    // So small a rate that the weights stay what they were, but for their last digits.
    let arch = Some("mobilenet_v3_small".to_owned());
    let base = TrainConfig { arch, epochs: 1, lr: 1e-9, ..kitchen.config() };
    let stem = |name: &str, seed: u64| {
        kitchen.train(&kitchen.begin(TrainConfig { seed, ..base.clone() }, name)).unwrap();
        let checkpoint = Checkpoint::open(&kitchen.at(name).join("last.safetensors")).unwrap();
        checkpoint.read_f32("features.0.0.weight").unwrap()
    };
    let (one, again, other) = (stem("one", 1), stem("again", 1), stem("other", 2));
    assert_eq!(one, again);
    let differ = one.iter().zip(&other).filter(|(one, other)| (*one - *other).abs() > 1e-3).count();
    assert!(differ > one.len() / 2, "{differ} of {}", one.len());
}

#[test]
fn frozen_weights_are_saved_as_they_were() {
    let kitchen = Kitchen::new(4);
    let config = TrainConfig { unfreeze: Unfreeze::Head, epochs: 1, ..kitchen.config() };
    kitchen.train(&kitchen.begin(config, "run")).unwrap();
    let before = predict::open(&ModelSource::Starter).unwrap();
    let after = Checkpoint::open(&kitchen.at("run/last.safetensors")).unwrap();
    let mut kept = 0;
    let is_body = |name: &str| !name.starts_with("classifier.") && !name.ends_with("num_batches_tracked");
    for info in before.tensors().iter().filter(|info| is_body(&info.name)) {
        assert_eq!(before.read_f32(&info.name).unwrap(), after.read_f32(&info.name).unwrap(), "{}", info.name);
        kept += 1;
    }
    assert!(kept > 100);
}

/// A command, killed with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_run_killed_anywhere_equals_the_one_that_was_not() {
    let kitchen = Kitchen::new(8);
    let config = TrainConfig { epochs: 3, snapshot_minutes: 1e-9, ..kitchen.config() };
    let kept = TrainConfig { augment: Augment::NONE, unfreeze: Unfreeze::Head, ..config.clone() };
    kitchen.train(&kitchen.begin(config, "whole")).unwrap();
    kill_and_resume(&kitchen, "killed", "");
    kitchen.assert_same_runs("whole", "killed");
    kitchen.train(&kitchen.begin(kept, "whole-kept")).unwrap();
    kill_and_resume(&kitchen, "killed-kept", "--unfreeze head --flip 0 --random-crop false");
    kitchen.assert_same_runs("whole-kept", "killed-kept");
}

/// Trains with the program, killed three times on the way.
fn kill_and_resume(kitchen: &Kitchen, run: &str, more: &str) {
    let spawn = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_galley"));
        command.args(arguments).stderr(Stdio::null()).stdout(Stdio::null());
        command.env("GALLEY_TILES", kitchen.at("tiles")).env("GALLEY_VERDICTS", kitchen.at("verdicts"));
        command.env("GALLEY_JOURNAL", kitchen.at("journal.sqlite"));
        Running(command.spawn().unwrap())
    };
    let (photos, run) = (kitchen.at("photos"), kitchen.at(run));
    let lines = || fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    let mut begin = vec!["train", "--data", photos.to_str().unwrap(), "--out", run.to_str().unwrap()];
    begin.extend("--epochs 3 --batch-size 4 --image-size 32 --validation-fraction 0.25 --lr 0.001".split(' '));
    begin.extend("--snapshot-minutes 1e-9".split(' ').chain(more.split_whitespace()));
    let mut running = spawn(&begin);
    for enough in [2, 7, 12] {
        let patience = Instant::now();
        while lines() < enough && running.0.try_wait().unwrap().is_none() {
            assert!(patience.elapsed() < Duration::from_secs(120));
            std::thread::sleep(Duration::from_millis(1));
        }
        running.0.kill().unwrap();
        running.0.wait().unwrap();
        running = spawn(&["train", "--resume", run.to_str().unwrap()]);
    }
    assert!(running.0.wait().unwrap().success());
}

#[test]
fn a_photo_that_cannot_be_read_is_named_and_left_out() {
    let kitchen = Kitchen::new(4);
    fs::write(kitchen.at("photos/pea/00.png"), b"\x89PNG\r\n\x1a\nnot really").unwrap();
    let config = TrainConfig { epochs: 1, validation_fraction: 0.0, ..kitchen.config() };
    let (_, events) = kitchen.train(&kitchen.begin(config, "run")).unwrap();
    let is_named = |event: &TrainEvent| matches!(event, TrainEvent::Notice(text) if text.contains("pea/00.png"));
    assert!(events.iter().any(is_named), "{events:?}");
    assert_eq!(start(&events).train_counts, [4, 3, 4]);
}

#[test]
fn what_cannot_be_trained_is_refused_with_the_next_step() {
    let kitchen = Kitchen::new(4);
    let config = kitchen.config();
    let fails = |config: TrainConfig, run: &str, words: &str| {
        let text = kitchen.train(&kitchen.begin(config, run)).unwrap_err();
        assert!(text.contains(words), "{text}");
    };
    fails(TrainConfig { data: kitchen.at("photos/pea"), ..config.clone() }, "one", "");
    assert!(!kitchen.at("one").exists());
    fails(TrainConfig { batch_size: 0, ..config.clone() }, "none", "from 1 to 256");
    // Below what f32 holds, so that not even a weight of zero moves.
    fails(TrainConfig { lr: 1e-60, ..config.clone() }, "still", "learning rate too small");
    kitchen.train(&kitchen.begin(TrainConfig { epochs: 1, ..config.clone() }, "run")).unwrap();
    fails(config.clone(), "run", "--resume");
    fs::remove_file(kitchen.at("photos/pea/00.png")).unwrap();
    let text = kitchen.train(&kitchen.resume("run")).unwrap_err();
    assert!(text.contains("photos have changed"), "{text}");
    let text = kitchen.train(&kitchen.resume("photos")).unwrap_err();
    assert!(text.contains("no run"), "{text}");
}

#[test]
fn a_run_that_goes_astray_stops_and_names_the_layer() {
    let kitchen = Kitchen::new(8);
    let text = kitchen.train(&kitchen.begin(kitchen.wild_config(), "run")).unwrap_err();
    assert!(text.contains("went astray") && text.contains("is the first that is no longer a number"), "{text}");
    // Whatever was saved before is whole.
    if kitchen.at("run/last.safetensors").exists() {
        assert!(
            kitchen
                .tensors("run/last.safetensors")
                .iter()
                .all(|(_, values)| values.iter().all(|value| value.is_finite()))
        );
    }
}

#[test]
fn patience_ends_a_run_early() {
    let kitchen = Kitchen::new(4);
    let config = TrainConfig { lr: 1e-7, patience: Some(1), ..Preset::Full.apply(kitchen.config()) };
    let (summary, _) = kitchen.train(&kitchen.begin(config, "run")).unwrap();
    assert!(summary.finished.early && summary.finished.epochs < 50, "{summary:?}");
}
