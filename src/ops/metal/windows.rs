//! Programs of operations with a sliding window: convolutions and pools.

use candle_core::Result;

use super::parameters::{Rows, Windows};
use super::program::{Factor, Place, Program};
use super::rows::{Finish, OuterProducts, product, slices};
use crate::ops::Activation;
use crate::ops::window::{Geometry, Window};

/// As in `kernels.metal`: outputs one thread of a depthwise kernel computes, and weights whose gradient it sums.
const PIXELS: usize = 4;
const TAPS: usize = 7;

/// Elements of the input and of a result with `channels`.
fn lengths(geometry: &Geometry, channels: usize) -> (usize, usize) {
    let Geometry { batch, height, width, out_height, out_width, .. } = *geometry;
    (batch * height * width * geometry.channels, batch * out_height * out_width * channels)
}

fn in_shape(geometry: &Geometry) -> [usize; 4] {
    [geometry.batch, geometry.height, geometry.width, geometry.channels]
}

fn out_shape(geometry: &Geometry, channels: usize) -> [usize; 4] {
    [geometry.batch, geometry.out_height, geometry.out_width, channels]
}

/// Inputs `x`, `weight` and `bias`.
pub fn depthwise(geometry: &Geometry, activation: Activation) -> Result<Program> {
    let Geometry { batch, channels, out_height, out_width, window, .. } = *geometry;
    let mut program = Program::default();
    let x = program.input(lengths(geometry, channels).0);
    let (weight, bias) = (program.input(window.kernel * window.kernel * channels), program.input(channels));
    let y = program.output(&out_shape(geometry, channels));
    let parameters = Windows { activation: activation as u32, ..Windows::over(geometry) };
    let grid = [channels, out_width.div_ceil(PIXELS), batch * out_height];
    program.launch("depthwise", parameters, grid, &[x.into(), weight.into(), bias.into()], &[y.into()]);
    program.finished()
}

/// Inputs `weight` and `g`.
pub fn depthwise_input_gradient(geometry: &Geometry) -> Result<Program> {
    let Geometry { batch, height, width, channels, window, .. } = *geometry;
    let mut program = Program::default();
    let weight = program.input(window.kernel * window.kernel * channels);
    let g = program.input(lengths(geometry, channels).1);
    let gx = program.output(&in_shape(geometry));
    let grid = [channels, width.div_ceil(PIXELS), batch * height];
    let parameters = Windows::over(geometry);
    program.launch("depthwise_input_gradient", parameters, grid, &[g.into(), weight.into()], &[gx.into()]);
    program.finished()
}

/// Inputs `x` and `g`.
pub fn depthwise_weight_gradient(geometry: &Geometry) -> Result<Program> {
    let Geometry { batch, out_height, channels, window: Window { kernel, .. }, .. } = *geometry;
    let mut program = Program::default();
    let (x_length, g_length) = lengths(geometry, channels);
    let (x, g) = (program.input(x_length), program.input(g_length));
    let gradient = program.output(&[kernel, kernel, channels]);
    let window_rows = kernel * kernel.div_ceil(TAPS);
    let slices = slices(batch * out_height, channels * window_rows);
    let partial = program.scratch(slices * kernel * kernel * channels);
    let parameters = Windows { slices: slices as u32, ..Windows::over(geometry) };
    let grid = [channels, window_rows, slices];
    program.launch("depthwise_weight_gradient", parameters, grid, &[x.into(), g.into()], &[partial.into()]);
    let weights = kernel * kernel * channels;
    let parameters = Rows { slices: slices as u32, ..Rows::new(1, weights) };
    program.launch("sum_slices", parameters, [weights, 1, 1], &[partial.into()], &[gradient.into()]);
    program.finished()
}

/// A dense convolution's output rows `(image · out_height + y)`, as many at a time as `max_bytes` of windows allow.
struct Chunks {
    geometry: Geometry,
    /// Elements of one window.
    depth: usize,
    rows: usize,
}

impl Chunks {
    fn new(geometry: &Geometry, outputs: usize, max_bytes: usize) -> Self {
        let Geometry { batch, out_height, out_width, channels, window, .. } = *geometry;
        let depth = window.kernel * window.kernel * channels;
        let row_bytes = out_width * (depth + outputs) * size_of::<f32>();
        let rows = (max_bytes / row_bytes.max(1)).clamp(1, (batch * out_height).max(1));
        Self { geometry: *geometry, depth, rows }
    }

    /// Output positions of a full chunk.
    fn positions(&self) -> usize {
        self.rows * self.geometry.out_width
    }

    /// First row and number of rows of each chunk.
    fn iter(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (all, rows) = (self.geometry.batch * self.geometry.out_height, self.rows);
        (0..all).step_by(rows).map(move |first| (first, rows.min(all - first)))
    }

    fn parameters(&self, first: usize, rows: usize) -> Windows {
        Windows { first_row: first as u32, rows: rows as u32, ..Windows::over(&self.geometry) }
    }

    fn gather(&self, program: &mut Program, (first, rows): (usize, usize), x: Place, windows: Place) {
        let Geometry { channels, out_width, window, .. } = self.geometry;
        let grid = [channels, window.kernel * window.kernel, rows * out_width];
        program.launch("gather_windows", self.parameters(first, rows), grid, &[x], &[windows]);
    }

    fn scatter(&self, program: &mut Program, (first, rows): (usize, usize), windows: Place, gx: Place) {
        let Geometry { channels, height, width, out_height, .. } = self.geometry;
        let images = (first + rows - 1) / out_height - first / out_height + 1;
        let grid = [channels, width, images * height];
        program.launch("scatter_windows", self.parameters(first, rows), grid, &[windows], &[gx]);
    }
}

/// Inputs `x`, `weight`, `bias` and, if it has one, `residual`.
pub fn conv(
    geometry: &Geometry,
    outputs: usize,
    activation: Activation,
    residual: bool,
    max_bytes: usize,
) -> Result<Program> {
    let chunks = Chunks::new(geometry, outputs, max_bytes);
    let (x_length, y_length) = lengths(geometry, outputs);
    let mut program = Program::default();
    let (x, weight) = (program.input(x_length), program.input(chunks.depth * outputs));
    let bias = program.input(outputs);
    let residual = residual.then(|| program.input(y_length));
    let y = program.output(&out_shape(geometry, outputs));
    let windows = program.scratch(chunks.positions() * chunks.depth);
    let result = program.scratch(chunks.positions() * outputs);
    for (first, rows) in chunks.iter() {
        let (positions, start) = (rows * geometry.out_width, first * geometry.out_width * outputs);
        chunks.gather(&mut program, (first, rows), x.into(), windows.into());
        let [left, right] = [windows, weight].map(Factor::plain);
        program.product(product([positions, outputs, chunks.depth], left, right, result));
        let finish = Finish { rows: positions, columns: outputs, activation };
        finish.launch(&mut program, result.into(), bias, residual.map(|slot| slot.at(start)), y.at(start));
    }
    program.finished()
}

/// Inputs `weight` and `g`.
pub fn conv_input_gradient(geometry: &Geometry, outputs: usize, max_bytes: usize) -> Result<Program> {
    let chunks = Chunks::new(geometry, outputs, max_bytes);
    let mut program = Program::default();
    let weight = program.input(chunks.depth * outputs);
    let g = program.input(lengths(geometry, outputs).1);
    let gx = program.output(&in_shape(geometry));
    let windows = program.scratch(chunks.positions() * chunks.depth);
    for (first, rows) in chunks.iter() {
        let (positions, start) = (rows * geometry.out_width, first * geometry.out_width * outputs);
        let (left, right) = (Factor::plain(g.at(start)), Factor::transposed(weight));
        program.product(product([positions, chunks.depth, outputs], left, right, windows));
        chunks.scatter(&mut program, (first, rows), windows.into(), gx.into());
    }
    program.finished()
}

/// Inputs `x` and `g`.
pub fn conv_weight_gradient(geometry: &Geometry, outputs: usize, max_bytes: usize) -> Result<Program> {
    let chunks = Chunks::new(geometry, outputs, max_bytes);
    let Window { kernel, .. } = geometry.window;
    let (x_length, g_length) = lengths(geometry, outputs);
    let mut program = Program::default();
    let (x, g) = (program.input(x_length), program.input(g_length));
    let gradient = program.output(&[kernel, kernel, geometry.channels, outputs]);
    let windows = program.scratch(chunks.positions() * chunks.depth);
    let sum = OuterProducts::new(&mut program, chunks.positions(), [chunks.depth, outputs]);
    for (first, rows) in chunks.iter() {
        let (positions, start) = (rows * geometry.out_width, first * geometry.out_width * outputs);
        chunks.gather(&mut program, (first, rows), x.into(), windows.into());
        let kernel = if first == 0 { "sum_slices" } else { "add_slices" };
        sum.launch(&mut program, positions, [windows.into(), g.at(start)], gradient, kernel);
    }
    program.finished()
}

/// Input `x`.
pub fn max_pool(geometry: &Geometry) -> Result<Program> {
    let Geometry { batch, channels, out_height, out_width, .. } = *geometry;
    let mut program = Program::default();
    let x = program.input(lengths(geometry, channels).0);
    let y = program.output(&out_shape(geometry, channels));
    let grid = [channels, out_width, batch * out_height];
    program.launch("max_pool", Windows::over(geometry), grid, &[x.into()], &[y.into()]);
    program.finished()
}

/// Inputs `x` and `g`.
pub fn max_pool_gradient(geometry: &Geometry) -> Result<Program> {
    let Geometry { batch, channels, height, width, .. } = *geometry;
    let mut program = Program::default();
    let (x_length, g_length) = lengths(geometry, channels);
    let (x, g) = (program.input(x_length), program.input(g_length));
    let gx = program.output(&in_shape(geometry));
    let grid = [channels, width, batch * height];
    program.launch("max_pool_gradient", Windows::over(geometry), grid, &[x.into(), g.into()], &[gx.into()]);
    program.finished()
}

/// Input `x` of shape `(batch, height, width, channels)`.
pub fn global_average_pool([batch, height, width, channels]: [usize; 4]) -> Result<Program> {
    let mut program = Program::default();
    let x = program.input(batch * height * width * channels);
    let y = program.output(&[batch, channels]);
    let parameters = image([batch, height, width, channels]);
    program.launch("global_average_pool", parameters, [channels, batch, 1], &[x.into()], &[y.into()]);
    program.finished()
}

/// Input `g`; the result has shape `(batch, height, width, channels)`.
pub fn global_average_pool_gradient([batch, height, width, channels]: [usize; 4]) -> Result<Program> {
    let mut program = Program::default();
    let g = program.input(batch * channels);
    let gx = program.output(&[batch, height, width, channels]);
    let parameters = image([batch, height, width, channels]);
    let grid = [channels, height * width, batch];
    program.launch("global_average_pool_gradient", parameters, grid, &[g.into()], &[gx.into()]);
    program.finished()
}

fn image([batch, height, width, channels]: [usize; 4]) -> Windows {
    let [batch, height, width, channels] = [batch, height, width, channels].map(|side| side as u32);
    Windows { batch, height, width, channels, ..Windows::default() }
}
