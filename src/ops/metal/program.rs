//! An operation on Metal as data: which buffers it needs, and the kernels and matrix products that fill them, in order.
//!
//! Programs are made on every system, so that tests can run them where there is no Metal.

use candle_core::Result;

/// Positions in a buffer are 32 bits wide, in kernels (unsigned) and in candle's matrix product (signed).
const MAX_ELEMENTS: usize = i32::MAX as usize;

/// A buffer of a program, all f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    Input(usize),
    Output,
    Scratch(usize),
}

/// A buffer from one of its elements on.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub slot: Slot,
    pub offset: usize,
}

impl Slot {
    pub fn at(self, offset: usize) -> Place {
        Place { slot: self, offset }
    }
}

impl From<Slot> for Place {
    fn from(slot: Slot) -> Self {
        slot.at(0)
    }
}

/// One kernel over a grid of threads. Its buffers are its parameters, `reads` and `writes`, in this order.
#[derive(Debug, Clone)]
pub struct Launch {
    pub kernel: &'static str,
    pub parameters: Vec<u32>,
    pub grid: [usize; 3],
    pub reads: Vec<Place>,
    pub writes: Vec<Place>,
}

/// A factor of a matrix product: row-major and contiguous, or the transpose of such a matrix.
#[derive(Debug, Clone, Copy)]
pub struct Factor {
    pub place: Place,
    pub transposed: bool,
    /// Elements from one part's factor to the next part's.
    pub part_stride: usize,
}

impl Factor {
    pub fn plain(place: impl Into<Place>) -> Self {
        Self { place: place.into(), transposed: false, part_stride: 0 }
    }

    pub fn transposed(place: impl Into<Place>) -> Self {
        Self { transposed: true, ..Self::plain(place) }
    }
}

/// `parts` products `(rows, depth) · (depth, columns)`, written one after the other from the result's beginning.
#[derive(Debug, Clone)]
pub struct Product {
    pub parts: usize,
    pub rows: usize,
    pub columns: usize,
    pub depth: usize,
    pub left: Factor,
    pub right: Factor,
    /// The product's kernel knows no offset into its result.
    pub result: Slot,
}

#[derive(Debug, Clone)]
pub enum Step {
    Launch(Launch),
    Product(Product),
}

/// Steps and the lengths of their buffers.
#[derive(Debug, Clone, Default)]
pub struct Program {
    pub inputs: Vec<usize>,
    /// The shape of the result.
    pub output: Vec<usize>,
    pub scratch: Vec<usize>,
    pub steps: Vec<Step>,
}

impl Program {
    pub fn input(&mut self, length: usize) -> Slot {
        self.inputs.push(length);
        Slot::Input(self.inputs.len() - 1)
    }

    pub fn output(&mut self, shape: &[usize]) -> Slot {
        self.output = shape.to_vec();
        Slot::Output
    }

    pub fn scratch(&mut self, length: usize) -> Slot {
        self.scratch.push(length);
        Slot::Scratch(self.scratch.len() - 1)
    }

    pub fn launch(
        &mut self,
        kernel: &'static str,
        parameters: impl Into<Vec<u32>>,
        grid: [usize; 3],
        reads: &[Place],
        writes: &[Place],
    ) {
        let parameters = parameters.into();
        self.steps.push(Step::Launch(Launch {
            kernel,
            parameters,
            grid,
            reads: reads.to_vec(),
            writes: writes.to_vec(),
        }));
    }

    pub fn product(&mut self, product: Product) {
        self.steps.push(Step::Product(product));
    }

    /// The program, when every buffer and grid is neither empty nor too long for 32-bit positions.
    pub fn finished(self) -> Result<Self> {
        let mut lengths = self.inputs.iter().chain(&self.scratch).copied().chain([self.output.iter().product()]);
        if lengths.any(|length: usize| length == 0 || length > MAX_ELEMENTS) {
            candle_core::bail!(
                "a tensor is empty or has more than {MAX_ELEMENTS} elements, too many for a Metal kernel"
            );
        }
        let fits = |step: &Step| match step {
            Step::Launch(launch) => launch.grid.iter().all(|&side| side > 0 && side <= MAX_ELEMENTS),
            Step::Product(product) => product.depth > 0,
        };
        if !self.steps.iter().all(fits) {
            candle_core::bail!("a Metal kernel was given an empty or a too large grid");
        }
        Ok(self)
    }
}
