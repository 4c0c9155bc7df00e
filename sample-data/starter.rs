//! Trains the starter model: `cargo run --release --example train-starter`.
//!
//! Draws 600 photos of each dish that are none of `sample-data/photos`, trains a MobileNetV3-Small of random weights on them as
//! `galley train` does, keeps the epoch that is best on `sample-data/photos/train`, and writes it in 16 bits to
//! `resources/starter.safetensors`. The photos under `sample-data/photos/test` are never looked at.

#[path = "generate/mod.rs"]
mod generate;
mod write;

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, bail};
use galley::data::Augment;
use galley::jobs::Places;
use galley::jobs::train::{TrainEvent, TrainTask, train};
use galley::train::{Record, TrainConfig};
use galley::worker::{self, BoxError, JobContext, Outcome};
use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

const PER_DISH: u64 = 600;
/// Other than those of the photos that come with Galley.
const SEED: u64 = 77;

fn main() -> anyhow::Result<()> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().context("failed to make a temporary folder")?;
    let dishes = folder.path().join("dishes");
    println!("drawing {PER_DISH} photos of each dish");
    write::write_photos(&dishes, PER_DISH, SEED)?;
    let config = TrainConfig {
        data: dishes,
        val: Some(project.join("sample-data/photos/train")),
        arch: Some("mobilenet_v3_small".to_owned()),
        image_size: Some(96),
        epochs: 14,
        batch_size: 64,
        lr: 3e-3,
        warmup_epochs: 2.0,
        label_smoothing: 0.05,
        ema: Some(0.99),
        augment: Augment { crop_scale: [0.5, 1.0], brightness: 0.25, contrast: 0.25, ..Augment::default() },
        ..TrainConfig::default()
    };
    let run = folder.path().join("run");
    let task = TrainTask::Begin { config: Box::new(config), folder: run.clone() };
    let places = Places { tiles: folder.path().join("tiles"), ..Places::default() };
    match worker::run(|| train(&task, &places, &JobContext::detached(), &mut tell)) {
        Outcome::Finished(_) => {}
        Outcome::Canceled => bail!("stopped"),
        Outcome::Failed(error) => bail!(error),
    }
    halve(&run.join("best.safetensors"), &project.join("resources/starter.safetensors"))
}

fn tell(event: TrainEvent) -> Result<(), BoxError> {
    if let TrainEvent::Record(Record::Epoch(epoch)) = event {
        let top1 = epoch.top1.unwrap_or(f64::NAN);
        println!("epoch {:2}: loss {:.4}, validation top-1 {:.1} %", epoch.epoch + 1, epoch.train_loss, 100.0 * top1);
    }
    Ok(())
}

/// Writes the network alone, in f16, with what the run knows about it.
fn halve(from: &Path, to: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::read(from).with_context(|| format!("failed to read {}", from.display()))?;
    let (_, header) = SafeTensors::read_metadata(&bytes)?;
    let mut about: HashMap<String, String> = header.metadata().clone().unwrap_or_default();
    about.retain(|key, _| !key.starts_with("galley."));
    about.insert("title".to_owned(), "Starter: eight dishes".to_owned());
    let tensors = SafeTensors::deserialize(&bytes)?;
    let mut halves: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, tensor) in tensors.tensors() {
        if name.starts_with("galley.") {
            continue;
        }
        if tensor.dtype() != Dtype::F32 {
            bail!("{name} is not f32");
        }
        let values = tensor.data().as_chunks().0.iter().map(|value| f16::from_f32(f32::from_le_bytes(*value)));
        halves.push((name, tensor.shape().to_vec(), values.flat_map(f16::to_le_bytes).collect()));
    }
    let views =
        halves.iter().map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F16, shape.clone(), bytes)?)));
    let views: Vec<_> = views.collect::<Result<_, safetensors::SafeTensorError>>()?;
    safetensors::serialize_to_file(views, Some(about), to)?;
    println!("wrote {}", to.display());
    Ok(())
}
