//! Inference on the CPU in lanes: each thread takes whole images through the network by itself.
//!
//! While an image's rows are larger than a block's weights, one image at a time goes through: its rows stay in the thread's
//! own cache from one operation to the next, and no operation waits for another thread. Where weights are larger, all
//! images of a lane go through together, so that weights are read once. Lanes take images as they get done, so that a
//! faster core takes more of them. No operation's result depends on its batch, so nothing here changes a result.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::features::Features;
use super::{Block, ModelError};
use crate::memory::{Outline, Tally};

/// Images go through one at a time up to the first block with more weights than this many times an image's values before
/// that block: about as often does a block read and write such values in passing.
const WEIGHTS_PER_VALUE: usize = 8;

/// Pools of one thread each, kept for the next batch.
static LANES: Mutex<Vec<Arc<ThreadPool>>> = Mutex::new(Vec::new());

/// The blocks' output for a batch of images, or `None` where lanes have no advantage: off the CPU, and with fewer images
/// than threads.
pub fn forward(blocks: &[Block], images: &Tensor) -> Result<Option<Tensor>, ModelError> {
    let threads = rayon::current_num_threads();
    let count = images.dim(0)?;
    if !images.device().is_cpu() || count < 2 || count < threads {
        return Ok(None);
    }
    let Some(lanes) = lanes(threads) else { return Ok(None) };
    let next = AtomicUsize::new(0);
    let parts: Vec<_> = lanes.par_iter().map(|lane| lane.install(|| run(blocks, images, &next))).collect();
    let mut outputs = vec![None; count];
    for part in parts {
        for (index, output) in part? {
            outputs[index] = Some(output);
        }
    }
    let outputs: Vec<Tensor> = outputs.into_iter().flatten().collect();
    Ok(Some(Tensor::cat(&outputs, 0)?))
}

/// As many lanes as asked for; `None` when the system has no more threads to give.
fn lanes(count: usize) -> Option<Vec<Arc<ThreadPool>>> {
    let mut lanes = LANES.lock().unwrap_or_else(PoisonError::into_inner);
    while lanes.len() < count {
        let name = |_| "lane".to_owned();
        lanes.push(Arc::new(ThreadPoolBuilder::new().num_threads(1).thread_name(name).build().ok()?));
    }
    Some(lanes[..count].to_vec())
}

/// What one lane makes of the images it takes, by their number.
fn run(blocks: &[Block], images: &Tensor, next: &AtomicUsize) -> Result<Vec<(usize, Tensor)>, ModelError> {
    let mut taken = Vec::new();
    let mut single = 0;
    loop {
        let index = next.fetch_add(1, Relaxed);
        if index >= images.dim(0)? {
            break;
        }
        let mut image = Features::Plain(images.narrow(0, index, 1)?);
        single = 0;
        while let Some(block) = blocks.get(single)
            && block.weights <= WEIGHTS_PER_VALUE * image.elements()
        {
            image = block.pass(image)?;
            single += 1;
        }
        taken.push((index, image));
    }
    let (indices, together): (Vec<usize>, Vec<Features>) = taken.into_iter().unzip();
    if together.is_empty() {
        return Ok(Vec::new());
    }
    let batch = Features::cat(together)?;
    let batch = blocks[single..].iter().try_fold(batch, |batch, block| block.pass(batch))?.into_tensor()?;
    indices.into_iter().enumerate().map(|(place, index)| Ok((index, batch.narrow(0, place, 1)?))).collect()
}

/// What a lane allocates for its share of images of shape `(n, height, width, 3)`, which lie in the batch. Returns its features.
pub fn outline(blocks: &[Block], lane: &Tally, images: &[usize], share: usize) -> candle_core::Result<Outline> {
    let mut taken = Vec::with_capacity(share);
    let mut single = 0;
    for _ in 0..share {
        let mut image = lane.view(&[&[1], &images[1..]].concat());
        single = 0;
        while let Some(block) = blocks.get(single)
            && block.weights <= WEIGHTS_PER_VALUE * image.elements()
        {
            image = block.outline(image)?;
            single += 1;
        }
        taken.push(image);
    }
    let mut dims = taken.first().map(|image| image.dims().to_vec()).unwrap_or_default();
    if let Some(first) = dims.first_mut() {
        *first = share;
    }
    let batch = lane.tensor(&dims);
    drop(taken);
    blocks[single..].iter().try_fold(batch, |batch, block| block.outline(batch))
}
