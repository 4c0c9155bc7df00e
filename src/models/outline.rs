//! A network without weights: what its blocks allocate, in inference and in training, told on outlines of tensors. Each
//! function here makes and drops outlines in the order in which its counterpart in [`super::learn`] and in the layers makes and
//! drops tensors.

mod conv;
mod layers;

use candle_core::Device;

use super::source::{Load, Source};
use super::{Architecture, Block, ModelError, Precision, lanes};
use crate::checkpoint::TensorInfo;
use crate::memory::{Held, Outline, Peak, Place, Tally};

pub use conv::{ConvOutline, KeptConvOutline};
pub use layers::{KeptMlpOutline, keep_linear, keep_norm};

/// The gradients of a block's parameters, and that of its input if it is wanted, given the output's.
pub type Back<'a> = Box<dyn FnOnce(&Outline, bool, &mut Vec<Outline>) -> candle_core::Result<Option<Outline>> + 'a>;

/// What a layer that takes its gradients itself allocates, see [`super::Learn`].
pub trait LearnOutline {
    /// The output, and what backward needs.
    fn keep(&self, xs: &Outline) -> candle_core::Result<(Outline, Back<'_>)>;

    /// The output alone.
    fn pass(&self, xs: &Outline) -> candle_core::Result<Outline> {
        Ok(self.keep(xs)?.0)
    }

    /// What backward needs alone.
    fn again(&self, xs: &Outline) -> candle_core::Result<Back<'_>> {
        Ok(self.keep(xs)?.1)
    }
}

/// A network's blocks without their weights.
pub struct NetworkOutline {
    pub blocks: Vec<Block>,
    pub classes: usize,
    loads: Vec<Load>,
}

impl Architecture {
    /// The outline of this network, computed on `device`, from block `first_trained` on in training. `tensors` are those of
    /// its file, if there is one yet.
    pub fn outline(
        &self,
        tensors: &[TensorInfo],
        first_trained: Option<usize>,
        precision: Precision,
        device: &Device,
    ) -> Result<NetworkOutline, ModelError> {
        let (blocks, source) = self.blocks(Source::outlining(tensors, first_trained, precision, device)?)?;
        Ok(NetworkOutline { blocks, classes: self.classes, loads: source.loads() })
    }
}

impl Architecture {
    /// The outline of this network in training from block `first` on, of no file. Its layers are those of the CPU; on Metal the
    /// graph of operations is recorded from the same ones.
    pub fn training_outline(&self, first: usize) -> Result<NetworkOutline, ModelError> {
        self.outline(&[], Some(first), Precision::F32, &Device::Cpu)
    }
}

impl NetworkOutline {
    /// Bytes of all tensors as they are held.
    pub fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.bytes).sum()
    }

    /// Elements that are learned from block `first` on.
    pub fn learned(&self, first: usize) -> u64 {
        self.blocks[first.min(self.blocks.len())..].iter().map(|block| block.learnable as u64).sum()
    }

    /// Reads the network, tensor by tensor. It stays while what is returned does.
    pub fn load(&self, tally: &Tally) -> Vec<Held> {
        let load = |load: &Load| {
            let read = tally.hold(load.read);
            let held = tally.hold(load.held);
            drop(read);
            held
        };
        self.loads.iter().map(load).collect()
    }

    /// What the network takes with passes over a batch of pixels `(n, height, width, 3)`; only the passes when it is there
    /// already.
    pub fn inference(&self, pixels: [usize; 4], is_loaded: bool, place: Place) -> candle_core::Result<Peak> {
        let tally = Tally::new(place);
        let _weights = if is_loaded { Vec::new() } else { self.load(&tally) };
        // The second lays the batch out as all further ones are.
        for _ in 0..2 {
            self.features(self.blocks.len(), &tally.tensor(&pixels))?;
        }
        Ok(tally.peak())
    }

    /// What the first `blocks` blocks make of pixels `(n, height, width, 3)` when nothing trains.
    pub fn features(&self, blocks: usize, pixels: &Outline) -> candle_core::Result<Outline> {
        let blocks = &self.blocks[..blocks];
        if blocks.is_empty() {
            return Ok(pixels.clone());
        }
        let place = pixels.tally().place();
        let count = pixels.dims()[0];
        if place.is_metal || count < 2 || count < place.threads {
            return blocks.iter().try_fold(pixels.clone(), |xs, block| block.outline(xs));
        }
        // Each thread is a lane that takes its share of the images, and has working memory of its own.
        let lane = Tally::new(Place::cpu(1));
        let mut dims = lanes::outline(blocks, &lane, pixels.dims(), count.div_ceil(place.threads))?.dims().to_vec();
        let _lanes = pixels.tally().hold(place.threads as u64 * lane.peak().bytes());
        dims[0] = count;
        Ok(pixels.new(&dims))
    }
}
