//! A residual block of three convolutions (1×1, windows, 1×1) on coded images. In f32 there are only the narrow image, which
//! must be known before its windows are coded, and one tile of what follows: neither leaves the cache.

use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::activations::{Code, Range, encode_rows, range};
use super::conv::Coded;
use super::images::{CodedImages, Pixels};
use super::matrix::QuantizedMatrix;
use super::product::{Product, Residual};
use super::row_bytes::SLACK;
use crate::ops::packed::{FEW_ROWS, ImageTile, Line, Rows, Start, Target, lines, tile_rows, tiles_within};
use crate::ops::window::Geometry;
use crate::ops::{Activation, Padding, Window, filled, scratch, with_elements, work};

/// Positions of the result that are computed together: more would leave the second-level cache, fewer read weights too often.
const TILE: usize = 256;
/// Those of them that are widened together: their sums stay in the first-level cache, or close to it.
const WIDENED: usize = 64;

/// A convolution's weight, bias, window and activation.
pub type CodedLayer<'a> = (&'a QuantizedMatrix, &'a Tensor, Window, Activation);

/// The convolutions of a block behind its first one.
#[derive(Clone, Copy)]
pub struct Bottleneck<'a> {
    pub windows: CodedLayer<'a>,
    /// With a window of one pixel; its activation follows the sum.
    pub widening: CodedLayer<'a>,
    /// What the block's input passes before it is added, if anything: a window of one pixel.
    pub shortcut: Option<CodedLayer<'a>>,
}

/// What a block's first convolution gives, and the range of each image.
pub struct Narrow {
    values: Tensor,
    ranges: Vec<Range>,
}

impl Narrow {
    /// Of a tensor of shape `(n, h, w, channels)`.
    pub fn new(values: Tensor) -> Result<Self> {
        let (batch, ..) = values.dims4()?;
        let image = (values.elem_count() / batch.max(1)).max(1);
        let ranges = with_elements([&values], |elements| Ok(elements[0].par_chunks(image).map(range).collect()))?;
        Ok(Self { values, ranges })
    }
}

/// `activation(x · weight + bias)`: a convolution with a window of one pixel, as [`super::conv`] computes it.
pub fn linear_coded(x: &CodedImages, layer: CodedLayer) -> Result<Narrow> {
    let ([batch, height, width, inputs], outputs) = (x.shape(), layer.0.columns());
    if layer.0.depth() != inputs || layer.2 != Window::centered(1, 1) || layer.1.elem_count() != outputs {
        candle_core::bail!("a layer of {} inputs was given images of {:?}", layer.0.depth(), x.shape());
    }
    let rows = x.codes().len();
    work::product(rows, inputs, outputs);
    let (image, ranges) = (height * width, Mutex::new(vec![Range::ZERO; batch]));
    let values = with_elements([layer.1], |elements| {
        let bias = lines(elements[0]);
        let is_shared = rows <= FEW_ROWS;
        let tile = if is_shared { rows } else { tile_rows(rows, usize::MAX) };
        let write = |space: &mut [MaybeUninit<f32>]| {
            space.par_chunks_mut((tile * outputs).max(1)).enumerate().for_each(|(index, space)| {
                let (first, target) = (index * tile, Target::new(&mut *space, outputs));
                let rows = Rows::dense(&x.bytes()[first * inputs..], target.rows, inputs);
                let codes = &x.codes()[first..][..target.rows];
                let last = first + target.rows;
                multiply(layer, (rows, codes), Start::Bias(&bias), Residual::None, target, is_shared);
                // SAFETY: the product has filled its target.
                let values = unsafe { space.assume_init_ref() };
                // While they are in the cache.
                for index in first / image..last.div_ceil(image) {
                    let part = first.max(index * image)..last.min((index + 1) * image);
                    let seen = range(&values[(part.start - first) * outputs..(part.end - first) * outputs]);
                    let mut ranges = ranges.lock().unwrap_or_else(PoisonError::into_inner);
                    ranges[index] = ranges[index].and(seen);
                }
            });
        };
        // SAFETY: the products fill their targets, which are all of the space.
        unsafe { filled((batch, height, width, outputs), write) }
    })?;
    Ok(Narrow { values, ranges: ranges.into_inner().unwrap_or_else(PoisonError::into_inner) })
}

/// `activation(widening(windows(narrow)) + shortcut(x))`, each layer as a convolution of its own computes it; `narrow` is what
/// the block's first convolution makes of `x`. Where `x` is added as it is, the result takes its place in memory: then it is
/// still in the cache.
pub fn bottleneck(x: CodedImages, narrow: Narrow, block: Bottleneck) -> Result<CodedImages> {
    let geometry = block.windows.2.over(narrow.values.dims())?;
    let Geometry { batch, out_height, out_width, .. } = geometry;
    let shape = [batch, out_height, out_width, block.widening.0.columns()];
    if !block.fits(&x, &geometry, shape) {
        candle_core::bail!("the layers of a block do not fit {:?} and {:?}", x.shape(), narrow.values.dims());
    }
    let layers = [block.windows, block.widening].into_iter().chain(block.shortcut);
    for (weight, ..) in layers.clone() {
        work::product(geometry.positions(), weight.depth(), weight.columns());
    }
    let coded = with_elements([&narrow.values], |elements| {
        Ok(Coded::images_within(&geometry, elements[0], |image, _| narrow.ranges[image]))
    })?;
    drop(narrow);
    with_elements(layers.map(|layer| layer.1), |biases| {
        let mut last_bias = biases[1].to_vec();
        if let Some(bias) = biases.get(2) {
            last_bias.iter_mut().zip(*bias).for_each(|(sum, bias)| *sum += bias);
        }
        let (bias, last_bias) = (lines(biases[0]), lines(&last_bias));
        let tiles = tiles_within(&geometry, TILE, rayon::current_num_threads());
        let is_shared = tiles.len() < rayon::current_num_threads();
        let pass = Pass { block, bias, last_bias, coded, geometry, is_shared };
        let fill = |shortcut: Option<Shortcut>, mut pixels: Pixels| {
            let mut parts = Vec::new();
            for tile in tiles {
                let (part, others) = pixels.split_at(tile.positions(&geometry));
                parts.push((tile, part));
                pixels = others;
            }
            parts.into_par_iter().for_each(|(tile, pixels)| pass.write(&tile, shortcut.as_ref(), pixels));
        };
        let Some(layer) = block.shortcut else {
            return Ok(x.recoded(|pixels| fill(None, pixels)));
        };
        let shortcut = Shortcut { x: &x, layer, geometry: layer.2.over(&x.shape())? };
        // SAFETY: the tiles are all pixels.
        Ok(unsafe { CodedImages::filled(shape, |pixels| fill(Some(shortcut), pixels)) })
    })
}

impl Bottleneck<'_> {
    /// Whether the layers fit the images, each other, and the shape of the result.
    fn fits(&self, x: &CodedImages, geometry: &Geometry, shape: [usize; 4]) -> bool {
        let [batch, height, width, inputs] = x.shape();
        let fits = |(weight, bias, window, _): CodedLayer, inputs: usize| {
            weight.depth() == window.kernel.pow(2) * inputs
                && weight.segments() == window.kernel
                && bias.elem_count() == weight.columns()
        };
        let passed = match self.shortcut {
            Some(layer) => {
                let window = layer.2;
                let [height, width] = [height, width].map(|length| length.div_ceil(window.stride));
                let is_pixel = window == Window::centered(1, window.stride) && fits(layer, inputs);
                is_pixel.then_some([batch, height, width, layer.0.columns()])
            }
            None => Some(x.shape()),
        };
        fits(self.windows, geometry.channels)
            && self.windows.2.padding != Padding::Ceil
            && fits(self.widening, self.windows.0.columns())
            && self.widening.2 == Window::centered(1, 1)
            && passed == Some(shape)
    }
}

/// `target = activation(start + rows · weight + residual)`.
pub fn multiply(
    (weight, _, _, activation): CodedLayer,
    (rows, codes): (Rows<u8>, &[Code]),
    start: Start,
    residual: Residual,
    target: Target,
    is_shared: bool,
) {
    let product = Product {
        rows,
        codes,
        weight,
        depth: 0..weight.depth(),
        panels: 0..weight.panels(),
        start,
        residual,
        activation,
    };
    if is_shared { product.write_shared(target) } else { product.write(target) }
}

/// A block over its images.
struct Pass<'a> {
    block: Bottleneck<'a>,
    bias: Vec<Line>,
    /// That of the widening, and of the shortcut's convolution.
    last_bias: Vec<Line>,
    /// What the windows read.
    coded: Coded,
    geometry: Geometry,
    is_shared: bool,
}

/// A shortcut's convolution over the block's input.
struct Shortcut<'a> {
    x: &'a CodedImages,
    layer: CodedLayer<'a>,
    geometry: Geometry,
}

impl Pass<'_> {
    /// Computes the pixels of a tile, which hold the block's input where it has no shortcut.
    fn write(&self, tile: &ImageTile, shortcut: Option<&Shortcut>, pixels: Pixels) {
        let Bottleneck { windows, widening, .. } = self.block;
        let (inner, outputs) = (windows.0.columns(), widening.0.columns());
        let rows = tile.positions(&self.geometry);
        let together = if shortcut.is_some() || self.is_shared { rows } else { WIDENED };
        scratch::with_bytes(rows * inner + together * outputs, rows * inner + SLACK, |floats, bytes| {
            let (middle, sums) = floats.split_at_mut(rows * inner);
            let target = Target::holding(middle, inner);
            multiply(
                windows,
                self.coded.windows(tile),
                Start::Bias(&self.bias),
                Residual::None,
                target,
                self.is_shared,
            );
            let mut codes = vec![Code::default(); rows];
            encode_rows(middle, inner, bytes, &mut codes);
            for (index, pixels) in pixels.chunks(together).enumerate() {
                let (first, count) = (index * together, pixels.count());
                let sums = &mut sums[..count * outputs];
                let (start, residual) = match shortcut {
                    Some(shortcut) => {
                        shortcut.write(tile, &self.last_bias, sums, self.is_shared);
                        (Start::Result, Residual::None)
                    }
                    None => (Start::Bias(&self.last_bias), pixels.held().map_or(Residual::None, Residual::Coded)),
                };
                let middle = (Rows::dense(&bytes[first * inner..], count, inner), &codes[first..][..count]);
                multiply(widening, middle, start, residual, Target::holding(sums, outputs), self.is_shared);
                pixels.encode(sums);
            }
        });
    }
}

impl Shortcut<'_> {
    /// What the sums of a tile begin with.
    fn write(&self, tile: &ImageTile, bias: &[Line], sums: &mut [f32], is_shared: bool) {
        let Self { x: images, layer, geometry } = self;
        let [_, height, width, channels] = images.shape();
        let stride = layer.2.stride;
        let pixel = |row: usize| {
            let (y, x) = (row / geometry.out_width, row % geometry.out_width);
            (y / geometry.out_height * height + y % geometry.out_height * stride) * width + x * stride
        };
        let first = tile.first_row(geometry);
        let codes: Vec<_> = (first..first + tile.positions(geometry)).map(|row| images.codes()[pixel(row)]).collect();
        let bytes = &images.bytes()[pixel(first) * channels..];
        let rows = tile.windows(geometry, bytes, width, height * width * channels);
        let target = Target::holding(sums, layer.0.columns());
        multiply(*layer, (rows, &codes), Start::Bias(bias), Residual::None, target, is_shared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::quantized::conv::conv;
    use crate::ops::testing::random;

    struct Layers(Vec<(QuantizedMatrix, Tensor, Window, Activation)>);

    impl Layers {
        /// Of a block from `inputs` channels, with a shortcut's convolution where it needs one.
        fn new(inputs: usize, outputs: usize, stride: usize) -> Result<Self> {
            let [one, other] = [9, 20];
            let layer = |kernel: usize, stride, inputs: usize, outputs: usize, activation| {
                let seed = (inputs * 31 + outputs) as u64;
                let plain = random(&[kernel * kernel * inputs, outputs], seed)?.to_vec2::<f32>()?;
                let weight = QuantizedMatrix::new([kernel, kernel * inputs], outputs, |row, column| plain[row][column]);
                let bias = random(&[outputs], seed + 1)?;
                Ok::<_, candle_core::Error>((weight, bias, Window::centered(kernel, stride), activation))
            };
            let mut layers = vec![
                layer(1, 1, inputs, one, Activation::Relu)?,
                layer(3, stride, one, other, Activation::Relu)?,
                layer(1, 1, other, outputs, Activation::Relu)?,
            ];
            if stride > 1 || inputs != outputs {
                layers.push(layer(1, stride, inputs, outputs, Activation::None)?);
            }
            Ok(Self(layers))
        }

        /// What all layers make of the images.
        fn apply(&self, x: CodedImages) -> Result<CodedImages> {
            let (weight, bias, window, activation) = &self.0[0];
            let narrow = linear_coded(&x, (weight, bias, *window, *activation))?;
            bottleneck(x, narrow, self.block())
        }

        fn block(&self) -> Bottleneck<'_> {
            let layer = |index: usize| {
                let (weight, bias, window, activation) = &self.0[index];
                (weight, bias, *window, *activation)
            };
            Bottleneck { windows: layer(1), widening: layer(2), shortcut: (self.0.len() > 3).then(|| layer(3)) }
        }
    }

    #[test]
    fn equals_its_convolutions_one_after_the_other() -> Result<()> {
        for (inputs, outputs, stride) in [(37, 37, 1), (37, 50, 1), (37, 37, 2)] {
            let layers = Layers::new(inputs, outputs, stride)?;
            // Several images per tile, and several tiles per image; few of them are shared.
            for shape in [[3, 5, 6, inputs], [2, 23, 17, inputs], [1, 4, 5, inputs]] {
                let coded = CodedImages::new(&random(&shape, 1)?)?;
                // The products see the bytes alone.
                let bytes = coded.bytes().chunks(inputs).zip(coded.codes());
                let x: Vec<_> = bytes
                    .flat_map(|(bytes, code)| bytes.iter().map(|byte| code.offset + code.scale * f32::from(*byte)))
                    .collect();
                let x = Tensor::from_vec(x, &shape, &candle_core::Device::Cpu)?;
                let layer = |x: &Tensor, index: usize, residual: Option<&Tensor>| {
                    let (weight, bias, window, activation) = &layers.0[index];
                    conv(x, weight, bias, *window, *activation, residual)
                };
                let passed = if layers.0.len() > 3 { layer(&x, 3, None)? } else { coded.tensor()? };
                let oracle = layer(&layer(&layer(&x, 0, None)?, 1, None)?, 2, Some(&passed))?;
                let differences = (layers.apply(coded)?.tensor()? - oracle)?.abs()?.flatten_all()?.to_vec1::<f32>()?;
                // The last bit of a sum decides to which byte a value halfway between two goes: that is rare.
                let far = differences.iter().filter(|difference| **difference > 1e-2).count();
                assert!(far <= differences.len() / 20, "{far} of {} differ", differences.len());
            }
        }
        Ok(())
    }

    #[test]
    fn an_image_has_the_same_result_in_any_company() -> Result<()> {
        let layers = Layers::new(37, 50, 2)?;
        let x = random(&[7, 9, 8, 37], 1)?;
        let together = layers.apply(CodedImages::new(&x)?)?.tensor()?;
        for image in 0..7 {
            let alone = layers.apply(CodedImages::new(&x.narrow(0, image, 1)?)?)?.tensor()?;
            let [alone, together] = [alone, together.narrow(0, image, 1)?].map(|x| x.flatten_all()?.to_vec1::<f32>());
            assert_eq!(alone?, together?);
        }
        Ok(())
    }

    #[test]
    fn layers_that_do_not_fit_are_an_error() -> Result<()> {
        let layers = Layers::new(37, 50, 1)?;
        assert!(layers.apply(CodedImages::new(&random(&[1, 4, 5, 36], 1)?)?).is_err());
        let (x, narrow) = (|| CodedImages::new(&random(&[1, 4, 5, 37], 1)?), random(&[1, 4, 5, 9], 1)?);
        let without = Bottleneck { shortcut: None, ..layers.block() };
        assert!(bottleneck(x()?, Narrow::new(narrow.clone())?, without).is_err());
        assert!(bottleneck(x()?, Narrow::new(narrow.narrow(1, 0, 3)?)?, layers.block()).is_err());
        Ok(())
    }
}
