//! Real checkpoints on real photos, through the whole classify job, against what PyTorch answered.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use galley::export::{Row, RowResult};
use galley::images::transform::{Interpolation, Resize};
use galley::jobs::Places;
use galley::jobs::classify::{ClassifyConfig, ClassifyEvent, classify};
use galley::predict::{ModelSource, Precision, TransformOverrides};
use galley::worker::JobContext;
use serde_json::Value;

use crate::support::test_data;

/// The transform under which the material's accuracies were measured.
fn resize_256_center_224(interpolation: Interpolation) -> TransformOverrides {
    TransformOverrides {
        resize: Some(Resize::ShortSide(256)),
        crop: Some(224),
        interpolation: Some(interpolation),
        mean: Some([0.485, 0.456, 0.406]),
        std: Some([0.229, 0.224, 0.225]),
    }
}

fn rows(model: &Path, inputs: Vec<PathBuf>, transform: TransformOverrides, top_k: usize) -> Vec<Row> {
    rows_in(Precision::Stored, model, inputs, transform, top_k)
}

fn rows_in(
    precision: Precision,
    model: &Path,
    inputs: Vec<PathBuf>,
    transform: TransformOverrides,
    top_k: usize,
) -> Vec<Row> {
    let folder = tempfile::tempdir().unwrap();
    let places = Places {
        journal: folder.path().join("journal.sqlite"),
        verdicts: folder.path().join("verdicts"),
        tiles: folder.path().join("tiles"),
        models: Default::default(),
        models_folder: folder.path().join("models"),
    };
    let model = ModelSource::File(model.to_owned());
    let config = ClassifyConfig { model, inputs, transform, top_k, precision, ..Default::default() };
    let mut rows = Vec::new();
    let mut take = |event| {
        if let ClassifyEvent::Rows { rows: more, .. } = event {
            rows.extend(more);
        }
        Ok(())
    };
    classify(&config, &places, &JobContext::detached(), &mut take).unwrap();
    rows
}

fn classes(row: &Row) -> BTreeMap<usize, f64> {
    match &row.result {
        RowResult::Ok { predictions, .. } => {
            predictions.iter().map(|best| (best.index, f64::from(best.probability))).collect()
        }
        RowResult::Skipped { reason } => panic!("{}: {reason}", row.path.display()),
    }
}

/// How many rows have, as their best class, the one that `class_of` gives for the photo's folder.
fn correct(rows: &[Row], class_of: impl Fn(&str) -> usize) -> usize {
    let is_correct = |row: &&Row| {
        let RowResult::Ok { predictions, .. } = &row.result else { panic!("{row:?}") };
        let folder = row.path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        predictions[0].index == class_of(folder)
    };
    rows.iter().filter(is_correct).count()
}

/// The stated accuracies are rounded to a tenth of a percent; one photo more or less is allowed for other decoders.
fn assert_accuracy(name: &str, correct: usize, photos: usize, stated_percent: f64) {
    let stated = (stated_percent / 100.0 * photos as f64).round() as usize;
    eprintln!("{name}: {correct} of {photos} right, PyTorch {stated}");
    assert!(correct.abs_diff(stated) <= 1, "{name}: {correct} of {photos} right, PyTorch {stated}");
}

#[test]
fn ten_kinds_of_food_are_told_apart_as_well_as_by_pytorch() {
    let Some(data) = test_data() else { return };
    let names = fs::read_to_string(data.join("checkpoints/labels/food10_classes.txt")).unwrap();
    let class_of = |folder: &str| names.lines().position(|name| name == folder).unwrap();
    for (model, stated) in [
        ("squeezenet1_0-food10/squeezenet1_0-food10.pth", 70.8),
        ("mobilenet_v3_small-food10/checkpoint.pth", 64.2),
        ("mobilenet_v3_small-food10/model.safetensors", 64.2),
        ("convnext_atto-food10/model.safetensors", 54.2),
    ] {
        let path = data.join("checkpoints/made-with-pytorch").join(model);
        let photos = data.join("food/food101-512/test");
        let rows = rows(&path, vec![photos], resize_256_center_224(Interpolation::Bilinear), 1);
        assert_eq!(rows.len(), 120);
        assert_accuracy(model, correct(&rows, class_of), 120, stated);
    }
}

#[test]
fn eight_bits_agree_with_floats() {
    let Some(data) = test_data() else { return };
    for (model, least) in [
        ("convnext_atto-food10/model.safetensors", 0.99),
        ("squeezenet1_0-food10/squeezenet1_0-food10.pth", 0.97),
        ("mobilenet_v3_small-food10/model.safetensors", 0.97),
    ] {
        let path = data.join("checkpoints/made-with-pytorch").join(model);
        let best = |precision| {
            let photos = vec![data.join("food/food101-512")];
            let rows = rows_in(precision, &path, photos, resize_256_center_224(Interpolation::Bilinear), 1);
            rows.iter().map(|row| *classes(row).keys().next().unwrap()).collect::<Vec<_>>()
        };
        let (floats, bytes) = (best(Precision::F32), best(Precision::Int8));
        assert_eq!((floats.len(), bytes.len()), (426, 426));
        let same = floats.iter().zip(&bytes).filter(|(one, other)| one == other).count();
        eprintln!("{model}: {same} of 426 alike in 8 bits and in floats");
        assert!(same as f64 >= least * 426.0, "{model}: {same} of 426 alike");
    }
}

#[test]
fn imagenet_classes_are_recognised_as_well_as_by_pytorch() {
    let Some(data) = test_data() else { return };
    let sets = [
        (
            "food/food101-512/test",
            &[("hot_dog", 934), ("pizza", 963), ("ice_cream", 928), ("guacamole", 924)][..],
            53,
            56.6,
        ),
        (
            "food/grocery-store/test",
            &[
                ("Fruit/Banana", 954),
                ("Fruit/Lemon", 951),
                ("Fruit/Orange", 950),
                ("Fruit/Pineapple", 953),
                ("Vegetables/Cucumber", 943),
                ("Vegetables/Pepper/Red-Bell-Pepper", 945),
            ],
            108,
            59.3,
        ),
    ];
    let model = data.join("checkpoints/third-party/squeezenet1_0-imagenet.pth");
    for (set, folders, photos, stated) in sets {
        let inputs = folders.iter().map(|(folder, _)| data.join(set).join(folder)).collect();
        let rows = rows(&model, inputs, resize_256_center_224(Interpolation::Bilinear), 1);
        assert_eq!(rows.len(), photos, "{set}");
        let class_of = |name: &str| folders.iter().find(|(folder, _)| folder.ends_with(name)).unwrap().1;
        assert_accuracy(set, correct(&rows, class_of), photos, stated);
    }
}

/// Photos that PyTorch saw otherwise than Galley does, on purpose: turned upright, alpha over white, ink and color
/// profiles converted.
fn differs_on_purpose(photo: &Value, all: &[Value], data: &Path) -> bool {
    let path = photo["path"].as_str().unwrap();
    let profile = b"ICC_PROFILE";
    if fs::read(data.join(path)).unwrap().windows(profile.len()).any(|bytes| bytes == profile) {
        return true;
    }
    let turned = photo["exif_orientation"] == "ignored"
        && all.iter().any(|other| other["path"] == path && other["exif_orientation"] == "applied");
    turned || path.contains("transparent") || path.contains("cmyk") || path.ends_with("monkey16.png")
}

#[test]
fn probabilities_and_their_order_are_pytorchs() {
    let Some(data) = test_data() else { return };
    let made = "checkpoints/made-with-pytorch";
    for reference in [
        &format!("{made}/squeezenet1_0-food10/reference.json"),
        &format!("{made}/mobilenet_v3_small-food10/reference.json"),
        &format!("{made}/convnext_atto-food10/reference.json"),
        "checkpoints/third-party/squeezenet1_0-deepfake.reference.json",
        "checkpoints/third-party/squeezenet1_0-imagenet.reference.json",
    ] {
        let reference = data.join(reference);
        let expected: Value = serde_json::from_slice(&fs::read(&reference).unwrap()).unwrap();
        let model = reference.with_file_name(expected["checkpoint"].as_str().unwrap());
        for variant in expected["variants"].as_array().unwrap() {
            let interpolation = match variant["preprocess"]["interpolation"].as_str().unwrap() {
                "bicubic" => Interpolation::Bicubic,
                _ => Interpolation::Bilinear,
            };
            let all = variant["images"].as_array().unwrap();
            let photos: Vec<&Value> = all.iter().filter(|photo| !differs_on_purpose(photo, all, &data)).collect();
            let inputs = photos.iter().map(|photo| data.join(photo["path"].as_str().unwrap())).collect();
            let rows = rows(&model, inputs, resize_256_center_224(interpolation), usize::MAX);
            assert_eq!(rows.len(), photos.len());
            for (row, photo) in rows.iter().zip(photos) {
                assert_agrees(row, photo["top"].as_array().unwrap(), &model);
            }
        }
    }
}

fn assert_agrees(row: &Row, top: &[Value], model: &Path) {
    let ours = classes(row);
    let theirs: Vec<(usize, f64)> = top
        .iter()
        .map(|class| (class["index"].as_u64().unwrap() as usize, class["probability"].as_f64().unwrap()))
        .collect();
    let place = format!("{} on {}", model.display(), row.path.display());
    for (index, probability) in &theirs {
        let difference = (ours[index] - probability).abs();
        assert!(difference <= 0.01, "{place}: class {index} {} instead of {probability}", ours[index]);
    }
    for (better, worse) in theirs.iter().zip(&theirs[1..]) {
        if better.1 - worse.1 > 0.02 {
            assert!(ours[&better.0] > ours[&worse.0], "{place}: classes {} and {} changed places", better.0, worse.0);
        }
    }
}
