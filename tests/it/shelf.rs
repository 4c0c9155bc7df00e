//! Real models on the shelf: what they take, what loading them takes, and that jobs share them.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use galley::checkpoint::{Checkpoint, TensorKind};
use galley::device::{Chosen, DeviceChoice, choose};
use galley::images::transform::Resize;
use galley::jobs::Places;
use galley::jobs::admission::MemoryChoice;
use galley::jobs::classify::{ClassifyConfig, ClassifyEvent, classify};
use galley::jobs::evaluate::{EvaluateConfig, evaluate};
use galley::jobs::models::{Models, Wanted};
use galley::jobs::train::TrainTask;
use galley::memory::{self, heap};
use galley::models::{self, Loading, Precision, RandomWeights, Strictness, Weights as _};
use galley::predict::{self, Classifier, ModelSource, TransformOverrides};
use galley::settings::{MemorySetting, MemorySettings};
use galley::train::TrainConfig;
use galley::worker::JobContext;

use super::quantized::as_gguf;
use super::support::{alone, test_data, write_model, write_photo};

const ALL: [Precision; 4] = [Precision::Stored, Precision::F32, Precision::Int8, Precision::Int4];

/// The file of a named network with made-up weights.
fn write_named(path: &Path, name: &str) {
    let weights = RandomWeights::of(&models::named(name, 1000).unwrap()).unwrap();
    let values: Vec<Vec<u8>> = (weights.tensors().iter())
        .map(|info| weights.read_f32(&info.name).unwrap().iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = weights.tensors().iter().zip(&values).map(|(info, bytes)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, info.shape.clone(), bytes);
        (info.name.as_str(), view.unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

#[test]
fn a_network_takes_what_it_says_and_what_was_said_before_it_was_read() {
    alone("shelf::a_network_takes_what_it_says_and_what_was_said_before_it_was_read", || {
        for name in [
            "resnet18",
            "convnext_atto",
            "mobilenetv3_small_100",
            "efficientnet_b0",
            "squeezenet1_1",
            "vit_tiny_patch16_224",
        ] {
            let architecture = models::named(name, 1000).unwrap();
            let weights = RandomWeights::of(&architecture).unwrap();
            for precision in ALL {
                let said = models::weigh(weights.tensors(), &architecture, precision, &Device::Cpu).unwrap();
                let loading = Loading { strictness: Strictness::Strict, precision };
                let before = heap::live();
                let (network, report) = models::build(&weights, &architecture, loading, &Device::Cpu).unwrap();
                drop(report);
                let grown = heap::live() - before;
                assert_eq!(said, network.bytes, "{name} {precision:?}");
                // Names, shapes and the lists that hold them are not counted.
                let difference = grown.abs_diff(network.bytes) as f64;
                eprintln!("{name} in {}: says {}, takes {grown}", precision.name(), network.bytes);
                assert!(
                    difference < 0.03 * grown as f64 + 100_000.0,
                    "{name} {precision:?}: {grown} {}",
                    network.bytes
                );
            }
        }
    });
}

/// Loads a file and holds the heap's peak against the model and the largest tensor in f32, and `slack` bytes.
fn assert_peak(path: &Path, precision: Precision, slack: u64) -> Classifier {
    let before = heap::live();
    heap::reset_peak();
    let loading = Loading { strictness: Strictness::Strict, precision };
    let source = ModelSource::File(path.to_owned());
    let classifier = predict::load(&source, None, &TransformOverrides::default(), loading, &Device::Cpu).unwrap();
    let (peak, kept) = (heap::peak() - before, heap::live() - before);
    let checkpoint = Checkpoint::open(path).unwrap();
    let weights = checkpoint.tensors().iter().filter(|tensor| tensor.kind == TensorKind::Weight);
    let tensor = weights.map(|tensor| 4 * tensor.elements() as u64).max().unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    eprintln!(
        "{name} in {}: peak {peak}, kept {kept}, model {}, largest tensor {tensor}",
        precision.name(),
        classifier.network.bytes
    );
    assert!(kept.abs_diff(classifier.network.bytes) < kept / 20 + 400_000, "{name} {precision:?}: keeps {kept}");
    assert!(peak <= classifier.network.bytes + tensor + slack, "{name} {precision:?}: {peak}");
    classifier
}

#[test]
fn loading_peaks_at_the_model_and_one_tensor() {
    let Some(data) = test_data() else { return };
    alone("shelf::loading_peaks_at_the_model_and_one_tensor", || {
        let folder = tempfile::tempdir().unwrap();
        let made = data.join("checkpoints/made-with-pytorch");
        let atto = made.join("convnext_atto-food10/model.safetensors");
        let mut files = vec![
            data.join("checkpoints/third-party/squeezenet1_0-imagenet.pth"),
            data.join("checkpoints/third-party/squeezenet1_0-imagenet.fp16.safetensors"),
            made.join("convnext_atto-food10/convnext_atto-food10.pth"),
            made.join("mobilenet_v3_small-food10/checkpoint.pth"),
            atto.clone(),
        ];
        for (kind, name) in [(GgmlDType::Q8_0, "8.gguf"), (GgmlDType::Q4_0, "4.gguf"), (GgmlDType::Q5_0, "5.gguf")] {
            files.push(folder.path().join(name));
            fs::write(folder.path().join(name), as_gguf(&Checkpoint::open(&atto).unwrap(), kind)).unwrap();
        }
        for file in &files {
            for precision in ALL {
                // Lists of tensors, a piece of a file being read, and what the first use of a kernel sets up.
                assert_peak(file, precision, 3_000_000);
            }
        }
    });
}

#[test]
fn loading_a_large_model_peaks_at_the_model_and_one_tensor() {
    alone("shelf::loading_a_large_model_peaks_at_the_model_and_one_tensor", || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("convnext_tiny.safetensors");
        write_named(&path, "convnext_tiny");
        for precision in ALL {
            assert_peak(&path, precision, 4_000_000);
        }
    });
}

/// A folder with photos in class folders, and the places of its jobs.
struct Kitchen {
    folder: tempfile::TempDir,
    places: Places,
}

impl Kitchen {
    fn new(memory: &MemorySettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write_model(&at("model.safetensors"), 3, 1);
        for number in 0..4 {
            write_photo(&at(&format!("photos/class {}/{number}.png", number % 2)), number);
        }
        let places = Places {
            journal: at("journal.sqlite"),
            verdicts: at("verdicts"),
            tiles: at("tiles"),
            models_folder: folder.path().join("models"),
            models: Models::new(memory),
        };
        Self { folder, places }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn transform() -> TransformOverrides {
        TransformOverrides { resize: Some(Resize::ShortSide(64)), ..TransformOverrides::default() }
    }

    fn config(&self) -> ClassifyConfig {
        ClassifyConfig {
            model: ModelSource::File(self.at("model.safetensors")),
            inputs: vec![self.at("photos")],
            device: DeviceChoice::Cpu,
            transform: Self::transform(),
            ..ClassifyConfig::default()
        }
    }

    fn classify(&self, config: &ClassifyConfig) -> Result<Vec<ClassifyEvent>, String> {
        let mut events = Vec::new();
        let mut take = |event| {
            events.push(event);
            Ok(())
        };
        let summary = classify(config, &self.places, &JobContext::detached(), &mut take);
        summary.map(|_| events).map_err(|error| galley::format::error_chain(&*error))
    }

    fn evaluate(&self) {
        let config = EvaluateConfig {
            model: ModelSource::File(self.at("model.safetensors")),
            data: self.at("photos"),
            device: DeviceChoice::Cpu,
            transform: Self::transform(),
            ..EvaluateConfig::default()
        };
        evaluate(&config, &self.places, &JobContext::detached()).unwrap();
    }

    /// Where the network lies that a job would be lent, and of how many classes it is.
    fn lent(&self) -> (usize, usize) {
        self.lent_on(&cpu())
    }

    fn lent_on(&self, device: &Chosen) -> (usize, usize) {
        let (source, transform) = (ModelSource::File(self.at("model.safetensors")), Self::transform());
        let wanted = Wanted { source: &source, labels: None, transform: &transform, loading: Loading::default() };
        let lent = self.places.models.lend(&wanted, device, &JobContext::detached()).unwrap().classifier;
        (std::ptr::from_ref(&lent.network).addr(), lent.network.architecture.classes)
    }

    fn shelved(&self) -> Vec<(ModelSource, u64)> {
        self.places.models.shelf.contents().into_iter().map(|shelved| (shelved.key.source, shelved.bytes)).collect()
    }
}

fn cpu() -> Chosen {
    choose(DeviceChoice::Cpu).unwrap()
}

fn notices(events: &[ClassifyEvent]) -> Vec<&str> {
    fn notice(event: &ClassifyEvent) -> Option<&str> {
        match event {
            ClassifyEvent::Notice(notice) => Some(notice),
            _ => None,
        }
    }
    events.iter().filter_map(notice).collect()
}

fn settings(pairs: &[(MemorySetting, &str)]) -> MemorySettings {
    let mut settings = MemorySettings::default();
    pairs.iter().for_each(|(setting, text)| settings.set(*setting, text).unwrap());
    settings
}

#[test]
fn a_device_made_anew_has_its_models_read_again() {
    let kitchen = Kitchen::new(&MemorySettings::default());
    let on_cpu = kitchen.lent();
    let mut renewed = Chosen { name: "Metal", ..cpu() };
    kitchen.lent_on(&renewed);
    assert_eq!(kitchen.shelved().len(), 2);
    renewed.renewals += 1;
    let anew = kitchen.lent_on(&renewed);
    assert_eq!(kitchen.shelved().len(), 2, "that on the device before is of no use any more");
    assert_eq!((kitchen.lent_on(&renewed), kitchen.lent()), (anew, on_cpu));
}

#[test]
fn jobs_started_again_use_the_model_that_is_there() {
    let kitchen = Kitchen::new(&MemorySettings::default());
    kitchen.classify(&kitchen.config()).unwrap();
    let (first, classes) = kitchen.lent();
    assert_eq!(classes, 3);
    kitchen.evaluate();
    kitchen.classify(&kitchen.config()).unwrap();
    assert_eq!(kitchen.lent(), (first, 3));
    let [(source, bytes)] = &kitchen.shelved()[..] else { panic!("{:?}", kitchen.shelved()) };
    assert_eq!(*source, ModelSource::File(kitchen.at("model.safetensors")));
    // 727,626 parameters of SqueezeNet 1.1 and a classifier of three, in f32; in Winograd's order a window is of 16 for nine.
    assert!((2_800_000..4_800_000).contains(bytes), "{bytes}");
    // Another precision or transform is another model.
    kitchen.classify(&ClassifyConfig { precision: Precision::Int8, ..kitchen.config() }).unwrap();
    assert_eq!(kitchen.shelved().len(), 2);
}

#[test]
fn a_file_or_labels_written_anew_are_a_new_model() {
    let kitchen = Kitchen::new(&MemorySettings::default());
    assert_eq!(kitchen.lent().1, 3);
    write_model(&kitchen.at("model.safetensors"), 5, 2);
    assert_eq!(kitchen.lent().1, 5);
    assert_eq!(kitchen.shelved().len(), 1, "the one before is of no use any more");
    fs::write(kitchen.at("labels.txt"), "a\nb\nc\nd\ne\n").unwrap();
    let events = kitchen.classify(&kitchen.config()).unwrap();
    let model = events.iter().find_map(|event| match event {
        ClassifyEvent::Model(model) => Some(model.clone()),
        _ => None,
    });
    assert_eq!(&*model.unwrap().labels[4], "e");
    assert_eq!(kitchen.shelved().len(), 1);
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_what_would() {
    let kitchen = Kitchen::new(&settings(&[(MemorySetting::LargestModel, "1MB")]));
    let error = kitchen.classify(&kitchen.config()).unwrap_err();
    for part in [
        "model.safetensors does not fit",
        "--precision int8",
        "--light-model",
        "GALLEY_LARGEST_MODEL",
        "memory.largest-model",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
    // The first remedy is one.
    kitchen.classify(&ClassifyConfig { precision: Precision::Int8, ..kitchen.config() }).unwrap();
    let error = kitchen.classify(&ClassifyConfig { precision: Precision::F32, ..kitchen.config() }).unwrap_err();
    assert!(error.contains("MB"), "{error}");

    let kitchen = Kitchen::new(&settings(&[(MemorySetting::Shelf, "1MB")]));
    let error = kitchen.classify(&kitchen.config()).unwrap_err();
    assert!(error.contains("GALLEY_SHELF") && error.contains("unpin"), "{error}");
}

#[test]
fn an_idle_model_makes_room_for_a_run_that_needs_it() {
    let kitchen = Kitchen::new(&MemorySettings::default());
    kitchen.classify(&kitchen.config()).unwrap();
    let train = |limit: u64| {
        let (data, model) = (kitchen.at("photos"), Some(kitchen.at("model.safetensors")));
        let config =
            TrainConfig { data, model, epochs: 1, batch_size: 2, memory_limit: Some(limit), ..Default::default() };
        let task = TrainTask::Begin { config: Box::new(config), folder: kitchen.at(&format!("run {limit}")) };
        galley::jobs::train::train(&task, &kitchen.places, &JobContext::detached(), &mut |_| Ok(())).map(drop)
    };
    train(1 << 40).unwrap();
    assert!(!kitchen.shelved().is_empty());
    assert!(train(1 << 20).is_err());
    assert_eq!(kitchen.shelved().len(), 0);
}

#[test]
fn the_light_model_takes_the_place_of_one_that_memory_is_too_little_for() {
    alone("shelf::the_light_model_takes_the_place_of_one_that_memory_is_too_little_for", || {
        let kitchen = Kitchen::new(&MemorySettings::default());
        write_named(&kitchen.at("model.safetensors"), "resnet18");
        let light = kitchen.at("light.safetensors");
        fs::write(&light, predict::STARTER).unwrap();
        heap::release();
        // The weights are 47 MB and 5 MB.
        let limit = memory::read_often().footprint.map(|footprint| footprint + 60_000_000);
        let config = ClassifyConfig { memory: MemoryChoice { limit, anyway: false }, ..kitchen.config() };
        let refused = kitchen.classify(&config).unwrap_err();
        assert!(refused.contains("memory budget"), "{refused}");
        kitchen.places.models.follow(&settings(&[(MemorySetting::LightModel, light.to_str().unwrap())]));
        let text = notices(&kitchen.classify(&config).unwrap()).join("\n");
        assert!(text.contains("memory budget") && text.contains("light.safetensors is used instead"), "{text}");
    });
}

#[test]
fn the_light_model_takes_the_place_of_one_that_does_not_fit_and_says_so() {
    let kitchen = Kitchen::new(&MemorySettings::default());
    // 9 MB, and the starter model takes 6.
    write_model(&kitchen.at("model.safetensors"), 3000, 1);
    let light = kitchen.at("light.safetensors");
    fs::write(&light, predict::STARTER).unwrap();
    let memory =
        settings(&[(MemorySetting::LargestModel, "7MB"), (MemorySetting::LightModel, light.to_str().unwrap())]);
    kitchen.places.models.follow(&memory);
    let labels = kitchen.at("names.txt");
    fs::write(&labels, (0..3000).map(|class| format!("name {class}\n")).collect::<String>()).unwrap();
    let config = ClassifyConfig { labels: Some(labels), ..kitchen.config() };
    let events = kitchen.classify(&config).unwrap();
    let text = notices(&events).join("\n");
    assert!(text.contains("does not fit") && text.contains("light.safetensors is used instead"), "{text}");
    assert_eq!(kitchen.shelved()[0].0, ModelSource::File(light.clone()));
    // What the journal keeps is the light model's: with more room the chosen one classifies everything itself.
    kitchen.places.models.follow(&MemorySettings::default());
    let events = kitchen.classify(&config).unwrap();
    assert!(notices(&events).is_empty());
    let resumed = |event: &ClassifyEvent| matches!(event, ClassifyEvent::Rows { resumed: true, .. });
    assert!(!events.iter().any(resumed));

    fs::remove_file(&light).unwrap();
    kitchen.places.models.follow(&memory);
    kitchen.places.models.shelf.unload(|_| true);
    let error = kitchen.classify(&config).unwrap_err();
    assert!(error.contains("the light model") && error.contains("light.safetensors"), "{error}");
}
