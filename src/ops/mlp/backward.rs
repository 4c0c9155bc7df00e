//! The sums of the gradients of an [`mlp`](super::mlp)'s layers over all rows.
//!
//! Each thread sums gradients of its own: over its share of the rows, or, where weights are larger than rows, over all rows
//! for its share of the wide columns. So sums depend on the number of threads, and on nothing else.

use std::mem::MaybeUninit;
use std::ops::Range;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::learning::{Layers, TILE_ROWS, WIDE, kept_share, of_columns, of_depth, shares};
use crate::ops::backward::{add, read};
use crate::ops::layer_norm::normalize;
use crate::ops::packed::{BLOCK, Line, PANEL, PackedMatrix, Rows, Start, Target, apart, lines, multiply_turned};
use crate::ops::{Activation, scratch, space, written};

#[derive(Debug, Clone, Copy)]
pub struct Shapes {
    pub rows: usize,
    pub channels: usize,
    pub hidden: usize,
}

/// Gradients summed over rows, and those of the rows themselves.
pub struct Sums {
    /// Of the normalised rows: `(rows, channels)`.
    pub normed: Vec<f32>,
    /// `(channels, hidden)`.
    pub expand: Vec<f32>,
    pub hidden_bias: Vec<f32>,
    /// `(hidden, channels)`, without the scale.
    pub project: Vec<f32>,
}

/// The same as memory that parts of a pass fill.
struct Space {
    expand: Vec<MaybeUninit<f32>>,
    hidden_bias: Vec<f32>,
    project: Vec<MaybeUninit<f32>>,
}

impl Space {
    fn new(channels: usize, hidden: usize) -> Self {
        Self { expand: space(channels * hidden), hidden_bias: vec![0.0; hidden], project: space(hidden * channels) }
    }

    /// # Safety
    /// All of it, and of `normed`, must have been written.
    unsafe fn written(self, normed: Vec<MaybeUninit<f32>>) -> Sums {
        let Self { expand, hidden_bias, project } = self;
        // SAFETY: the caller's promise.
        unsafe { Sums { normed: written(normed), expand: written(expand), hidden_bias, project: written(project) } }
    }
}

/// What each thread reads.
struct Pass<'a> {
    shapes: Shapes,
    epsilon: f32,
    activation: Activation,
    x: &'a [f32],
    norm: [&'a [f32]; 2],
    upstream: &'a [f32],
    /// The wide rows before their activation, or what computes them: the expanding layer.
    wide: Wide<'a>,
    /// `(channels, hidden)`: the narrowing weight with its scale, transposed.
    project_back: &'a PackedMatrix,
    /// `(hidden, channels)`: the expanding weight, transposed.
    expand_back: &'a PackedMatrix,
    /// As many as either weight has panels.
    zeros: &'a [Line],
}

#[derive(Clone, Copy)]
enum Wide<'a> {
    Kept(&'a [f32]),
    Again(&'a PackedMatrix, &'a [Line]),
}

/// What one thread computes: gradients of some rows, at least one, through some wide columns.
struct Part<'a> {
    rows: Range<usize>,
    hidden: Range<usize>,
    /// Of these rows.
    normed: &'a mut [MaybeUninit<f32>],
    /// All channels by these columns.
    expand: Target<'a>,
    /// Zeros.
    hidden_bias: &'a mut [f32],
    /// These columns' rows.
    project: &'a mut [MaybeUninit<f32>],
}

/// Sums the gradients of all rows.
pub fn sum_gradients(
    x: &Tensor,
    layers: &Layers,
    wide: Option<&Tensor>,
    upstream: &Tensor,
    shapes: Shapes,
) -> Result<Sums> {
    let Shapes { rows, channels, hidden } = shapes;
    let (expand, expand_back) = read(layers.expand, |[expand, bias]| {
        let again = wide.is_none().then(|| (PackedMatrix::scaled(expand, hidden, None), lines(bias)));
        Ok((again, PackedMatrix::turned(expand, hidden, None)))
    })?;
    let project_back = layers.with_scale(|project, scale| PackedMatrix::turned(project, channels, scale))?;
    let zeros = lines(&vec![0.0; channels.max(hidden)]);
    let kept = wide.unwrap_or(x);
    read([x, upstream, layers.norm[0], layers.norm[1], kept], |[x, upstream, weight, shift, kept]| {
        let pass = Pass {
            shapes,
            epsilon: layers.epsilon,
            activation: layers.activation,
            x,
            norm: [weight, shift],
            upstream,
            wide: expand.as_ref().map_or(Wide::Kept(kept), |(weight, bias)| Wide::Again(weight, bias)),
            project_back: &project_back,
            expand_back: &expand_back,
            zeros: &zeros,
        };
        // Whatever each thread has of its own is added up: the smaller of the two.
        Ok(if rows > 8 * channels { pass.by_rows() } else { pass.by_columns() })
    })
}

impl Pass<'_> {
    fn by_rows(&self) -> Sums {
        let Shapes { rows, channels, hidden } = self.shapes;
        let share = rows.div_ceil(rayon::current_num_threads()).max(1);
        let mut normed = space(rows * channels);
        let parts = normed.par_chunks_mut(share * channels).enumerate().map(|(index, normed)| {
            let (first, mut own) = (index * share, Space::new(channels, hidden));
            self.fill(Part {
                rows: first..first + normed.len() / channels,
                hidden: 0..hidden,
                normed,
                expand: Target::new(&mut own.expand, hidden),
                hidden_bias: &mut own.hidden_bias,
                project: &mut own.project,
            });
            // SAFETY: a part fills all it is given.
            unsafe { own.written(Vec::new()) }
        });
        let sums = parts.collect::<Vec<_>>().into_iter().reduce(|mut sums, part| {
            add_all(&mut sums.expand, &part.expand);
            add_all(&mut sums.hidden_bias, &part.hidden_bias);
            add_all(&mut sums.project, &part.project);
            sums
        });
        // SAFETY: the parts have filled it.
        let normed = unsafe { written(normed) };
        Sums { normed, ..sums.expect("there is a row") }
    }

    fn by_columns(&self) -> Sums {
        let Shapes { rows, channels, hidden } = self.shapes;
        // Also whole blocks of the depth of the narrowing layer.
        let share = hidden.div_ceil(rayon::current_num_threads()).next_multiple_of(BLOCK);
        let mut whole = Space::new(channels, hidden);
        let mut normed: Vec<_> = (0..hidden.div_ceil(share)).map(|_| space(rows * channels)).collect();
        let mut parts = Vec::new();
        let mut expand = Target::new(&mut whole.expand, hidden);
        let wide = whole.hidden_bias.chunks_mut(share).zip(whole.project.chunks_mut(share * channels));
        for (index, (normed, (hidden_bias, project))) in normed.iter_mut().zip(wide).enumerate() {
            let (columns, rest) = expand.split_at_column(share);
            expand = rest;
            let hidden = index * share..index * share + hidden_bias.len();
            parts.push(Part { rows: 0..rows, hidden, normed, expand: columns, hidden_bias, project });
        }
        parts.into_par_iter().for_each(|part| self.fill(part));
        let others = normed.split_off(1);
        // SAFETY: the parts have filled all of it, and are all wide columns.
        unsafe {
            let mut sums = whole.written(normed.pop().expect("there is a wide column"));
            others.into_iter().for_each(|other| add_all(&mut sums.normed, &written(other)));
            sums
        }
    }

    /// Computes a part, tile by tile.
    fn fill(&self, mut part: Part) {
        let Shapes { rows: all_rows, channels, hidden } = self.shapes;
        let (normed_stride, wide_stride) = (apart(channels), apart(WIDE));
        let (mut upstream_panels, mut wide_panels) = (PackedMatrix::empty(), PackedMatrix::empty());
        for first in part.rows.clone().step_by(TILE_ROWS) {
            let rows = first..part.rows.end.min(first + TILE_ROWS);
            let count = rows.len();
            let values = rows.start * channels..rows.end * channels;
            let upstream = &self.upstream[values.clone()];
            let of_normed = &mut part.normed[(first - part.rows.start) * channels..][..count * channels];
            upstream_panels.refill(upstream, channels, count, channels);
            scratch::with(count * (normed_stride + 3 * wide_stride), |space| {
                let (normed, space) = space.split_at_mut(count * normed_stride);
                let (again, space) = space.split_at_mut(count * wide_stride);
                let (active, slopes) = space.split_at_mut(count * wide_stride);
                self.normalize(&self.x[values], normed, normed_stride);
                let normed_rows = strided(normed, count, channels, normed_stride);
                for share in shares(part.hidden.clone()) {
                    let (width, own) = (share.len(), share.start - part.hidden.start..share.end - part.hidden.start);
                    // The wide rows before the activation.
                    let (wide, stride) = match self.wide {
                        Wide::Kept(kept) => kept_share(kept, first, all_rows, &share),
                        Wide::Again(expand, bias) => {
                            let target = Target::holding(again, wide_stride).into_columns(0..width);
                            of_columns(normed_rows, expand, &share, Start::Bias(bias)).write(target);
                            (&*again, wide_stride)
                        }
                    };
                    // The gradients of the active rows, which become those of the wide ones.
                    let target = Target::holding(slopes, wide_stride).into_columns(0..width);
                    let upstream = Rows::dense(upstream, count, channels);
                    of_columns(upstream, self.project_back, &share, self.zeros(hidden)).write(target);
                    let of_bias = &mut part.hidden_bias[own.clone()];
                    let gradients = active.chunks_exact_mut(wide_stride).zip(slopes.chunks_exact_mut(wide_stride));
                    vectorized!(|| {
                        for (wide, (active, slopes)) in wide.chunks(stride).zip(gradients) {
                            let (active, slopes) = (&mut active[..width], &mut slopes[..width]);
                            self.activation.apply_with_slope_inlined(&wide[..width], active, slopes);
                            add(of_bias, slopes);
                        }
                    });
                    let mut target = Target::new(&mut part.project[own.start * channels..own.end * channels], channels);
                    target.holds_values = first > part.rows.start;
                    multiply_turned(active, wide_stride, &upstream_panels, target);
                    wide_panels.refill(slopes, wide_stride, count, width);
                    let mut target = part.expand.columns(own);
                    target.holds_values = first > part.rows.start;
                    multiply_turned(normed, normed_stride, &wide_panels, target);
                    let wide = strided(slopes, count, width, wide_stride);
                    let (mut target, begins) = (Target::new(of_normed, channels), share.start == part.hidden.start);
                    target.holds_values = !begins;
                    let start = if begins { self.zeros(channels) } else { Start::Result };
                    of_depth(wide, self.expand_back, &share, start).write(target);
                }
            });
        }
    }

    /// Sums over a weight of so many columns begin with nothing.
    fn zeros(&self, columns: usize) -> Start<'_> {
        Start::Bias(&self.zeros[..columns.div_ceil(PANEL)])
    }

    fn normalize(&self, values: &[f32], normed: &mut [f32], stride: usize) {
        let channels = self.shapes.channels;
        let [weight, shift] = self.norm;
        vectorized!(|| {
            for (normed, values) in normed.chunks_exact_mut(stride).zip(values.chunks_exact(channels)) {
                normed[..channels].copy_from_slice(values);
                normalize(&mut normed[..channels], weight, shift, self.epsilon);
            }
        });
    }
}

/// `sums += values`, in parallel.
fn add_all(sums: &mut [f32], values: &[f32]) {
    const CHUNK: usize = 16 << 10;
    sums.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK)).for_each(|(sums, values)| {
        vectorized!(|| add(sums, values));
    });
}

/// `count` rows of `length` values, `stride` apart.
fn strided(elements: &[f32], count: usize, length: usize, stride: usize) -> Rows<'_> {
    Rows { row_stride: stride, ..Rows::dense(elements, count, length) }
}
