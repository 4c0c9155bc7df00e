//! Forward and backward block by block, so that one block's graph at a time exists unless more are to be kept.
//!
//! Forward hands each block its input detached. A block that is recomputed keeps that input alone; backward computes it
//! again with a graph, takes its gradients, and frees both before it goes on to the block before. Where no batch norm looks
//! at all photos, a few at a time go through a block: their values stay in the cache, and their graph is small.

use std::ops::Range;

use candle_core::{Tensor, Var};

use super::TrainError;
use super::gradients::Gradients;
use crate::models::{Backward, Block, Found, Network, Phase};
use crate::ops;

/// The blocks of a network that train, and which of them are computed twice.
#[derive(Debug, Clone)]
pub struct Segments {
    /// The blocks before this one are frozen.
    pub first: usize,
    /// By block: its inner results are not kept but computed again in backward.
    pub recompute: Vec<bool>,
}

/// Which images skip which residual blocks (stochastic depth): by block, what each image's change is multiplied by, `(n)`;
/// none leaves a block alone.
pub type Paths = Vec<Option<Tensor>>;

/// What judges what a network makes of photos while it learns.
pub trait Judge {
    /// The gradient of the loss by the logits.
    fn logits(&mut self, logits: &Tensor) -> Result<Tensor, TrainError>;

    /// That by the output of the block before the last, beside what the last makes of it; none where nothing is wanted of it.
    fn features(&mut self, _output: &Tensor) -> Result<Option<Tensor>, TrainError> {
        Ok(None)
    }
}

/// What a block leaves for backward.
enum Kept<'a> {
    Input(Tensor),
    /// By piece, in order: input and output.
    Graphs(Vec<(Tensor, Tensor)>),
    Own(Box<dyn Backward + 'a>),
}

/// Photos go through a block in pieces of so many that their values are not outweighed by its weights more than this many
/// times: then reading the weights for each piece costs little, and a piece's graph is small.
const WEIGHTS_PER_VALUE: usize = 8;

/// The least values of a piece: smaller ones cost more to hand on than to compute.
const LEAST_VALUES: usize = 64 << 10;

impl Segments {
    /// The gradients of every parameter in `gradients`, given what `judge` makes of the logits for `pixels`: their gradient.
    pub fn run(
        &self,
        network: &Network,
        pixels: &Tensor,
        paths: &Paths,
        judge: &mut impl Judge,
        gradients: &mut Gradients,
    ) -> Result<(), TrainError> {
        self.run_in(Phase::Train, network, pixels, paths, judge, gradients)
    }

    /// The same without a trace: running statistics stay as they are.
    pub fn look(
        &self,
        network: &Network,
        pixels: &Tensor,
        judge: &mut impl Judge,
        gradients: &mut Gradients,
    ) -> Result<(), TrainError> {
        self.run_in(Phase::TrainAgain, network, pixels, &Paths::new(), judge, gradients)
    }

    fn run_in(
        &self,
        phase: Phase,
        network: &Network,
        pixels: &Tensor,
        paths: &Paths,
        judge: &mut impl Judge,
        gradients: &mut Gradients,
    ) -> Result<(), TrainError> {
        let mut xs = network.features(self.first, pixels)?;
        let trained: Range<usize> = self.first..network.blocks.len();
        let mut kept = Vec::with_capacity(trained.len());
        let mut of_features = None;
        for index in trained.clone() {
            let path = paths.get(index).and_then(Option::as_ref);
            let (ys, left) = self.forward(phase, &network.blocks[index], index, xs, path)?;
            kept.push(left);
            xs = ys;
            if index + 2 == trained.end {
                of_features = judge.features(&xs)?;
            }
        }
        let mut gradient = judge.logits(&xs)?;
        drop(xs);
        for index in trained.rev() {
            let path = paths.get(index).and_then(Option::as_ref);
            let kept = kept.pop().expect("every block keeps something");
            gradient = self.back(network, index, kept, path, &gradient, gradients)?;
            // The first that goes on is of the last block.
            if let Some(more) = of_features.take() {
                gradient = (gradient + more)?;
            }
        }
        Ok(())
    }

    /// A block's output, detached, and what it leaves.
    fn forward<'a>(
        &self,
        phase: Phase,
        block: &'a Block,
        index: usize,
        xs: Tensor,
        path: Option<&Tensor>,
    ) -> Result<(Tensor, Kept<'a>), TrainError> {
        if let Some(learn) = block.learn(&xs) {
            let (ys, kept) = if self.recompute[index] {
                (learn.pass(&xs, phase)?, Kept::Input(xs.clone()))
            } else {
                let (ys, kept) = learn.keep(&xs, phase)?;
                (ys, Kept::Own(kept))
            };
            return Ok((along(block, &xs, ys, path)?, kept));
        }
        let (mut outputs, mut graphs) = (Vec::new(), Vec::new());
        for piece in pieces(block, &xs)? {
            let (part, path) = (part(&xs, &piece)?, path.map(|path| part(path, &piece)).transpose()?);
            if self.recompute[index] {
                outputs.push(through(block, &part, path.as_ref(), phase)?.detach());
            } else {
                let input = self.tracked(index, part)?;
                let output = through(block, &input, path.as_ref(), phase)?;
                outputs.push(output.detach());
                graphs.push((input, output));
            }
        }
        let kept = if self.recompute[index] { Kept::Input(xs) } else { Kept::Graphs(graphs) };
        Ok((joined(outputs)?, kept))
    }

    /// Adds the gradients of a block's parameters, and returns that of its input; nothing of use when nobody needs it.
    fn back(
        &self,
        network: &Network,
        index: usize,
        kept: Kept,
        path: Option<&Tensor>,
        gradient: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor, TrainError> {
        let block = &network.blocks[index];
        let own = match kept {
            Kept::Own(own) => own,
            Kept::Input(xs) if let Some(learn) = block.learn(&xs) => learn.again(&xs)?,
            kept => return self.back_by_graph(network, index, kept, path, gradient, gradients),
        };
        let mut found = Found::default();
        let path = path.filter(|_| block.is_residual()).map(|path| of_images(path, gradient)).transpose()?;
        let upstream = if let Some(path) = &path { gradient.broadcast_mul(path)? } else { gradient.clone() };
        let of_input = own.back(&upstream, index > self.first, &mut found)?;
        for place in block.learned.clone() {
            if let Some(one) = found.take(&network.learned[place].var) {
                gradients.add(place, one)?;
            }
        }
        match (of_input, path) {
            (Some(of_input), Some(path)) => Ok((of_input + gradient.broadcast_mul(&path.affine(-1.0, 1.0)?)?)?),
            (Some(of_input), None) => Ok(of_input),
            (None, _) if index > self.first => Err(TrainError::NoGradient { block: block.name.clone() }),
            (None, _) => Ok(upstream),
        }
    }

    /// The same where candle's graph takes the gradients, piece by piece.
    fn back_by_graph(
        &self,
        network: &Network,
        index: usize,
        kept: Kept,
        path: Option<&Tensor>,
        gradient: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Tensor, TrainError> {
        let block = &network.blocks[index];
        let (whole, graphs) = match kept {
            Kept::Input(xs) => (Some(xs), Vec::new()),
            Kept::Graphs(graphs) => (None, graphs),
            Kept::Own(_) => (None, Vec::new()),
        };
        let ranges = match &whole {
            Some(xs) => pieces(block, xs)?,
            None => ranges(graphs.iter().map(|(input, _)| input.dim(0)))?,
        };
        let mut graphs = graphs.into_iter();
        let mut of_inputs = Vec::new();
        for piece in ranges {
            let (input, output) = match (&whole, graphs.next()) {
                (None, Some(graph)) => graph,
                (Some(xs), _) => {
                    let input = self.tracked(index, part(xs, &piece)?)?;
                    let path = path.map(|path| part(path, &piece)).transpose()?;
                    let output = through(block, &input, path.as_ref(), Phase::TrainAgain)?;
                    (input, output)
                }
                (None, None) => break,
            };
            let mut found = ops::gradients_of(&output, &part(gradient, &piece)?)?;
            drop(output);
            for place in block.learned.clone() {
                if let Some(one) = found.remove(&network.learned[place].var) {
                    gradients.add(place, one.detach())?;
                }
            }
            if index > self.first {
                let of_input = found.remove(&input);
                of_inputs.push(of_input.ok_or_else(|| TrainError::NoGradient { block: block.name.clone() })?.detach());
            }
        }
        if index > self.first { joined(of_inputs) } else { Ok(gradient.clone()) }
    }

    /// A block's input as what gradients are taken of, but for the first block's, whose gradient nobody needs.
    fn tracked(&self, index: usize, xs: Tensor) -> Result<Tensor, TrainError> {
        if index == self.first { Ok(xs) } else { Ok(Var::from_tensor(&xs)?.into_inner()) }
    }
}

/// The photos of `xs` in the pieces they go through a block in: all at once where its batch norms look at all of them.
fn pieces(block: &Block, xs: &Tensor) -> Result<Vec<Range<usize>>, TrainError> {
    let photos = xs.dim(0)?;
    let size = piece_length(block, photos, xs.elem_count() / photos.max(1));
    Ok((0..photos).step_by(size).map(|start| start..(start + size).min(photos)).collect())
}

/// How many of the photos go through a block at a time, where each has so many values.
pub(super) fn piece_length(block: &Block, photos: usize, values: usize) -> usize {
    if block.looks_at_all {
        return photos.max(1);
    }
    let least = LEAST_VALUES.max(block.weights / WEIGHTS_PER_VALUE);
    least.div_ceil(values.max(1)).clamp(1, photos.max(1))
}

/// Ranges of these lengths, one after the other.
fn ranges(lengths: impl Iterator<Item = candle_core::Result<usize>>) -> Result<Vec<Range<usize>>, TrainError> {
    let mut end = 0;
    let mut ranges = Vec::new();
    for length in lengths {
        let start = end;
        end += length?;
        ranges.push(start..end);
    }
    Ok(ranges)
}

fn part(xs: &Tensor, piece: &Range<usize>) -> Result<Tensor, TrainError> {
    Ok(xs.narrow(0, piece.start, piece.len())?)
}

fn joined(mut parts: Vec<Tensor>) -> Result<Tensor, TrainError> {
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Ok(Tensor::cat(&parts, 0)?),
    }
}

/// A block's output, for some images less of what it adds to its input.
fn through(block: &Block, xs: &Tensor, path: Option<&Tensor>, phase: Phase) -> Result<Tensor, TrainError> {
    along(block, xs, block.forward_in(phase, xs.clone())?, path)
}

/// The output `ys` of a block, for some images less of what it adds to its input.
fn along(block: &Block, xs: &Tensor, ys: Tensor, path: Option<&Tensor>) -> Result<Tensor, TrainError> {
    let Some(path) = path.filter(|_| block.is_residual()) else { return Ok(ys) };
    let path = of_images(path, xs)?;
    Ok((ys.broadcast_mul(&path)? + xs.broadcast_mul(&path.affine(-1.0, 1.0)?)?)?)
}

/// A value per image, in the rank of `xs`.
fn of_images(path: &Tensor, xs: &Tensor) -> Result<Tensor, TrainError> {
    let mut shape = vec![1; xs.rank()];
    shape[0] = xs.dim(0)?;
    Ok(path.reshape(shape)?)
}
