//! Dense convolution with a quantized weight: each image becomes a padded image of bytes once, and windows are read
//! straight from that.

use std::mem::MaybeUninit;

use candle_core::{Result, Shape, Tensor};
use rayon::prelude::*;

use super::activations::{Code, Coder, Range, encode, encode_rows, range};
use super::linear::linear;
use super::matrix::QuantizedMatrix;
use super::product::{Product, Residual};
use super::row_bytes::RowBytes;
use crate::ops::packed::{ImageTile as Tile, Rows, Start, Target, lines, tiles_of};
use crate::ops::window::Geometry;
use crate::ops::{Activation, Padding, Window, filled, with_elements, work};

/// `activation(convolution(x) + bias + residual)`, each image of `x` rounded to bytes; with a window of one pixel, each
/// pixel.
///
/// `x` has shape `(n, h, w, inputs)`, `weight` `kernel` segments of `kernel · inputs` in that order, `bias` `(outputs)`;
/// the result and `residual` have shape `(n, h', w', outputs)`.
pub fn conv(
    x: &Tensor,
    weight: &QuantizedMatrix,
    bias: &Tensor,
    window: Window,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    if window.padding == Padding::Ceil {
        candle_core::bail!("a convolution's windows lie inside its padded input");
    }
    if window == Window::centered(1, 1) {
        return linear(x, weight, bias, activation, residual);
    }
    let geometry = window.over(x.dims())?;
    let outputs = weight.columns();
    let fits = weight.depth() == window.kernel.pow(2) * geometry.channels && weight.segments() == window.kernel;
    if !fits || bias.elem_count() != outputs {
        candle_core::bail!("conv weight of depth {} does not fit input {:?}", weight.depth(), x.dims());
    }
    let shape = Shape::from((geometry.batch, geometry.out_height, geometry.out_width, outputs));
    if residual.is_some_and(|residual| residual.shape() != &shape) {
        candle_core::bail!("conv was given a residual of another shape than {shape:?}");
    }
    work::product(geometry.batch * geometry.out_height * geometry.out_width, weight.depth(), outputs);
    with_elements([x, bias].into_iter().chain(residual), |elements| {
        let (x, bias, residual) = (elements[0], lines(elements[1]), elements.get(2).copied());
        let coded = if window.kernel == 1 { Coded::pixels(&geometry, x) } else { Coded::images(&geometry, x) };
        let write = |mut space: &mut [MaybeUninit<f32>]| {
            let mut tiles = Vec::new();
            for tile in tiles_of(&geometry, rayon::current_num_threads()) {
                let (part, rest) = space.split_at_mut(tile.rows * tile.images * geometry.out_width * outputs);
                tiles.push((tile, Target::new(part, outputs)));
                space = rest;
            }
            let is_shared = tiles.len() < rayon::current_num_threads();
            tiles.into_par_iter().for_each(|(tile, target)| {
                let first = tile.first_row(&geometry);
                let (rows, codes) = coded.windows(&tile);
                let residual = Residual::floats(residual.map(|residual| &residual[first * outputs..]));
                let whole = Product::whole(rows, codes, weight, Start::Bias(&bias));
                let product = Product { residual, activation, ..whole };
                if is_shared { product.write_shared(target) } else { product.write(target) }
            });
        };
        // SAFETY: the tiles are all of the space, and the products fill their targets.
        unsafe { filled(shape, write) }
    })
}

/// Images as bytes, as large as the windows reach, and a code for each output position.
pub struct Coded {
    bytes: RowBytes,
    codes: Vec<Code>,
    /// The convolution over these images, which needs no padding.
    geometry: Geometry,
}

impl Coded {
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The windows of a tile, and their codes.
    pub fn windows(&self, tile: &Tile) -> (Rows<'_, u8>, &[Code]) {
        let read = &self.geometry;
        let (row, image) = (read.width * read.channels, read.height * read.width * read.channels);
        let start = tile.image * image + tile.y * read.window.stride * row;
        let codes = &self.codes[tile.first_row(read)..][..tile.positions(read)];
        (tile.windows(read, &self.bytes.with_slack()[start..], read.width, image), codes)
    }

    /// One code per image. What lies outside of it is zero.
    pub fn images(geometry: &Geometry, x: &[f32]) -> Self {
        let row = (geometry.width * geometry.channels).max(1);
        Self::images_within(geometry, x, |_, x| x.par_chunks(row).map(range).reduce(|| Range::ZERO, Range::and))
    }

    /// The same with the range that `range_of` gives for an image's number and values.
    pub fn images_within(geometry: &Geometry, x: &[f32], range_of: impl Fn(usize, &[f32]) -> Range + Sync) -> Self {
        let (height, row) = (geometry.height, geometry.width * geometry.channels);
        let image = (height * row).max(1);
        let coder_of = |index: usize| range_of(index, &x[index * image..][..image]).coder();
        let fill = |index: usize, y: usize, coder, rows: &mut [&mut [MaybeUninit<u8>]]| {
            for (values, bytes) in x[index * image + y * row..].chunks(row).zip(rows) {
                encode(coder, &values[..bytes.len()], bytes);
            }
        };
        // SAFETY: every row is coded.
        unsafe { Self::framed(geometry, 1, coder_of, fill) }
    }

    /// Images of bytes, a coder for each, within as many zeros as windows see. `fill` is called with an image's number, that
    /// of the first of up to `band` of its rows, the coder, and of those rows what windows see.
    ///
    /// # Safety
    /// `fill` must write all that it is given.
    pub unsafe fn framed(
        geometry: &Geometry,
        band: usize,
        coder_of: impl Fn(usize) -> Coder + Sync,
        fill: impl Fn(usize, usize, Coder, &mut [&mut [MaybeUninit<u8>]]) + Sync,
    ) -> Self {
        let Geometry { window: Window { kernel, stride, .. }, batch, height, width, channels, top, left, .. } =
            *geometry;
        let (out_height, out_width) = (geometry.out_height, geometry.out_width);
        let reach = |outputs: usize| (outputs - 1) * stride + kernel;
        let (padded_height, padded_width) = (reach(out_height), reach(out_width));
        let padded_row = padded_width * channels;
        let (left, inside) = (left * channels, (width * channels).min(padded_row - left * channels));
        let mut codes = vec![Code::default(); batch * out_height * out_width];
        let write = |bytes: &mut [MaybeUninit<u8>]| {
            let images = bytes.par_chunks_mut((padded_height * padded_row).max(1));
            let images = images.zip(codes.par_chunks_mut(out_height * out_width)).enumerate();
            images.for_each(|(image, (bytes, codes))| {
                let coder = coder_of(image);
                let zero = MaybeUninit::new(coder.zero());
                codes.fill(coder.code);
                bytes.par_chunks_mut(band * padded_row).enumerate().for_each(|(index, bytes)| {
                    let first = index * band;
                    let mut rows = Vec::with_capacity(band);
                    for (y, bytes) in (first..).zip(bytes.chunks_exact_mut(padded_row)) {
                        if y < top || y >= top + height {
                            bytes.fill(zero);
                            continue;
                        }
                        let (before, rest) = bytes.split_at_mut(left);
                        let (row, after) = rest.split_at_mut(inside);
                        before.fill(zero);
                        after.fill(zero);
                        rows.push(row);
                    }
                    if !rows.is_empty() {
                        fill(image, first.max(top) - top, coder, &mut rows);
                    }
                });
            });
        };
        // SAFETY: the caller's promise; all around is zero.
        let bytes = unsafe { RowBytes::filled(batch * padded_height * padded_row, write) };
        let geometry = Geometry { height: padded_height, width: padded_width, top: 0, left: 0, ..*geometry };
        Self { bytes, codes, geometry }
    }

    /// Only the pixels that windows of one pixel see, a code for each.
    fn pixels(geometry: &Geometry, x: &[f32]) -> Self {
        let Geometry { window, batch, height, width, channels, top, left, out_height, out_width } = *geometry;
        let mut codes = vec![Code::default(); batch * out_height * out_width];
        let length = batch * out_height * out_width * channels;
        // SAFETY: all are written.
        let mut bytes = unsafe { RowBytes::filled(length, |bytes| bytes.fill(MaybeUninit::new(0))) };
        let rows = bytes.with_slack_mut()[..length].par_chunks_mut((out_width * channels).max(1));
        rows.zip(codes.par_chunks_mut(out_width.max(1))).enumerate().for_each(|(index, (bytes, codes))| {
            let y = (index % out_height * window.stride).wrapping_sub(top);
            for (column, (bytes, code)) in bytes.chunks_exact_mut(channels).zip(codes.chunks_exact_mut(1)).enumerate() {
                let x_place = (column * window.stride).wrapping_sub(left);
                if y < height && x_place < width {
                    let at = ((index / out_height * height + y) * width + x_place) * channels;
                    encode_rows(&x[at..][..channels], channels, bytes, code);
                }
            }
        });
        let window = Window::centered(1, 1);
        let geometry = Geometry { window, height: out_height, width: out_width, top: 0, left: 0, ..*geometry };
        Self { bytes, codes, geometry }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::quantized::composed;
    use crate::ops::testing::{assert_close, conv_windows, random, views};

    #[test]
    fn equals_the_convolution_of_rounded_images_and_weights() -> Result<()> {
        for window in conv_windows() {
            let kernel = window.kernel;
            // Several images per tile, and several tiles per image.
            for shape in [[5, 9, 12, 5], [2, 40, 37, 3]] {
                let (channels, outputs) = (shape[3], 18);
                let plain: Vec<f32> = random(&[kernel * kernel * channels * outputs], 2)?.to_vec1()?;
                let weight = QuantizedMatrix::new([kernel, kernel * channels], outputs, |row, column| {
                    plain[row * outputs + column]
                });
                for x in views(&shape)? {
                    let bias = random(&[outputs], 3)?;
                    let oracle = composed::conv(&x, &weight, &bias, window, Activation::None, None)?;
                    let residual = random(oracle.dims(), 4)?;
                    let ours = conv(&x, &weight, &bias, window, Activation::Relu, Some(&residual))?;
                    assert_close(&ours, &(oracle + residual)?.relu()?, 1e-4)?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn an_image_has_the_same_result_in_any_company() -> Result<()> {
        let plain: Vec<f32> = random(&[3 * 3 * 8 * 20], 2)?.to_vec1()?;
        let weight = QuantizedMatrix::new([3, 24], 20, |row, column| plain[row * 20 + column]);
        let (x, bias) = (random(&[9, 11, 10, 8], 1)?, random(&[20], 3)?);
        let window = Window::centered(3, 1);
        let together = conv(&x, &weight, &bias, window, Activation::None, None)?;
        for image in 0..9 {
            let alone = conv(&x.narrow(0, image, 1)?, &weight, &bias, window, Activation::None, None)?;
            let [alone, together] = [alone, together.narrow(0, image, 1)?].map(|x| x.flatten_all()?.to_vec1::<f32>());
            assert_eq!(alone?, together?);
        }
        Ok(())
    }

    #[test]
    fn an_image_smaller_than_the_window_is_an_error() -> Result<()> {
        let (x, bias) = (random(&[1, 3, 3, 2], 1)?, random(&[2], 3)?);
        let weight = QuantizedMatrix::new([7, 14], 2, |_, _| 1.0);
        let window = Window { kernel: 7, stride: 1, padding: Padding::Each(0) };
        assert!(conv(&x, &weight, &bias, window, Activation::None, None).is_err());
        Ok(())
    }
}
