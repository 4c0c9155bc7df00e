//! All tiles of a convolution: pixels become sums, a product for each of the sixteen places of a tile is computed for some
//! columns, and its sums become results, before the next tiles are read.

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{PLACES, REACH, WinogradWeight};
use crate::ops::packed::matrix::{Line, PANEL, apart};
use crate::ops::packed::operands::{Rows, Start, Target};
use crate::ops::packed::product::{Product, Unit};
use crate::ops::simd::{load, store};
use crate::ops::window::Geometry;
use crate::ops::{Activation, scratch, space, written};

/// Results along a side of a tile.
const SIDE: usize = REACH - 2;
/// Panels that are multiplied before their sums become results.
const PANELS: usize = 4;
/// Sums of pixels and of products that are there together, in floats: half of a second-level cache of 768 KiB. With four times
/// as many ResNet-18 was 2 % faster on one core of a Zen 4, with a quarter 2 % slower.
const FLOATS: usize = 96 << 10;
/// With fewer tiles, threads share columns: each weight is then read for enough of them.
const FEW_TILES: usize = 14;
/// The place whose product is added once to each result of a tile: what it begins with they all get.
const OF_ALL: usize = REACH + 1;

/// The tiles of results, in the order of images, rows and columns.
#[derive(Clone, Copy)]
struct Tiles {
    images: usize,
    rows: usize,
    columns: usize,
}

impl Tiles {
    fn of(geometry: &Geometry) -> Self {
        let Geometry { batch, out_height, out_width, .. } = *geometry;
        Self { images: batch, rows: out_height.div_ceil(SIDE), columns: out_width.div_ceil(SIDE) }
    }

    fn all(self) -> usize {
        self.images * self.rows * self.columns
    }

    /// Image, and row and column of the first result.
    fn place(self, tile: usize) -> [usize; 3] {
        let row = tile / self.columns;
        [row / self.rows, row % self.rows * SIDE, tile % self.columns * SIDE]
    }
}

/// How much is computed together, and how it lies in working memory.
#[derive(Clone, Copy)]
pub struct Part {
    inputs: usize,
    tiles: usize,
    panels: usize,
    /// Between places, of sums of pixels and of products.
    pixels: usize,
    sums: usize,
}

impl Part {
    pub fn of(geometry: &Geometry, outputs: usize, threads: usize) -> Self {
        let inputs = geometry.channels;
        let (columns, panels) = (outputs.min(PANELS * PANEL), outputs.div_ceil(PANEL));
        let all = Tiles::of(geometry).all().max(1);
        let threads = threads.max(1);
        let shares = all.div_ceil(FEW_TILES).min(threads);
        let share = all.div_ceil(shares);
        let most = (FLOATS / PLACES / (inputs + columns)).max(1);
        let tiles = share.div_ceil(share.div_ceil(most));
        let panels = panels.div_ceil(threads / shares).next_multiple_of(PANELS);
        // Places an even number of lines apart would share sets of the first-level cache.
        Self { inputs, tiles, panels, pixels: apart(tiles * inputs), sums: apart(tiles * columns) }
    }

    /// Working memory of a thread.
    pub fn floats(&self) -> usize {
        self.inputs + PLACES * (self.pixels + self.sums)
    }
}

/// The result that all threads write, each its tiles.
struct Results<'a> {
    first: *mut f32,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: no two threads write the same columns of a tile.
unsafe impl Sync for Results<'_> {}

/// All of a convolution.
pub struct Pass<'a> {
    x: &'a [f32],
    geometry: &'a Geometry,
    tiles: Tiles,
    part: Part,
    weight: &'a WinogradWeight,
    bias: &'a [Line],
    /// As many.
    zeros: Vec<Line>,
    activation: Activation,
    residual: Option<&'a [f32]>,
}

impl<'a> Pass<'a> {
    pub fn over(
        x: &'a [f32],
        geometry: &'a Geometry,
        weight: &'a WinogradWeight,
        bias: &'a [Line],
        activation: Activation,
        residual: Option<&'a [f32]>,
    ) -> Self {
        let zeros = vec![Line([0.0; PANEL]); bias.len()];
        let part = Part::of(geometry, weight.0.columns(), rayon::current_num_threads());
        Self { x, geometry, tiles: Tiles::of(geometry), part, weight, bias, zeros, activation, residual }
    }

    /// All results, row-major.
    pub fn values(&self) -> Vec<f32> {
        let Self { part, residual, .. } = *self;
        let mut result = space(self.geometry.positions() * self.weight.0.columns());
        assert!(residual.is_none_or(|residual| residual.len() == result.len()), "the residual covers the result");
        let results = Results { first: result.as_mut_ptr().cast(), slice: PhantomData };
        let (all, panels) = (self.tiles.all(), self.weight.0.panels());
        let parts = (0..panels).step_by(part.panels).flat_map(|panel| {
            let tiles = (0..all).step_by(part.tiles);
            tiles.map(move |tile| (tile..all.min(tile + part.tiles), panel..panels.min(panel + part.panels)))
        });
        parts.collect::<Vec<_>>().into_par_iter().for_each(|(tiles, panels)| self.compute(tiles, panels, &results));
        // SAFETY: the parts are all panels of all tiles, which are all of the result.
        unsafe { written(result) }
    }

    /// Computes some columns of the results of some tiles.
    fn compute(&self, tiles: Range<usize>, panels: Range<usize>, results: &Results) {
        let Self { part, weight, .. } = self;
        let (inputs, outputs) = (weight.inputs(), weight.0.columns());
        scratch::with(part.floats(), |space| {
            let (pixels, space) = space.split_at_mut(PLACES * part.pixels);
            let (sums, outside) = space.split_at_mut(PLACES * part.sums);
            outside.fill(0.0);
            Arch::new().dispatch(Gather { pass: self, tiles: tiles.clone(), outside, sums: pixels });
            for first in panels.clone().step_by(PANELS) {
                let panels = first..panels.end.min(first + PANELS);
                let columns = first * PANEL..outputs.min(panels.end * PANEL);
                for place in 0..PLACES {
                    let rows = &pixels[place * part.pixels..][..tiles.len() * inputs];
                    let product = Product {
                        rows: Rows::dense(rows, tiles.len(), inputs),
                        weight: &weight.0,
                        depth: place * inputs..(place + 1) * inputs,
                        panels: panels.clone(),
                        start: Start::Bias(if place == OF_ALL { self.bias } else { &self.zeros }),
                        residual: None,
                        activation: Activation::None,
                        unit: Unit::Vectors,
                    };
                    let sums = &mut sums[place * part.sums..][..tiles.len() * columns.len()];
                    product.write(Target::holding(sums, columns.len()));
                }
                Arch::new().dispatch(Scatter { pass: self, tiles: tiles.clone(), columns, sums, results });
            }
        });
    }

    /// The channels of the pixels that a tile reads.
    fn pixels<'b>(&'b self, tile: usize, outside: &'b [f32]) -> [[&'b [f32]; REACH]; REACH] {
        let Geometry { height, width, channels, top, left, .. } = *self.geometry;
        let [image, row, column] = self.tiles.place(tile);
        let pixel = |y: usize, x: usize| match (y.checked_sub(top), x.checked_sub(left)) {
            (Some(y), Some(x)) if y < height && x < width => {
                &self.x[((image * height + y) * width + x) * channels..][..channels]
            }
            _ => outside,
        };
        std::array::from_fn(|y| std::array::from_fn(|x| pixel(row + y, column + x)))
    }
}

/// Writes sums of the pixels of some tiles.
struct Gather<'a> {
    pass: &'a Pass<'a>,
    tiles: Range<usize>,
    /// In place of pixels outside of the image.
    outside: &'a [f32],
    sums: &'a mut [f32],
}

impl WithSimd for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { pass, tiles, outside, sums } = self;
        let (channels, stride) = (pass.geometry.channels, pass.part.pixels);
        assert!((PLACES - 1) * stride + tiles.len() * channels <= sums.len(), "sums of all places");
        for (index, tile) in tiles.enumerate() {
            let pixels = pass.pixels(tile, outside);
            for channel in (0..channels).step_by(size_of::<S::f32s>() / size_of::<f32>()) {
                let length = channels - channel;
                let mut halves = [[simd.splat_f32s(0.0); REACH]; REACH];
                for (half, row) in halves.iter_mut().zip(&pixels) {
                    for (value, pixel) in half.iter_mut().zip(row) {
                        // SAFETY: a pixel has `channels` values.
                        *value = unsafe { load(simd, pixel.as_ptr().add(channel), length) };
                    }
                    *half = sums_of_pixels(simd, *half);
                }
                for column in 0..REACH {
                    let all = sums_of_pixels(simd, down(&halves, column));
                    for (row, sum) in all.into_iter().enumerate() {
                        let at = (row * REACH + column) * stride + index * channels + channel;
                        // SAFETY: each place has `channels` values for the tile.
                        unsafe { store(simd, sums.as_mut_ptr().add(at), length, sum) };
                    }
                }
            }
        }
    }
}

/// Writes the results of some tiles in some columns.
struct Scatter<'a> {
    pass: &'a Pass<'a>,
    tiles: Range<usize>,
    columns: Range<usize>,
    /// Of products.
    sums: &'a [f32],
    results: &'a Results<'a>,
}

impl WithSimd for Scatter<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { pass, tiles, columns, sums, results } = self;
        let Geometry { out_height, out_width, .. } = *pass.geometry;
        let (outputs, stride, width) = (pass.weight.0.columns(), pass.part.sums, columns.len());
        assert!((PLACES - 1) * stride + tiles.len() * width <= sums.len(), "sums of all places");
        for (index, tile) in tiles.enumerate() {
            let [image, row, column] = pass.tiles.place(tile);
            let [rows, row_length] = [out_height - row, out_width - column].map(|left| left.min(SIDE));
            let first = ((image * out_height + row) * out_width + column) * outputs + columns.start;
            let result = |row: usize, column: usize| first + (row * out_width + column) * outputs;
            for channel in (0..width).step_by(size_of::<S::f32s>() / size_of::<f32>()) {
                let length = width - channel;
                let mut halves = [[simd.splat_f32s(0.0); SIDE]; REACH];
                for (row, half) in halves.iter_mut().enumerate() {
                    let mut places = [simd.splat_f32s(0.0); REACH];
                    for (column, value) in places.iter_mut().enumerate() {
                        let at = (row * REACH + column) * stride + index * width + channel;
                        // SAFETY: each place has `width` values for the tile.
                        *value = unsafe { load(simd, sums.as_ptr().add(at), length) };
                    }
                    *half = results_of_sums(simd, places);
                }
                for column in 0..row_length {
                    let values = results_of_sums(simd, down(&halves, column));
                    for (row, mut value) in values.into_iter().enumerate().take(rows) {
                        let at = result(row, column) + channel;
                        // SAFETY: these columns of the tile's results are this part's alone; the residual is as large.
                        unsafe {
                            if let Some(residual) = pass.residual {
                                value = simd.add_f32s(value, load(simd, residual.as_ptr().add(at), length));
                            }
                            store(simd, results.first.add(at), length, value);
                        }
                    }
                }
            }
            for (row, column) in (0..rows).flat_map(|row| (0..row_length).map(move |column| (row, column))) {
                // SAFETY: as above; they have just been written.
                let values = unsafe { std::slice::from_raw_parts_mut(results.first.add(result(row, column)), width) };
                pass.activation.apply_inlined(values);
            }
        }
    }
}

/// One column.
#[inline(always)]
fn down<V: Copy, const LENGTH: usize>(rows: &[[V; LENGTH]; REACH], column: usize) -> [V; REACH] {
    [rows[0][column], rows[1][column], rows[2][column], rows[3][column]]
}

/// What four pixels along a side become.
#[inline(always)]
fn sums_of_pixels<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; REACH]) -> [S::f32s; REACH] {
    [simd.sub_f32s(a, c), simd.add_f32s(b, c), simd.sub_f32s(c, b), simd.sub_f32s(b, d)]
}

/// What the products of four places along a side become.
#[inline(always)]
fn results_of_sums<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; REACH]) -> [S::f32s; SIDE] {
    let (together, apart) = (simd.add_f32s(b, c), simd.sub_f32s(b, c));
    [simd.add_f32s(a, together), simd.sub_f32s(apart, d)]
}
