//! The operations that take gradients without a graph.

use candle_core::Result;

use super::{packed_mlp, winograd, winograd_weight, workspace};
use crate::memory::{F32, Held, Outline, Tally};
use crate::ops::mlp::learning::{TILE_ROWS, WIDE};
use crate::ops::packed::{PANEL, PackedMatrix, Unit, apart, tile_rows_of};
use crate::ops::{Activation, Window, conv, products, scratch};

/// `mlp_forward`: the result, and the wide rows if they are kept.
pub fn mlp_forward(x: &Outline, [channels, hidden]: [usize; 2], keeps: bool) -> (Outline, Option<Outline>) {
    let tally = x.tally();
    let _packed = [packed(tally, channels, hidden), packed(tally, hidden, channels)];
    if !keeps {
        return (packed_mlp(x, channels, hidden, Unit::Tiles), None);
    }
    let (ys, wide) = (x.like(), x.with_channels(hidden));
    let tile = tile_rows_of(x.rows(), TILE_ROWS, tally.place().threads);
    workspace(tally, 0, tile * (channels + WIDE));
    planes(tally, 1, tile, [channels, hidden], channels);
    planes(tally, 1, tile, [hidden, channels], WIDE.min(hidden));
    (ys, Some(wide))
}

/// `mlp_backward`: the gradients of the input and of all parameters. `keeps` says whether the wide rows were kept.
pub fn mlp_backward(x: &Outline, [channels, hidden]: [usize; 2], keeps: bool) -> (Outline, Vec<Outline>) {
    let (tally, rows) = (x.tally(), x.rows());
    let threads = tally.place().threads;
    let again = (!keeps).then(|| packed(tally, channels, hidden));
    let back = [packed(tally, hidden, channels), packed(tally, channels, hidden)];
    let weights = || [x.new(&[channels, hidden]), x.new(&[hidden, channels]), x.new(&[hidden])];
    let (of_x, of_weights) = if rows > 8 * channels {
        let of_x = x.like();
        // A thread sums over its share of the rows.
        let parts = rows.div_ceil(rows.div_ceil(threads));
        let sums: Vec<_> = (0..parts).map(|_| weights()).collect();
        parts_of(tally, parts, [rows.div_ceil(threads), channels, hidden]);
        (of_x, sums.into_iter().next())
    } else {
        let sums = weights();
        // A thread takes its share of the wide columns, over all rows.
        let parts = threads.min(hidden.div_ceil(PANEL));
        let of_x: Vec<_> = (0..parts).map(|_| x.like()).collect();
        parts_of(tally, parts, [rows, channels, hidden.div_ceil(parts)]);
        (of_x.into_iter().next().unwrap_or_else(|| x.like()), Some(sums))
    };
    drop((again, back));
    let mut found: Vec<_> = of_weights.into_iter().flatten().collect();
    // Norm, and the narrowing layer's bias and scale.
    found.extend((0..4).map(|_| x.new(&[channels])));
    (of_x, found)
}

/// What so many threads need to sum gradients of so many rows, through so many wide columns, tile by tile.
fn parts_of(tally: &Tally, parts: usize, [rows, channels, hidden]: [usize; 3]) {
    let count = rows.min(TILE_ROWS);
    let wide = WIDE.min(hidden);
    let panels = PackedMatrix::passing_bytes(count, channels) + PackedMatrix::passing_bytes(count, wide);
    drop(tally.hold((parts * panels) as u64));
    workspace(tally, 0, count * (apart(channels) + 3 * apart(WIDE)));
    planes(tally, 1, count, [channels, hidden], channels);
    planes(tally, 1, count, [hidden, channels], wide);
    planes(tally, 1, wide, [count, channels], count);
    planes(tally, 1, channels, [count, wide], count);
}

/// `conv_backward`: the gradients of the input, if it is wanted, and of the weight, whose depth is given with its outputs.
pub fn conv_backward(
    x: &Outline,
    [depth, outputs]: [usize; 2],
    window: Window,
    upstream: &Outline,
    wants_input: bool,
) -> Result<(Option<Outline>, Outline)> {
    let is_pixel = window == Window::centered(1, 1);
    let geometry = window.over(x.dims())?;
    let of_x = wants_input.then(|| {
        if is_pixel {
            return row_gradients(x, [depth, outputs]);
        }
        let as_convolution = conv::as_convolution(&geometry, outputs);
        if let Some(over_upstream) = as_convolution.filter(|_| !x.tally().place().is_metal) {
            let flipped = x.tally().hold(F32 * (depth * outputs) as u64);
            let _weight = winograd_weight(x.tally(), outputs, geometry.channels);
            drop(flipped);
            let of_x = x.like();
            winograd(x.tally(), &over_upstream, geometry.channels);
            return of_x;
        }
        let _turned = packed(x.tally(), outputs, depth);
        let of_x = x.like();
        let step = (scratch::MAX_BYTES / size_of::<f32>() / depth.max(1)).clamp(1, products::TILE_ROWS);
        let step = step.min(geometry.out_height * geometry.out_width);
        workspace(x.tally(), 0, step * depth);
        planes(x.tally(), 1, step, [outputs, depth], outputs);
        of_x
    });
    Ok((of_x, weight_gradients(upstream, [depth, outputs], !is_pixel)))
}

/// `linear_backward`.
pub fn linear_backward(x: &Outline, shape: [usize; 2], upstream: &Outline) -> (Outline, Vec<Outline>) {
    let of_x = row_gradients(x, shape);
    let of_bias = x.new(&[shape[1]]);
    (of_x, vec![weight_gradients(upstream, shape, false), of_bias])
}

/// `upstream · weightᵀ`, as large as `x`.
fn row_gradients(x: &Outline, [inputs, outputs]: [usize; 2]) -> Outline {
    let _turned = packed(x.tally(), outputs, inputs);
    let of_x = x.like();
    let tile = tile_rows_of(x.rows(), usize::MAX, x.tally().place().threads);
    planes(x.tally(), 0, tile, [outputs, inputs], outputs);
    of_x
}

/// `rowsᵀ · upstream`, where `gathers` says whether rows are windows that have to be gathered.
fn weight_gradients(upstream: &Outline, [inputs, outputs]: [usize; 2], gathers: bool) -> Outline {
    let (tally, rows) = (upstream.tally(), upstream.rows());
    let threads = tally.place().threads;
    let count = rows.min(products::TILE_ROWS);
    let has_columns = outputs >= 4 * PANEL * threads;
    let columns = if has_columns { outputs.div_ceil(threads).next_multiple_of(PANEL) } else { outputs };
    let parts = if has_columns { 1 } else { rows.div_ceil(rows.div_ceil(threads).max(1)) };
    let sums: Vec<_> = (0..parts.max(1)).map(|_| upstream.new(&[inputs, outputs])).collect();
    drop(tally.hold((threads * PackedMatrix::passing_bytes(count, columns)) as u64));
    if gathers {
        workspace(tally, 0, count * apart(inputs));
    }
    planes(tally, usize::from(gathers), inputs, [count, columns], count);
    sums.into_iter().next().unwrap_or_else(|| upstream.new(&[inputs, outputs]))
}

/// `depthwise_backward`: the gradients of the input, if it is wanted, and of the weight.
pub fn depthwise_backward(
    x: &Outline,
    window: Window,
    upstream: &Outline,
    wants_input: bool,
) -> Result<(Option<Outline>, Outline)> {
    let geometry = window.over(x.dims())?;
    let of_x = wants_input.then(|| x.like());
    let length = window.kernel * window.kernel * geometry.channels;
    let parts = geometry.batch * geometry.out_height.div_ceil(crate::ops::depthwise::TASK_ROWS);
    let _parts = x.tally().hold(F32 * (parts.saturating_sub(1) * length) as u64);
    let _ = upstream;
    Ok((of_x, x.new(&[length])))
}

/// `batch_norm_backward`: the gradients of the input and of what was added to the norm's result.
pub fn batch_norm_backward(x: &Outline, activation: Activation, upstream: &Outline) -> (Outline, Outline) {
    if activation == Activation::None {
        return (x.like(), upstream.clone());
    }
    let inner = x.like();
    (x.like(), inner)
}

/// `activation_backward`.
pub fn activation_backward(x: &Outline) -> Outline {
    x.like()
}

/// `layer_norm_backward`: the gradient of the input.
pub fn layer_norm_backward(x: &Outline) -> Outline {
    x.like()
}

/// `max_pool_backward`.
pub fn max_pool_backward(x: &Outline) -> Outline {
    x.like()
}

/// What a gate's backward makes of the gradient of its result: that of the input.
pub fn gate_backward(x: &Outline) -> Outline {
    x.like()
}

/// `attention_backward`.
pub fn attention_backward(qkv: &Outline) -> Outline {
    let (tally, tokens, images) = (qkv.tally(), qkv.dims()[1], qkv.dims()[0]);
    let of_qkv = qkv.like();
    // The heads of the images that are computed at a time.
    let at_once = tally.place().threads.min(images) * tokens * qkv.channels();
    let _heads = tally.hold(F32 * at_once as u64);
    workspace(tally, 0, 2 * crate::ops::attention::TILE.min(tokens) * tokens);
    of_qkv
}

/// A weight that is packed for one operation.
fn packed(tally: &Tally, depth: usize, columns: usize) -> Option<Held> {
    (!tally.place().is_metal).then(|| tally.hold(PackedMatrix::passing_bytes(depth, columns) as u64))
}

/// Working memory of a product of a tile of rows with a weight of this shape, packed for a few products, so much of its depth
/// at a time.
fn planes(tally: &Tally, nested: usize, rows: usize, shape: [usize; 2], part: usize) {
    let bytes = Unit::Tiles.workspace(rows, part, shape) as u64;
    tally.workspace(nested, bytes, scratch::MAX_BYTES as u64);
}
