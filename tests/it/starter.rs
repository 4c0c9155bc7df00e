//! The starter model answers what PyTorch answers for the same file (`tests/reference/starter.py`).

use std::path::Path;

use candle_core::{Device, Tensor};
use galley::images::{self, ImageBudget, Limits};
use galley::predict::{self, Classifier, ModelSource, Strictness, TransformOverrides};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn reference() -> Value {
    let text = std::fs::read_to_string(root().join("tests/reference/starter.reference.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn starter() -> Classifier {
    predict::load(&ModelSource::Starter, None, &TransformOverrides::default(), Strictness::Strict, &Device::Cpu)
        .unwrap()
}

fn numbers(list: &Value) -> Vec<f32> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

#[test]
fn starter_brings_its_labels_and_its_transform() {
    let (reference, starter) = (reference(), starter());
    let labels: Vec<&str> = starter.description.labels.iter().map(AsRef::as_ref).collect();
    assert_eq!(serde_json::json!(labels), reference["labels"]);
    let transform: images::transform::Transform = serde_json::from_value(reference["transform"].clone()).unwrap();
    assert_eq!(starter.description.transform, transform);
}

#[test]
fn starter_has_pytorchs_logits_for_the_synthetic_input() {
    let reference = reference();
    let side = reference["synthetic_input"]["shape"][2].as_u64().unwrap() as usize;
    let value = |index: usize| (0.013 * index as f64).sin() as f32;
    let planes: Vec<f32> = (0..3 * side * side).map(value).collect();
    let planes = Tensor::from_vec(planes, (1, 3, side, side), &Device::Cpu).unwrap();
    let pixels = planes.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap(); // (1, side, side, 3)
    let logits = starter().network.forward(&pixels).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let expected = numbers(&reference["synthetic_input"]["logits"]);
    assert_eq!(logits.len(), expected.len());
    for (logit, expected) in logits.iter().zip(&expected) {
        assert!((logit - expected).abs() < 1e-3, "{logits:?} instead of {expected:?}");
    }
}

/// JPEG decoders differ by a level or two, which may turn a photo that lies between two classes: at most one.
#[test]
fn starter_names_the_test_photos_as_pytorch_does() {
    let (reference, starter) = (reference(), starter());
    let budget = ImageBudget::new(64_000_000);
    let photos = reference["test_photos"].as_array().unwrap();
    let mut different = Vec::new();
    for photo in photos {
        let path = photo["path"].as_str().unwrap();
        let input = images::load_input(&root().join(path), &starter.description.transform, &Limits::default(), &budget)
            .unwrap();
        let logits = starter.logits(&[&input]).unwrap().remove(0);
        let best = &predict::top_k(&logits, &starter.description.labels, 1)[0];
        if *best.label != *photo["top1"].as_str().unwrap() {
            different.push(path);
        }
    }
    assert_eq!(photos.len(), 96);
    assert!(different.len() <= 1, "{different:?}");
}
