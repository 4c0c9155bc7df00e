//! What photos tell about rounding: what each layer is multiplied with, and what rounding each block does to the answers.

use candle_core::{Device, Tensor};

use super::CompressError;
use super::quantize::Calibration;
use crate::checkpoint::Checkpoint;
use crate::device;
use crate::images::Input;
use crate::models::{self, Architecture, Loading, ModelError, Network, Precision, Strictness};
use crate::predict;
use crate::worker::{JobContext, Progress};

/// Photos that go through a network at once.
const BATCH: usize = 8;

/// The average inputs of every layer of the network in f32.
pub fn calibrate(
    checkpoint: &Checkpoint,
    architecture: &Architecture,
    photos: &[Input],
    device: &Device,
    ctx: &JobContext,
) -> Result<Calibration, CompressError> {
    let (network, inputs) = models::build_watched(checkpoint, architecture, device)?;
    for (index, batch) in batches(photos).enumerate() {
        ctx.check()?;
        report(ctx, "Looking at photos", index * BATCH, photos.len());
        device::completed(device, || network.forward(&pixels(batch, device)?))?;
    }
    let layers = architecture.layers()?;
    let means = layers.into_iter().zip(inputs).filter_map(|(layer, inputs)| Some((layer.name, inputs.means()?)));
    Ok(means.collect())
}

/// For each block the mean square of what the logits change by when its weights alone are in so few bits, as a share of
/// their variance over the photos.
pub fn block_errors(
    checkpoint: &Checkpoint,
    architecture: &Architecture,
    bits: Precision,
    photos: &[Input],
    device: &Device,
    ctx: &JobContext,
) -> Result<Vec<f64>, CompressError> {
    let build = |precision| {
        let loading = Loading { strictness: Strictness::Strict, precision };
        models::build(checkpoint, architecture, loading, device).map(|(network, _)| network)
    };
    let (exact, rounded) = (build(Precision::F32)?, build(bits)?);
    let mut errors = vec![0.0; exact.blocks.len()];
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0usize);
    for (index, batch) in batches(photos).enumerate() {
        report(ctx, &format!("Measuring blocks in {}", bits.name()), index * BATCH, photos.len());
        let witness = device::Witness::of(device);
        let logits = device::scoped(|| add_errors(&exact, &rounded, batch, &mut errors, (device, ctx)))?;
        witness.wait().map_err(ModelError::from)?;
        sum += logits.iter().sum::<f64>();
        squares += logits.iter().map(|logit| logit * logit).sum::<f64>();
        count += logits.len();
    }
    let count = count.max(1) as f64;
    let variance = (squares / count - (sum / count).powi(2)).max(f64::MIN_POSITIVE);
    Ok(errors.into_iter().map(|error| error / count / variance).collect())
}

/// Adds the squares of a batch to the errors of blocks; returns its exact logits.
fn add_errors(
    exact: &Network,
    rounded: &Network,
    batch: &[Input],
    errors: &mut [f64],
    (device, ctx): (&Device, &JobContext),
) -> Result<Vec<f64>, CompressError> {
    let pixels = pixels(batch, device)?;
    let after = |from: usize, xs: Tensor| exact.blocks[from..].iter().try_fold(xs, |xs, block| block.forward(xs));
    let values = |logits: &Tensor| -> Result<Vec<f32>, ModelError> { Ok(logits.flatten_all()?.to_vec1()?) };
    let logits = values(&after(0, pixels.clone())?)?;
    let mut xs = pixels;
    for (block, error) in errors.iter_mut().enumerate() {
        ctx.check()?;
        let changed = values(&after(block + 1, rounded.blocks[block].forward(xs.clone())?)?)?;
        *error += logits.iter().zip(&changed).map(|(one, other)| f64::from(one - other).powi(2)).sum::<f64>();
        xs = exact.blocks[block].forward(xs)?;
    }
    Ok(logits.into_iter().map(f64::from).collect())
}

/// Batches of photos of one size.
fn batches(photos: &[Input]) -> impl Iterator<Item = &[Input]> {
    photos.chunk_by(|a, b| (a.height, a.width) == (b.height, b.width)).flat_map(|same| same.chunks(BATCH))
}

fn pixels(batch: &[Input], device: &Device) -> Result<Tensor, ModelError> {
    Ok(predict::pixels(&batch.iter().collect::<Vec<_>>(), device)?)
}

fn report(ctx: &JobContext, phase: &str, done: usize, total: usize) {
    ctx.report(Progress { phase: phase.to_owned(), done: done as u64, total: Some(total as u64), per_second: None });
}
