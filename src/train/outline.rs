//! What a run allocates: the network, what the optimizer remembers, and steps on the way of [`super::segments`] through a
//! network's outline.

use candle_core::Result;

use super::segments::piece_length;
use crate::memory::{F32, Node, Outline, Peak, Place, Tally};
use crate::models::{Back, Block, LearnOutline, NetworkOutline};

/// A step as far as its memory goes.
#[derive(Debug, Clone, Copy)]
pub struct StepShape<'a> {
    /// The blocks before this one are frozen.
    pub first: usize,
    /// By block: computed twice.
    pub recompute: &'a [bool],
    /// Photos that are computed at once, those of the whole batch, and steps that are read at once on a GPU.
    pub at_once: usize,
    pub batch: usize,
    pub unread: usize,
    /// Of one photo: `(height, width, 3)`.
    pub photo: [usize; 3],
    /// Whether photos skip blocks.
    pub drops_paths: bool,
    /// Whether features before the last block are compared with a teacher's.
    pub compares_features: bool,
    /// Bytes that optimizer and average remember of each element that learns.
    pub remembered: u64,
    /// Bytes of photos and features that wait.
    pub waiting: u64,
}

/// What a run takes with all its steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepCost {
    pub peak: Peak,
    /// By block: what it keeps of all photos that are computed at once.
    pub kept: Vec<u64>,
}

/// What a block leaves for backward.
enum Kept<'a> {
    Input(Outline),
    /// By piece, in order: input and the graph of what was made of it.
    Graphs(Vec<(Outline, Vec<Node>)>),
    Own(Back<'a>),
}

/// What a run takes on `place`.
pub fn step(network: &NetworkOutline, shape: StepShape, place: Place) -> Result<StepCost> {
    let tally = Tally::new(place);
    let _weights = network.load(&tally);
    let learned = network.blocks[shape.first.min(network.blocks.len())..].iter();
    let _remembered: Vec<_> = learned.map(|block| tally.hold(shape.remembered * block.learnable as u64)).collect();
    let _waiting = tally.hold(shape.waiting);
    // A GPU is waited for when steps are read, and candle keeps what is uploaded until then.
    let others = if place.is_metal { (shape.unread * shape.batch).saturating_sub(shape.at_once) } else { 0 };
    let photo = F32 * shape.photo.iter().product::<usize>() as u64;
    let _uploaded: Vec<_> = (0..others).map(|_| tally.hold(photo)).collect();
    let mut pass = Pass { network, shape, gradients: network.blocks.iter().map(|_| None).collect(), kept: Vec::new() };
    // A second part adds its gradients to those of the first, and a second step is laid out as all further ones are.
    let parts = shape.batch.div_ceil(shape.at_once.max(1)).clamp(1, 2);
    for _ in 0..2 {
        for _ in 0..parts {
            pass.run(&tally)?;
        }
        pass.gradients.iter_mut().for_each(|gradients| *gradients = None);
    }
    Ok(StepCost { peak: tally.peak(), kept: pass.kept })
}

struct Pass<'a> {
    network: &'a NetworkOutline,
    shape: StepShape<'a>,
    /// By block.
    gradients: Vec<Option<Vec<Outline>>>,
    kept: Vec<u64>,
}

impl<'a> Pass<'a> {
    fn run(&mut self, tally: &Tally) -> Result<()> {
        let StepShape { first, at_once, photo: [height, width, channels], .. } = self.shape;
        let pixels = tally.tensor(&[at_once, height, width, channels]);
        let mut xs = self.network.features(first, &pixels)?;
        let mut left = Vec::new();
        let mut of_features = None;
        self.kept = vec![0; first];
        for index in first..self.network.blocks.len() {
            let before = tally.live();
            let (ys, kept) = self.forward(index, xs)?;
            self.kept.push((tally.live() - before).saturating_sub(bytes(&ys)));
            left.push(kept);
            xs = ys;
            if self.shape.compares_features && index + 2 == self.network.blocks.len() {
                of_features = Some(xs.like());
            }
        }
        // The logits' loss, made of seven tensors of their size.
        drop(tally.hold(7 * bytes(&xs)));
        let mut gradient = xs.like();
        drop(xs);
        for index in (first..self.network.blocks.len()).rev() {
            let Some(kept) = left.pop() else { break };
            gradient = self.back(index, kept, &gradient)?;
            if let Some(_more) = of_features.take() {
                gradient = gradient.like();
            }
        }
        Ok(())
    }

    fn forward(&self, index: usize, xs: Outline) -> Result<(Outline, Kept<'a>)> {
        let (block, again) = (&self.network.blocks[index], self.shape.recompute[index]);
        if let Some(learn) = learn(block, &xs) {
            let (ys, kept) = match again {
                true => (learn.pass(&xs)?, Kept::Input(xs.clone())),
                false => {
                    let (ys, back) = learn.keep(&xs)?;
                    (ys, Kept::Own(back))
                }
            };
            return Ok((self.along(block, ys), kept));
        }
        let (mut outputs, mut graphs) = (Vec::new(), Vec::new());
        for count in pieces(block, &xs) {
            let input = if again { xs.photos(count) } else { self.tracked(index, &xs, count) };
            let (output, made) = xs.tally().recorded(|| block.outline(input.clone()));
            outputs.push(output?);
            if !again {
                graphs.push((input, made));
            }
        }
        let ys = self.along(block, joined(outputs, &xs));
        Ok((ys, if again { Kept::Input(xs) } else { Kept::Graphs(graphs) }))
    }

    fn back(&mut self, index: usize, kept: Kept, gradient: &Outline) -> Result<Outline> {
        let block = &self.network.blocks[index];
        let wants_input = index > self.shape.first;
        let mut found = Vec::new();
        let own = match kept {
            Kept::Own(back) => back,
            Kept::Input(xs) if let Some(learn) = learn(block, &xs) => learn.again(&xs)?,
            kept => return self.back_by_graph(index, kept, gradient),
        };
        let upstream = if self.drops(block) { gradient.like() } else { gradient.clone() };
        let of_input = own(&upstream, wants_input, &mut found)?;
        self.add(index, found);
        let of_input = of_input.unwrap_or(upstream);
        Ok(if self.drops(block) { of_input.like() } else { of_input })
    }

    /// candle's backward: the gradient of what was made last first, each dropped when the next is there.
    fn back_by_graph(&mut self, index: usize, kept: Kept, gradient: &Outline) -> Result<Outline> {
        let block = &self.network.blocks[index];
        let wants_input = index > self.shape.first;
        let (whole, graphs) = match kept {
            Kept::Input(xs) => (Some(xs), Vec::new()),
            Kept::Graphs(graphs) => (None, graphs),
            Kept::Own(_) => (None, Vec::new()),
        };
        let counts = match &whole {
            Some(xs) => pieces(block, xs),
            None => graphs.iter().map(|(input, _)| input.dims()[0]).collect(),
        };
        let mut graphs = graphs.into_iter();
        let mut of_inputs = Vec::new();
        for count in counts {
            let (input, made) = match (&whole, graphs.next()) {
                (None, Some(graph)) => graph,
                (Some(xs), _) => {
                    let input = self.tracked(index, xs, count);
                    let (output, made) = xs.tally().recorded(|| block.outline(input.clone()));
                    drop(output?);
                    (input, made)
                }
                (None, None) => break,
            };
            let mut upstream = gradient.photos(count);
            let mut found = Vec::new();
            for (place, node) in made.iter().enumerate().rev() {
                let gradients = (node.backward)(&upstream, wants_input || place > 0);
                // Each is added to zeros.
                let mut sums: Vec<_> = gradients.iter().map(|one| (one.like(), one.like()).0).collect();
                drop(gradients);
                if !sums.is_empty() {
                    upstream = sums.remove(0);
                }
                found.extend(sums);
            }
            drop((made, input));
            // Of biases and gates, which are small.
            let others = block.learnable.saturating_sub(found.iter().map(Outline::elements).sum());
            found.push(gradient.new(&[others]));
            if wants_input {
                of_inputs.push(upstream);
            }
            self.add(index, found);
        }
        Ok(if of_inputs.is_empty() { gradient.clone() } else { joined(of_inputs, gradient) })
    }

    /// Adds the gradients of a block's parameters to those of the parts before.
    fn add(&mut self, index: usize, found: Vec<Outline>) {
        let sums = match self.gradients[index].take() {
            None => found,
            Some(sums) => sums.into_iter().zip(found).map(|(sum, _found)| sum.like()).collect(),
        };
        self.gradients[index] = Some(sums);
    }

    fn tracked(&self, index: usize, xs: &Outline, count: usize) -> Outline {
        let part = xs.photos(count);
        if index == self.shape.first { part } else { part.like() }
    }

    fn drops(&self, block: &Block) -> bool {
        self.shape.drops_paths && block.is_residual()
    }

    /// The output where some photos skip the block: two products and their sum.
    fn along(&self, block: &Block, ys: Outline) -> Outline {
        if !self.drops(block) {
            return ys;
        }
        let products = [ys.like(), ys.like()];
        products[0].like()
    }
}

/// A block as one that takes its gradients itself, where such are computed.
fn learn<'a>(block: &'a Block, xs: &Outline) -> Option<&'a dyn LearnOutline> {
    if xs.tally().place().is_metal { None } else { block.learn_outline() }
}

/// How many photos go through a block at a time.
fn pieces(block: &Block, xs: &Outline) -> Vec<usize> {
    let photos = xs.dims()[0];
    let size = piece_length(block, photos, xs.elements() / photos.max(1));
    (0..photos).step_by(size).map(|start| size.min(photos - start)).collect()
}

fn joined(mut parts: Vec<Outline>, like: &Outline) -> Outline {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let mut dims = parts.first().map_or_else(Vec::new, |part| part.dims().to_vec());
    if let Some(first) = dims.first_mut() {
        *first = parts.iter().map(|part| part.dims()[0]).sum();
    }
    like.new(&dims)
}

fn bytes(xs: &Outline) -> u64 {
    F32 * xs.elements() as u64
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::models::{self, Precision};

    fn shape(recompute: &[bool], at_once: usize, drops_paths: bool) -> StepShape<'_> {
        StepShape {
            first: 0,
            recompute,
            at_once,
            batch: 8,
            unread: 1,
            photo: [224, 224, 3],
            drops_paths,
            compares_features: false,
            remembered: 8,
            waiting: 0,
        }
    }

    /// `galley bench` holds predictions against what steps really take, see `tests/it/bench.rs`.
    #[test]
    fn more_photos_kept_blocks_and_skipped_ones_take_more() {
        let architecture = models::named("convnext_atto", 10).unwrap();
        let outline = architecture.outline(&[], Some(0), Precision::F32, &Device::Cpu).unwrap();
        let [never, always] = [false, true].map(|twice| vec![twice; outline.blocks.len()]);
        let at = |recompute, at_once, drops_paths, place| {
            step(&outline, shape(recompute, at_once, drops_paths), place).unwrap()
        };
        let place = Place::cpu(2);
        let base = at(&always, 8, false, place);
        assert!(at(&never, 8, false, place).peak.bytes() > base.peak.bytes());
        assert!(at(&always, 8, true, place).peak.bytes() > base.peak.bytes());
        assert!(at(&always, 4, false, place).peak.bytes() < base.peak.bytes());
        assert!(at(&never, 8, false, place).kept[1] > base.kept[1]);
        // A graph of operations keeps more, and powers of two are larger than what is asked for.
        let gpu = Place { is_metal: true, ..place };
        let on_metal = at(&never, 8, false, gpu);
        assert!(on_metal.peak.bytes() > at(&never, 8, false, place).peak.bytes());
        // The photos of all parts of a step, each rounded to a mebibyte, lie on a GPU until it is read.
        let of_batch =
            |batch, place| step(&outline, StepShape { batch, ..shape(&never, 8, false) }, place).unwrap().peak;
        assert_eq!(of_batch(48, gpu).bytes() - of_batch(16, gpu).bytes(), 32 << 20);
        assert_eq!(of_batch(48, place).bytes(), of_batch(16, place).bytes());
        let three = StepShape { batch: 16, unread: 3, ..shape(&never, 8, false) };
        assert_eq!(step(&outline, three, gpu).unwrap().peak, of_batch(48, gpu));
        // The blocks before the first that learns keep nothing.
        let last = StepShape { first: 9, ..shape(&never, 8, false) };
        let cost = step(&outline, last, place).unwrap();
        assert!(cost.kept[..9].iter().all(|bytes| *bytes == 0));
        assert!(cost.peak.bytes() < at(&never, 8, false, place).peak.bytes());
    }
}
