//! What operations allocate, told on [`Outline`]s: each function here makes and drops tensors without values, and notes
//! working memory, as the operation of its name does. A test beside holds each against what the operation really takes.
//!
//! On Metal results are told and what passes between two products; the rest is small there.

mod gradients;

use candle_core::Result;

pub use gradients::{
    activation_backward, attention_backward, batch_norm_backward, conv_backward, depthwise_backward, gate_backward,
    layer_norm_backward, linear_backward, max_pool_backward, mlp_backward, mlp_forward,
};

use super::packed::{self, FEW_ROWS, PackedMatrix, Unit, WinogradPart, WinogradWeight, tile_rows_of, tiles_of};
use super::{Activation, Geometry, Mlp, Weight, Window, metal, quantized, scratch};
use crate::memory::{F32, Held, Outline, Tally};

/// What is fused with a product, and an operation of its own in a graph.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fused {
    pub residual: bool,
    pub activation: bool,
}

impl Fused {
    pub fn with(activation: Activation, residual: bool) -> Self {
        Self { residual, activation: activation != Activation::None }
    }

    fn after(self, mut ys: Outline) -> Outline {
        if !ys.tally().is_recording() {
            return ys;
        }
        if self.residual {
            ys = add(&ys);
        }
        if self.activation {
            ys = same(&ys);
        }
        ys
    }
}

/// `linear`.
pub fn linear(x: &Outline, weight: &Weight, fused: Fused) -> Outline {
    let packed = passing(x.tally(), weight);
    let ys = x.with_channels(weight.shape()[1]);
    rows_of(x, weight, 0);
    drop(packed);
    let (input, shape) = (x.clone(), weight.shape());
    x.tally().record(&ys, move |upstream, wants_input| {
        let (of_x, of_parameters) = linear_backward(&input, shape, upstream);
        with_input(of_x, wants_input, of_parameters)
    });
    fused.after(ys)
}

/// `conv`.
pub fn conv(x: &Outline, weight: &Weight, window: Window, fused: Fused) -> Result<Outline> {
    if window == Window::centered(1, 1) {
        return Ok(linear(x, weight, fused));
    }
    let ys = conv_alone(x, weight, window)?;
    let (input, shape) = (x.clone(), weight.shape());
    x.tally().record(&ys, move |upstream, wants_input| {
        let gradients = conv_backward(&input, shape, window, upstream, wants_input);
        gradients.map_or_else(|_| Vec::new(), |(of_x, of_weight)| of_x.into_iter().chain([of_weight]).collect())
    });
    Ok(fused.after(ys))
}

fn conv_alone(x: &Outline, weight: &Weight, window: Window) -> Result<Outline> {
    let geometry = window.over(x.dims())?;
    let [depth, outputs] = weight.shape();
    let tally = x.tally();
    let is_winograd = match weight {
        Weight::Winograd(_) => true,
        Weight::Plain(_) => !tally.place().is_metal && packed::suits(window, geometry.channels, outputs),
        _ => false,
    };
    let _packed = match weight {
        Weight::Plain(_) if is_winograd => Some(winograd_weight(tally, geometry.channels, outputs)),
        _ => passing(tally, weight),
    };
    let ys = [geometry.batch, geometry.out_height, geometry.out_width, outputs];
    let reach = |outputs: usize| (outputs - 1) * window.stride + window.kernel;
    if let (Weight::Quantized(_), false) = (weight, tally.place().is_metal) {
        let image = match window.kernel {
            1 => geometry.out_height * geometry.out_width,
            _ => reach(geometry.out_height) * reach(geometry.out_width),
        };
        let codes = geometry.positions() * size_of::<quantized::Code>();
        let _bytes = tally.hold((geometry.batch * image * geometry.channels + codes) as u64);
        return Ok(x.new(&ys));
    }
    let ys = x.new(&ys);
    if tally.place().is_metal {
        let _windows = tally.hold((F32 * (geometry.positions() * depth) as u64).min(metal::MAX_BYTES as u64));
        return Ok(ys);
    }
    if is_winograd {
        winograd(tally, &geometry, outputs);
        return Ok(ys);
    }
    let tiles = tiles_of(&geometry, tally.place().threads);
    let Some(tile) = tiles.first() else { return Ok(ys) };
    let rows = tile.images * tile.rows * geometry.out_width;
    let windows = tile.padded(&geometry).map(|[height, width]| tile.images * height * width * geometry.channels);
    let nested = shared_workspace(tally, windows.unwrap_or(0), tiles.len() < tally.place().threads);
    product(tally, nested, rows, depth, weight, geometry.out_height * geometry.out_width);
    Ok(ys)
}

/// `depthwise`.
pub fn depthwise(x: &Outline, window: Window, fused: Fused) -> Result<Outline> {
    let (ys, input) = (windows(x, window)?, x.clone());
    x.tally().record(&ys, move |upstream, wants_input| {
        let gradients = depthwise_backward(&input, window, upstream, wants_input);
        gradients.map_or_else(|_| Vec::new(), |(of_x, of_weight)| of_x.into_iter().chain([of_weight]).collect())
    });
    Ok(fused.after(ys))
}

/// `max_pool`.
pub fn max_pool(x: &Outline, window: Window) -> Result<Outline> {
    let ys = windows(x, window)?;
    Ok(recorded(x, ys))
}

/// `conv_max_pool`: of the convolution there is only what a band of the pool reads.
pub fn conv_max_pool(x: &Outline, window: Window, outputs: usize, pool: Window) -> Result<Outline> {
    let conv = window.over(x.dims())?;
    let pooled = pool.over(&[conv.batch, conv.out_height, conv.out_width, outputs])?;
    let reach = |outputs: usize| (outputs - 1) * window.stride + window.kernel;
    let bytes = conv.batch
        * (reach(conv.out_height) * reach(conv.out_width) * conv.channels + conv.out_height * conv.out_width * 8);
    let _bytes = x.tally().hold(bytes as u64);
    Ok(x.new(&[pooled.batch, pooled.out_height, pooled.out_width, outputs]))
}

/// `bottleneck`, of the narrow images and with so many channels in the end, in the memory of what is `passed` if anything is.
pub fn bottleneck(passed: Option<Outline>, narrow: Outline, window: Window, channels: usize) -> Result<Outline> {
    let geometry = window.over(narrow.dims())?;
    let reach = |outputs: usize| (outputs - 1) * window.stride + window.kernel;
    let image = reach(geometry.out_height) * reach(geometry.out_width) * geometry.channels;
    let codes = geometry.positions() * size_of::<quantized::Code>();
    let _bytes = narrow.tally().hold((geometry.batch * image + codes) as u64);
    let dims = [geometry.batch, geometry.out_height, geometry.out_width, channels];
    let tally = narrow.tally().clone();
    drop(narrow);
    Ok(passed.unwrap_or_else(|| tally.in_16_bits(&dims)))
}

/// An operation whose only gradient is one of its input's size.
fn recorded(x: &Outline, ys: Outline) -> Outline {
    let input = x.clone();
    x.tally().record(&ys, move |_, _| vec![input.like()]);
    ys
}

fn with_input(of_x: Outline, wants_input: bool, others: Vec<Outline>) -> Vec<Outline> {
    wants_input.then_some(of_x).into_iter().chain(others).collect()
}

/// A result per position of the window, with the channels of `x`.
fn windows(x: &Outline, window: Window) -> Result<Outline> {
    let geometry = window.over(x.dims())?;
    Ok(x.new(&[geometry.batch, geometry.out_height, geometry.out_width, geometry.channels]))
}

/// `expand_depthwise`.
pub fn expand_depthwise(x: &Outline, expand: &Weight, window: Window) -> Result<Outline> {
    let (tally, [inputs, channels]) = (x.tally(), expand.shape());
    let &[batch, height, width, _] = x.dims() else { candle_core::bail!("an image batch has four axes") };
    if !tally.place().is_metal
        && is_in_tiles(expand)
        && let Some([ring, rows]) = packed::ring(window, height, width, channels)
    {
        let geometry = window.over(&[batch, height, width, channels])?;
        let ys = x.new(&[batch, geometry.out_height, geometry.out_width, channels]);
        workspace(tally, 0, ring);
        product(tally, 1, rows, inputs, expand, height * width);
        return Ok(ys);
    }
    let wide = linear(x, expand, Fused::default());
    depthwise(&wide, window, Fused::default())
}

/// `global_average_pool`.
pub fn global_average_pool(x: &Outline) -> Outline {
    recorded(x, x.new(&[x.dims()[0], x.channels()]))
}

/// `layer_norm`, `activate`, `squeeze_excite`, `global_response_norm` and `batch_norm`: as large as what they are given.
pub fn same(x: &Outline) -> Outline {
    recorded(x, x.like())
}

/// `add` and `add_scaled`.
pub fn add(x: &Outline) -> Outline {
    let ys = x.like();
    // Both gradients are the result's own.
    x.tally().record(&ys, |upstream, _| vec![upstream.clone(), upstream.clone()]);
    ys
}

/// `project_gated`.
pub fn project_gated(x: &Outline, weight: &Weight) -> Outline {
    let (tally, inputs) = (x.tally(), x.channels());
    if tally.place().is_metal || !is_in_tiles(weight) {
        return linear(&same(x), weight, Fused::default());
    }
    let rows = x.rows();
    let most = scratch::MAX_BYTES / size_of::<f32>() / inputs.max(1);
    let tile = if rows <= FEW_ROWS { rows } else { tile_rows_of(rows, most, tally.place().threads) };
    let ys = x.with_channels(weight.shape()[1]);
    let nested = shared_workspace(tally, tile * inputs, rows <= FEW_ROWS);
    product(tally, nested, tile, inputs, weight, rows / x.dims()[0].max(1));
    ys
}

/// `mlp`, with weights of inference.
pub fn mlp(x: &Outline, layers: &Mlp) -> Outline {
    let (tally, rows) = (x.tally(), x.rows());
    let [channels, hidden] = layers.expand.0.shape();
    let threads = tally.place().threads;
    match (&layers.expand.0, tally.place().is_metal) {
        (_, true) => {
            let ys = same(x);
            let _wide = tally.hold((F32 * (rows * hidden) as u64).min(metal::MAX_BYTES as u64));
            ys
        }
        (Weight::Packed(_), _) => packed_mlp(x, channels, hidden, Unit::for_rows(rows / x.dims()[0].max(1))),
        (Weight::Quantized(_), _) => {
            let wide = quantized::WIDE;
            let tile = tile_rows_of(rows, scratch::MAX_BYTES / size_of::<f32>() / (channels + wide), threads);
            let ys = same(x);
            workspace(tally, 0, channels + tile * wide + (tile * (channels + wide)).div_ceil(size_of::<f32>()));
            ys
        }
        _ => mlp_forward(x, [channels, hidden], false).0,
    }
}

/// The pass over tiles with weights in lines or planes.
fn packed_mlp(x: &Outline, channels: usize, hidden: usize, unit: Unit) -> Outline {
    let (tally, wide) = (x.tally(), packed::WIDE);
    let most = scratch::MAX_BYTES / size_of::<f32>() / (channels + wide);
    let tile = tile_rows_of(x.rows(), most, tally.place().threads);
    let ys = same(x);
    workspace(tally, 0, tile * (channels + wide));
    for (part, shape) in [(channels, [channels, hidden]), (wide.min(hidden), [hidden, channels])] {
        tally.workspace(1, unit.workspace(tile, part, shape) as u64, scratch::MAX_BYTES as u64);
    }
    ys
}

/// `attention`.
pub fn attention(qkv: &Outline) -> Outline {
    let tokens = qkv.dims()[1];
    let ys = qkv.with_channels(qkv.channels() / 3);
    workspace(qkv.tally(), 0, super::attention::TILE * tokens);
    products_of_gemm(qkv.tally());
    let input = qkv.clone();
    qkv.tally().record(&ys, move |_, _| vec![attention_backward(&input)]);
    ys
}

/// `join_channels`, and `Tensor::cat` along the last axis.
pub fn join_channels(one: &Outline, other: &Outline) -> Outline {
    recorded(one, one.with_channels(one.channels() + other.channels()))
}

/// `Tensor::cat` of it with something small, to another shape.
pub fn joined(x: &Outline, dims: &[usize]) -> Outline {
    recorded(x, x.new(dims))
}

/// The first token of each image, a view whose gradient is as large as all tokens.
pub fn token(x: &Outline) -> Outline {
    recorded(x, x.view(&[x.dims()[0], x.channels()]))
}

/// Whether products with it are computed a tile of rows at a time.
fn is_in_tiles(weight: &Weight) -> bool {
    match weight {
        Weight::Packed(_) => true,
        Weight::Quantized(weight) => weight.segments() == 1,
        _ => false,
    }
}

/// A plain weight is packed for each operation on the CPU.
fn passing(tally: &Tally, weight: &Weight) -> Option<Held> {
    let [depth, columns] = weight.shape();
    let is_packed = matches!(weight, Weight::Plain(_)) && !tally.place().is_metal;
    is_packed.then(|| tally.hold(PackedMatrix::passing_bytes(depth, columns) as u64))
}

/// A weight that is brought into the order of Winograd's filtering for one operation.
fn winograd_weight(tally: &Tally, inputs: usize, outputs: usize) -> Held {
    tally.hold(WinogradWeight::outline(inputs, outputs).bytes() as u64)
}

/// Working memory of a convolution by Winograd's filtering.
fn winograd(tally: &Tally, geometry: &Geometry, outputs: usize) {
    workspace(tally, 0, WinogradPart::of(geometry, outputs, tally.place().threads).floats());
}

/// Working memory of a product with all rows of `x`.
fn rows_of(x: &Outline, weight: &Weight, nested: usize) {
    let (rows, threads) = (x.rows(), x.tally().place().threads);
    let tile = if rows <= FEW_ROWS { rows } else { tile_rows_of(rows, usize::MAX, threads) };
    let of_image = if x.dims().len() > 2 { rows / x.dims()[0].max(1) } else { 1 };
    product(x.tally(), nested, tile, weight.shape()[0], weight, of_image);
}

/// Working memory of the product of a tile of rows, so much of the depth at a time, where an image has so many rows.
fn product(tally: &Tally, nested: usize, rows: usize, part: usize, weight: &Weight, of_image: usize) {
    let unit = match weight {
        // A row as bytes.
        Weight::Quantized(_) => return workspace(tally, nested, (rows * part + quantized::SLACK).div_ceil(4)),
        // Packed in the order of the faster kernel.
        Weight::Plain(_) => Unit::Tiles,
        _ => Unit::for_rows(of_image),
    };
    tally.workspace(nested, unit.workspace(rows, part, weight.shape()) as u64, scratch::MAX_BYTES as u64);
}

/// What `gemm` keeps of each thread that it multiplies on: as much as the second-level cache holds.
fn products_of_gemm(tally: &Tally) {
    const BESIDE_OURS: usize = 2;
    if !tally.place().is_metal {
        tally.workspace(BESIDE_OURS, gemm_common::cache::CACHE_INFO[1].cache_bytes as u64, u64::MAX);
    }
}

/// Working memory of so many floats for work that threads may share, and how deep that of the work itself is nested.
fn shared_workspace(tally: &Tally, floats: usize, is_shared: bool) -> usize {
    if is_shared || floats == 0 {
        drop(tally.hold(F32 * floats as u64));
        return 0;
    }
    workspace(tally, 0, floats);
    1
}

/// Working memory of so many floats for each thread.
fn workspace(tally: &Tally, nested: usize, floats: usize) {
    if !tally.place().is_metal {
        tally.workspace(nested, F32 * floats as u64, scratch::MAX_BYTES as u64);
    }
}
