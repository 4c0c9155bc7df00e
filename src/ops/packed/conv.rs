//! Dense convolution with a packed weight, straight from the image: a window's row is one run of values in NHWC, so its
//! rows are the segments of a product. Only what needs padding is copied, a tile at a time.

use candle_core::{Result, Shape, Tensor};
use rayon::prelude::*;

use super::linear::{by_columns, tile_limits};
use super::matrix::{PackedMatrix, lines};
use super::operands::{Rows, Start, Target};
use super::product::{Product, Unit};
use super::winograd::{self, WinogradWeight};
use crate::ops::window::Geometry;
use crate::ops::{Activation, Padding, Window, scratch, space, with_elements, work, written};

/// The weight of windows, in the order of what computes with it.
pub trait ConvWeight {
    /// The depth of a window, and outputs.
    fn shape(&self) -> [usize; 2];

    /// `activation(convolution(x) + bias + residual)` on slices, row-major.
    fn conv_values(
        &self,
        x: &[f32],
        geometry: &Geometry,
        bias: &[f32],
        activation: Activation,
        residual: Option<&[f32]>,
    ) -> Vec<f32>;
}

/// A weight of shape `(kernel, kernel, inputs, outputs)` for one convolution with these windows.
pub fn passing(weight: &[f32], window: Window, [inputs, outputs]: [usize; 2]) -> Box<dyn ConvWeight> {
    if winograd::suits(window, inputs, outputs) {
        Box::new(WinogradWeight::from_values(weight, outputs))
    } else {
        Box::new(PackedMatrix::scaled(weight, outputs, None))
    }
}

/// `activation(convolution(x) + bias + residual)`.
///
/// `x` has shape `(n, h, w, inputs)`, `weight` a depth of `kernel · kernel · inputs`, `bias` `(outputs)`; the result and
/// `residual` have shape `(n, h', w', outputs)`.
pub fn conv(
    x: &Tensor,
    weight: &dyn ConvWeight,
    bias: &Tensor,
    window: Window,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    if window.padding == Padding::Ceil {
        candle_core::bail!("a convolution's windows lie inside its padded input");
    }
    let geometry = window.over(x.dims())?;
    let [depth, outputs] = weight.shape();
    if depth != window.kernel.pow(2) * geometry.channels || bias.elem_count() != outputs {
        candle_core::bail!("conv weight of depth {depth} does not fit input {:?}", x.dims());
    }
    let shape = Shape::from((geometry.batch, geometry.out_height, geometry.out_width, outputs));
    if residual.is_some_and(|residual| residual.shape() != &shape) {
        candle_core::bail!("conv was given a residual of another shape than {shape:?}");
    }
    work::product(geometry.positions(), depth, outputs);
    with_elements([x, bias].into_iter().chain(residual), |elements| {
        let residual = elements.get(2).copied();
        let values = weight.conv_values(elements[0], &geometry, elements[1], activation, residual);
        Tensor::from_vec(values, shape, x.device())
    })
}

/// With rows of the depth in their own order.
impl ConvWeight for PackedMatrix {
    fn shape(&self) -> [usize; 2] {
        [self.depth(), self.columns()]
    }

    fn conv_values(
        &self,
        x: &[f32],
        geometry: &Geometry,
        bias: &[f32],
        activation: Activation,
        residual: Option<&[f32]>,
    ) -> Vec<f32> {
        let outputs = self.columns();
        let bias = lines(bias);
        let whole = Product {
            rows: Rows::dense(&[], 0, 0),
            weight: self,
            depth: 0..self.depth(),
            panels: 0..self.panels(),
            start: Start::Bias(&bias),
            residual,
            activation,
            unit: Unit::for_rows(geometry.out_height * geometry.out_width),
        };
        let mut result = space(geometry.positions() * outputs);
        let mut rest = result.as_mut_slice();
        let mut tiles = Vec::new();
        for tile in tiles_of(geometry, rayon::current_num_threads()) {
            let (part, others) = rest.split_at_mut(tile.rows * tile.images * geometry.out_width * outputs);
            tiles.push((tile, Target::new(part, outputs)));
            rest = others;
        }
        let is_shared = tiles.len() < rayon::current_num_threads();
        tiles.into_par_iter().for_each(|(tile, target)| {
            tile.with_windows(geometry, x, is_shared, |rows| {
                let residual = whole.residual.map(|residual| &residual[tile.first_row(geometry) * outputs..]);
                let product = Product { rows, residual, ..whole.clone() };
                if is_shared { by_columns(&product, target) } else { product.write(target) }
            });
        });
        // SAFETY: the tiles are all of the result, and the products fill their targets.
        unsafe { written(result) }
    }
}

/// Output rows computed together: some of one image, or all of several.
pub struct Tile {
    pub image: usize,
    pub images: usize,
    pub y: usize,
    pub rows: usize,
}

/// Tiles for so many threads, in the order of the output.
pub fn tiles_of(geometry: &Geometry, threads: usize) -> Vec<Tile> {
    tiles_within(geometry, tile_limits().0, threads)
}

/// The same of `most` positions, but for a row of more.
pub fn tiles_within(geometry: &Geometry, most: usize, threads: usize) -> Vec<Tile> {
    let Geometry { batch, out_height, out_width, .. } = *geometry;
    let share = batch.div_ceil(threads);
    let images = (most / (out_height * out_width).max(1)).min(share);
    if images > 0 {
        let starts = (0..batch).step_by(images);
        return starts.map(|image| Tile { image, images: images.min(batch - image), y: 0, rows: out_height }).collect();
    }
    let parts = out_height.div_ceil((most / out_width).max(1));
    let rows = out_height.div_ceil(parts);
    let starts = (0..batch).flat_map(|image| (0..out_height).step_by(rows).map(move |y| (image, y)));
    starts.map(|(image, y)| Tile { image, images: 1, y, rows: rows.min(out_height - y) }).collect()
}

impl Tile {
    /// The output row, counted in positions, at which the tile begins.
    pub fn first_row(&self, geometry: &Geometry) -> usize {
        (self.image * geometry.out_height + self.y) * geometry.out_width
    }

    /// Its output positions.
    pub fn positions(&self, geometry: &Geometry) -> usize {
        self.images * self.rows * geometry.out_width
    }

    /// The windows over images of a width, the first of which begins with the first row that the tile reads.
    pub fn windows<'a, T>(
        &self,
        geometry: &Geometry,
        elements: &'a [T],
        width: usize,
        image_stride: usize,
    ) -> Rows<'a, T> {
        let Geometry { window: Window { kernel, stride, .. }, channels, out_width, .. } = *geometry;
        Rows {
            elements,
            images: self.images,
            image_stride,
            groups: self.rows,
            group_stride: stride * width * channels,
            count: out_width,
            row_stride: stride * channels,
            segments: kernel,
            segment_stride: width * channels,
            segment_length: kernel * channels,
        }
    }

    /// Height and width of a padded copy of what the tile reads of an image, unless nothing has to be padded.
    pub fn padded(&self, geometry: &Geometry) -> Option<[usize; 2]> {
        let Geometry { window: Window { kernel, stride, .. }, height, width, top, left, .. } = *geometry;
        let reach = |outputs: usize| (outputs - 1) * stride + kernel;
        let lies_inside = top + left == 0 && reach(geometry.out_height) <= height && reach(geometry.out_width) <= width;
        (!lies_inside).then(|| [reach(self.rows), reach(geometry.out_width)])
    }

    /// Calls `compute`, which all threads may share, with the windows of the tile: in the image itself where nothing has to be
    /// padded.
    fn with_windows<R>(&self, geometry: &Geometry, x: &[f32], is_shared: bool, compute: impl FnOnce(Rows) -> R) -> R {
        let Geometry { window: Window { stride, .. }, height, width, channels, top, left, .. } = *geometry;
        let image = height * width * channels;
        let Some([padded_height, padded_width]) = self.padded(geometry) else {
            let first = self.image * image + self.y * stride * width * channels;
            return compute(self.windows(geometry, &x[first..], width, image));
        };
        let padded = padded_height * padded_width * channels;
        scratch::with_shared(self.images * padded, is_shared, |space| {
            for (index, space) in space.chunks_exact_mut(padded).enumerate() {
                let x = &x[(self.image + index) * image..][..image];
                for (row, space) in space.chunks_exact_mut(padded_width * channels).enumerate() {
                    space.fill(0.0);
                    let Some(y) = (self.y * stride + row).checked_sub(top).filter(|y| *y < height) else { continue };
                    let length = width.min(padded_width - left) * channels;
                    space[left * channels..][..length].copy_from_slice(&x[y * width * channels..][..length]);
                }
            }
            compute(self.windows(geometry, space, padded_width, padded))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;
    use crate::ops::testing::{assert_close, conv_windows, random, views};

    #[test]
    fn equals_its_composed_form() -> Result<()> {
        for window in conv_windows() {
            // Several images per tile, and several tiles per image.
            for shape in [[5, 9, 12, 5], [2, 40, 37, 3]] {
                for x in views(&shape)? {
                    let weight = random(&[window.kernel, window.kernel, shape[3], 18], 2)?;
                    let packed = PackedMatrix::from_tensor(&weight)?;
                    let bias = random(&[18], 3)?;
                    let oracle = ops::conv::composed(&x, &weight, &bias, window, Activation::None, None)?;
                    assert_close(&conv(&x, &packed, &bias, window, Activation::None, None)?, &oracle, 2e-5)?;
                    let residual = random(oracle.dims(), 4)?;
                    let ours = conv(&x, &packed, &bias, window, Activation::Relu, Some(&residual))?;
                    assert_close(&ours, &(oracle + residual)?.relu()?, 2e-5)?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn an_image_smaller_than_the_window_is_an_error() -> Result<()> {
        let (x, bias) = (random(&[1, 3, 3, 2], 1)?, random(&[2], 3)?);
        let weight = PackedMatrix::from_tensor(&random(&[7, 7, 2, 2], 2)?)?;
        let window = Window { kernel: 7, stride: 2, padding: Padding::Each(0) };
        assert!(conv(&x, &weight, &bias, window, Activation::None, None).is_err());
        Ok(())
    }
}
