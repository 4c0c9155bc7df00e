//! Programs of operations on rows: linear layers, activations, layer norm, and sums over rows.

use candle_core::Result;

use super::parameters::Rows;
use super::program::{Factor, Place, Product, Program, Slot};
use crate::ops::Activation;

/// Threads that keep a GPU busy: sums are split until there are about as many.
const BUSY_THREADS: usize = 1 << 15;

/// Into how many slices a sum over `rows` is split when each slice has `threads`.
pub(super) fn slices(rows: usize, threads: usize) -> usize {
    BUSY_THREADS.div_ceil(threads.max(1)).clamp(1, rows.max(1))
}

/// `activation(x · weight + bias + residual)`; inputs `x`, `weight`, `bias` and, if it has one, `residual`.
pub fn linear(rows: usize, inputs: usize, outputs: usize, activation: Activation, residual: bool) -> Result<Program> {
    let mut program = Program::default();
    let (x, weight) = (program.input(rows * inputs), program.input(inputs * outputs));
    let bias = program.input(outputs);
    let residual = residual.then(|| program.input(rows * outputs));
    let y = program.output(&[rows, outputs]);
    program.product(product([rows, outputs, inputs], Factor::plain(x), Factor::plain(weight), y));
    let finish = Finish { rows, columns: outputs, activation };
    finish.launch(&mut program, y.into(), bias, residual.map(Place::from), y.into());
    program.finished()
}

/// `g · weightᵀ`; inputs `g` and `weight`.
pub fn linear_input_gradient(rows: usize, inputs: usize, outputs: usize) -> Result<Program> {
    let mut program = Program::default();
    let (g, weight) = (program.input(rows * outputs), program.input(inputs * outputs));
    let gx = program.output(&[rows, inputs]);
    program.product(product([rows, inputs, outputs], Factor::plain(g), Factor::transposed(weight), gx));
    program.finished()
}

/// `xᵀ · g`; inputs `x` and `g`.
pub fn linear_weight_gradient(rows: usize, inputs: usize, outputs: usize) -> Result<Program> {
    let mut program = Program::default();
    let (x, g) = (program.input(rows * inputs), program.input(rows * outputs));
    let gradient = program.output(&[inputs, outputs]);
    let sum = OuterProducts::new(&mut program, rows, [inputs, outputs]);
    sum.launch(&mut program, rows, [x.into(), g.into()], gradient, "sum_slices");
    program.finished()
}

/// `xᵀ · g` over many rows: a product with few results that is very deep, which would leave most of a GPU idle. It is
/// cut into parts, which are added in their order.
pub(super) struct OuterProducts {
    sides: [usize; 2],
    max_parts: usize,
    partial: Slot,
}

impl OuterProducts {
    /// For up to `max_rows` rows, to sum a matrix of `sides`.
    pub fn new(program: &mut Program, max_rows: usize, sides: [usize; 2]) -> Self {
        const MAX_PARTS: usize = 32;
        const MAX_ELEMENTS: usize = 1 << 20;
        let elements = sides[0] * sides[1];
        let max_parts = (MAX_ELEMENTS / elements.max(1)).clamp(1, MAX_PARTS).min(max_rows);
        Self { sides, max_parts, partial: program.scratch(max_parts * elements) }
    }

    /// Sums into `gradient` by `kernel`: `sum_slices` sets it, `add_slices` adds to it.
    pub fn launch(&self, program: &mut Program, rows: usize, [x, g]: [Place; 2], gradient: Slot, kernel: &'static str) {
        let [inputs, outputs] = self.sides;
        let parts = self.parts(rows);
        let depth = rows / parts;
        let left = Factor { part_stride: depth * inputs, ..Factor::transposed(x) };
        let right = Factor { part_stride: depth * outputs, ..Factor::plain(g) };
        program.product(Product { parts, rows: inputs, columns: outputs, depth, left, right, result: self.partial });
        let parameters = Rows { slices: parts as u32, ..Rows::new(1, inputs * outputs) };
        program.launch(kernel, parameters, [inputs * outputs, 1, 1], &[self.partial.into()], &[gradient.into()]);
    }

    /// The most parts of equal and worthwhile depth.
    fn parts(&self, rows: usize) -> usize {
        const MIN_DEPTH: usize = 256;
        let fits = |parts: &usize| rows.is_multiple_of(*parts) && rows / parts >= MIN_DEPTH;
        (1..=self.max_parts).rev().find(fits).unwrap_or(1)
    }
}

/// The sum over rows; input `g`.
pub fn bias_gradient(rows: usize, columns: usize) -> Result<Program> {
    let mut program = Program::default();
    let g = program.input(rows * columns);
    let gradient = program.output(&[columns]);
    let slices = slices(rows, columns);
    let parameters = Rows { slices: slices as u32, ..Rows::new(rows, columns) };
    let partial = program.scratch(slices * columns);
    program.launch("column_sums", parameters, [columns, slices, 1], &[g.into()], &[partial.into()]);
    program.launch("sum_slices", parameters, [columns, 1, 1], &[partial.into()], &[gradient.into()]);
    program.finished()
}

/// Input `x`.
pub fn activation(rows: usize, columns: usize, activation: Activation) -> Result<Program> {
    let mut program = Program::default();
    let x = program.input(rows * columns);
    let y = program.output(&[rows, columns]);
    let parameters = Rows { activation: activation as u32, ..Rows::new(rows, columns) };
    program.launch("activation", parameters, [columns, rows, 1], &[x.into()], &[y.into()]);
    program.finished()
}

/// The gradient of an activation's argument; inputs `x`, that argument, and `g`.
pub fn activation_gradient(rows: usize, columns: usize, activation: Activation) -> Result<Program> {
    let mut program = Program::default();
    let (x, g) = (program.input(rows * columns), program.input(rows * columns));
    let gx = program.output(&[rows, columns]);
    let parameters = Rows { activation: activation as u32, ..Rows::new(rows, columns) };
    program.launch("activation_gradient", parameters, [columns, rows, 1], &[x.into(), g.into()], &[gx.into()]);
    program.finished()
}

/// What is done to a product's rows: `activation(product + bias + residual)`.
pub(super) struct Finish {
    pub rows: usize,
    pub columns: usize,
    pub activation: Activation,
}

impl Finish {
    pub fn launch(&self, program: &mut Program, product: Place, bias: Slot, residual: Option<Place>, result: Place) {
        let parameters = Rows {
            activation: self.activation as u32,
            has_residual: u32::from(residual.is_some()),
            ..Rows::new(self.rows, self.columns)
        };
        // Every buffer of a kernel must be given: a residual that is not there is not read.
        let reads = [product, bias.into(), residual.unwrap_or(product)];
        program.launch("bias_activation", parameters, [self.columns, self.rows, 1], &reads, &[result]);
    }
}

/// A single product of `(rows, columns, depth)`.
pub(super) fn product([rows, columns, depth]: [usize; 3], left: Factor, right: Factor, result: Slot) -> Product {
    Product { parts: 1, rows, columns, depth, left, right, result }
}
