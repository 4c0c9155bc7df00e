//! Pruned networks: what they answer, where they are opened, which channels go, and that no file is left half-written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use candle_core::{Device, Tensor};
use galley::checkpoint::{Checkpoint, CheckpointError, Planned, TensorInfo, save_safetensors};
use galley::compress::prune::sparse::Zeroing;
use galley::compress::prune::{self as pruning, Cut, PruneError, Pruned, Taylor, kept_width};
use galley::device::DeviceChoice;
use galley::jobs::admission::MemoryChoice;
use galley::jobs::evaluate::{EvaluateConfig, evaluate};
use galley::jobs::inspect::inspect;
use galley::jobs::prune::{PruneSummary, PruneTask, Ranking, Repair, What, prune};
use galley::memory::Place;
use galley::models::{
    self, Architecture, Loading, Precision, RandomWeights, Strictness, TINY, Weights, build, build_trainable, named,
};
use galley::predict::ModelSource;
use galley::train::{Examples, Loss, OptimizerSettings, Segments, Trainer};
use galley::worker::{BoxError, JobContext, is_canceled};

use crate::runs::Kitchen;
use crate::support::{test_data, write_model};

/// One of each family, under the names of timm and of torchvision, with all kinds of blocks.
const NETWORKS: [&str; 9] = [
    "convnext_atto",
    "convnextv2_atto",
    "mobilenetv2_035",
    "mobilenetv3_small_100",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "resnet18",
    "resnet50",
    "vit_tiny_patch16_224",
];

/// What is done to a tensor's values, given its name and shape.
type Change<'a> = dyn Fn(&str, &[usize], &mut [f32]) + 'a;

/// Weights of which some tensors are changed.
struct Changed<'a> {
    weights: &'a dyn Weights,
    change: Box<Change<'a>>,
}

impl Weights for Changed<'_> {
    fn tensors(&self) -> &[TensorInfo] {
        self.weights.tensors()
    }

    fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let mut values = self.weights.read_f32(name)?;
        let info = self.tensors().iter().find(|info| info.name == name).unwrap();
        (self.change)(name, &info.shape, &mut values);
        Ok(values)
    }
}

/// The tensors through which a layer's channels are felt, by the names of each family, and the axis they have in them.
///
/// What follows in the block takes the channels, and squeeze-and-excite does; the response norm of ConvNeXt V2 adds a bias and
/// looks at the mean of all, so there a channel is at zero only when the layer before makes none.
fn felt_in(network: &str, layer: &str) -> Vec<(String, usize)> {
    let (block, own) = layer.rsplit_once('.').unwrap();
    let beside = |name: &str| format!("{block}.{name}");
    match network {
        "convnextv2_atto" => vec![(beside("fc1.weight"), 0), (beside("fc1.bias"), 0), (beside("grn.bias"), 0)],
        "convnext_atto" | "vit_tiny_patch16_224" => vec![(beside("fc2.weight"), 1)],
        "resnet18" | "resnet50" if own == "conv1" => vec![(beside("conv2.weight"), 1)],
        "resnet50" => vec![(beside("conv3.weight"), 1)],
        "mobilenet_v3_small" => {
            // features.N.block.0.0; with squeeze-and-excite the last layer is number 3, else 2.
            let block = block.strip_suffix(".0").unwrap();
            let at = |part: &str| format!("{block}.{part}.weight");
            vec![(at("2.fc1"), 1), (at("2.0"), 1), (at("3.0"), 1)]
        }
        _ => vec![(beside("conv_pwl.weight"), 1), (beside("se.conv_reduce.weight"), 1)],
    }
}

fn set_to_zero(values: &mut [f32], shape: &[usize], axis: usize, channel: usize) {
    let inner: usize = shape[axis + 1..].iter().product();
    let rows = values.len() / (inner * shape[axis]);
    (0..rows).for_each(|row| values[(row * shape[axis] + channel) * inner..][..inner].fill(0.0));
}

/// The weights with all channels at zero that `cuts` take out.
fn at_zero<'a>(network: &'a str, weights: &'a dyn Weights, cuts: &'a [Cut]) -> Changed<'a> {
    let change = move |name: &str, shape: &[usize], values: &mut [f32]| {
        for Cut { inner, kept } in cuts {
            for (_, axis) in felt_in(network, &inner.layer).iter().filter(|(tensor, _)| tensor == name) {
                let gone = (0..inner.channels).filter(|channel| !kept.contains(channel));
                gone.for_each(|channel| set_to_zero(values, shape, *axis, channel));
            }
        }
    };
    Changed { weights, change: Box::new(change) }
}

fn cuts_of(architecture: &Architecture, weights: &dyn Weights, ratio: f64) -> Vec<Cut> {
    let inner = pruning::inner_of(architecture).unwrap();
    let scores = pruning::by_l1(weights, &inner).unwrap();
    pruning::cuts(inner, &scores, ratio)
}

fn side(network: &str) -> usize {
    if network.starts_with("vit") { 224 } else { 64 }
}

fn pixels(batch: usize, side: usize) -> Tensor {
    Tensor::from_vec(models::made_up_pixels(batch, side), (batch, side, side, 3), &Device::Cpu).unwrap()
}

fn answers(weights: &dyn Weights, architecture: &Architecture, precision: Precision, pixels: &Tensor) -> Vec<f32> {
    let loading = Loading { strictness: Strictness::Strict, precision };
    let (network, _) = build(weights, architecture, loading, &Device::Cpu).unwrap();
    network.forward(pixels).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn length(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// The length of the difference as a share of the expected.
fn difference(ours: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(ours.len(), expected.len());
    let apart = ours.iter().zip(expected).map(|(ours, expected)| ours - expected);
    length(apart) / length(expected.iter().copied())
}

#[test]
fn a_pruned_network_answers_as_the_whole_one_with_those_channels_at_zero() {
    for name in NETWORKS {
        let architecture = named(name, 10).unwrap();
        let weights = RandomWeights::of(&architecture).unwrap();
        let cuts = cuts_of(&architecture, &weights, 0.3);
        let pruned = Pruned::of(&weights, &architecture, &cuts).unwrap();
        let found = models::detect(pruned.tensors()).unwrap();
        assert_eq!(found.name, architecture.name);
        assert!(found.title.ends_with(", pruned") && found.recognised_by.contains("pruned: "), "{found:?}");
        let pixels = pixels(2, side(name));
        let ours = answers(&pruned, &found, Precision::F32, &pixels);
        let expected = answers(&at_zero(name, &weights, &cuts), &architecture, Precision::F32, &pixels);
        let apart = difference(&ours, &expected);
        let changed = difference(&ours, &answers(&weights, &architecture, Precision::F32, &pixels));
        eprintln!("{name}: {apart:.1e} from those at zero, {changed:.1e} from the whole network");
        assert!(apart < 1e-4, "{name}: {apart}");
        assert!(changed > 100.0 * apart, "{name}: {changed}");
        let taken: usize = cuts.iter().map(|cut| cut.inner.channels - cut.kept.len()).sum();
        let all: usize = cuts.iter().map(|cut| cut.inner.channels).sum();
        assert!((0.2..0.4).contains(&(taken as f64 / all as f64)), "{name}: {taken} of {all}");
        assert!(cuts.iter().all(|cut| cut.kept.len() == kept_width(cut.inner.channels, 0.3)));
    }
}

#[test]
fn a_pruned_network_is_planned_rounded_and_trained_like_any_other() {
    for name in NETWORKS {
        let whole = named(name, 10).unwrap();
        let weights = RandomWeights::of(&whole).unwrap();
        let cuts = cuts_of(&whole, &weights, 0.3);
        let pruned = Pruned::of(&weights, &whole, &cuts).unwrap();
        let architecture = models::detect(pruned.tensors()).unwrap();
        let (side, device) = (side(name), Device::Cpu);
        for precision in [Precision::F32, Precision::Int8, Precision::Int4] {
            let said = models::weigh(pruned.tensors(), &architecture, precision, &device).unwrap();
            let loading = Loading { strictness: Strictness::Strict, precision };
            let (network, report) = build(&pruned, &architecture, loading, &device).unwrap();
            assert!(report.is_whole());
            assert_eq!(said, network.bytes, "{name} {precision:?}");
            assert!(said < models::weigh(weights.tensors(), &whole, precision, &device).unwrap());
        }
        // How much rounding changes varies from photo to photo.
        let photos = pixels(8, side);
        let by_rounding = |weights: &dyn Weights, architecture: &Architecture| {
            let [bytes, floats] =
                [Precision::Int8, Precision::F32].map(|kind| answers(weights, architecture, kind, &photos));
            difference(&bytes, &floats)
        };
        let (rounded, of_whole) = (by_rounding(&pruned, &architecture), by_rounding(&weights, &whole));
        eprintln!("{name}: 8 bits change {rounded:.1e}, of the whole network {of_whole:.1e}");
        assert!(rounded < 2.0 * of_whole, "{name}: {rounded} and {of_whole}");
        let outline = |architecture: &Architecture| {
            let network = architecture.outline(&[], None, Precision::F32, &device).unwrap();
            network.inference([2, side, side, 3], true, Place::cpu(1)).unwrap().bytes()
        };
        let (ours, of_whole) = (outline(&architecture), outline(&whole));
        // A narrower convolution may go another way through the kernels, whose working memory is a little more.
        assert!(ours as f64 <= 1.1 * of_whole as f64, "{name}: {ours} and {of_whole}");
        learns(&pruned, &architecture, side);
    }
}

/// A step moves every weight.
fn learns(weights: &dyn Weights, architecture: &Architecture, side: usize) {
    let mut trainer = trainer(weights, architecture);
    let values = |trainer: &Trainer| -> Vec<Vec<f32>> {
        let learned = trainer.network.learned.iter();
        learned.map(|one| one.as_in_file().unwrap().flatten_all().unwrap().to_vec1().unwrap()).collect()
    };
    let before = values(&trainer);
    let pixels = models::made_up_pixels(4, side);
    let stepped = trainer.step(examples(&pixels, side, &targets(4), &[0, 1, 2, 3]), 4, 1e-3, |_, _| Ok(Vec::new()));
    assert!(stepped.unwrap().score.loss.is_finite());
    let names: Vec<&str> = trainer.network.learned.iter().map(|one| one.name.as_str()).collect();
    for ((before, after), name) in before.iter().zip(&values(&trainer)).zip(names) {
        assert!(before != after, "{}: {name}", architecture.name);
    }
}

fn trainer(weights: &dyn Weights, architecture: &Architecture) -> Trainer {
    let (network, _) = build_trainable(weights, architecture, Strictness::Strict, 0, &Device::Cpu).unwrap();
    let segments = Segments { first: 0, recompute: vec![false; network.blocks.len()] };
    let loss = Loss { label_smoothing: 0.0, class_weights: None, soft: None };
    Trainer::new(network, segments, loss, OptimizerSettings::default(), &Device::Cpu).unwrap()
}

/// Of photo number `n` class number `n`, of ten.
fn targets(photos: usize) -> Vec<f32> {
    (0..photos * 10).map(|index| if index / 10 == index % 10 { 1.0 } else { 0.0 }).collect()
}

fn examples<'a>(pixels: &'a [f32], side: usize, targets: &'a [f32], labels: &'a [u32]) -> Examples<'a> {
    let shape: &'static [usize] = match side {
        224 => &[224, 224, 3],
        _ => &[64, 64, 3],
    };
    Examples { values: pixels, shape, targets, labels, lesson: None }
}

#[test]
fn a_taylor_score_is_the_square_of_what_the_loss_changes_by_per_share_of_a_channel() {
    let architecture = named("convnext_atto", 10).unwrap();
    let weights = RandomWeights::of(&architecture).unwrap();
    let inner = pruning::inner_of(&architecture).unwrap();
    let place = inner.iter().position(|one| one.block == "stages.3.blocks.1").unwrap();
    let mut trainer = trainer(&weights, &architecture);
    let values = models::made_up_pixels(2, 64);
    let gradients = trainer.look(examples(&values, 64, &targets(2), &[0, 1]), 2).unwrap();
    let mut taylor = Taylor::new(&inner);
    taylor.add(&trainer.network.learned, &gradients).unwrap();
    let scores = taylor.scores().swap_remove(place);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|one, other| scores[*other].total_cmp(&scores[*one]));
    let pixels = pixels(2, 64);
    // The mean loss when the channel is multiplied by a gate.
    let loss = |channel: usize, gate: f32| -> f64 {
        let change = move |name: &str, shape: &[usize], values: &mut [f32]| {
            if name == "stages.3.blocks.1.mlp.fc2.weight" {
                values.chunks_exact_mut(shape[1]).for_each(|row| row[channel] *= gate);
            }
        };
        let changed = Changed { weights: &weights, change: Box::new(change) };
        let logits = answers(&changed, &architecture, Precision::F32, &pixels);
        let of_photo = |(photo, logits): (usize, &[f32])| -> f64 {
            let highest = logits.iter().copied().fold(f32::MIN, f32::max);
            let sum: f64 = logits.iter().map(|logit| f64::from(logit - highest).exp()).sum();
            sum.ln() - f64::from(logits[photo] - highest)
        };
        logits.chunks_exact(10).enumerate().map(of_photo).sum::<f64>() / 2.0
    };
    for channel in [order[0], order[1], order[20]] {
        let gradient = (loss(channel, 1.2) - loss(channel, 0.8)) / 0.4;
        let (ours, expected) = (scores[channel], gradient * gradient);
        eprintln!("channel {channel}: {ours:.3e}, by finite differences {expected:.3e}");
        assert!((ours - expected).abs() < 0.02 * expected, "channel {channel}: {ours} instead of {expected}");
    }
}

#[test]
fn a_look_leaves_weights_and_statistics_as_they_are() {
    let architecture = named("resnet18", 10).unwrap();
    let weights = RandomWeights::of(&architecture).unwrap();
    let mut trainer = trainer(&weights, &architecture);
    let values = models::made_up_pixels(2, 64);
    let gradients = trainer.look(examples(&values, 64, &targets(2), &[0, 1]), 2).unwrap();
    assert!(gradients.norm().unwrap().to_scalar::<f64>().unwrap() > 0.0);
    for parameter in trainer.network.moving() {
        let now = parameter.as_in_file().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(now == weights.read_f32(&parameter.name).unwrap(), "{}", parameter.name);
    }
}

#[test]
fn exactly_the_asked_share_of_weights_becomes_zero_and_they_are_the_smallest() {
    let architecture = named("squeezenet1_1", 10).unwrap();
    let weights = RandomWeights::of(&architecture).unwrap();
    // In coarse levels many are equally large.
    let coarse = |_: &str, _: &[usize], values: &mut [f32]| {
        values.iter_mut().for_each(|value| *value = (value.abs() * 20.0).ceil().copysign(*value) / 20.0);
    };
    let coarse = Changed { weights: &weights, change: Box::new(coarse) };
    for (weights, ratio) in [(&weights as &dyn Weights, 0.37), (&weights, 0.999), (&coarse, 0.5), (&coarse, 0.01)] {
        let mut zeroing = Zeroing::choose::<PruneError>(weights, &architecture, ratio, || Ok(())).unwrap();
        let (mut zeros, mut all) = (0, 0);
        let (mut largest_gone, mut smallest_kept) = (0.0_f32, f32::INFINITY);
        for (name, shape) in architecture.tensors().unwrap() {
            let before = weights.read_f32(&name).unwrap();
            let mut after = before.clone();
            zeroing.apply(&name, &mut after);
            if shape.len() < 2 || before.len() <= TINY {
                assert!(before == after, "{name}");
                continue;
            }
            all += before.len() as u64;
            for (before, after) in before.iter().zip(&after) {
                if *after == 0.0 {
                    zeros += 1;
                    largest_gone = largest_gone.max(before.abs());
                } else {
                    assert_eq!(before, after);
                    smallest_kept = smallest_kept.min(before.abs());
                }
            }
        }
        assert_eq!((zeroing.weights, zeros), (all, (ratio * all as f64).round() as u64), "{ratio}");
        assert_eq!(zeros, zeroing.zeros);
        assert!(largest_gone <= smallest_kept, "{ratio}: {largest_gone} and {smallest_kept}");
    }
}

#[test]
fn widths_that_contradict_each_other_are_a_misfit() {
    for name in ["convnext_atto", "mobilenetv3_small_100", "resnet50"] {
        let architecture = named(name, 10).unwrap();
        let weights = RandomWeights::of(&architecture).unwrap();
        let cuts = cuts_of(&architecture, &weights, 0.3);
        let mut tensors = Pruned::of(&weights, &architecture, &cuts).unwrap().tensors().to_vec();
        let takes = &cuts[1].inner.members.last().unwrap().tensor;
        tensors.iter_mut().find(|tensor| tensor.name == *takes).unwrap().shape[1] -= 1;
        let found = models::detect(&tensors).unwrap();
        assert_eq!(found.name, name);
        assert_eq!(models::fit(&tensors, &found).unwrap().reshaped, [takes.as_str()]);
    }
}

#[test]
fn a_wide_network_that_was_pruned_keeps_its_name_when_the_file_says_it() {
    let architecture = named("wide_resnet50_2", 10).unwrap();
    let weights = RandomWeights::of(&architecture).unwrap();
    let cuts = cuts_of(&architecture, &weights, 0.6);
    let pruned = Pruned::of(&weights, &architecture, &cuts).unwrap();
    let found = |hint| models::detect_with_hint(pruned.tensors(), hint).unwrap().name;
    assert_eq!(found(Some("wide_resnet50_2")), "wide_resnet50_2");
    assert_eq!(found(None), "resnet50");
    // What no one pruned is what it was.
    let tensors = RandomWeights::of(&named("resnet50", 10).unwrap()).unwrap().0;
    let found = models::detect_with_hint(&tensors, Some("wide_resnet50_2")).unwrap();
    assert_eq!((found.name.as_str(), found.title.as_str()), ("resnet50", "ResNet-50"));
}

/// Writes a network as a checkpoint.
fn write(path: &Path, weights: &dyn Weights, metadata: &[(&str, &str)]) {
    let planned = |info: &TensorInfo| Planned { name: info.name.clone(), shape: info.shape.clone() };
    let tensors: Vec<Planned> = weights.tensors().iter().map(planned).collect();
    let metadata: BTreeMap<String, String> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let values = |index: usize| weights.read_f32(&tensors[index].name).map_err(io::Error::other);
    save_safetensors::<io::Error>(path, &metadata, &tensors, values).unwrap();
}

fn task(kitchen: &Kitchen, out: &str) -> PruneTask {
    PruneTask {
        model: kitchen.at("model.safetensors"),
        out: kitchen.at(out),
        ratio: 0.3,
        what: What::Channels(Ranking::L1),
        repair: None,
        device: DeviceChoice::Cpu,
        memory: MemoryChoice::default(),
    }
}

fn run(kitchen: &Kitchen, task: &PruneTask) -> Result<PruneSummary, BoxError> {
    prune(task, &kitchen.places(), &JobContext::detached(), &mut |_| Ok(()))
}

const LABELS: &str = r#"["beetroot","pea","plum"]"#;

/// A small network that knows the classes of the kitchen's photos.
fn write_small(kitchen: &Kitchen) -> Architecture {
    let architecture = named("mobilenetv3_small_100", 3).unwrap();
    let weights = RandomWeights::of(&architecture).unwrap();
    let transform =
        r#"{"resize":{"short-side":32},"crop":32,"interpolation":"bilinear","mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5]}"#;
    write(&kitchen.at("model.safetensors"), &weights, &[("labels", LABELS), ("transform", transform)]);
    architecture
}

#[test]
fn a_pruned_file_says_what_it_is_and_can_be_pruned_again() {
    let kitchen = Kitchen::new(0);
    write_small(&kitchen);
    let summary = run(&kitchen, &task(&kitchen, "pruned.safetensors")).unwrap();
    let inspected = inspect(&kitchen.at("pruned.safetensors")).unwrap();
    let original = inspect(&kitchen.at("model.safetensors")).unwrap();
    assert_eq!(inspected.architecture.as_deref(), Some("mobilenetv3_small_100"));
    assert!(inspected.title.unwrap().ends_with(", pruned"));
    assert_eq!(inspected.labels, ["beetroot", "pea", "plum"]);
    assert_eq!(inspected.transform, original.transform);
    assert_eq!((summary.parameters.before, summary.parameters.after), (original.parameters, inspected.parameters));
    assert_eq!(summary.bytes.after, inspected.by_kind.iter().map(|share| share.bytes).sum::<u64>());
    assert_eq!(summary.layers.len(), 10);
    let again = PruneTask { model: kitchen.at("pruned.safetensors"), ..task(&kitchen, "again.safetensors") };
    let twice = run(&kitchen, &again).unwrap();
    assert!(twice.parameters.before == summary.parameters.after && twice.parameters.after < summary.parameters.after);
    let weights = Checkpoint::open(&kitchen.at("again.safetensors")).unwrap();
    let architecture = models::detect(weights.tensors()).unwrap();
    answers(&weights, &architecture, Precision::F32, &pixels(1, 64));
}

#[test]
fn channels_are_ranked_on_photos_and_a_repair_leaves_one_file_alone() {
    let kitchen = Kitchen::new(4);
    write_small(&kitchen);
    let photos = kitchen.at("photos");
    let what = What::Channels(Ranking::Taylor { on: photos.clone() });
    let repair = Some(Repair { data: photos.clone(), epochs: 1 });
    let both = PruneTask { what: what.clone(), repair, ..task(&kitchen, "repaired.safetensors") };
    let alone = PruneTask { what, ..task(&kitchen, "alone.safetensors") };
    let (summary, alone) = (run(&kitchen, &both).unwrap(), run(&kitchen, &alone).unwrap());
    assert_eq!((summary.photos, summary.by), (12, "taylor"));
    assert_eq!(summary.repaired.unwrap().epochs, 1);
    assert_eq!(summary.layers, alone.layers);
    let [repaired, alone] =
        ["repaired", "alone"].map(|name| Checkpoint::open(&kitchen.at(&format!("{name}.safetensors"))).unwrap());
    let shapes = |checkpoint: &Checkpoint| -> Vec<(String, Vec<usize>)> {
        checkpoint.tensors().iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
    };
    // Nothing of the optimizer, and nothing of the run.
    assert_eq!(shapes(&repaired), shapes(&alone));
    assert!(!repaired.metadata().contains_key("galley.training"));
    assert_ne!(repaired.read_f32("conv_stem.weight").unwrap(), alone.read_f32("conv_stem.weight").unwrap());
    let files: BTreeSet<_> =
        fs::read_dir(kitchen.at("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let models = files.iter().filter(|name| name.ends_with(".safetensors") || name.starts_with('.')).count();
    assert_eq!(models, 3, "{files:?}");
}

#[test]
fn single_weights_become_zero_in_a_file_of_the_same_size() {
    let kitchen = Kitchen::new(0);
    write_small(&kitchen);
    let summary =
        run(&kitchen, &PruneTask { what: What::Weights, ratio: 0.5, ..task(&kitchen, "zeros.safetensors") }).unwrap();
    let zeros = summary.zeros.unwrap();
    assert_eq!(zeros.zeros, (0.5 * zeros.weights as f64).round() as u64);
    assert_eq!(summary.bytes.before, summary.bytes.after);
    let checkpoint = Checkpoint::open(&kitchen.at("zeros.safetensors")).unwrap();
    let in_file = |name: &str| checkpoint.read_f32(name).unwrap().iter().filter(|value| **value == 0.0).count() as u64;
    assert_eq!(checkpoint.tensors().iter().map(|tensor| in_file(&tensor.name)).sum::<u64>(), zeros.zeros);
    assert!(zeros.sparse_bytes < summary.bytes.after);
    assert!(!models::detect(checkpoint.tensors()).unwrap().title.contains("pruned"));
}

#[test]
fn what_cannot_be_pruned_says_why_and_leaves_no_file() {
    let kitchen = Kitchen::new(2);
    let fine = task(&kitchen, "out.safetensors");
    let refused = |task: &PruneTask, expected: &str| {
        let text = galley::format::error_chain(&*run(&kitchen, task).unwrap_err());
        assert!(text.contains(expected), "{text}");
        assert!(!kitchen.at("out.safetensors").exists(), "{expected}");
        assert!(
            fs::read_dir(kitchen.at(""))
                .unwrap()
                .all(|entry| { !entry.unwrap().file_name().to_string_lossy().starts_with(".galley-") })
        );
    };
    write_model(&kitchen.at("model.safetensors"), 4, 1);
    refused(&fine, "SqueezeNet 1.1 has no channels that only one block sees");
    write_small(&kitchen);
    refused(&PruneTask { ratio: 1.0, ..fine.clone() }, "choose a share above 0 and below 1");
    refused(&PruneTask { ratio: 0.001, ..fine.clone() }, "nothing is taken out");
    refused(&PruneTask { out: kitchen.at("out.pth"), ..fine.clone() }, "name it so");
    refused(&PruneTask { out: kitchen.at("no/out.safetensors"), ..fine.clone() }, "there is no folder");
    std::os::unix::fs::symlink(kitchen.at("model.safetensors"), kitchen.at("link.safetensors")).unwrap();
    for name in ["model.safetensors", "link.safetensors"] {
        refused(&PruneTask { out: kitchen.at(name), ..fine.clone() }, "would replace the checkpoint");
    }
    let repair = Some(Repair { data: kitchen.at("photos"), epochs: 1 });
    refused(&PruneTask { what: What::Weights, repair: repair.clone(), ..fine.clone() }, "would not stay zero");
    fs::rename(kitchen.at("photos/pea"), kitchen.at("photos/peas")).unwrap();
    refused(&PruneTask { repair, ..fine.clone() }, "are not those of the model");
    let bytes = fs::read(kitchen.at("model.safetensors")).unwrap();
    fs::write(kitchen.at("model.safetensors"), &bytes[..bytes.len() - 9]).unwrap();
    refused(&fine, "model.safetensors");
    // The last value that is read is none: by then most is written.
    let mut bytes = bytes;
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(kitchen.at("model.safetensors"), &bytes).unwrap();
    refused(&fine, "not a number to compute with");
    refused(&PruneTask { what: What::Weights, ..fine.clone() }, "not a number to compute with");
    // What was there stays.
    fs::write(kitchen.at("old.safetensors"), "old").unwrap();
    run(&kitchen, &task(&kitchen, "old.safetensors")).unwrap_err();
    assert_eq!(fs::read(kitchen.at("old.safetensors")).unwrap(), b"old");
}

#[test]
fn a_canceled_job_leaves_no_file() {
    let kitchen = Kitchen::new(0);
    write_small(&kitchen);
    let ctx = JobContext::detached();
    ctx.cancel();
    let error = prune(&task(&kitchen, "out.safetensors"), &kitchen.places(), &ctx, &mut |_| Ok(())).unwrap_err();
    assert!(is_canceled(&*error), "{error}");
    assert!(!kitchen.at("out.safetensors").exists());
}

#[test]
fn a_third_fewer_channels_and_an_epoch_of_repair_cost_a_food_network_little() {
    let Some(data) = test_data() else { return };
    let model = data.join("checkpoints/made-with-pytorch/convnext_atto-food10/model.safetensors");
    let kitchen = Kitchen::new(0);
    let repair = Some(Repair { data: data.join("food/food101-512/train"), epochs: 1 });
    run(&kitchen, &PruneTask { model: model.clone(), repair, ..task(&kitchen, "pruned.safetensors") }).unwrap();
    let right = |model: &Path| {
        let data = data.join("food/food101-512/test");
        let config = EvaluateConfig { model: ModelSource::File(model.to_owned()), data, ..EvaluateConfig::default() };
        let evaluation = evaluate(&config, &kitchen.places(), &JobContext::detached()).unwrap().evaluation;
        (evaluation.top1 * evaluation.photos as f64).round()
    };
    let (before, after) = (right(&model), right(&kitchen.at("pruned.safetensors")));
    eprintln!("{before} of 120 photos before, {after} after");
    assert!(after >= before - 3.0, "{after} after {before}");
}
