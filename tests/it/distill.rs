//! Distillation: a teacher is asked once, its answers are what is learned, and nothing that interrupts a run changes it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use galley::data::Augment;
use galley::images::{self, ImageBudget, Input, Limits};
use galley::jobs::train::TrainEvent;
use galley::predict::{self, Classifier, ModelSource, Strictness, TransformOverrides};
use galley::train::{Distill, Record, TrainConfig, Unfreeze, read_record};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use crate::runs::{Kitchen, start, write_picture};
use crate::support::write_model_with;

const LABELS: &str = r#"["beetroot", "pea", "plum"]"#;

/// A teacher of the kitchen's classes, with opinions of its own.
fn write_teacher(path: &Path, seed: u32) {
    write_model_with(path, 3, seed, &[("labels", LABELS)]);
}

/// A kitchen with 6 photos of each class, 15 of them to train on, and a teacher.
fn kitchen() -> Kitchen {
    let kitchen = Kitchen::new(6);
    write_teacher(&kitchen.at("teacher.safetensors"), 3);
    kitchen
}

fn config(kitchen: &Kitchen, teacher: &str) -> TrainConfig {
    let distill = Distill { teacher: Some(kitchen.at(teacher)), ..Distill::default() };
    TrainConfig { distill: Some(distill), validation_fraction: 0.17, ..kitchen.config() }
}

/// The photos that the teacher was asked about in a run.
fn asked(events: &[TrainEvent]) -> u64 {
    let number = |event: &TrainEvent| match event {
        TrainEvent::Notice(text) if text.starts_with("The teacher, SqueezeNet 1.1, was asked about ") => {
            text.split_whitespace().nth(7)?.parse().ok()
        }
        _ => None,
    };
    events.iter().find_map(number).unwrap_or_else(|| panic!("{events:?}"))
}

/// The files of answers, by their names.
fn answers(kitchen: &Kitchen) -> Vec<PathBuf> {
    let entries = fs::read_dir(kitchen.at("tiles")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|it| it == "answers")).collect();
    files.sort();
    files
}

fn losses(kitchen: &Kitchen, run: &str) -> Vec<f64> {
    let step = |record: Record| match record {
        Record::Step(step) => Some(step.loss),
        Record::Epoch(_) | Record::Guard(_) => None,
    };
    kitchen.metrics(run).into_iter().filter_map(step).collect()
}

#[test]
fn a_teacher_is_asked_once_and_what_is_on_disk_is_what_is_learned() {
    let kitchen = kitchen();
    let task = |teacher: &str, run: &str| kitchen.begin(config(&kitchen, teacher), run);
    let (_, events) = kitchen.train(&task("teacher.safetensors", "first")).unwrap();
    assert_eq!(asked(&events), 15);
    let plan = start(&events).plan;
    assert!(plan.answers >= 15 * 48 && plan.items().contains(&("answers", plan.answers)));
    let (_, events) = kitchen.train(&task("teacher.safetensors", "second")).unwrap();
    assert_eq!(asked(&events), 0);
    kitchen.assert_same_runs("first", "second");
    // New photos are asked about, and no others.
    write_picture(&kitchen.at("photos/pea/20.png"), [60, 170, 40], 20);
    let (_, events) = kitchen.train(&task("teacher.safetensors", "third")).unwrap();
    assert!((1..=4).contains(&asked(&events)), "{}", asked(&events));
    fs::remove_file(kitchen.at("photos/pea/20.png")).unwrap();
    // Another teacher's answers in place of the first's are learned as that teacher's: nobody asks the first again.
    let first = answers(&kitchen);
    assert_eq!(first.len(), 1);
    write_teacher(&kitchen.at("other.safetensors"), 4);
    let (_, events) = kitchen.train(&task("other.safetensors", "other")).unwrap();
    assert_eq!(asked(&events), 15);
    let other = answers(&kitchen).into_iter().find(|path| *path != first[0]).unwrap();
    fs::copy(other, &first[0]).unwrap();
    let (_, events) = kitchen.train(&task("teacher.safetensors", "exchanged")).unwrap();
    assert_eq!(asked(&events), 0);
    assert_eq!(losses(&kitchen, "exchanged"), losses(&kitchen, "other"));
    assert_ne!(losses(&kitchen, "exchanged"), losses(&kitchen, "first"));
}

#[test]
fn a_teacher_that_changed_is_asked_anew_and_a_run_does_not_go_on_with_it() {
    let kitchen = kitchen();
    let task = |run: &str| kitchen.begin(config(&kitchen, "teacher.safetensors"), run);
    kitchen.train_until(&task("run"), 2);
    let before = fs::metadata(kitchen.at("teacher.safetensors")).unwrap();
    write_teacher(&kitchen.at("teacher.safetensors"), 5);
    // As long and as old as the one before.
    let file = fs::File::options().write(true).open(kitchen.at("teacher.safetensors")).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    assert_eq!(file.metadata().unwrap().len(), before.len());
    let refused = kitchen.train(&kitchen.resume("run")).unwrap_err();
    assert!(refused.contains("the teacher has changed") && refused.contains("--model"), "{refused}");
    let (_, events) = kitchen.train(&task("anew")).unwrap();
    assert_eq!(asked(&events), 15);
    write_teacher(&kitchen.at("teacher.safetensors"), 3);
    kitchen.train(&kitchen.resume("run")).unwrap();
    assert_eq!(answers(&kitchen).len(), 2);
}

#[test]
fn a_run_with_a_teacher_that_was_interrupted_equals_the_one_that_was_not() {
    let kitchen = kitchen();
    let mut config = config(&kitchen, "teacher.safetensors");
    (config.augment.mixup, config.micro_batch) = (0.4, Some(3));
    config.distill.as_mut().unwrap().features = Some(Distill::FEATURES);
    kitchen.train(&kitchen.begin(config.clone(), "whole")).unwrap();
    kitchen.train_until(&kitchen.begin(config, "parts"), 3);
    // Answers that are lost are asked for again, and are the same.
    answers(&kitchen).iter().for_each(|path| fs::remove_file(path).unwrap());
    let (_, events) = kitchen.train(&kitchen.resume("parts")).unwrap();
    assert_eq!(asked(&events), 15);
    kitchen.assert_same_runs("whole", "parts");
    // What was recorded of the run names the teacher.
    let record = read_record(&kitchen.at("whole")).unwrap();
    assert_eq!(record.config.distill.unwrap().teacher, Some(kitchen.at("teacher.safetensors")));
    assert_eq!(answers(&kitchen)[0].file_stem().unwrap().to_str(), record.teacher.as_deref());
}

/// The same network with its classes in another order.
fn reorder(from: &Path, to: &Path, order: [usize; 3], labels: &str) {
    let bytes = fs::read(from).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let own = |name: &str, data: &[u8]| {
        let row = data.len() / 3;
        match name.starts_with("classifier.") {
            true => order.iter().flat_map(|class| data[class * row..][..row].to_vec()).collect(),
            false => data.to_vec(),
        }
    };
    let parts: Vec<_> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| (own(&name, view.data()), name, view.dtype(), view.shape().to_vec()))
        .collect();
    let views = parts
        .iter()
        .map(|(data, name, dtype, shape)| (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
    let about = HashMap::from([("labels".to_owned(), labels.to_owned())]);
    fs::write(to, safetensors::serialize(views, Some(about)).unwrap()).unwrap();
}

#[test]
fn classes_are_matched_by_their_names() {
    let kitchen = kitchen();
    let ordered = kitchen.at("teacher.safetensors");
    reorder(&ordered, &kitchen.at("reordered.safetensors"), [2, 0, 1], r#"["plum", "beetroot", "pea"]"#);
    for teacher in ["teacher", "reordered"] {
        kitchen.train(&kitchen.begin(config(&kitchen, &format!("{teacher}.safetensors")), teacher)).unwrap();
    }
    for (one, other) in losses(&kitchen, "teacher").iter().zip(losses(&kitchen, "reordered")) {
        assert!((one - other).abs() < 1e-4 * one, "{one} {other}");
    }
    // Of a teacher that lacks a class nothing can be learned about it.
    reorder(&ordered, &kitchen.at("stranger.safetensors"), [0, 1, 2], r#"["beetroot", "pea", "leek"]"#);
    let refused = kitchen.train(&kitchen.begin(config(&kitchen, "stranger.safetensors"), "none")).unwrap_err();
    assert!(refused.contains("does not know 1 of the 3 classes of these photos: plum."), "{refused}");
    assert!(!kitchen.at("none").exists(), "a wrong choice leaves nothing behind");
}

fn sample_photos(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/photos").join(part)
}

fn load(source: &ModelSource) -> Classifier {
    let overrides = TransformOverrides::default();
    predict::load(source, None, &overrides, Strictness::Strict, &candle_core::Device::Cpu).unwrap()
}

/// The mean of `Σ p ln(p / q)` over the test photos: how far a student's probabilities `q` are from its teacher's.
fn distance(student: &Classifier, teacher: &Classifier) -> f64 {
    let budget = ImageBudget::new(64_000_000);
    let probabilities = |classifier: &Classifier, path: &Path| -> Vec<f64> {
        let transform = &classifier.description.transform;
        let input: Input = images::load_input(path, transform, &Limits::default(), &budget).unwrap();
        let logits = classifier.logits(&[&input]).unwrap().remove(0);
        let mut all = predict::top_k(&logits, &classifier.description.labels, 8);
        all.sort_by(|one, other| one.label.cmp(&other.label));
        all.iter().map(|one| f64::from(one.probability).max(1e-12)).collect()
    };
    let files = walkdir::WalkDir::new(sample_photos("test")).into_iter().map(Result::unwrap);
    let paths: Vec<PathBuf> =
        files.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect();
    let of = |path: &PathBuf| -> f64 {
        let pairs = probabilities(teacher, path).into_iter().zip(probabilities(student, path));
        pairs.map(|(p, q)| p * (p / q).ln()).sum()
    };
    paths.iter().map(of).sum::<f64>() / paths.len() as f64
}

/// The starter model as a student whose classifier begins anew, for it has other classes.
fn write_student(path: &Path) {
    let tensors = SafeTensors::deserialize(predict::STARTER).unwrap();
    let (_, header) = SafeTensors::read_metadata(predict::STARTER).unwrap();
    let mut about = header.metadata().clone().unwrap();
    about.insert("labels".to_owned(), serde_json::to_string(&["1", "2", "3", "4", "5", "6", "7", "8"]).unwrap());
    fs::write(path, safetensors::serialize(tensors.tensors(), Some(about)).unwrap()).unwrap();
}

#[test]
fn a_student_comes_nearer_to_its_teacher_than_by_the_labels_alone() {
    let kitchen = Kitchen::new(0);
    write_student(&kitchen.at("student.safetensors"));
    // The classifier alone, of photos that stay as they are: its inputs are computed once.
    let augment = Augment::NONE;
    let base = TrainConfig {
        data: sample_photos("train"),
        model: Some(kitchen.at("student.safetensors")),
        unfreeze: Unfreeze::Head,
        epochs: 12,
        lr: 0.01,
        augment,
        ..TrainConfig::default()
    };
    let taught = TrainConfig { distill: Some(Distill::default()), ..base.clone() };
    let teacher = load(&ModelSource::Starter);
    let [alone, taught] = [("alone", base), ("taught", taught)].map(|(run, config)| {
        kitchen.train(&kitchen.begin(config, run)).unwrap();
        distance(&load(&ModelSource::File(kitchen.at(&format!("{run}/last.safetensors")))), &teacher)
    });
    assert!(taught < 0.7 * alone, "{taught} with, {alone} without a teacher");
}

#[test]
fn the_command_trains_a_student_and_says_what_is_wrong() {
    let kitchen = kitchen();
    let galley = |arguments: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_galley"));
        command.args(arguments.split(' ')).current_dir(kitchen.at(""));
        for (name, place) in
            [("GALLEY_JOURNAL", "j.sqlite"), ("GALLEY_VERDICTS", "verdicts"), ("GALLEY_TILES", "tiles")]
        {
            command.env(name, kitchen.at(place));
        }
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let small = "--image-size 32 --epochs 1 --batch-size 4";
    let distill = |more: &str| galley(&format!("distill teacher.safetensors photos {small} {more}"));
    let (code, lines, said) =
        distill("--student mobilenetv3_small_050 --temperature 2 --distill-weight 0.5 --features --out run --json");
    assert_eq!(code, 0, "{said}");
    let kinds: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&kinds[0]["kind"], &kinds[1]["kind"]), (&"epoch".into(), &"end".into()), "{lines}");
    let config = read_record(&kitchen.at("run")).unwrap().config;
    let teacher = Some(kitchen.at("teacher.safetensors"));
    let features = Some(Distill::FEATURES);
    assert_eq!(config.distill, Some(Distill { teacher, temperature: 2.0, weight: 0.5, features }));
    assert_eq!((config.arch.as_deref(), config.model), (Some("mobilenetv3_small_050"), None));
    // A checkpoint may be the student, here one of other classes.
    let (code, _, said) = distill("--student run/best.safetensors --out again");
    assert!(code == 0 && said.contains("was asked about"), "{said}");
    let (code, _, said) = distill("--student mobilenetv3_smal --out none");
    assert!(code == 1 && said.contains("near names are") && said.contains("mobilenet_v3_small"), "{said}");
    let (code, _, said) = distill("--student none.pth --out none");
    assert!(code == 2 && said.contains("no file or folder of this name: none.pth"), "{said}");
    let (code, _, said) = galley("distill starter photos --student run/best.safetensors --out none");
    assert!(code == 1 && said.contains("does not know 3 of the 3 classes"), "{said}");
    let (code, _, said) = galley("train --data photos --out none --temperature 3");
    assert!(code == 2 && said.contains("--teacher FILE"), "{said}");
    let (code, _, said) = distill("--student run/best.safetensors --temperature 0 --out none");
    assert!(code == 2 && said.contains("--temperature is 0; choose from 0.1 to 100"), "{said}");
    assert!(!kitchen.at("none").exists());
}
