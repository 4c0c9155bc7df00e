//! Convolution with windows of 3×3 a pixel apart by Winograd's minimal filtering: a tile of 2×2 results is sixteen products
//! instead of 36, of sums of the tile's 4×4 pixels with sums of the weights. F(2×2, 3×3) in Lavin and Gray, "Fast Algorithms
//! for Convolutional Neural Networks" (2016), whose sums have no factor but ½: rounding costs less than twice what it costs in
//! the windows' own products. A pixel that is no number, or infinite, reaches the results that read it, and may reach
//! their neighbours in the tile.
//!
//! Pixels become sums, a product for each of the sixteen places of a tile is computed for some columns, and its sums become
//! results, before the next tiles are read.

use std::marker::PhantomData;
use std::ops::Range;

use candle_core::Device;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::conv::ConvWeight;
use super::matrix::{Form, Line, PANEL, PackedMatrix, apart, has_matrix_unit, lines};
use super::operands::{Rows, Start, Target};
use super::product::{Product, Unit};
use crate::ops::simd::{load, store};
use crate::ops::window::Geometry;
use crate::ops::{Activation, Window, scratch, space, uses_kernel, written};

/// Results along a side of a tile.
const SIDE: usize = 2;
/// Pixels along a side of what a tile reads.
const REACH: usize = SIDE + 2;
/// Places of a tile, a product for each.
pub const PLACES: usize = REACH * REACH;
/// Weights of a window for one input and output.
const WINDOW: usize = 9;
/// Panels that are multiplied before their sums become results.
const PANELS: usize = 4;
/// Sums of pixels and of products that are there together, in floats: half of a second-level cache of 768 KiB. With four times
/// as many ResNet-18 was 2 % faster on one core of a Zen 4, with a quarter 2 % slower.
const FLOATS: usize = 96 << 10;
/// With fewer tiles, threads share columns: each weight is then read for enough of them.
const FEW_TILES: usize = 14;
/// What each of the sums along a side of a filter takes of its three weights.
const FILTER: [[f32; 3]; REACH] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
/// What each place takes of the weights of a window, rows first.
const SHARES: [[f32; WINDOW]; PLACES] = {
    let mut shares = [[0.0; WINDOW]; PLACES];
    let mut index = 0;
    while index < PLACES * WINDOW {
        let (place, position) = (index / WINDOW, index % WINDOW);
        shares[place][position] = FILTER[place / REACH][position / 3] * FILTER[place % REACH][position % 3];
        index += 1;
    }
    shares
};
/// The place whose product is added once to each result of a tile: what it begins with they all get.
const OF_ALL: usize = REACH + 1;

/// The weight of windows as sums of it: for each place of a tile a matrix of inputs and outputs, one below the other.
#[derive(Debug)]
pub struct WinogradWeight(PackedMatrix);

impl WinogradWeight {
    /// Of a matrix of [`PLACES`] · inputs rows, each [`filtered`].
    pub fn new(places: PackedMatrix) -> Self {
        Self(places)
    }

    /// Of a weight of shape `(3, 3, inputs, outputs)`.
    pub fn from_values(weight: &[f32], outputs: usize) -> Self {
        let plane = weight.len() / WINDOW;
        let inputs = plane / outputs.max(1);
        let places = PackedMatrix::filled(
            Form::Lines,
            PLACES * inputs,
            outputs,
            #[inline(always)]
            |first, first_row, block| {
                let width = PANEL.min(outputs - first);
                for (index, line) in block.iter_mut().enumerate() {
                    let (place, input) = ((first_row + index) / inputs, (first_row + index) % inputs);
                    *line = Line([0.0; PANEL]);
                    for (weights, share) in weight.chunks_exact(plane).zip(SHARES[place]) {
                        if share != 0.0 {
                            let weights = &weights[input * outputs + first..][..width];
                            line.0.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += share * weight);
                        }
                    }
                }
            },
        );
        Self(places)
    }

    /// Of the windows over a result's gradient that give the input's: the same weight with its places in reverse, and inputs and
    /// outputs exchanged.
    pub fn of_gradient(weight: &[f32], outputs: usize) -> Self {
        let plane = weight.len() / WINDOW;
        let inputs = plane / outputs;
        let mut turned = vec![0.0; weight.len()];
        turned.par_chunks_exact_mut(plane).zip(weight.par_chunks_exact(plane).rev()).for_each(|(turned, weight)| {
            for (output, row) in turned.chunks_exact_mut(inputs).enumerate() {
                row.iter_mut().zip(weight.chunks_exact(outputs)).for_each(|(value, weights)| *value = weights[output]);
            }
        });
        Self::from_values(&turned, inputs)
    }

    /// One without values, of which nothing but its shape and size is asked.
    pub fn outline(inputs: usize, outputs: usize) -> Self {
        Self(PackedMatrix::outline(PLACES * inputs, outputs))
    }

    fn inputs(&self) -> usize {
        self.0.depth() / PLACES
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

/// Whether windows with a weight of so many inputs and outputs are faster this way, on this machine. A weight takes 16 places of
/// nine: those of a ResNet's last stage, over 7×7 pixels, would gain least and take most. It was not measured with fewer
/// channels, nor beside a matrix unit.
pub fn suits(window: Window, inputs: usize, outputs: usize) -> bool {
    const LEAST: usize = 16;
    const MOST: usize = 256 * 256;
    let fits = inputs.min(outputs) >= LEAST && inputs * outputs <= MOST;
    window.kernel == 3 && window.stride == 1 && fits && !has_matrix_unit() && uses_kernel("winograd", &Device::Cpu)
}

/// The sum of a window's weights, rows first, that is multiplied at a place.
pub fn filtered(window: &[f32], place: usize) -> f32 {
    window.iter().zip(SHARES[place]).fold(0.0, |sum, (weight, share)| sum + share * weight)
}

impl ConvWeight for WinogradWeight {
    fn shape(&self) -> [usize; 2] {
        [self.inputs() * WINDOW, self.0.columns()]
    }

    fn conv_values(
        &self,
        x: &[f32],
        geometry: &Geometry,
        bias: &[f32],
        activation: Activation,
        residual: Option<&[f32]>,
    ) -> Vec<f32> {
        let Window { kernel, stride, .. } = geometry.window;
        assert_eq!([kernel, stride, geometry.channels], [3, 1, self.inputs()], "windows of 3×3 a pixel apart");
        let outputs = self.0.columns();
        assert_eq!(bias.len(), outputs, "a bias per output");
        let part = Part::of(geometry, outputs, rayon::current_num_threads());
        let mut result = space(geometry.positions() * outputs);
        assert!(residual.is_none_or(|residual| residual.len() == result.len()), "the residual covers the result");
        let pass = Pass {
            x,
            geometry,
            tiles: Tiles::of(geometry),
            part,
            weight: self,
            bias: &lines(bias),
            zeros: &lines(&vec![0.0; outputs]),
            activation,
            residual,
            results: Results { first: result.as_mut_ptr().cast(), slice: PhantomData },
        };
        let (all, panels) = (pass.tiles.all(), self.0.panels());
        let parts = (0..panels).step_by(part.panels).flat_map(|panel| {
            let tiles = (0..all).step_by(part.tiles);
            tiles.map(move |tile| (tile..all.min(tile + part.tiles), panel..panels.min(panel + part.panels)))
        });
        parts.collect::<Vec<_>>().into_par_iter().for_each(|(tiles, panels)| pass.compute(tiles, panels));
        // SAFETY: the parts are all panels of all tiles, which are all of the result.
        unsafe { written(result) }
    }
}

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
struct Pass<'a> {
    x: &'a [f32],
    geometry: &'a Geometry,
    tiles: Tiles,
    part: Part,
    weight: &'a WinogradWeight,
    bias: &'a [Line],
    /// As many.
    zeros: &'a [Line],
    activation: Activation,
    residual: Option<&'a [f32]>,
    results: Results<'a>,
}

impl Pass<'_> {
    /// Computes some columns of the results of some tiles.
    fn compute(&self, tiles: Range<usize>, panels: Range<usize>) {
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
                        start: Start::Bias(if place == OF_ALL { self.bias } else { self.zeros }),
                        residual: None,
                        activation: Activation::None,
                        unit: Unit::Vectors,
                    };
                    let sums = &mut sums[place * part.sums..][..tiles.len() * columns.len()];
                    product.write(Target::holding(sums, columns.len()));
                }
                Arch::new().dispatch(Scatter { pass: self, tiles: tiles.clone(), columns, sums });
            }
        });
    }

    /// The channels of the pixels that a tile reads.
    fn pixels<'a>(&'a self, tile: usize, outside: &'a [f32]) -> [[&'a [f32]; REACH]; REACH] {
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
}

impl WithSimd for Scatter<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { pass, tiles, columns, sums } = self;
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
                            store(simd, pass.results.first.add(at), length, value);
                        }
                    }
                }
            }
            for (row, column) in (0..rows).flat_map(|row| (0..row_length).map(move |column| (row, column))) {
                // SAFETY: as above; they have just been written.
                let values =
                    unsafe { std::slice::from_raw_parts_mut(pass.results.first.add(result(row, column)), width) };
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

#[cfg(test)]
mod tests {
    use candle_core::{DType, Result, Tensor, Var};

    use super::*;
    use crate::ops::packed::conv;
    use crate::ops::testing::{assert_close, random, views};
    use crate::ops::{self, Padding, Weight, with_elements};

    fn window(padding: usize) -> Window {
        Window { kernel: 3, stride: 1, padding: Padding::Each(padding) }
    }

    fn packed(weight: &Tensor) -> Result<WinogradWeight> {
        with_elements([weight], |elements| Ok(WinogradWeight::from_values(elements[0], weight.dims()[3])))
    }

    #[test]
    fn equals_its_composed_form() -> Result<()> {
        let same = Window { kernel: 3, stride: 1, padding: Padding::Same };
        for window in [window(1), window(0), window(2), same] {
            // Sides of an odd number of results, fewer than a tile, more tiles than are computed together; channels and outputs
            // that fill registers and panels, and that do not.
            for (shape, outputs) in
                [([2, 8, 6, 32], 64), ([3, 9, 7, 5], 18), ([1, 3, 3, 70], 97), ([2, 62, 41, 19], 70)]
            {
                for x in views(&shape)? {
                    let (weight, bias) = (random(&[3, 3, shape[3], outputs], 2)?, random(&[outputs], 3)?);
                    let packed = packed(&weight)?;
                    let oracle = ops::conv::composed(&x, &weight, &bias, window, Activation::None, None)?;
                    assert_close(&conv(&x, &packed, &bias, window, Activation::None, None)?, &oracle, 2e-5)?;
                    let residual = random(oracle.dims(), 4)?;
                    let sum = (oracle + residual.clone())?;
                    let ours = conv(&x, &packed, &bias, window, Activation::Relu, Some(&residual))?;
                    assert_close(&ours, &sum.relu()?, 2e-5)?;
                    let ours = conv(&x, &packed, &bias, window, Activation::Silu, Some(&residual))?;
                    assert_close(&ours, &sum.silu()?, 2e-5)?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn gives_the_gradient_of_the_input() -> Result<()> {
        for padding in [0, 1, 2] {
            let (window, back) = (window(padding), window(2 - padding));
            let x = Var::from_tensor(&random(&[2, 7, 6, 37], 1)?)?;
            let weight = random(&[3, 3, 37, 70], 2)?;
            let y = ops::conv::composed(&x, &weight, &random(&[70], 3)?, window, Activation::None, None)?;
            let upstream = random(y.dims(), 4)?;
            let gradients = (&y * &upstream)?.sum_all()?.backward()?;
            let of_gradient = with_elements([&weight], |elements| Ok(WinogradWeight::of_gradient(elements[0], 70)))?;
            let zeros = Tensor::zeros(37, DType::F32, &Device::Cpu)?;
            let ours = conv(&upstream, &of_gradient, &zeros, back, Activation::None, None)?;
            assert_close(&ours, gradients.get(&x).unwrap(), 5e-5)?;
        }
        Ok(())
    }

    #[test]
    fn sums_of_a_file_are_those_of_a_tensor() -> Result<()> {
        let (inputs, outputs) = (6, 19);
        let weight = random(&[3, 3, inputs, outputs], 2)?;
        let of_file = weight.permute((3, 2, 0, 1))?.flatten_all()?.to_vec1::<f32>()?;
        let places = PackedMatrix::new(PLACES * inputs, outputs, |row, output| {
            filtered(&of_file[(output * inputs + row % inputs) * WINDOW..][..WINDOW], row / inputs)
        });
        let of_tensor = packed(&weight)?;
        for panel in 0..places.panels() {
            let lines = places.panel(panel).iter().zip(of_tensor.0.panel(panel));
            lines.for_each(|(one, other)| assert_eq!(one.0, other.0));
        }
        Ok(())
    }

    #[test]
    fn an_image_has_the_same_result_in_any_company() -> Result<()> {
        let (x, bias) = (random(&[5, 13, 14, 33], 1)?, random(&[70], 3)?);
        let weight = packed(&random(&[3, 3, 33, 70], 2)?)?;
        let together = conv(&x, &weight, &bias, window(1), Activation::Gelu, None)?;
        for threads in [1, 4, 16] {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(candle_core::Error::wrap)?;
            for (first, count) in [(0, 1), (1, 3), (4, 1)] {
                let some = x.narrow(0, first, count)?;
                let alone = pool.install(|| conv(&some, &weight, &bias, window(1), Activation::Gelu, None))?;
                let part = together.narrow(0, first, count)?.flatten_all()?.to_vec1::<f32>()?;
                assert_eq!(alone.flatten_all()?.to_vec1::<f32>()?, part);
            }
        }
        Ok(())
    }

    /// Pixels of one sign, as after a ReLU, whose sums cancel: about as near to sums in f64 as the windows' own products.
    #[test]
    fn is_about_as_exact_as_windows() -> Result<()> {
        let (x, bias) = (random(&[1, 14, 14, 256], 1)?.abs()?, random(&[64], 3)?);
        let weight = random(&[3, 3, 256, 64], 2)?;
        let exact = [&x, &weight, &bias].map(|tensor| tensor.to_dtype(DType::F64));
        let [exact_x, exact_weight, exact_bias] = exact;
        let exact = ops::conv::composed(&exact_x?, &exact_weight?, &exact_bias?, window(1), Activation::None, None)?;
        let error = |ours: Tensor| (ours.to_dtype(DType::F64)? - &exact)?.sqr()?.mean_all()?.sqrt()?.to_scalar::<f64>();
        let windows = PackedMatrix::from_tensor(&weight)?;
        let theirs = error(conv(&x, &windows, &bias, window(1), Activation::None, None)?)?;
        let ours = error(conv(&x, &packed(&weight)?, &bias, window(1), Activation::None, None)?)?;
        assert!(ours < 2.5 * theirs && ours > 0.0, "{ours} {theirs}");
        Ok(())
    }

    #[test]
    fn what_is_not_a_number_reaches_all_that_read_it() -> Result<()> {
        let mut values = random(&[1, 6, 6, 32], 1)?.flatten_all()?.to_vec1::<f32>()?;
        values[(2 * 6 + 3) * 32 + 5] = f32::NAN;
        let x = Tensor::from_vec(values, (1, 6, 6, 32), &Device::Cpu)?;
        let weight = packed(&random(&[3, 3, 32, 32], 2)?)?;
        let result = conv(&x, &weight, &random(&[32], 3)?, window(1), Activation::Relu, None)?;
        let result = result.squeeze(0)?.to_vec3::<f32>()?;
        assert!(result[1..4].iter().all(|row| row[2..5].iter().flatten().all(|value| value.is_nan())));
        assert!(result[5].iter().flatten().all(|value| value.is_finite()));
        Ok(())
    }

    #[test]
    fn a_weight_of_other_channels_or_windows_is_an_error() -> Result<()> {
        let (x, bias) = (random(&[1, 6, 6, 5], 1)?, random(&[7], 3)?);
        let weight = packed(&random(&[3, 3, 6, 7], 2)?)?;
        assert!(conv(&x, &weight, &bias, window(1), Activation::None, None).is_err());
        let (weight, x) = (Weight::Winograd(weight), random(&[1, 6, 6, 6], 1)?);
        let of = |window| weight.conv(&x, &bias, window, Activation::None, None);
        assert!(of(window(1)).is_ok() && of(Window::centered(3, 2)).is_err());
        let x = random(&[1, 6, 6, 54], 1)?;
        assert!(weight.conv(&x, &bias, Window::centered(1, 1), Activation::None, None).is_err());
        Ok(())
    }
}
