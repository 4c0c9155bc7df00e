//! Smaller models: what they hold, what they lose, and what is left when something goes wrong.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::Device;
use galley::checkpoint::{Checkpoint, ElementType, Planned, TensorInfo, save_safetensors};
use galley::compress::Report;
use galley::compress::calibrate::calibrate;
use galley::compress::quantize::{self, Bits, Calibration, Plan};
use galley::device::DeviceChoice;
use galley::images::Input;
use galley::jobs::Places;
use galley::jobs::admission::MemoryChoice;
use galley::jobs::compress::{CompressConfig, CompressJobError, Pruning, Size, compress, reports_of};
use galley::jobs::evaluate::{EvaluateConfig, evaluate};
use galley::jobs::prune::{Ranking, Repair};
use galley::memory::heap;
use galley::models::{self, Loading, Network, Precision, RandomWeights, Weights as _};
use galley::predict::{self, ModelSource, STARTER, TransformOverrides};
use galley::worker::{BoxError, JobContext};

use crate::support;

/// A folder to work in, with places of its own.
struct Kitchen {
    folder: tempfile::TempDir,
}

impl Kitchen {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, size: Size) -> CompressConfig {
        CompressConfig {
            model: ModelSource::Starter,
            labels: None,
            transform: TransformOverrides::default(),
            output: self.at("out/small.gguf"),
            prune: None,
            size,
            max_loss: None,
            check: None,
            calibrate: None,
            device: DeviceChoice::Cpu,
            memory: MemoryChoice::default(),
            overwrite: false,
            save_anyway: false,
        }
    }

    fn compress(&self, config: &CompressConfig) -> Result<Report, BoxError> {
        std::fs::create_dir_all(self.at("out")).unwrap();
        compress(config, &self.places(), &JobContext::detached())
    }

    fn places(&self) -> Places {
        Places { journal: self.at("journal.sqlite"), verdicts: self.at("verdicts"), ..Places::default() }
    }

    /// What is in the folder of the output.
    fn outputs(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.at("out")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn sample_photos() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/photos/test")
}

fn starter() -> Checkpoint {
    Checkpoint::from_static("the starter model", STARTER).unwrap()
}

/// In f32, whatever the file has.
fn build(checkpoint: &Checkpoint) -> Network {
    let architecture = models::detect(checkpoint.tensors()).unwrap();
    let loading = Loading { precision: Precision::F32, ..Loading::default() };
    models::build(checkpoint, &architecture, loading, &Device::Cpu).unwrap().0
}

/// Values that every type of blocks reads back as candle does, near to those of the original.
#[test]
fn every_type_is_the_same_network_in_fewer_bits() {
    let original = starter();
    let architecture = models::detect(original.tensors()).unwrap();
    // What half a step of the coarsest scale is, as a share of the largest value.
    for (bits, name, off) in [
        (Bits::Q8_0, "Q8_0", 0.5 / 127.0),
        (Bits::Q5_0, "Q5_0", 1.0 / 16.0),
        (Bits::Q4_1, "Q4_1", 1.0 / 15.0),
        (Bits::Q4_0, "Q4_0", 1.0 / 8.0),
        (Bits::F16, "F16", 1.0 / 2048.0),
    ] {
        let kitchen = Kitchen::new();
        let config = kitchen.config(Size::Bits(bits));
        let report = kitchen.compress(&config).unwrap();
        let small = Checkpoint::open(&config.output).unwrap();
        assert_eq!(report.after.file_bytes, config.output.metadata().unwrap().len());
        let mut rounded = 0;
        for (tensor, shape) in architecture.tensors().unwrap() {
            let info = small.tensors().iter().find(|info| info.name == tensor).unwrap();
            let held = original.tensors().iter().find(|info| info.name == tensor).unwrap();
            assert_eq!((&info.shape, info.elements()), (&held.shape, shape.iter().product()), "{tensor}");
            rounded += u64::from(info.element == ElementType::Quantized(name)) * info.elements() as u64;
            let (exact, ours) = (original.read_f32(&tensor).unwrap(), small.read_f32(&tensor).unwrap());
            let largest = exact.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            let worst = exact.iter().zip(&ours).fold(0.0f32, |worst, (one, other)| worst.max((one - other).abs()));
            assert!(worst <= 1.05 * off * largest + 1e-6, "{tensor} {name}: {worst} of {largest}");
        }
        // Most of the network is in the layers.
        assert!(bits == Bits::F16 || 10 * rounded > 9 * models::parameters(original.tensors()), "{name}: {rounded}");
        let source = ModelSource::File(config.output.clone());
        let load =
            |source| predict::load(source, None, &TransformOverrides::default(), Loading::default(), &Device::Cpu);
        let (ours, theirs) = (load(&source).unwrap(), load(&ModelSource::Starter).unwrap());
        assert_eq!(ours.description.labels, theirs.description.labels);
        assert_eq!(ours.description.transform, theirs.description.transform);
        assert_eq!(ours.network.architecture.name, theirs.network.architecture.name);
        assert!(small.metadata()["galley.source.sha256"].as_str().unwrap().len() == 64);
    }
}

#[test]
fn a_proof_is_what_the_two_models_answer() {
    let kitchen = Kitchen::new();
    let photos = sample_photos();
    let config = CompressConfig { check: Some(photos.clone()), ..kitchen.config(Size::Bits(Bits::Q4_0)) };
    let report = kitchen.compress(&config).unwrap();
    let proof = report.proof.as_ref().unwrap();
    let [before, after] = proof.right.unwrap();
    let right = |model: ModelSource| {
        let config = EvaluateConfig {
            model,
            data: photos.clone(),
            batch_size: 8,
            device: DeviceChoice::Cpu,
            ..Default::default()
        };
        let evaluation = evaluate(&config, &kitchen.places(), &JobContext::detached()).unwrap().evaluation;
        (evaluation.photos, (evaluation.top1 * evaluation.photos as f64).round() as usize)
    };
    assert_eq!(right(ModelSource::Starter), (proof.photos, before));
    assert_eq!(right(ModelSource::File(config.output.clone())), (proof.photos, after));
    assert_eq!(proof.changed.len(), proof.photos - proof.same);
    assert_eq!(proof.classes.iter().map(|class| class.right[0]).sum::<usize>(), before);
    let [as_json, as_page] = reports_of(&config.output);
    assert_eq!(serde_json::from_str::<Report>(&std::fs::read_to_string(as_json).unwrap()).unwrap(), report);
    assert!(std::fs::read_to_string(as_page).unwrap().contains("A smaller model"));
    assert_eq!(kitchen.outputs().len(), 3);
}

/// A convolution of 2×2 after a norm is linear in its weights: with its average inputs known, its average outputs are as before
/// rounding.
#[test]
fn a_calibrated_layer_keeps_the_averages_of_its_outputs() {
    let kitchen = Kitchen::new();
    let path = kitchen.at("atto.safetensors");
    save_random("convnext_atto", 8, &path);
    let original = Checkpoint::open(&path).unwrap();
    let architecture = models::detect(original.tensors()).unwrap();
    let photos: Vec<Input> = (0..12).map(|seed| made_up(seed, 64)).collect();
    let ctx = JobContext::detached();
    let calibration = calibrate(&original, &architecture, &photos, &Device::Cpu, &ctx).unwrap();
    let plan = Plan::new(&original, &architecture, &|_| Bits::Q4_0).unwrap();
    let pixels = predict::pixels(&photos.iter().collect::<Vec<_>>(), &Device::Cpu).unwrap();
    let exact = build(&original);
    let mean = |network: &Network, block: usize| {
        let inputs = exact.features(block, &pixels).unwrap();
        network.blocks[block].forward(inputs).unwrap().flatten_to(2).unwrap().mean(0).unwrap()
    };
    let off = |calibration: Option<&Calibration>, block: usize| {
        let written = quantize::write(&original, &plan, &Default::default(), calibration, &kitchen.at("small"), &ctx);
        let small = Checkpoint::open(written.unwrap().file.path()).unwrap();
        let off = (mean(&build(&small), block) - mean(&exact, block)).unwrap();
        off.abs().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap()
    };
    let is_downsampling = |(block, found): (usize, &models::Block)| found.name.ends_with("downsample").then_some(block);
    let blocks: Vec<usize> = exact.blocks.iter().enumerate().filter_map(is_downsampling).collect();
    assert_eq!(blocks.len(), 3);
    for block in blocks {
        let (plain, calibrated) = (off(None, block), off(Some(&calibration), block));
        assert!(calibrated < 0.01 * plain, "{block}: {calibrated} and {plain}");
    }
}

/// The first layer is given the photos themselves, and what follows a ReLU is not below zero.
#[test]
fn a_file_says_between_what_the_inputs_of_its_layers_lie() {
    let kitchen = Kitchen::new();
    let config = CompressConfig { calibrate: Some(sample_photos()), ..kitchen.config(Size::Bits(Bits::Q8_0)) };
    kitchen.compress(&config).unwrap();
    let small = Checkpoint::open(&config.output).unwrap();
    let text = small.metadata()["galley.input_ranges"].as_str().unwrap();
    let ranges: HashMap<String, [f32; 2]> = serde_json::from_str(text).unwrap();
    let architecture = models::detect(small.tensors()).unwrap();
    let layers = architecture.layers().unwrap();
    assert_eq!(ranges.len(), layers.len());
    let (transform, ends) = (architecture.default_transform(), &ranges[&layers[0].name]);
    let end = |value: f32| (0..3).map(move |channel| (value - transform.mean[channel]) / transform.std[channel]);
    let [least, most] = *ends;
    let (darkest, brightest) = (end(0.0).fold(0.0, f32::min), end(1.0).fold(0.0, f32::max));
    assert!(darkest <= least && least < 0.8 * darkest, "{least} {darkest}");
    assert!(brightest >= most && most > 0.8 * brightest, "{most} {brightest}");
    assert!(ranges.values().all(|[least, most]| *least <= 0.0 && *most > 0.0));
}

/// What a batch norm takes from a layer's outputs follows the layer's weights.
#[test]
fn a_batch_norm_takes_off_what_rounding_adds() {
    let kitchen = Kitchen::new();
    let original = starter();
    let architecture = models::detect(original.tensors()).unwrap();
    let photos: Vec<Input> = (0..4).map(|seed| made_up(seed, 96)).collect();
    let ctx = JobContext::detached();
    let calibration = calibrate(&original, &architecture, &photos, &Device::Cpu, &ctx).unwrap();
    let plan = Plan::new(&original, &architecture, &|_| Bits::Q4_0).unwrap();
    let path = kitchen.at("small");
    let written = quantize::write(&original, &plan, &Default::default(), Some(&calibration), &path, &ctx).unwrap();
    let small = Checkpoint::open(written.file.path()).unwrap();
    let mut moved = 0;
    for layer in architecture.layers().unwrap() {
        let models::Shift::Mean(mean) = &layer.shift else { continue };
        let [_, inputs, positions] = layer.axes;
        let [was, is] = [&original, &small].map(|checkpoint| checkpoint.read_f32(&layer.name).unwrap());
        let [mean_was, mean_is] = [&original, &small].map(|checkpoint| checkpoint.read_f32(mean).unwrap());
        let means = &calibration[&layer.name].values;
        for (output, (mean_was, mean_is)) in mean_was.iter().zip(&mean_is).enumerate() {
            let row = output * inputs * positions;
            let added = |place: usize| {
                let at = row + place % inputs * positions + place / inputs;
                f64::from(is[at] - was[at]) * f64::from(means[place])
            };
            let added: f64 = if is == was { 0.0 } else { (0..inputs * positions).map(added).sum() };
            let difference = f64::from(mean_is - mean_was);
            moved += usize::from(added != 0.0);
            assert!((difference - added).abs() < 1e-4 * (1.0 + f64::from(mean_was.abs())), "{}: {added}", layer.name);
        }
    }
    assert!(moved > 1000, "{moved}");
}

/// Smooth colors that differ from seed to seed.
fn made_up(seed: usize, side: usize) -> Input {
    let wave = |place: usize| ((place as f32) * (0.01 + 0.003 * seed as f32)).sin() + 0.1 * seed as f32;
    Input { height: side, width: side, pixels: (0..side * side * 3).map(wave).collect() }
}

/// A network with random weights, as a file.
fn save_random(name: &str, classes: usize, path: &Path) {
    let weights = RandomWeights::of(&models::named(name, classes).unwrap()).unwrap();
    let planned = |info: &TensorInfo| Planned { name: info.name.clone(), shape: info.shape.clone() };
    let planned: Vec<Planned> = weights.tensors().iter().map(planned).collect();
    let values = |index: usize| -> Result<Vec<f32>, BoxError> { Ok(weights.read_f32(&planned[index].name)?) };
    save_safetensors(path, &Default::default(), &planned, values).unwrap();
}

#[test]
fn a_mixed_model_fits_where_it_shall() {
    let kitchen = Kitchen::new();
    let bytes = |size: Size| {
        let config = CompressConfig { overwrite: true, ..kitchen.config(size) };
        kitchen.compress(&config).unwrap().after.file_bytes
    };
    let (least, most) = (bytes(Size::Bits(Bits::Q4_0)), bytes(Size::Bits(Bits::Q8_0)));
    for share in [0.1, 0.4, 0.8] {
        let wanted = least + (share * (most - least) as f64) as u64;
        let reached = bytes(Size::Fit(wanted));
        assert!(reached <= wanted && reached >= least, "{reached} of {wanted}");
        assert!(wanted - reached < (most - least) / 5, "{reached} of {wanted}");
    }
    let config = CompressConfig { output: kitchen.at("out/none.gguf"), ..kitchen.config(Size::Fit(least - 1000)) };
    let error = kitchen.compress(&config).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(CompressJobError::TooSmall { .. })), "{error}");
    assert!(!config.output.exists());
}

#[test]
fn a_loss_is_kept_to_or_nothing_is_saved() {
    let kitchen = Kitchen::new();
    let check = Some(sample_photos());
    let smallest = CompressConfig { check: check.clone(), max_loss: Some(0.02), ..kitchen.config(Size::Smallest) };
    let report = kitchen.compress(&smallest).unwrap();
    assert!(report.proof.unwrap().loss() <= 0.02);
    let everything = kitchen.compress(&CompressConfig { overwrite: true, ..kitchen.config(Size::Bits(Bits::Q8_0)) });
    assert!(report.after.file_bytes <= everything.unwrap().after.file_bytes);

    // Other photos than those of a folder per class, and another network.
    let kitchen = Kitchen::new();
    let unlabelled = kitchen.at("unlabelled");
    (0..40).for_each(|seed| support::write_photo(&unlabelled.join(format!("{seed}.png")), seed));
    let random = kitchen.at("random.safetensors");
    // With as many answers some are close to others.
    support::write_model(&random, 1000, 3);
    let config = CompressConfig {
        model: ModelSource::File(random),
        check: Some(unlabelled),
        max_loss: Some(0.0),
        ..kitchen.config(Size::Bits(Bits::Q4_0))
    };
    let error = kitchen.compress(&config).unwrap_err();
    let Some(CompressJobError::LosesTooMuch { proof, .. }) = error.downcast_ref() else { panic!("{error}") };
    assert_eq!(proof.right, None);
    assert!(proof.loss() > 0.0 && proof.photos >= 10);
    assert!(kitchen.outputs().is_empty());
    let report = kitchen.compress(&CompressConfig { save_anyway: true, ..config }).unwrap();
    assert!(report.notices.iter().any(|notice| notice.contains("true classes are not known")), "{:?}", report.notices);
    assert_eq!(kitchen.outputs().len(), 3);
}

/// Fewer channels, a little training, fewer bits, and the comparison with the original: one job, one report.
#[test]
fn a_chain_of_steps_is_proved_against_the_original() {
    let kitchen = Kitchen::new();
    let repair = Some(Repair { data: sample_photos().with_file_name("train"), epochs: 1 });
    let prune = Some(Pruning { ratio: 0.2, ranking: Ranking::L1, repair });
    let config = CompressConfig { prune, check: Some(sample_photos()), ..kitchen.config(Size::Bits(Bits::Q8_0)) };
    let report = kitchen.compress(&config).unwrap();
    assert_eq!(report.steps.len(), 2, "{:?}", report.steps);
    assert!(report.steps[0].contains("20.0 %") && report.steps[0].contains("1 epoch of repair"), "{:?}", report.steps);
    assert!(report.after.parameters < report.before.parameters);
    let small = Checkpoint::open(&config.output).unwrap();
    let done = small.metadata()["galley.compressed"].as_str().unwrap();
    assert!(done.contains("pruned") && done.contains("q8_0"), "{done}");
    assert_eq!(report.after.parameters, models::parameters(small.tensors()));
    // Compared with the model that a person has, not with what pruning left of it.
    let [before, after] = report.proof.unwrap().right.unwrap();
    assert_eq!(before, 90);
    assert!(after > 40, "{after}");
    assert_eq!(kitchen.outputs().len(), 3);
}

#[test]
fn what_is_damaged_or_in_the_way_leaves_nothing_behind() {
    let kitchen = Kitchen::new();
    let damaged = kitchen.at("damaged.safetensors");
    let quantize = |model: &Path| {
        let model = ModelSource::File(model.to_owned());
        kitchen.compress(&CompressConfig { model, ..kitchen.config(Size::Bits(Bits::Q8_0)) })
    };
    for length in [0, 7, 100, 5_000, STARTER.len() / 2, STARTER.len() - 1] {
        std::fs::write(&damaged, &STARTER[..length]).unwrap();
        quantize(&damaged).unwrap_err();
        assert!(kitchen.outputs().is_empty(), "{length}");
    }
    // A value that is no number, near the end of the file: found when most of the rest is written.
    let mut bytes = STARTER.to_vec();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&damaged, &bytes).unwrap();
    assert!(quantize(&damaged).unwrap_err().to_string().contains("damaged.safetensors"));
    assert!(kitchen.outputs().is_empty());

    let whole = kitchen.at("out/small.gguf");
    std::fs::write(&whole, "something else").unwrap();
    let error = quantize(&damaged).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(CompressJobError::Exists(_))), "{error}");
    assert_eq!(std::fs::read(&whole).unwrap(), b"something else");
    let config = CompressConfig { output: kitchen.at("nowhere/small.gguf"), ..kitchen.config(Size::Mixed) };
    assert!(matches!(kitchen.compress(&config).unwrap_err().downcast_ref(), Some(CompressJobError::NoFolder(_))));
    let config = CompressConfig { output: kitchen.at("out/small.safetensors"), ..kitchen.config(Size::Mixed) };
    assert!(matches!(kitchen.compress(&config).unwrap_err().downcast_ref(), Some(CompressJobError::Ending(_))));
}

#[test]
fn a_model_that_is_quantized_already_is_told_so() {
    let kitchen = Kitchen::new();
    let first = kitchen.config(Size::Bits(Bits::Q8_0));
    assert!(kitchen.compress(&first).unwrap().notices.is_empty());
    let again = CompressConfig {
        model: ModelSource::File(first.output.clone()),
        output: kitchen.at("out/again.gguf"),
        ..kitchen.config(Size::Bits(Bits::Q4_0))
    };
    let notices = kitchen.compress(&again).unwrap().notices;
    assert!(notices.iter().any(|notice| notice.contains("quantized already (q8_0)")), "{notices:?}");
    let itself = CompressConfig { output: first.output.clone(), overwrite: true, ..again };
    let error = kitchen.compress(&itself).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(CompressJobError::Itself(_))), "{error}");
}

/// In a process of its own: however large the network, there is never more of it in memory than its largest tensor.
#[test]
fn memory_is_bounded_by_the_largest_tensor() {
    support::alone("compress::memory_is_bounded_by_the_largest_tensor", || {
        let kitchen = Kitchen::new();
        let path = kitchen.at("resnet50.safetensors");
        save_random("resnet50", 101, &path);
        let tensors = models::named("resnet50", 101).unwrap().tensors().unwrap();
        let largest = tensors.iter().map(|(_, shape)| 4 * shape.iter().product::<usize>()).max().unwrap();
        let config = CompressConfig { model: ModelSource::File(path), ..kitchen.config(Size::Bits(Bits::Q4_0)) };
        // The device is checked at its first use.
        let first = CompressConfig { output: kitchen.at("out/first.gguf"), ..kitchen.config(Size::Bits(Bits::Q4_0)) };
        kitchen.compress(&first).unwrap();
        heap::reset_peak();
        let before = heap::live();
        let report = kitchen.compress(&config).unwrap();
        let peak = (heap::peak() - before) as usize;
        assert!(peak <= largest + 4_000_000, "{peak} with a largest tensor of {largest}");
        assert!(report.before.resident_bytes > 90_000_000 && report.after.file_bytes < 16_000_000, "{report:?}");
    });
}

/// PyTorch's networks, trained on food: the figures that the README states.
#[test]
fn trained_networks_keep_their_answers() {
    let Some(data) = support::test_data() else { return };
    let trained = data.join("checkpoints/made-with-pytorch");
    let photos = data.join("food/food101-512");
    let run = |model: &str, size, check: PathBuf| {
        let kitchen = Kitchen::new();
        let model = ModelSource::File(trained.join(model));
        let report = kitchen.compress(&CompressConfig { model, check: Some(check), ..kitchen.config(size) }).unwrap();
        (report.proof.unwrap(), report.after.file_bytes as f64 / (4 * report.after.parameters) as f64)
    };
    let atto = "convnext_atto-food10/model.safetensors";
    let (proof, _) = run(atto, Size::Bits(Bits::Q8_0), photos.clone());
    assert_eq!(proof.photos, 426);
    assert!(proof.agreement() >= 0.99, "{}", proof.agreement());
    let (proof, share) = run(atto, Size::Mixed, photos.clone());
    assert!(proof.agreement() >= 0.95 && share <= 0.2, "{} at {share}", proof.agreement());
    let (proof, _) = run("mobilenet_v3_small-food10/checkpoint.pth", Size::Bits(Bits::Q8_0), photos.join("test"));
    let [before, after] = proof.right.unwrap();
    assert!(proof.photos == 120 && before <= after + 2, "{before} {after}");
}
