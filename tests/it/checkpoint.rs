//! Checkpoints that PyTorch and others wrote, against what PyTorch reads from them.

use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use galley::checkpoint::{Checkpoint, CheckpointError, Container, ElementType, TensorKind};
use safetensors::tensor::{Dtype, TensorView};
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
    let accuracy = checkpoint.metadata()["best_prec1"].as_f64().unwrap();
    assert!((accuracy - 91.78).abs() < 1e-5, "{accuracy}");
    let first = &checkpoint.tensors()[0];
    assert_eq!((first.name.as_str(), &first.shape[..]), ("conv1.weight", &[16, 3, 3, 3][..]));
    assert_eq!(checkpoint.tensors().iter().filter(|tensor| tensor.kind == TensorKind::Weight).count(), 97);
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

/// What `tests/reference/checkpoints.py` wrote: each file with all its values, or with a part of its error.
#[test]
fn small_files_of_every_kind_read_as_torch_wrote_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/checkpoints");
    let expected = json(&folder.join("expected.json"));
    assert_eq!(expected.as_object().unwrap().len(), std::fs::read_dir(&folder).unwrap().count() - 1);
    for (file, expected) in expected.as_object().unwrap() {
        let opened = Checkpoint::open(&folder.join(file));
        match expected.get("error") {
            Some(error) => assert_refused(file, opened, error.as_str().unwrap()),
            None => assert_holds(file, &opened.unwrap_or_else(|error| panic!("{error}")), expected),
        }
    }
}

fn assert_refused(file: &str, opened: Result<Checkpoint, CheckpointError>, part: &str) {
    let read = |checkpoint: Checkpoint| {
        checkpoint.tensors().iter().try_for_each(|tensor| checkpoint.read_f32(&tensor.name).map(drop))
    };
    let error = opened.and_then(read).expect_err(file).to_string();
    assert!(error.contains(part) && error.contains(file), "{error}");
}

fn assert_holds(file: &str, checkpoint: &Checkpoint, expected: &Value) {
    let of_kind = |is_weight: bool| {
        checkpoint.tensors().iter().filter(move |tensor| (tensor.kind == TensorKind::Weight) == is_weight)
    };
    let tensors = expected["tensors"].as_object().unwrap();
    let names: Vec<_> = of_kind(true).map(|tensor| &tensor.name).collect();
    assert_eq!(names, tensors.keys().collect::<Vec<_>>(), "{file}");
    for tensor in of_kind(true) {
        let (name, expected) = (&tensor.name, &tensors[&tensor.name]);
        assert_eq!(dtype(tensor.element), expected["dtype"], "{name} of {file}");
        assert_eq!(serde_json::json!(tensor.shape), expected["shape"], "{name} of {file}");
        let expected: Vec<f32> = serde_json::from_value(expected["values"].clone()).unwrap();
        assert_eq!(checkpoint.read_f32(name).unwrap(), expected, "{name} of {file}");
    }
    let mut others: Vec<_> = of_kind(false).map(|tensor| tensor.name.clone()).collect();
    others.sort_unstable();
    assert_eq!(serde_json::json!(others), expected["others"], "{file}");
    let is_optimizer = |name: &str| name.starts_with("optimizer");
    assert!(
        of_kind(false).all(|tensor| (tensor.kind == TensorKind::Optimizer) == is_optimizer(&tensor.name)),
        "{file}"
    );
    for (key, value) in expected.get("metadata").and_then(Value::as_object).into_iter().flatten() {
        assert_eq!(checkpoint.metadata().get(key), Some(value), "{key} of {file}");
    }
    if let Some(found_as) = expected.get("found_as") {
        assert_eq!(checkpoint.found_as(), found_as, "{file}");
    }
}

/// A gguf file that candle writes, with one tensor of 2 rows of 256 numbers per type.
fn gguf_by_candle(types: &[(&str, GgmlDType)]) -> (Vec<u8>, Vec<Vec<f32>>) {
    let numbers: Vec<f32> = (0..512).map(|n| (n as f32 * 0.37).sin()).collect();
    let tensor = Tensor::from_vec(numbers, (2, 256), &Device::Cpu).unwrap();
    let tensors: Vec<_> = types.iter().map(|(_, kind)| QTensor::quantize(&tensor, *kind).unwrap()).collect();
    let named: Vec<_> = types.iter().map(|(name, _)| *name).zip(&tensors).collect();
    let labels = ["pizza", "steak"].map(|label| gguf_file::Value::String(label.into())).to_vec();
    let mut bytes = std::io::Cursor::new(Vec::new());
    let metadata = [
        ("general.architecture", &gguf_file::Value::String("convnext_atto".into())),
        ("galley.labels", &gguf_file::Value::Array(labels)),
        ("galley.epoch", &gguf_file::Value::U32(7)),
    ];
    gguf_file::write(&mut bytes, &metadata, &named).unwrap();
    let flat = |tensor: &QTensor| tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    (bytes.into_inner(), tensors.iter().map(flat).collect())
}

#[test]
fn gguf_tensors_of_every_type_read_as_candle_reads_them() {
    let types = [
        ("F32", GgmlDType::F32),
        ("F16", GgmlDType::F16),
        ("BF16", GgmlDType::BF16),
        ("Q4_0", GgmlDType::Q4_0),
        ("Q4_1", GgmlDType::Q4_1),
        ("Q5_0", GgmlDType::Q5_0),
        ("Q5_1", GgmlDType::Q5_1),
        ("Q8_0", GgmlDType::Q8_0),
        ("Q2_K", GgmlDType::Q2K),
        ("Q3_K", GgmlDType::Q3K),
        ("Q4_K", GgmlDType::Q4K),
        ("Q5_K", GgmlDType::Q5K),
        ("Q6_K", GgmlDType::Q6K),
    ];
    let (bytes, expected) = gguf_by_candle(&types);
    let checkpoint = Checkpoint::from_bytes("all.gguf", bytes).unwrap();
    assert_eq!(checkpoint.container(), Container::Gguf);
    assert_eq!(checkpoint.metadata()["galley.labels"], serde_json::json!(["pizza", "steak"]));
    assert_eq!(checkpoint.metadata()["galley.epoch"], 7);
    for ((name, _), expected) in types.iter().zip(expected) {
        let info = checkpoint.tensors().iter().find(|tensor| tensor.name == *name).unwrap();
        assert_eq!(info.shape, [2, 256]);
        assert_eq!(
            serde_json::json!(info.element),
            if name.starts_with('Q') { name.to_string() } else { name.to_lowercase() }
        );
        assert_eq!(checkpoint.read_f32(name).unwrap(), expected, "{name}");
    }
}

/// A gguf file with one quantized tensor `w` of stored shape `(rows, length)`, and a key that gives it another shape.
fn gguf_in_rows(kind: GgmlDType, rows: usize, length: usize, shape: &[u32]) -> (Vec<u8>, QTensor) {
    let numbers: Vec<f32> = (0..rows * length).map(|n| (n as f32 * 0.37).sin()).collect();
    let tensor = QTensor::quantize(&Tensor::from_vec(numbers, (rows, length), &Device::Cpu).unwrap(), kind).unwrap();
    let shape = gguf_file::Value::Array(shape.iter().map(|size| gguf_file::Value::U32(*size)).collect());
    let mut bytes = std::io::Cursor::new(Vec::new());
    gguf_file::write(&mut bytes, &[("galley.shape.w", &shape)], &[("w", &tensor)]).unwrap();
    (bytes.into_inner(), tensor)
}

#[test]
fn gguf_rows_of_any_length_have_the_shape_that_their_key_says() {
    for (shape, length) in [(&[5, 40][..], 64), (&[4, 3, 3, 3], 32), (&[2, 32, 1, 1], 32), (&[3, 8, 2, 5], 96)] {
        for kind in [GgmlDType::Q8_0, GgmlDType::Q4_0, GgmlDType::Q5_0, GgmlDType::Q4_1] {
            let (bytes, tensor) = gguf_in_rows(kind, shape[0] as usize, length, shape);
            let checkpoint = Checkpoint::from_bytes("rows.gguf", bytes).unwrap();
            let sizes: Vec<usize> = shape.iter().map(|size| *size as usize).collect();
            assert_eq!(checkpoint.tensors()[0].shape, sizes);
            let stored = tensor.dequantize(&Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
            let positions: usize = sizes[2..].iter().product();
            let mut expected = Vec::new();
            for row in &stored {
                for input in 0..sizes[1] {
                    expected.extend((0..positions).map(|position| row[position * sizes[1] + input]));
                }
            }
            assert_eq!(checkpoint.read_f32("w").unwrap(), expected, "{shape:?} {kind:?}");
            let blocks = checkpoint.read_blocks("w").unwrap();
            match kind {
                GgmlDType::Q4_1 => assert!(blocks.is_none()),
                _ => assert_eq!(blocks.unwrap().bytes, *tensor.data().unwrap()),
            }
        }
    }
}

#[test]
fn gguf_rows_that_do_not_fit_their_key_are_refused() {
    for shape in [&[4, 3, 3, 4][..], &[3, 27], &[4], &[4, u32::MAX, u32::MAX], &[4, 0]] {
        let (bytes, _) = gguf_in_rows(GgmlDType::Q8_0, 4, 32, shape);
        let error = Checkpoint::from_bytes("rows.gguf", bytes).unwrap_err();
        let text = galley::format::error_chain(&error);
        assert!(text.contains("do not fit the shape") && text.contains("tensor w"), "{text}");
    }
    let (bytes, _) = gguf_in_rows(GgmlDType::F32, 4, 32, &[4, 27]);
    assert!(Checkpoint::from_bytes("rows.gguf", bytes).is_err());
    let (mut bytes, tensor) = gguf_in_rows(GgmlDType::Q8_0, 4, 32, &[4, 27]);
    let blocks = tensor.data().unwrap();
    let scale = bytes.windows(blocks.len()).position(|window| window == &*blocks).unwrap() + 3 * 34;
    bytes[scale..scale + 2].copy_from_slice(&half::f16::NAN.to_le_bytes());
    let error = Checkpoint::from_bytes("rows.gguf", bytes).unwrap().read_blocks("w").unwrap_err();
    let text = galley::format::error_chain(&error);
    assert!(text.contains("block 3") && text.contains("tensor w"), "{text}");
}

fn safetensors(tensors: &[(&str, Dtype, &[usize], &[u8])]) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.to_vec(), data).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn a_split_checkpoint_opens_by_its_index() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (1.5f32.to_le_bytes(), 2.5f32.to_le_bytes());
    std::fs::write(folder.path().join("a.safetensors"), safetensors(&[("module.x", Dtype::F32, &[1], &one)])).unwrap();
    std::fs::write(folder.path().join("b.safetensors"), safetensors(&[("module.y", Dtype::F32, &[1], &two)])).unwrap();
    let index = folder.path().join("model.safetensors.index.json");
    std::fs::write(&index, r#"{"weight_map": {"module.x": "a.safetensors", "module.y": "b.safetensors"}}"#).unwrap();
    let checkpoint = Checkpoint::open(&index).unwrap();
    assert_eq!(checkpoint.found_as(), "the tensors of 2 safetensors files, by their index, prefix module. removed");
    assert_eq!(checkpoint.read_f32("x").unwrap(), [1.5]);
    assert_eq!(checkpoint.read_f32("y").unwrap(), [2.5]);

    for (map, fault) in [
        (r#"{"module.x": "b.safetensors"}"#, "does not hold the tensor module.x"),
        (r#"{"module.x": "c.safetensors"}"#, "c.safetensors"),
        (r#"{"module.x": "../a.safetensors"}"#, "outside of its own folder"),
    ] {
        std::fs::write(&index, format!(r#"{{"weight_map": {map}}}"#)).unwrap();
        let error = Checkpoint::open(&index).unwrap_err();
        let text = galley::format::error_chain(&error);
        assert!(text.contains(fault) && text.contains("index.json"), "{text}");
    }
}

#[test]
fn eight_bit_floats_are_refused_by_name() {
    let bytes = safetensors(&[("w", Dtype::F8_E4M3, &[2], &[0, 0])]);
    let error = Checkpoint::from_bytes("f8.safetensors", bytes).unwrap_err().to_string();
    assert!(error.contains("tensor w") && error.contains("F8_E4M3"), "{error}");
}

#[test]
fn optimizer_state_is_counted_and_cannot_be_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/checkpoints");
    let checkpoint = Checkpoint::open(&folder.join("training-zip.pth")).unwrap();
    let optimizer = checkpoint.tensors().iter().filter(|tensor| tensor.kind == TensorKind::Optimizer);
    // Six parameters, each with a step and two moments.
    assert_eq!(optimizer.map(|tensor| tensor.bytes).sum::<u64>(), 6 * 4 + 2 * 4 * (108 + 4 + 4 + 4 + 8 + 2));
    assert!(matches!(checkpoint.read_f32("optimizer/state/0/exp_avg"), Err(CheckpointError::Missing { .. })));
}
