//! Checkpoints that PyTorch and others wrote, against what PyTorch reads from them.

use std::path::Path;

use galley::checkpoint::{Checkpoint, CheckpointError, Container, ElementType, TensorKind};
use serde_json::Value;

use crate::support::test_data;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// torch's name of an element type.
fn dtype(element: ElementType) -> &'static str {
    match element {
        ElementType::F64 => "float64",
        ElementType::F32 => "float32",
        ElementType::F16 => "float16",
        ElementType::BF16 => "bfloat16",
        ElementType::I64 => "int64",
        ElementType::I32 => "int32",
        ElementType::I16 => "int16",
        ElementType::I8 => "int8",
        ElementType::U8 => "uint8",
        ElementType::Bool => "bool",
        ElementType::Quantized(name) => name,
    }
}

/// Compares one file with torch's reading of it: `{"path/of/keys": {"dtype", "shape", "first": […]}}`.
fn assert_reads_like_torch(path: &Path, expected: &Value) {
    let checkpoint = Checkpoint::open(path).unwrap_or_else(|error| panic!("{error}"));
    let expected: Vec<_> =
        expected.as_object().unwrap().iter().filter(|(_, tensor)| tensor.get("dtype").is_some()).collect();
    let weights: Vec<_> = checkpoint.tensors().iter().filter(|tensor| tensor.kind == TensorKind::Weight).collect();
    assert_eq!(weights.len(), expected.len(), "{}", path.display());
    for tensor in weights {
        let is_this = |full: &str| full == tensor.name || full.ends_with(&format!(".{}", tensor.name));
        let (_, expected) = expected
            .iter()
            .find(|(full, _)| is_this(&full.replace('/', ".")))
            .unwrap_or_else(|| panic!("{} is unexpected in {}", tensor.name, path.display()));
        assert_eq!(dtype(tensor.element), expected["dtype"], "{} of {}", tensor.name, path.display());
        assert_eq!(serde_json::json!(tensor.shape), expected["shape"], "{} of {}", tensor.name, path.display());
        let values = checkpoint.read_f32(&tensor.name).unwrap();
        assert_eq!(values.len(), tensor.elements());
        let first = expected["first"].as_array().unwrap();
        assert_eq!(first.len(), values.len().min(first.len().max(8)));
        for (value, expected) in values.iter().zip(first) {
            let expected = expected.as_f64().unwrap_or_else(|| f64::from(expected.as_bool().unwrap()));
            assert_eq!(*value, expected as f32, "{} of {}", tensor.name, path.display());
        }
    }
}

#[test]
fn odd_files_read_as_torch_reads_them() {
    let Some(data) = test_data() else { return };
    let folder = data.join("checkpoints/odd");
    for (file, expected) in json(&folder.join("EXPECTED.json")).as_object().unwrap() {
        let path = folder.join(file);
        match expected.get("torch_load_error") {
            Some(_) => {
                let error = Checkpoint::open(&path).unwrap_err().to_string();
                assert!(error.contains(file), "{error}");
            }
            None => assert_reads_like_torch(&path, expected),
        }
    }
}

#[test]
fn what_torch_cannot_load_as_weights_is_refused_with_the_remedy() {
    let Some(data) = test_data() else { return };
    let folder = data.join("checkpoints/odd");
    for (file, remedy) in [
        ("tchrs_foo1.pt", "torch.jit.load(FILE).state_dict()"),
        ("tchrs_foo2.pt", "TorchScript"),
        ("lfs_pointer_effnetb2_food101.pth", "git lfs pull"),
    ] {
        let error = Checkpoint::open(&folder.join(file)).unwrap_err();
        assert!(matches!(error, CheckpointError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(remedy), "{error}");
    }
}

#[test]
fn the_legacy_file_of_a_data_parallel_training_is_unwrapped() {
    let Some(data) = test_data() else { return };
    let checkpoint = Checkpoint::open(&data.join("checkpoints/third-party/resnet20-12fca82f.th")).unwrap();
    assert_eq!(checkpoint.container(), Container::PyTorchLegacy);
    assert_eq!(checkpoint.found_as(), "under the key state_dict, prefix module. removed");
    assert_eq!(checkpoint.metadata()["best_prec1"], f64::from(91.78f32));
    let first = &checkpoint.tensors()[0];
    assert_eq!((first.name.as_str(), &first.shape[..]), ("conv1.weight", &[16, 3, 3, 3][..]));
    assert_eq!(checkpoint.tensors().iter().filter(|tensor| tensor.kind == TensorKind::Weight).count(), 97 + 19);
}

#[test]
fn a_zip_file_and_safetensors_of_the_same_network_agree() {
    let Some(data) = test_data() else { return };
    let folder = data.join("checkpoints/made-with-pytorch/mobilenet_v3_small-food10");
    let pth = Checkpoint::open(&folder.join("checkpoint.pth")).unwrap();
    let safetensors = Checkpoint::open(&folder.join("model.safetensors")).unwrap();
    assert_eq!(pth.found_as(), "under the key model");
    assert_eq!(pth.metadata()["classes"][2], "hot_dog");
    assert_eq!(pth.metadata()["args"]["batch_size"], 32);
    assert_eq!(pth.tensors().len(), 244);
    assert_eq!(safetensors.tensors().len(), 244);
    for tensor in pth.tensors() {
        assert_eq!(pth.read_f32(&tensor.name).unwrap(), safetensors.read_f32(&tensor.name).unwrap(), "{}", tensor.name);
    }
}
