//! What a computation allocates, without computing: outlines of tensors, which have a shape and no values, are made and
//! dropped in the order in which the tensors themselves would be, and a tally keeps the highest sum. It also lays them out in
//! a heap as the allocator does, for between blocks of many sizes some of it stays unused.

use std::cell::RefCell;
use std::rc::Rc;

use super::arena::Arena;
use super::heap;

/// Bytes of a number in f32.
pub const F32: u64 = 4;

/// Where the outlined computation would run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Threads that compute; each has working memory of its own.
    pub threads: usize,
    pub is_metal: bool,
}

impl Place {
    pub fn cpu(threads: usize) -> Self {
        Self { threads: threads.max(1), is_metal: false }
    }

    /// What an allocation of so many bytes takes: candle's pool on Metal hands out powers of two.
    fn rounded(self, bytes: u64) -> u64 {
        if self.is_metal { bytes.next_power_of_two() } else { bytes }
    }
}

/// Bytes that live at a time, and the most that ever did. Clones are the same tally.
#[derive(Debug, Clone)]
pub struct Tally {
    place: Place,
    counts: Rc<RefCell<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    live: u64,
    peak: u64,
    /// Working memory that a thread keeps, by how deep the calls are nested.
    kept: Vec<u64>,
    largest: u64,
    arena: Arena,
    /// Bytes in blocks that are too small for it, and the most that ever were.
    small: u64,
    most_small: u64,
    /// What was made while a graph is recorded.
    graph: Option<Vec<Node>>,
}

/// Makes the gradients of what an operation was given, its input first, given that of its result and whether the input's is
/// wanted.
pub type Backward = Box<dyn Fn(&Outline, bool) -> Vec<Outline>>;

/// An operation in a recorded graph.
pub struct Node {
    /// Its result, which the graph keeps.
    pub made: Outline,
    pub backward: Backward,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("made", &self.made).finish_non_exhaustive()
    }
}

/// What a computation takes at its most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Peak {
    /// Tensors that live at the same time.
    pub tensors: u64,
    /// Working memory of all threads, which stays with them.
    pub workspace: u64,
    /// The largest single buffer.
    pub largest_buffer: u64,
    /// How far the heap of tensors reaches, and the working memory.
    pub heap: u64,
}

impl Peak {
    pub fn bytes(self) -> u64 {
        self.tensors + self.workspace
    }
}

impl Tally {
    pub fn new(place: Place) -> Self {
        Self { place, counts: Rc::default() }
    }

    pub fn place(&self) -> Place {
        self.place
    }

    /// A tensor of f32 and of this shape, alive until its last clone is dropped.
    pub fn tensor(&self, dims: &[usize]) -> Outline {
        self.tensor_of(dims, F32 * dims.iter().product::<usize>() as u64)
    }

    /// Images of two bytes a value and two codes for each pixel.
    pub fn in_16_bits(&self, dims: &[usize]) -> Outline {
        let values = dims.iter().product::<usize>();
        let pixels = values / dims.last().copied().unwrap_or(1).max(1);
        self.tensor_of(dims, (2 * values + 16 * pixels) as u64)
    }

    /// The same of so many bytes.
    fn tensor_of(&self, dims: &[usize], bytes: u64) -> Outline {
        Outline { dims: dims.to_vec(), held: Rc::new(self.hold(bytes)) }
    }

    /// A tensor whose memory is counted elsewhere.
    pub fn view(&self, dims: &[usize]) -> Outline {
        Outline { dims: dims.to_vec(), held: Rc::new(self.hold(0)) }
    }

    /// Notes an operation's result in the graph that is being recorded, if one is.
    pub fn record(&self, made: &Outline, backward: impl Fn(&Outline, bool) -> Vec<Outline> + 'static) {
        if let Some(graph) = &mut self.counts.borrow_mut().graph {
            graph.push(Node { made: made.clone(), backward: Box::new(backward) });
        }
    }

    pub fn is_recording(&self) -> bool {
        self.counts.borrow().graph.is_some()
    }

    /// What `compute` returns, and the graph of its operations, in order.
    pub fn recorded<T>(&self, compute: impl FnOnce() -> T) -> (T, Vec<Node>) {
        self.counts.borrow_mut().graph = Some(Vec::new());
        let result = compute();
        let made = self.counts.borrow_mut().graph.take();
        (result, made.unwrap_or_default())
    }

    /// Bytes that live until what is returned is dropped.
    pub fn hold(&self, bytes: u64) -> Held {
        let bytes = self.place.rounded(bytes);
        let mut counts = self.counts.borrow_mut();
        counts.live += bytes;
        counts.peak = counts.peak.max(counts.live);
        counts.largest = counts.largest.max(bytes);
        let place = if bytes >= heap::LEAST_LARGE {
            counts.arena.take(bytes)
        } else {
            counts.small += bytes;
            counts.most_small = counts.most_small.max(counts.small);
            0
        };
        Held { bytes, place, tally: self.clone() }
    }

    /// Working memory of so many bytes for each thread, inside `depth` calls that have such themselves. A thread keeps what
    /// is no larger than `most_kept` for later calls.
    pub fn workspace(&self, depth: usize, bytes: u64, most_kept: u64) {
        if self.place.is_metal {
            return drop(self.hold(bytes));
        }
        if bytes > most_kept {
            return drop(self.hold(bytes * self.place.threads as u64));
        }
        let mut counts = self.counts.borrow_mut();
        if counts.kept.len() <= depth {
            counts.kept.resize(depth + 1, 0);
        }
        counts.kept[depth] = counts.kept[depth].max(bytes);
    }

    /// Bytes of the tensors that are alive.
    pub fn live(&self) -> u64 {
        self.counts.borrow().live
    }

    pub fn peak(&self) -> Peak {
        let counts = self.counts.borrow();
        let workspace = counts.kept.iter().sum::<u64>() * self.place.threads as u64;
        // Working memory lies apart from tensors, and small ones apart from large ones.
        let heap = counts.arena.highest() + counts.most_small + workspace;
        Peak { tensors: counts.peak, workspace, largest_buffer: counts.largest, heap }
    }
}

/// An allocation.
#[derive(Debug)]
#[must_use = "what is not kept is freed at once"]
pub struct Held {
    bytes: u64,
    /// In the heap.
    place: u64,
    tally: Tally,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.tally.counts.borrow_mut();
        counts.live -= self.bytes;
        match self.bytes {
            bytes if bytes >= heap::LEAST_LARGE => counts.arena.give(self.place, bytes),
            bytes => counts.small -= bytes,
        }
    }
}

/// A tensor without values. Clones and views share its memory.
#[derive(Debug, Clone)]
pub struct Outline {
    dims: Vec<usize>,
    held: Rc<Held>,
}

impl Outline {
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// The last axis, which is that of channels.
    pub fn channels(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// All axes but the last.
    pub fn rows(&self) -> usize {
        self.elements() / self.channels().max(1)
    }

    /// The tally it counts in.
    pub fn tally(&self) -> &Tally {
        &self.held.tally
    }

    /// A tensor of its own with another shape.
    pub fn new(&self, dims: &[usize]) -> Self {
        self.tally().tensor(dims)
    }

    /// A tensor of its own with the same shape.
    pub fn like(&self) -> Self {
        self.new(&self.dims)
    }

    /// A tensor of its own with another last axis.
    pub fn with_channels(&self, channels: usize) -> Self {
        let mut dims = self.dims.clone();
        if let Some(last) = dims.last_mut() {
            *last = channels;
        }
        self.new(&dims)
    }

    /// The same shape as [`Tally::in_16_bits`], itself if it is so already.
    pub fn in_16_bits(&self) -> Self {
        let is_so = self.held.bytes < F32 * self.elements() as u64;
        if is_so { self.clone() } else { self.tally().in_16_bits(&self.dims) }
    }

    /// The same memory under another shape.
    pub fn view(&self, dims: &[usize]) -> Self {
        Self { dims: dims.to_vec(), held: self.held.clone() }
    }

    /// Some photos of it, which lie along the first axis.
    pub fn photos(&self, count: usize) -> Self {
        let mut dims = self.dims.clone();
        if let Some(first) = dims.first_mut() {
            *first = count;
        }
        self.view(&dims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_what_lives_together() {
        let tally = Tally::new(Place::cpu(2));
        let one = tally.tensor(&[10, 5]);
        let view = one.view(&[50]);
        drop(one);
        let two = view.with_channels(100);
        assert_eq!(tally.live(), 200 + 400);
        drop(view);
        let three = two.like();
        drop((two, three));
        assert_eq!((tally.live(), tally.peak().tensors, tally.peak().largest_buffer), (0, 800, 400));
    }

    #[test]
    fn working_memory_stays_with_each_thread_unless_it_is_large() {
        let tally = Tally::new(Place::cpu(3));
        tally.workspace(0, 70, 100);
        tally.workspace(1, 10, 100);
        tally.workspace(0, 50, 100);
        assert_eq!((tally.peak().workspace, tally.peak().tensors), (240, 0));
        tally.workspace(0, 101, 100);
        assert_eq!((tally.peak().workspace, tally.peak().tensors), (240, 303));
    }

    #[test]
    fn metals_pool_hands_out_powers_of_two() {
        let tally = Tally::new(Place { threads: 4, is_metal: true });
        let _held = tally.hold(1000);
        tally.workspace(0, 100, 1000);
        assert_eq!((tally.live(), tally.peak().bytes()), (1024, 1024 + 128));
    }
}
