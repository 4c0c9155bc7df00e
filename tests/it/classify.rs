//! The classify job and what it knows about a model: labels, transform, order, cancel and pause.

use std::fs;
use std::path::{Path, PathBuf};

use galley::export::{Row, RowResult};
use galley::images::transform::{Interpolation, Resize, Transform};
use galley::jobs::Places;
use galley::jobs::admission::MemoryChoice;
use galley::jobs::classify::{self, ClassifyConfig, ClassifyEvent, ClassifySummary, ModelSummary};
use galley::journal::Journal;
use galley::memory::{self, heap};
use galley::predict::{ModelSource, TransformOverrides};
use galley::worker::{JobContext, Outcome};

use crate::support::{alone, write_model, write_model_with, write_photo};

struct Kitchen {
    folder: tempfile::TempDir,
}

#[derive(Default)]
struct Heard {
    model: Option<ModelSummary>,
    notices: Vec<String>,
    /// Each event's rows, and whether they were resumed.
    rows: Vec<(Vec<Row>, bool)>,
}

impl Heard {
    fn take(&mut self, event: ClassifyEvent) {
        match event {
            ClassifyEvent::Model(model) => self.model = Some(model),
            ClassifyEvent::Notice(notice) | ClassifyEvent::DeviceNotice(notice) => self.notices.push(notice),
            ClassifyEvent::Rows { rows, resumed } => self.rows.push((rows, resumed)),
        }
    }

    fn all(&self) -> Vec<Row> {
        self.rows.iter().flat_map(|(rows, _)| rows.clone()).collect()
    }
}

impl Kitchen {
    fn new(photos: u32) -> Self {
        let kitchen = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(kitchen.at("photos")).unwrap();
        (0..photos).for_each(|number| kitchen.add_photo(number));
        kitchen
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn places(&self) -> Places {
        Places {
            journal: self.at("journal.sqlite"),
            verdicts: self.at("verdicts"),
            tiles: self.at("tiles"),
            models: Default::default(),
            models_folder: self.at("models"),
        }
    }

    fn add_photo(&self, number: u32) {
        write_photo(&self.at(&format!("photos/{number:03}.png")), number);
    }

    /// A config for `model.safetensors` at a size that is quickly computed.
    fn config(&self) -> ClassifyConfig {
        ClassifyConfig {
            model: ModelSource::File(self.at("model.safetensors")),
            inputs: vec![self.at("photos")],
            batch_size: 4,
            transform: TransformOverrides { resize: Some(Resize::ShortSide(64)), ..Default::default() },
            ..Default::default()
        }
    }

    fn run(&self, config: &ClassifyConfig) -> Result<(ClassifySummary, Heard), String> {
        let mut heard = Heard::default();
        let mut take = |event| {
            heard.take(event);
            Ok(())
        };
        let summary = classify::classify(config, &self.places(), &JobContext::detached(), &mut take);
        summary.map(|summary| (summary, heard)).map_err(|error| galley::format::error_chain(&*error))
    }

    fn model(&self, config: &ClassifyConfig) -> (ModelSummary, Vec<String>) {
        let (_, heard) = self.run(config).unwrap();
        (heard.model.unwrap(), heard.notices)
    }
}

fn names(model: &ModelSummary) -> Vec<&str> {
    model.labels.iter().map(|label| &**label).collect()
}

#[test]
fn known_and_new_photos_keep_one_order() {
    let kitchen = Kitchen::new(0);
    write_model(&kitchen.at("model.safetensors"), 3, 1);
    [2, 3, 7].into_iter().for_each(|number| kitchen.add_photo(number));
    let (summary, _) = kitchen.run(&kitchen.config()).unwrap();
    assert_eq!((summary.photos, summary.ok, summary.resumed), (3, 3, 0));
    [1, 4, 5].into_iter().for_each(|number| kitchen.add_photo(number));
    fs::write(kitchen.at("photos/006.png"), "").unwrap();
    let (summary, heard) = kitchen.run(&kitchen.config()).unwrap();
    assert_eq!((summary.photos, summary.ok, summary.skipped, summary.resumed), (7, 6, 1, 3));
    let paths: Vec<PathBuf> = heard.all().into_iter().map(|row| row.path).collect();
    assert_eq!(paths, [1, 2, 3, 4, 5, 6, 7].map(|number| kitchen.at(&format!("photos/{number:03}.png"))));
    let resumed = heard.rows.iter().filter(|(_, resumed)| *resumed).flat_map(|(rows, _)| rows);
    let resumed: Vec<_> = resumed.map(|row| row.path.clone()).collect();
    assert_eq!(resumed, [2, 3, 7].map(|number| kitchen.at(&format!("photos/{number:03}.png"))));
}

#[test]
fn a_canceled_job_keeps_what_it_did_and_a_paused_one_goes_on() {
    let kitchen = Kitchen::new(60);
    write_model(&kitchen.at("model.safetensors"), 3, 1);
    let journal = kitchen.at("journal.sqlite");
    let mut job = classify::start(kitchen.config(), kitchen.places(), || ()).unwrap();
    let mut seen = 0;
    while seen == 0 {
        if let Some(ClassifyEvent::Rows { rows, .. }) = job.poll() {
            seen += rows.len();
        }
    }
    job.context().set_paused(true);
    job.context().cancel();
    let outcome = loop {
        while job.poll().is_some() {}
        if let Some(outcome) = job.take_outcome() {
            break outcome;
        }
    };
    assert!(matches!(outcome, Outcome::Canceled), "{outcome:?}");
    let database = rusqlite::Connection::open(&journal).unwrap();
    let (state, recorded): (String, i64) =
        database.query_row("SELECT state, recorded FROM runs", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(state, "canceled");
    assert!(recorded >= seen as i64 && recorded < 60, "{recorded}");
    let (summary, _) = kitchen.run(&kitchen.config()).unwrap();
    assert_eq!((summary.photos, summary.resumed as i64), (60, recorded));
}

#[test]
fn labels_come_from_the_nearest_place_that_fits() {
    let kitchen = Kitchen::new(1);
    let (model, config) = (kitchen.at("model.safetensors"), kitchen.config());
    write_model(&model, 2, 1);
    assert_eq!(names(&kitchen.model(&config).0), ["class 0", "class 1"]);

    fs::write(kitchen.at("classes.txt"), "a\nb").unwrap();
    assert_eq!(names(&kitchen.model(&config).0), ["a", "b"]);
    fs::write(kitchen.at("model.labels.json"), r#"{"1": "d", "0": "c"}"#).unwrap();
    let (summary, notices) = kitchen.model(&config);
    assert_eq!(
        (names(&summary), summary.labels_from.as_str()),
        (vec!["c", "d"], "model.labels.json beside the checkpoint")
    );
    assert!(notices.is_empty(), "{notices:?}");

    fs::write(kitchen.at("config.json"), r#"{"label_names": ["e", "f"], "num_classes": 2}"#).unwrap();
    assert_eq!(names(&kitchen.model(&config).0), ["e", "f"]);
    write_model_with(&model, 2, 1, &[("class_to_idx", r#"{"h": 1, "g": 0}"#)]);
    assert_eq!(names(&kitchen.model(&config).0), ["g", "h"]);
    fs::write(kitchen.at("mine.txt"), "i\nj\n").unwrap();
    let chosen = ClassifyConfig { labels: Some(kitchen.at("mine.txt")), ..config.clone() };
    assert_eq!(names(&kitchen.model(&chosen).0), ["i", "j"]);
}

#[test]
fn labels_that_do_not_fit_are_an_error_when_chosen_and_a_notice_when_found() {
    let kitchen = Kitchen::new(1);
    write_model(&kitchen.at("model.safetensors"), 2, 1);
    fs::write(kitchen.at("labels.txt"), "a\nb\nc\n").unwrap();
    let (summary, notices) = kitchen.model(&kitchen.config());
    assert_eq!(names(&summary), ["class 0", "class 1"]);
    assert!(notices.len() == 1 && notices[0].contains("labels.txt") && notices[0].contains('3'), "{notices:?}");
    let chosen = ClassifyConfig { labels: Some(kitchen.at("labels.txt")), ..kitchen.config() };
    let error = kitchen.run(&chosen).err().unwrap();
    assert!(error.contains("2 classes") && error.ends_with("labels.txt"), "{error}");
}

#[test]
fn the_transform_is_what_a_person_set_over_what_the_checkpoint_says() {
    let kitchen = Kitchen::new(1);
    let model = kitchen.at("model.safetensors");
    write_model(&model, 2, 1);
    let plain = ClassifyConfig { transform: TransformOverrides::default(), ..kitchen.config() };
    let (summary, _) = kitchen.model(&plain);
    assert_eq!(summary.transform, Transform::default());
    assert!(summary.transform_from.starts_with("the default of"), "{}", summary.transform_from);

    let timm = r#"{"input_size": [3, 64, 64], "crop_pct": 0.5, "interpolation": "bicubic", "mean": [0.5, 0.5, 0.5]}"#;
    fs::write(kitchen.at("config.json"), format!(r#"{{"pretrained_cfg": {timm}}}"#)).unwrap();
    let (summary, _) = kitchen.model(&plain);
    let bicubic = Transform {
        resize: Resize::ShortSide(128),
        crop: Some(64),
        interpolation: Interpolation::Bicubic,
        mean: [0.5; 3],
        ..Transform::default()
    };
    assert_eq!(summary.transform, bicubic);

    let own = Transform { crop: Some(48), ..bicubic };
    write_model_with(&model, 2, 1, &[("transform", &serde_json::to_string(&own).unwrap())]);
    assert_eq!(kitchen.model(&plain).0.transform, own);
    let mut set = plain.clone();
    set.transform.std = Some([1.0; 3]);
    let (summary, _) = kitchen.model(&set);
    assert_eq!(summary.transform, Transform { std: [1.0; 3], ..own });
    assert!(summary.transform_from.ends_with("std set by you"), "{}", summary.transform_from);
}

#[test]
fn photos_that_stay_of_different_sizes_answer_as_they_would_alone() {
    let kitchen = Kitchen::new(3);
    for (name, width, height) in [("wide.png", 200, 64), ("tall.png", 64, 150)] {
        let photo =
            image::open(kitchen.at("photos/001.png")).unwrap().resize_exact(width, height, image::imageops::Nearest);
        photo.save(kitchen.at("photos").join(name)).unwrap();
    }
    let whole = Transform { resize: Resize::ShortSide(64), crop: None, ..Transform::default() };
    let metadata = [("transform", &*serde_json::to_string(&whole).unwrap())];
    write_model_with(&kitchen.at("model.safetensors"), 3, 1, &metadata);
    let together = ClassifyConfig { transform: TransformOverrides::default(), logits: true, ..kitchen.config() };
    let alone = ClassifyConfig { batch_size: 1, ..together.clone() };
    let [together, alone] = [together, alone].map(|config| kitchen.run(&config).unwrap().1.all());
    assert_eq!(together.len(), 5);
    for (together, alone) in together.iter().zip(&alone) {
        let (RowResult::Ok { logits: Some(a), .. }, RowResult::Ok { logits: Some(b), .. }) =
            (&together.result, &alone.result)
        else {
            panic!("{together:?} {alone:?}")
        };
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4), "{together:?} {alone:?}");
    }
}

#[test]
fn a_photo_that_was_skipped_is_tried_again_once_it_changed() {
    let kitchen = Kitchen::new(0);
    write_model(&kitchen.at("model.safetensors"), 2, 1);
    let photo = kitchen.at("photos/000.png");
    fs::write(&photo, "").unwrap();
    let skipped = |kitchen: &Kitchen| {
        let (summary, _) = kitchen.run(&kitchen.config()).unwrap();
        (summary.skipped, summary.resumed)
    };
    assert_eq!(skipped(&kitchen), (1, 0));
    assert_eq!(skipped(&kitchen), (1, 1));
    write_photo(&photo, 5);
    assert_eq!(skipped(&kitchen), (0, 0));
}

/// What is left of the memory bounds the decoding of a photo too, and that lasts no longer than the limit.
#[test]
fn a_photo_that_memory_is_too_little_for_is_skipped_and_read_once_there_is_more() {
    alone("classify::a_photo_that_memory_is_too_little_for_is_skipped_and_read_once_there_is_more", || {
        let kitchen = Kitchen::new(1);
        write_model(&kitchen.at("model.safetensors"), 2, 1);
        // Its pixels alone take 144 MB.
        let large = image::RgbImage::from_pixel(8000, 6000, image::Rgb([200, 90, 40]));
        large.save(kitchen.at("photos/large.png")).unwrap();
        drop(large);
        heap::release();
        let limit = memory::read_often().footprint.map(|footprint| footprint + 100_000_000);
        let limited = ClassifyConfig { memory: MemoryChoice { limit, anyway: false }, ..kitchen.config() };
        heap::reset_peak();
        let before = heap::live();
        let (summary, heard) = kitchen.run(&limited).unwrap();
        assert_eq!((summary.ok, summary.skipped), (1, 1));
        assert!(heap::peak() - before < 100_000_000);
        let rows = heard.all();
        assert!(
            matches!(&rows[1].result, RowResult::Skipped { reason } if reason.contains("with a higher memory limit")),
            "{rows:?}"
        );
        let (summary, _) = kitchen.run(&kitchen.config()).unwrap();
        assert_eq!((summary.ok, summary.resumed), (2, 1));
    });
}

/// What a run took says nothing about what was predicted of whole batches, if it had none.
#[test]
fn only_runs_with_a_whole_batch_are_held_against_their_prediction() {
    let kitchen = Kitchen::new(3);
    write_model(&kitchen.at("model.safetensors"), 2, 1);
    let noted = |photos| {
        assert_eq!(kitchen.run(&kitchen.config()).unwrap().0.photos, photos);
        Journal::open(&kitchen.places().journal).unwrap().peaks(None, 9).unwrap().len()
    };
    assert_eq!(noted(3), 0);
    (3..7).for_each(|number| kitchen.add_photo(number));
    assert_eq!([noted(7), noted(7)], [1, 1]);
}

#[test]
fn an_index_of_several_files_is_known_by_all_of_them() {
    let kitchen = Kitchen::new(2);
    let bytes_of = |seed| {
        write_model(&kitchen.at("whole"), 2, seed);
        fs::read(kitchen.at("whole")).unwrap()
    };
    fs::write(kitchen.at("part.safetensors"), bytes_of(1)).unwrap();
    let names: Vec<String> = tensor_names(&kitchen.at("part.safetensors"));
    let map: serde_json::Map<_, _> = names.into_iter().map(|name| (name, "part.safetensors".into())).collect();
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    fs::write(kitchen.at("model.safetensors.index.json"), index.to_string()).unwrap();
    let config =
        ClassifyConfig { model: ModelSource::File(kitchen.at("model.safetensors.index.json")), ..kitchen.config() };
    let resumed = |kitchen: &Kitchen| kitchen.run(&config).unwrap().0.resumed;
    assert_eq!((resumed(&kitchen), resumed(&kitchen)), (0, 2));
    fs::write(kitchen.at("part.safetensors"), bytes_of(2)).unwrap();
    assert_eq!(resumed(&kitchen), 0, "another part under the same index");
}

fn tensor_names(path: &Path) -> Vec<String> {
    let bytes = fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    tensors.names().into_iter().map(str::to_owned).collect()
}
