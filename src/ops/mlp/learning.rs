//! [`mlp`](super::mlp) while it trains: forward keeps the wide rows or nothing at all, and backward goes through all layers
//! tile by tile, while a tile is in the cache.

use std::ops::Range;

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::backward::{Shapes, Sums, sum_gradients};
use crate::ops::backward::{add, column_sums, read, rows_per_task, sum_in_order};
use crate::ops::layer_norm::{self, normalize};
use crate::ops::packed::{self, PackedMatrix, Product, Rows, Start, Target, Unit, lines};
use crate::ops::{Activation, scratch, space, work, written};

/// Rows computed together, at most.
pub const TILE_ROWS: usize = 224;
/// Wide columns computed at a time: enough to keep the kernels busy, few enough to stay in the cache beside the tile. As many
/// as [`packed::mlp`] takes, so that results are equal bit by bit whether wide rows are kept or not.
pub const WIDE: usize = 16 * packed::PANEL;

/// The layers of [`forward`]: plain f32 tensors on the CPU, contiguous.
#[derive(Clone, Copy)]
pub struct Layers<'a> {
    /// Layer norm: `(channels)` both.
    pub norm: [&'a Tensor; 2],
    pub epsilon: f32,
    /// `(channels, hidden)` and `(hidden)`.
    pub expand: [&'a Tensor; 2],
    pub activation: Activation,
    /// `(hidden, channels)` and `(channels)`.
    pub project: [&'a Tensor; 2],
    /// What the narrow rows are multiplied by, if by anything: `(channels)`.
    pub scale: Option<&'a Tensor>,
}

/// The gradients of what [`forward`] was given, but for the residual, whose gradient is the result's own.
pub struct Gradients {
    pub x: Tensor,
    pub norm: [Tensor; 2],
    pub expand: [Tensor; 2],
    pub project: [Tensor; 2],
    pub scale: Option<Tensor>,
}

/// `residual + scale · project(activation(expand(layer norm(x))))`, and the wide rows before the activation when they are
/// kept for [`backward`]: `rows · hidden` values, in the order of [`kept_share`].
///
/// `x`, `residual` and the result have shape `(…, channels)`.
pub fn forward(x: &Tensor, layers: &Layers, residual: &Tensor, keeps: bool) -> Result<(Tensor, Option<Tensor>)> {
    let (channels, hidden) = layers.check(x)?;
    let Layers { norm, epsilon, activation, .. } = *layers;
    let (expand, project) = layers.packed()?;
    let bias = layers.project[1].detach();
    let bias = if let Some(scale) = layers.scale { (bias * scale.detach())? } else { bias };
    if !keeps {
        let norm = &(norm[0].detach(), norm[1].detach());
        let expand = (&expand, layers.expand[1]);
        let layers = packed::Mlp { norm, epsilon, expand, activation, project: (&project, &bias) };
        return Ok((packed::mlp(x, &layers, residual)?, None));
    }
    let rows = x.elem_count() / channels;
    work::product(2 * rows, channels, hidden);
    let tensors = [x, residual, norm[0], norm[1], layers.expand[1], &bias];
    read(tensors, |[values, residual, norm, shift, hidden_bias, bias]| {
        let hidden_bias = lines(hidden_bias);
        let (mut result, mut wide) = (space(rows * channels), space(rows * hidden));
        let tile = packed::tile_rows(rows, TILE_ROWS);
        // The rows of each tile in every block of columns.
        let mut kept: Vec<_> = (0..rows.div_ceil(tile)).map(|_| Vec::new()).collect();
        for block in wide.chunks_mut(rows * WIDE) {
            let width = block.len() / rows;
            kept.iter_mut().zip(block.chunks_mut(tile * width)).for_each(|(kept, rows)| kept.push(rows));
        }
        let tiles = result.par_chunks_mut(tile * channels).zip(kept);
        let inputs = values.par_chunks(tile * channels).zip(residual.par_chunks(tile * channels));
        tiles.zip(inputs).for_each(|((sums, kept), (values, residual))| {
            let rows = values.len() / channels;
            let sums = sums.write_copy_of_slice(residual);
            scratch::with(rows * (channels + WIDE), |space| {
                let (normed, active) = space.split_at_mut(rows * channels);
                normed.copy_from_slice(values);
                vectorized!(|| {
                    sums.chunks_exact_mut(channels).for_each(|row| add(row, bias));
                    normed.chunks_exact_mut(channels).for_each(|row| normalize(row, norm, shift, epsilon));
                });
                let normed = Rows::dense(normed, rows, channels);
                for (share, wide) in shares(0..hidden).zip(kept) {
                    let width = share.len();
                    of_columns(normed, &expand, &share, Start::Bias(&hidden_bias)).write(Target::new(wide, width));
                    let active = &mut active[..rows * width];
                    // SAFETY: the product has written them all.
                    let wide = unsafe { wide.assume_init_ref() };
                    vectorized!(|| {
                        for (active, wide) in active.chunks_exact_mut(width).zip(wide.chunks_exact(width)) {
                            active.copy_from_slice(wide);
                            activation.apply_inlined(active);
                        }
                    });
                    let active = Rows::dense(active, rows, width);
                    of_depth(active, &project, &share, Start::Result).write(Target::holding(sums, channels));
                }
            });
        });
        // SAFETY: the tiles are all of both, and each tile writes its result and all its wide columns.
        let (result, wide) = unsafe { (written(result), written(wide)) };
        let wide = Tensor::from_vec(wide, rows * hidden, &Device::Cpu)?;
        Ok((Tensor::from_vec(result, x.shape(), &Device::Cpu)?, Some(wide)))
    })
}

/// All gradients, given that of the result. `wide` is what [`forward`] kept; without it, it is computed again.
pub fn backward(x: &Tensor, layers: &Layers, wide: Option<&Tensor>, upstream: &Tensor) -> Result<Gradients> {
    let (channels, hidden) = layers.check(x)?;
    let (rows, upstream) = (x.elem_count() / channels, upstream.contiguous()?);
    let shapes = Shapes { rows, channels, hidden };
    let Sums { mut normed, expand, hidden_bias, mut project } = sum_gradients(x, layers, wide, &upstream, shapes)?;
    let norm = read([x, layers.norm[0]], |[inputs, weights]| {
        Ok(layer_norm::rows_backward(&mut normed, inputs, weights, layers.epsilon))
    })?;
    let tensor = |values: Vec<f32>, like: &Tensor| Tensor::from_vec(values, like.shape(), &Device::Cpu);
    let mut bias = read([&upstream], |[upstream]| Ok(column_sums(upstream, channels)))?;
    let of_scale = |scale: &Tensor| {
        // `project` is without the scale so far, which makes the scale's own gradient a sum over the weights: what scales
        // a column of the result scales that column of the weight.
        read([layers.project[0], layers.project[1], scale], |[weights, biases, scales]| {
            let mut of_scale = scale_gradient(&mut project, weights, scales);
            for column in 0..channels {
                of_scale[column] += bias[column] * biases[column];
                bias[column] *= scales[column];
            }
            tensor(of_scale, scale)
        })
    };
    let scale = layers.scale.map(of_scale).transpose()?;
    Ok(Gradients {
        x: tensor(normed, x)?,
        norm: [tensor(norm.0, layers.norm[0])?, tensor(norm.1, layers.norm[1])?],
        expand: [tensor(expand, layers.expand[0])?, tensor(hidden_bias, layers.expand[1])?],
        project: [tensor(project, layers.project[0])?, tensor(bias, layers.project[1])?],
        scale,
    })
}

/// The sums over each column of `gradients · weights`; multiplies the columns of `gradients` by `scale`.
fn scale_gradient(gradients: &mut [f32], weights: &[f32], scale: &[f32]) -> Vec<f32> {
    let columns = scale.len();
    let chunk = rows_per_task(columns) * columns;
    let parts = gradients.par_chunks_mut(chunk).zip(weights.par_chunks(chunk)).map(|(gradients, weights)| {
        let mut sums = vec![0.0; columns];
        vectorized!(|| {
            for (gradients, weights) in gradients.chunks_exact_mut(columns).zip(weights.chunks_exact(columns)) {
                for (((gradient, weight), sum), scale) in gradients.iter_mut().zip(weights).zip(&mut sums).zip(scale) {
                    *sum += *gradient * weight;
                    *gradient *= scale;
                }
            }
        });
        sums
    });
    sum_in_order(parts.collect(), columns)
}

impl Layers<'_> {
    /// Channels and wide columns, when all fits.
    fn check(&self, x: &Tensor) -> Result<(usize, usize)> {
        let (channels, hidden) = self.expand[0].dims2()?;
        let narrow = [self.norm[0], self.norm[1], self.project[1]];
        let fits = x.dims().last() == Some(&channels)
            && self.project[0].dims() == [hidden, channels]
            && narrow.into_iter().chain(self.scale).all(|tensor| tensor.elem_count() == channels)
            && self.expand[1].elem_count() == hidden;
        if !fits || x.elem_count() == 0 || hidden == 0 {
            candle_core::bail!("layers of {channels} channels do not fit {:?}", x.dims());
        }
        Ok((channels, hidden))
    }

    /// The weights of forward, with the scale.
    fn packed(&self) -> Result<(PackedMatrix, PackedMatrix)> {
        let (channels, hidden) = self.expand[0].dims2()?;
        let expand = read([self.expand[0]], |[expand]| Ok(PackedMatrix::scaled(expand, hidden, None)))?;
        let project = self.with_scale(|project, scale| PackedMatrix::scaled(project, channels, scale))?;
        Ok((expand, project))
    }

    /// Calls `pack` with the narrowing weight and its scale.
    pub fn with_scale<R>(&self, pack: impl FnOnce(&[f32], Option<&[f32]>) -> R) -> Result<R> {
        let project = self.project[0];
        match self.scale {
            Some(scale) => read([project, scale], |[project, scale]| Ok(pack(project, Some(scale)))),
            None => read([project], |[project]| Ok(pack(project, None))),
        }
    }
}

/// The wide columns in shares, each in whole panels and of one block of [`WIDE`] columns.
pub fn shares(hidden: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let blocks = (hidden.start / WIDE * WIDE..hidden.end).step_by(WIDE);
    blocks.map(move |first| hidden.start.max(first)..hidden.end.min(first + WIDE))
}

/// Some columns of kept rows from `row` of `rows` on: the first of its values, and the distance between rows.
///
/// Blocks of [`WIDE`] columns lie one after the other, each with all its rows: what backward reads together is in one piece.
pub fn kept_share<'a>(kept: &'a [f32], row: usize, rows: usize, share: &Range<usize>) -> (&'a [f32], usize) {
    let first = share.start / WIDE * WIDE;
    let stride = WIDE.min(kept.len() / rows - first);
    (&kept[first * rows + row * stride + share.start - first..], stride)
}

/// `rows` times some columns of a weight.
pub fn of_columns<'a>(
    rows: Rows<'a>,
    weight: &'a PackedMatrix,
    columns: &Range<usize>,
    start: Start<'a>,
) -> Product<'a> {
    let panels = columns.start / packed::PANEL..columns.end.div_ceil(packed::PANEL);
    Product {
        rows,
        weight,
        depth: 0..weight.depth(),
        panels,
        start,
        residual: None,
        activation: Activation::None,
        unit: Unit::Tiles,
    }
}

/// `rows` times a part of a weight's depth.
pub fn of_depth<'a>(rows: Rows<'a>, weight: &'a PackedMatrix, depth: &Range<usize>, start: Start<'a>) -> Product<'a> {
    let panels = 0..weight.panels();
    Product {
        rows,
        weight,
        depth: depth.clone(),
        panels,
        start,
        residual: None,
        activation: Activation::None,
        unit: Unit::Tiles,
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::ops::testing::{assert_close, random};
    use crate::ops::{Weight, add_scaled, gradients_of};

    /// Against the same layers one after the other, whose gradients are proven on their own.
    fn check([rows, channels, hidden]: [usize; 3], scaled: bool) -> Result<()> {
        let shapes: [&[usize]; 9] = [
            &[2, rows, channels],
            &[2, rows, channels],
            &[channels],
            &[channels],
            &[channels, hidden],
            &[hidden],
            &[hidden, channels],
            &[channels],
            &[channels],
        ];
        let vars = shapes.iter().zip(1..).map(|(shape, seed)| Var::from_tensor(&random(shape, seed)?));
        let vars = vars.collect::<Result<Vec<_>>>()?;
        let [x, residual, norm, shift, expand, hidden_bias, project, bias, scale] = vars.as_slice() else {
            unreachable!("nine shapes")
        };
        let wide = crate::ops::layer_norm(x, norm, shift, 1e-6)?;
        let wide = Weight::Plain(expand.as_tensor().clone()).linear(&wide, hidden_bias, Activation::Gelu, None)?;
        let narrow = Weight::Plain(project.as_tensor().clone()).linear(&wide, bias, Activation::None, None)?;
        let oracle = if scaled { add_scaled(residual, &narrow, scale)? } else { (residual.as_tensor() + narrow)? };
        let upstream = random(&[2, rows, channels], 20)?;
        let gradients = gradients_of(&oracle, &upstream)?;
        let layers = Layers {
            norm: [norm, shift],
            epsilon: 1e-6,
            expand: [expand, hidden_bias],
            activation: Activation::Gelu,
            project: [project, bias],
            scale: scaled.then_some(scale),
        };
        for keeps in [false, true] {
            let (result, wide) = forward(x, &layers, residual, keeps)?;
            assert_eq!(wide.is_some(), keeps);
            // What many wide columns add up to is rounded in its own last bits.
            let largest = oracle.abs()?.max_all()?.to_scalar::<f32>()?;
            assert_close(&result, &oracle, f32::max(1e-4, 2e-6 * largest))?;
            let ours = backward(x, &layers, wide.as_ref(), &upstream)?;
            let Gradients { x: of_x, norm: of_norm, expand: of_expand, project: of_project, scale: of_scale } = ours;
            let pairs = [
                (x, &of_x),
                (norm, &of_norm[0]),
                (shift, &of_norm[1]),
                (expand, &of_expand[0]),
                (hidden_bias, &of_expand[1]),
                (project, &of_project[0]),
                (bias, &of_project[1]),
            ];
            assert_eq!(of_scale.is_some(), scaled);
            for (var, ours) in pairs.into_iter().chain(of_scale.iter().map(|of_scale| (scale, of_scale))) {
                let oracle = gradients.get(var).unwrap();
                let largest = oracle.abs()?.max_all()?.to_scalar::<f32>()?;
                assert_close(ours, oracle, 1e-5 * largest.max(1.0))?;
            }
        }
        Ok(())
    }

    #[test]
    fn equals_its_layers_one_after_the_other() -> Result<()> {
        // Shared out by rows and by columns, one thread and several, whole shares and parts of one.
        for threads in [1, 3] {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(candle_core::Error::wrap)?;
            pool.install(|| {
                check([301, 24, 96], true)?;
                check([301, 24, WIDE + 90], false)?;
                check([230, 96, 200], true)?;
                check([9, 40, 2 * WIDE + 76], true)?;
                check([9, 40, 300], false)?;
                check([1, 5, 7], true)
            })?;
        }
        Ok(())
    }
}
