//! Every network against PyTorch: weights made by a formula (tests/reference/networks.py has it too), and real checkpoints.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use galley::checkpoint::{Checkpoint, ElementType, TensorInfo, TensorKind};
use galley::models::{self, Loading, ModelError, Precision, RandomWeights, Strictness, Weights as _};
use galley::predict;
use safetensors::tensor::{Dtype, TensorView};
use serde::Deserialize;

use crate::support::test_data;

#[derive(Deserialize)]
pub struct Reference {
    name: String,
    expected: String,
    side: usize,
    /// Letters shared with the name before, the rest of the name, shape.
    tensors: Vec<(usize, String, Vec<usize>)>,
    parameters: u64,
    #[serde(default)]
    logits: Vec<f32>,
}

impl Reference {
    pub fn weights(&self) -> RandomWeights {
        let mut before = String::new();
        let mut infos = Vec::new();
        for (kept, rest, shape) in &self.tensors {
            let name = format!("{}{rest}", &before[..*kept]);
            before.clone_from(&name);
            infos.push(info(name, shape.clone()));
        }
        RandomWeights(infos)
    }

    /// timm's TensorFlow variants have the tensors of the others: the file's metadata tells.
    fn hint(&self) -> Option<&str> {
        self.expected.starts_with("tf_").then_some(self.expected.as_str())
    }
}

pub fn info(name: String, shape: Vec<usize>) -> TensorInfo {
    let bytes = 4 * shape.iter().product::<usize>() as u64;
    TensorInfo { name, element: ElementType::F32, shape, kind: TensorKind::Weight, bytes }
}

fn references() -> Vec<Reference> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/networks");
    let mut paths: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 60);
    paths.iter().map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
}

pub fn reference(name: &str) -> Reference {
    references().into_iter().find(|reference| reference.name == name).unwrap()
}

/// sin(0.013 n) in NCHW order, turned to `(1, side, side, 3)`.
fn synthetic_input(side: usize) -> Tensor {
    let values: Vec<f32> = (0..3 * side * side).map(|n| (0.013 * n as f64).sin() as f32).collect();
    let nchw = Tensor::from_vec(values, (1, 3, side, side), &Device::Cpu).unwrap();
    nchw.permute((0, 2, 3, 1)).unwrap()
}

fn assert_logits(name: &str, ours: &Tensor, expected: &[f32], tolerance: f32) {
    let ours = ours.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (class, (ours, expected)) in ours.iter().zip(expected).enumerate() {
        assert!((ours - expected).abs() <= tolerance, "{name}, class {class}: {ours} instead of {expected}");
    }
}

#[test]
fn every_network_is_recognised_by_its_tensors() {
    for reference in references() {
        let weights = reference.weights();
        let architecture = models::detect_with_hint(weights.tensors(), reference.hint()).unwrap();
        assert_eq!(architecture.name, reference.expected, "{}", reference.name);
        assert_eq!(architecture.classes, 12, "{}", reference.name);
        assert_eq!(models::parameters(weights.tensors()), reference.parameters, "{}", reference.name);
        let fit = models::fit(weights.tensors(), &architecture).unwrap();
        assert!(fit.is_whole(), "{}: {}", reference.name, fit.misfit());
        assert!(architecture.default_transform().output_size().is_some());
    }
}

#[test]
fn a_network_by_its_name_has_the_tensors_of_the_published_one() {
    for reference in references() {
        // TensorFlow's variants have no tensors of their own.
        let Ok(architecture) = models::named(&reference.expected, 12) else {
            assert!(reference.expected.starts_with("tf_"), "{}", reference.expected);
            continue;
        };
        if reference.name.starts_with(architecture.naming) {
            let fit = models::fit(reference.weights().tensors(), &architecture).unwrap();
            assert!(fit.is_whole(), "{}: {}", reference.name, fit.misfit());
            let made = RandomWeights::of(&architecture).unwrap();
            assert_eq!(models::parameters(made.tensors()), reference.parameters, "{}", reference.name);
            // In the shapes of the published one too, so that what is trained from it opens where that does.
            let shape_of = |made: &TensorInfo| (made.name.clone(), made.shape.clone());
            let published: HashMap<_, _> = reference.weights().tensors().iter().map(shape_of).collect();
            for made in made.tensors() {
                assert_eq!(Some(&made.shape), published.get(&made.name), "{}: {}", reference.name, made.name);
            }
        }
    }
}

#[test]
fn logits_are_those_of_timm_and_torchvision() {
    for reference in references() {
        if reference.logits.is_empty() {
            continue;
        }
        let weights = reference.weights();
        let architecture = models::detect_with_hint(weights.tensors(), reference.hint()).unwrap();
        let (network, report) = models::build(&weights, &architecture, Strictness::Strict, &Device::Cpu).unwrap();
        assert_eq!(network.parameters, reference.parameters, "{}", reference.name);
        assert_eq!(report.matched.len(), reference.tensors.len(), "{}", reference.name);
        let logits = network.forward(&synthetic_input(reference.side)).unwrap();
        assert_eq!(logits.dims(), [1, reference.logits.len()]);
        let scale = reference.logits.iter().fold(0f32, |largest, logit| largest.max(logit.abs()));
        assert_logits(&reference.name, &logits, &reference.logits, 1e-3 * scale.min(1.0));
    }
}

#[test]
fn a_picture_gets_the_same_logits_alone_and_in_a_batch() {
    for name in
        ["timm-convnextv2_atto", "torchvision-mobilenet_v3_small", "torchvision-resnet18", "torchvision-squeezenet1_1"]
    {
        let reference = reference(name);
        let weights = reference.weights();
        let architecture = models::detect(weights.tensors()).unwrap();
        let (network, _) = models::build(&weights, &architecture, Strictness::Strict, &Device::Cpu).unwrap();
        let one = synthetic_input(reference.side);
        let other = (&one * 0.5).unwrap();
        let batch = Tensor::cat(&[&other, &one, &other], 0).unwrap();
        let logits = network.forward(&batch).unwrap();
        assert_eq!(logits.dims(), [3, 12]);
        assert_logits(name, &logits.get(1).unwrap(), &reference.logits, 1e-3);
        let again = network.forward(&batch).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(logits.to_vec2::<f32>().unwrap(), again, "{name} repeats bit by bit");
    }
}

#[test]
fn no_number_of_threads_and_images_changes_a_logit() {
    for name in ["timm-convnextv2_atto", "torchvision-mobilenet_v3_small", "torchvision-resnet18"] {
        let weights = reference(name).weights();
        let architecture = models::detect(weights.tensors()).unwrap();
        for precision in [Precision::F32, Precision::Int8] {
            let loading = Loading { precision, ..Loading::default() };
            let (network, _) = models::build(&weights, &architecture, loading, &Device::Cpu).unwrap();
            let image = synthetic_input(64);
            let images: Vec<_> = (1..=5).map(|index| (&image * (0.2 * f64::from(index))).unwrap()).collect();
            let logits = |threads: usize, images: &[Tensor]| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let batch = Tensor::cat(images, 0).unwrap();
                pool.install(|| network.forward(&batch)).unwrap().to_vec2::<f32>().unwrap()
            };
            let alone: Vec<_> = images.iter().map(|image| logits(1, std::slice::from_ref(image)).remove(0)).collect();
            // Lanes of one thread, of several with images left over, and more threads than images.
            for threads in [1, 2, 3, 7] {
                assert_eq!(logits(threads, &images), alone, "{name} {precision:?} {threads}");
            }
        }
    }
}

#[test]
fn a_tensor_too_few_is_refused_strictly_and_reported_leniently() {
    let mut weights = reference("timm-convnext_atto").weights();
    let position = weights.0.iter().position(|info| info.name == "stages.3.blocks.1.conv_dw.weight").unwrap();
    weights.0.remove(position);
    weights.0.push(info("optimizer_like.weight".to_owned(), vec![3]));
    let bias = weights.0.iter_mut().find(|info| info.name == "stem.0.bias").unwrap();
    bias.shape = vec![41];
    let architecture = models::detect(weights.tensors()).unwrap();
    let error = models::build(&weights, &architecture, Strictness::Strict, &Device::Cpu).unwrap_err();
    assert!(matches!(error, ModelError::Misfit { .. }));
    let text = error.to_string();
    assert!(text.contains("of 128 tensors, 1 missing (stages.3.blocks.1.conv_dw.weight)"), "{text}");
    let (network, report) = models::build(&weights, &architecture, Strictness::Lenient, &Device::Cpu).unwrap();
    assert_eq!(report.missing, ["stages.3.blocks.1.conv_dw.weight"]);
    assert_eq!(report.reshaped, ["stem.0.bias"]);
    assert_eq!(report.unexpected, ["optimizer_like.weight"]);
    assert_eq!(report.matched.len(), 126);
    assert!(network.forward(&synthetic_input(64)).is_ok());
}

#[test]
fn under_half_of_the_weights_is_refused_unless_told_otherwise() {
    let mut weights = reference("timm-convnext_atto").weights();
    let head = weights.0.split_off(weights.0.len() - 2);
    weights.0.truncate(50);
    weights.0.extend(head);
    let architecture = models::detect(weights.tensors()).unwrap();
    let error = models::build(&weights, &architecture, Strictness::Lenient, &Device::Cpu).unwrap_err();
    assert!(matches!(error, ModelError::TooFew { .. }), "{error}");
    assert!(models::build(&weights, &architecture, Strictness::LenientWhatever, &Device::Cpu).is_ok());
}

#[test]
fn a_network_without_its_classifier_says_so() {
    let mut weights = reference("torchvision-resnet18").weights();
    weights.0.retain(|info| !info.name.starts_with("fc."));
    let error = models::detect(weights.tensors()).unwrap_err();
    assert!(error.to_string().contains("has no classifier"), "{error}");
}

#[test]
fn a_lookalike_named_by_its_file_is_refused() {
    let weights = reference("timm-resnet50").weights();
    let error = models::detect_with_hint(weights.tensors(), Some("resnetblur50.bt_in1k")).unwrap_err();
    assert!(matches!(error, ModelError::Unknown { .. }));
}

#[test]
fn the_name_in_config_json_decides_tensorflow_padding() {
    let infos = reference("timm-tf_mobilenetv3_small_100").weights().0;
    let zeros = vec![0; infos.iter().map(|info| info.bytes as usize).max().unwrap()];
    let views = infos.iter().map(|info| {
        let data = &zeros[..info.bytes as usize];
        (&info.name, TensorView::new(Dtype::F32, info.shape.clone(), data).unwrap())
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    safetensors::serialize_to_file(views, None, &path).unwrap();
    let name = || predict::recognise(&Checkpoint::open(&path).unwrap()).unwrap().name;
    assert_eq!(name(), "mobilenetv3_small_100");
    let config = r#"{"architecture": "tf_mobilenetv3_small_100"}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    assert_eq!(name(), "tf_mobilenetv3_small_100");
}

#[test]
fn a_vision_transformer_names_the_image_size_it_needs() {
    let reference = reference("timm-vit_tiny_patch16_224");
    let weights = reference.weights();
    let architecture = models::detect(weights.tensors()).unwrap();
    let (network, _) = models::build(&weights, &architecture, Strictness::Strict, &Device::Cpu).unwrap();
    let error = network.forward(&synthetic_input(96)).unwrap_err();
    assert!(galley::format::error_chain(&error).contains("crop to 224"), "{error}");
}

#[derive(Deserialize)]
struct Real {
    synthetic_input: Synthetic,
}

#[derive(Deserialize)]
struct Synthetic {
    shape: [usize; 4],
    logits_first10: Option<Vec<f32>>,
    logits: Option<Vec<f32>>,
    logit_sum: f32,
}

#[test]
fn real_checkpoints_answer_as_in_pytorch() {
    let Some(data) = test_data() else { return };
    let made = data.join("checkpoints/made-with-pytorch");
    let third = data.join("checkpoints/third-party");
    let cases = [
        (made.join("convnext_atto-food10/model.safetensors"), made.join("convnext_atto-food10/reference.json"), 1e-3),
        (
            made.join("convnext_atto-food10/convnext_atto-food10.pth"),
            made.join("convnext_atto-food10/reference.json"),
            1e-3,
        ),
        (
            made.join("mobilenet_v3_small-food10/checkpoint.pth"),
            made.join("mobilenet_v3_small-food10/reference.json"),
            1e-3,
        ),
        (
            made.join("mobilenet_v3_small-food10/model.safetensors"),
            made.join("mobilenet_v3_small-food10/reference.json"),
            1e-3,
        ),
        (
            made.join("squeezenet1_0-food10/squeezenet1_0-food10.pth"),
            made.join("squeezenet1_0-food10/reference.json"),
            1e-3,
        ),
        (third.join("squeezenet1_0-imagenet.pth"), third.join("squeezenet1_0-imagenet.reference.json"), 1e-3),
        (third.join("squeezenet1_0-deepfake.pth"), third.join("squeezenet1_0-deepfake.reference.json"), 1e-3),
    ];
    for (file, reference, tolerance) in cases {
        let real: Real = serde_json::from_slice(&std::fs::read(&reference).unwrap()).unwrap();
        let checkpoint = Checkpoint::open(&file).unwrap();
        let architecture = models::detect(checkpoint.tensors()).unwrap();
        let (network, _) = models::build(&checkpoint, &architecture, Strictness::Strict, &Device::Cpu).unwrap();
        let synthetic = real.synthetic_input;
        let logits = network.forward(&synthetic_input(synthetic.shape[3])).unwrap();
        let expected = synthetic.logits.or(synthetic.logits_first10).unwrap();
        let name = file.display().to_string();
        assert_logits(&name, &logits, &expected, tolerance);
        let sum = logits.sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!((sum - synthetic.logit_sum).abs() <= tolerance * architecture.classes as f32, "{name}: sum {sum}");
    }
}

#[test]
fn strangers_are_refused_by_name() {
    let Some(data) = test_data() else { return };
    let cases = [
        ("third-party/tinyvgg-pizza-steak-sushi.pth", "TinyVGG"),
        ("third-party/tinyvgg224-pizza-steak-sushi.pth", "TinyVGG"),
        ("third-party/resnet20-12fca82f.th", "CIFAR ResNet"),
        ("third-party/custom-cnn-fruit-freshness.pth", "8 tensors"),
        ("made-with-pytorch/tiny-distilbert-emotion/model.safetensors", "DistilBERT"),
    ];
    for (file, named) in cases {
        let checkpoint = Checkpoint::open(&data.join("checkpoints").join(file)).unwrap();
        let error = models::detect(checkpoint.tensors()).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("Galley knows ConvNeXt"), "{file}: {error}");
    }
}
