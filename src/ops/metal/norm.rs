//! Programs of layer norm and of ConvNeXt's block of norm and two linear layers.

use candle_core::Result;

use super::parameters::Rows;
use super::program::{Factor, Place, Program, Slot};
use super::rows::{Finish, product, slices};
use crate::ops::Activation;

/// Values of a row that one thread sums.
const LANE_LENGTH: usize = 16;
const MAX_LANES: usize = 32;

fn parameters(rows: usize, channels: usize, epsilon: f32) -> Rows {
    let lanes = channels.div_ceil(LANE_LENGTH).min(MAX_LANES);
    Rows { lanes: lanes as u32, epsilon, ..Rows::new(rows, channels) }
}

/// Inputs `x`, `weight` and `bias`.
pub fn layer_norm(rows: usize, channels: usize, epsilon: f32) -> Result<Program> {
    let mut program = Program::default();
    let x = program.input(rows * channels);
    let (weight, bias) = (program.input(channels), program.input(channels));
    let y = program.output(&[rows, channels]);
    let parameters = parameters(rows, channels, epsilon);
    let moments = moments(&mut program, parameters, x.into());
    normalize(&mut program, parameters, [x.into(), moments.into(), weight.into(), bias.into()], y.into());
    program.finished()
}

/// The gradient of the input; inputs `x`, `weight` and `g`.
pub fn layer_norm_input_gradient(rows: usize, channels: usize, epsilon: f32) -> Result<Program> {
    let mut program = Program::default();
    let (x, weight) = (program.input(rows * channels), program.input(channels));
    let g = program.input(rows * channels);
    let gx = program.output(&[rows, channels]);
    let parameters = parameters(rows, channels, epsilon);
    let lanes = parameters.lanes as usize;
    let moments = moments(&mut program, parameters, x.into());
    let (partial, sums) = (program.scratch(rows * lanes * 2), program.scratch(rows * 2));
    let [x, g, weight, moments] = [x, g, weight, moments].map(Place::from);
    program.launch("layer_norm_lane_sums", parameters, [lanes, rows, 1], &[x, g, weight, moments], &[partial.into()]);
    program.launch("sum_lanes", parameters, [rows, 1, 1], &[partial.into()], &[sums.into()]);
    let reads = [x, g, weight, moments, sums.into()];
    program.launch("layer_norm_input_gradient", parameters, [channels, rows, 1], &reads, &[gx.into()]);
    program.finished()
}

/// The gradient of the weight; inputs `x` and `g`. The bias's is the sum of `g` over rows.
pub fn layer_norm_weight_gradient(rows: usize, channels: usize, epsilon: f32) -> Result<Program> {
    let mut program = Program::default();
    let (x, g) = (program.input(rows * channels), program.input(rows * channels));
    let gradient = program.output(&[channels]);
    let slices = slices(rows, channels);
    let parameters = Rows { slices: slices as u32, ..parameters(rows, channels, epsilon) };
    let moments = moments(&mut program, parameters, x.into());
    let partial = program.scratch(slices * channels);
    let reads = [x.into(), g.into(), moments.into()];
    program.launch("layer_norm_weight_gradient", parameters, [channels, slices, 1], &reads, &[partial.into()]);
    program.launch("sum_slices", parameters, [channels, 1, 1], &[partial.into()], &[gradient.into()]);
    program.finished()
}

/// `residual + project(activation(expand(layer norm(x))))`, the wide rows between the layers within `max_bytes`.
///
/// Inputs `x`, `residual`, and weight and bias of norm, widening and narrowing layer.
pub fn mlp(
    [rows, channels, hidden]: [usize; 3],
    activation: Activation,
    epsilon: f32,
    max_bytes: usize,
) -> Result<Program> {
    let mut program = Program::default();
    let (x, residual) = (program.input(rows * channels), program.input(rows * channels));
    let (norm, norm_bias) = (program.input(channels), program.input(channels));
    let (expand, expand_bias) = (program.input(channels * hidden), program.input(hidden));
    let (project, project_bias) = (program.input(hidden * channels), program.input(channels));
    let y = program.output(&[rows, channels]);
    let tile = (max_bytes / size_of::<f32>() / (channels + hidden).max(1)).clamp(1, rows.max(1));
    // The normalized rows and, when they have been used, the narrow product.
    let (narrow, wide) = (program.scratch(tile * channels), program.scratch(tile * hidden));
    let lanes = parameters(tile, channels, epsilon).lanes as usize;
    let (partial, moments) = (program.scratch(tile * lanes * 2), program.scratch(tile * 2));
    for first in (0..rows).step_by(tile) {
        let (rows, start) = (tile.min(rows - first), first * channels);
        let parameters = parameters(rows, channels, epsilon);
        moments_into(&mut program, parameters, x.at(start), partial, moments);
        let reads = [x.at(start), moments.into(), norm.into(), norm_bias.into()];
        normalize(&mut program, parameters, reads, narrow.into());
        program.product(product([rows, hidden, channels], Factor::plain(narrow), Factor::plain(expand), wide));
        let finish = Finish { rows, columns: hidden, activation };
        finish.launch(&mut program, wide.into(), expand_bias, None, wide.into());
        program.product(product([rows, channels, hidden], Factor::plain(wide), Factor::plain(project), narrow));
        let finish = Finish { rows, columns: channels, activation: Activation::None };
        finish.launch(&mut program, narrow.into(), project_bias, Some(residual.at(start)), y.at(start));
    }
    program.finished()
}

/// Mean and scale of each row, `(rows, 2)`.
fn moments(program: &mut Program, parameters: Rows, x: Place) -> Slot {
    let (rows, lanes) = (parameters.rows as usize, parameters.lanes as usize);
    let (partial, moments) = (program.scratch(rows * lanes * 2), program.scratch(rows * 2));
    moments_into(program, parameters, x, partial, moments);
    moments
}

fn moments_into(program: &mut Program, parameters: Rows, x: Place, partial: Slot, moments: Slot) {
    let (rows, lanes) = (parameters.rows as usize, parameters.lanes as usize);
    program.launch("lane_moments", parameters, [lanes, rows, 1], &[x], &[partial.into()]);
    program.launch("row_moments", parameters, [rows, 1, 1], &[partial.into()], &[moments.into()]);
}

/// `reads` are the rows, their moments, weight and bias.
fn normalize(program: &mut Program, parameters: Rows, reads: [Place; 4], y: Place) {
    let grid = [parameters.columns as usize, parameters.rows as usize, 1];
    program.launch("layer_norm", parameters, grid, &reads, &[y]);
}
