//! A residual block of three convolutions (1×1, windows, 1×1) on coded images. In f32 there are only the narrow image, which
//! must be known before its windows are coded, and one tile of what follows: neither leaves the cache. Where their ranges are
//! known beforehand these are bytes from the beginning, but for a tile of what a shortcut gives.

mod first;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::activations::{Code, Coder, encode_rows};
use super::conv::Coded;
use super::images::{CodedImages, Pixels};
use super::matrix::QuantizedMatrix;
use super::output::CodedTarget;
use super::product::{Product, Residual};
use super::row_bytes::SLACK;
use crate::ops::packed::{ImageTile, Line, Rows, Start, Target, lines, tiles_within};
use crate::ops::window::Geometry;
use crate::ops::{Activation, Padding, Window, scratch, with_elements, work};

pub use first::{Narrow, narrow};

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
    /// None where images are coded by what they hold.
    pub known: Option<KnownRanges>,
}

/// The largest values of a block's images, each behind a ReLU, where they are known before the images are: what is larger
/// becomes as large as that. With them products leave the kernel as bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KnownRanges {
    /// Of what the first convolution gives.
    pub narrow: f32,
    /// Of what the windows give.
    pub middle: f32,
    /// Of the block's result.
    pub result: Option<f32>,
}

/// Numbers from here on lie so far out that sums of their products may overflow.
pub const FAR: f32 = 1e15;

/// Whether a layer's weights and biases lie so near that no sum of products overflows with what is not [`FAR`].
pub fn is_near((weight, bias, ..): CodedLayer) -> Result<bool> {
    let biases = bias.to_vec1::<f32>()?.into_iter().map(f32::abs);
    Ok(biases.chain([weight.reach()]).all(|reach| reach < FAR))
}

/// `activation(widening(windows(narrow)) + shortcut(x))`, each layer as a convolution of its own computes it; `narrow` is what
/// the block's first convolution makes of `x`. Where `x` is added as it is, the result takes its place in memory: then it is
/// still in the cache.
pub fn bottleneck(x: CodedImages, narrow: Narrow, block: Bottleneck) -> Result<CodedImages> {
    // Floats that are not finite show in the codes of what they give: only what was coded before has none.
    let block = if narrow.is_coded() { block } else { Bottleneck { known: None, ..block } };
    let (coded, geometry) = narrow.coded(block.windows.2)?;
    let Geometry { batch, out_height, out_width, .. } = geometry;
    let shape = [batch, out_height, out_width, block.widening.0.columns()];
    if !block.fits(&x, &geometry, shape) {
        candle_core::bail!("the layers of a block do not fit {:?} and {geometry:?}", x.shape());
    }
    let layers = [block.windows, block.widening].into_iter().chain(block.shortcut);
    for (weight, ..) in layers.clone() {
        work::product(geometry.positions(), weight.depth(), weight.columns());
    }
    let are_near = if block.known.is_some() { x.are_near() } else { vec![] };
    let mut result = with_elements(layers.map(|layer| layer.1), |biases| {
        // With a shortcut the sums begin with its product, and with both biases.
        let of_shortcut =
            biases.get(2).map(|bias| lines(&biases[1].iter().zip(*bias).map(|(a, b)| a + b).collect::<Vec<_>>()));
        let of_widening = if of_shortcut.is_some() { vec![0.0; biases[1].len()] } else { biases[1].to_vec() };
        let biases = [lines(biases[0]), lines(&of_widening)];
        let tiles = tiles_within(&geometry, TILE, rayon::current_num_threads());
        let is_shared = tiles.len() < rayon::current_num_threads();
        let pass = Pass { block, biases, coded, geometry, is_shared };
        let fill = |shortcut: Option<Shortcut>, mut pixels: Pixels| {
            let mut parts = Vec::new();
            for tile in tiles {
                let (part, others) = pixels.split_at(tile.positions(&geometry));
                parts.push((tile, part));
                pixels = others;
            }
            parts.into_par_iter().for_each(|(tile, pixels)| pass.write(&tile, shortcut.as_ref(), pixels));
        };
        let Some((layer, bias)) = block.shortcut.zip(of_shortcut) else {
            return Ok(x.recoded(|pixels| fill(None, pixels)));
        };
        let shortcut = Shortcut { x: &x, layer, bias, geometry: layer.2.over(&x.shape())? };
        // SAFETY: the tiles are all pixels.
        Ok(unsafe { CodedImages::filled(shape, |pixels| fill(Some(shortcut), pixels)) })
    })?;
    // No byte says that its value is not finite.
    are_near.iter().enumerate().filter(|(_, is_near)| !**is_near).for_each(|(image, _)| result.spoil(image));
    Ok(result)
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
            && self.windows.2 == geometry.window
            && self.known.is_none_or(|known| {
                let behind_result = known.result.map(|_| self.widening.3);
                [Some(self.windows.3), behind_result].into_iter().flatten().all(|act| act == Activation::Relu)
            })
            && self.windows.2.padding != Padding::Ceil
            && fits(self.widening, self.windows.0.columns())
            && self.widening.2 == Window::centered(1, 1)
            && passed == Some(shape)
    }
}

/// `activation(start + rows · weight + residual)`.
fn product<'a>(
    (weight, _, _, activation): CodedLayer<'a>,
    (rows, codes): (Rows<'a, u8>, &'a [Code]),
    start: Start<'a>,
    residual: Residual<'a>,
) -> Product<'a> {
    Product { residual, activation, ..Product::whole(rows, codes, weight, start) }
}

/// Computes that for `target`.
pub fn multiply<'a>(
    layer: CodedLayer<'a>,
    rows: (Rows<'a, u8>, &'a [Code]),
    start: Start<'a>,
    residual: Residual<'a>,
    target: Target,
    is_shared: bool,
) {
    let product = product(layer, rows, start, residual);
    if is_shared { product.write_shared(target) } else { product.write(target) }
}

/// A block over its images.
struct Pass<'a> {
    block: Bottleneck<'a>,
    /// Of the windows, and of the widening where there is no shortcut.
    biases: [Vec<Line>; 2],
    /// What the windows read.
    coded: Coded,
    geometry: Geometry,
    is_shared: bool,
}

/// A shortcut's convolution over the block's input.
struct Shortcut<'a> {
    x: &'a CodedImages,
    layer: CodedLayer<'a>,
    /// With that of the widening.
    bias: Vec<Line>,
    geometry: Geometry,
}

impl Pass<'_> {
    /// Computes the pixels of a tile, which hold the block's input where it has no shortcut.
    fn write(&self, tile: &ImageTile, shortcut: Option<&Shortcut>, pixels: Pixels) {
        let Bottleneck { widening, known, .. } = self.block;
        let (inner, outputs) = (self.block.windows.0.columns(), widening.0.columns());
        let rows = tile.positions(&self.geometry);
        let together = if shortcut.is_some() || self.is_shared { rows } else { WIDENED };
        let middle = if known.is_some() { 0 } else { rows * inner };
        let result = known.and_then(|known| known.result).map(Coder::up_to);
        let sums = if shortcut.is_some() || result.is_none() { together * outputs } else { 0 };
        scratch::with_bytes(middle + sums, rows * inner + SLACK, |floats, bytes| {
            let (middle, sums) = floats.split_at_mut(middle);
            let codes = self.middle(tile, middle, &mut bytes[..rows * inner]);
            for (index, pixels) in pixels.chunks(together).enumerate() {
                let (first, count) = (index * together, pixels.count());
                let middle = (Rows::dense(&bytes[first * inner..], count, inner), &codes[first..][..count]);
                if let Some(shortcut) = shortcut {
                    shortcut.write(tile, sums, self.is_shared);
                }
                let bias = Start::Bias(&self.biases[1]);
                match result {
                    Some(coder) => {
                        let residual = Residual::floats(shortcut.map(|_| &*sums));
                        let target = pixels.coded_alike(coder);
                        product(widening, middle, bias, residual).write_coded(target, self.is_shared);
                    }
                    None => {
                        let sums = &mut sums[..count * outputs];
                        let (start, residual) = match shortcut {
                            Some(_) => (Start::Result, Residual::None),
                            None => (bias, pixels.held().map_or(Residual::None, Residual::Coded)),
                        };
                        multiply(widening, middle, start, residual, Target::holding(sums, outputs), self.is_shared);
                        pixels.encode(sums);
                    }
                }
            }
        });
    }

    /// The windows' product as bytes: its codes.
    fn middle(&self, tile: &ImageTile, values: &mut [f32], bytes: &mut [u8]) -> Vec<Code> {
        let (windows, bias) = (self.block.windows, Start::Bias(&self.biases[0]));
        let (rows, inner) = (self.coded.windows(tile), windows.0.columns());
        if let Some(known) = self.block.known {
            let coder = Coder::up_to(known.middle);
            let target = CodedTarget::bytes(bytes, inner, coder);
            product(windows, rows, bias, Residual::None).write_coded(target, self.is_shared);
            return vec![coder.code; tile.positions(&self.geometry)];
        }
        let mut codes = vec![Code::default(); tile.positions(&self.geometry)];
        multiply(windows, rows, bias, Residual::None, Target::holding(values, inner), self.is_shared);
        encode_rows(values, inner, bytes, &mut codes);
        codes
    }
}

impl Shortcut<'_> {
    /// The product of a tile.
    fn write(&self, tile: &ImageTile, sums: &mut [f32], is_shared: bool) {
        let Self { x: images, layer, bias, geometry } = self;
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
    use crate::ops::conv as convolution;
    use crate::ops::quantized::activations::SHARE;
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
        fn apply(&self, x: CodedImages, known: Option<KnownRanges>) -> Result<CodedImages> {
            let block = Bottleneck { known, ..self.block() };
            let narrow = narrow(&x, self.layer(0), &block)?;
            bottleneck(x, narrow, block)
        }

        fn layer(&self, index: usize) -> CodedLayer<'_> {
            let (weight, bias, window, activation) = &self.0[index];
            (weight, bias, *window, *activation)
        }

        fn block(&self) -> Bottleneck<'_> {
            let shortcut = (self.0.len() > 3).then(|| self.layer(3));
            Bottleneck { windows: self.layer(1), widening: self.layer(2), shortcut, known: None }
        }

        /// A layer's convolution of images as they are.
        fn plain(&self, index: usize, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
            let (weight, bias, window, activation) = self.layer(index);
            let shape = (window.kernel, window.kernel, x.dim(3)?, weight.columns());
            convolution(x, &weight.dequantized()?.reshape(shape)?, bias, window, activation, residual)
        }
    }

    /// What the bytes of the images stand for, which is all that products see of them.
    fn of_bytes(coded: &CodedImages) -> Result<Tensor> {
        let bytes = coded.bytes().chunks(coded.shape()[3]).zip(coded.codes());
        let x: Vec<_> = bytes
            .flat_map(|(bytes, code)| bytes.iter().map(|byte| code.offset + code.scale * f32::from(*byte)))
            .collect();
        Tensor::from_vec(x, &coded.shape(), &candle_core::Device::Cpu)
    }

    /// Ranges of which some values are out.
    fn ranges(result: Option<f32>) -> KnownRanges {
        KnownRanges { narrow: 1.2, middle: 3.0, result }
    }

    #[test]
    fn equals_its_convolutions_one_after_the_other() -> Result<()> {
        for (inputs, outputs, stride) in [(37, 37, 1), (37, 50, 1), (37, 37, 2)] {
            let layers = Layers::new(inputs, outputs, stride)?;
            // Several images per tile, and several tiles per image; few of them are shared.
            for shape in [[3, 5, 6, inputs], [2, 23, 17, inputs], [1, 4, 5, inputs]] {
                let coded = CodedImages::new(&random(&shape, 1)?)?;
                let x = of_bytes(&coded)?;
                let layer = |x: &Tensor, index: usize, residual: Option<&Tensor>| {
                    let (weight, bias, window, activation) = &layers.0[index];
                    conv(x, weight, bias, *window, *activation, residual)
                };
                let passed = if layers.0.len() > 3 { layer(&x, 3, None)? } else { coded.tensor()? };
                let oracle = layer(&layer(&layer(&x, 0, None)?, 1, None)?, 2, Some(&passed))?;
                let differences =
                    (layers.apply(coded, None)?.tensor()? - oracle)?.abs()?.flatten_all()?.to_vec1::<f32>()?;
                // The last bit of a sum decides to which byte a value halfway between two goes: that is rare.
                let far = differences.iter().filter(|difference| **difference > 1e-2).count();
                assert!(far <= differences.len() / 20, "{far} of {} differ", differences.len());
            }
        }
        Ok(())
    }

    /// Each layer is given what the one before gives, in steps of its known range.
    #[test]
    fn with_known_ranges_it_equals_convolutions_of_values_that_end_there() -> Result<()> {
        let rounded = |x: &Tensor, most: f32, steps: f64| {
            let step = f64::from(most) / steps;
            (x.clamp(0.0, most)? / step)?.round()? * step
        };
        let bytes = f64::from(*SHARE).recip();
        for (inputs, outputs, stride) in [(37, 37, 1), (37, 50, 1), (32, 32, 2)] {
            let layers = Layers::new(inputs, outputs, stride)?;
            for shape in [[3, 5, 6, inputs], [2, 23, 17, inputs], [1, 4, 5, inputs]] {
                let coded = CodedImages::new(&random(&shape, 1)?)?;
                let x = of_bytes(&coded)?;
                let narrow = layers.plain(0, &x, None)?;
                assert!(narrow.max_all()?.to_scalar::<f32>()? > ranges(None).narrow, "some are out of range");
                let middle = layers.plain(1, &rounded(&narrow, ranges(None).narrow, bytes)?, None)?;
                assert!(middle.max_all()?.to_scalar::<f32>()? > ranges(None).middle, "some are out of range");
                let passed = if layers.0.len() > 3 { layers.plain(3, &x, None)? } else { coded.tensor()? };
                let oracle = layers.plain(2, &rounded(&middle, ranges(None).middle, bytes)?, Some(&passed))?;
                for result in [None, Some(5.0)] {
                    let coded = CodedImages::new(&random(&shape, 1)?)?;
                    let ours = layers.apply(coded, Some(ranges(result)))?;
                    // Half a step beyond the largest byte, in 16 bits.
                    let most = result.map_or(f32::MAX, |most| most * (1.0 + 0.5 / bytes as f32));
                    let oracle = oracle.clamp(0.0, most)?;
                    if let Some(most) = result {
                        assert!(ours.codes().iter().all(|code| *code == Coder::up_to(most).code));
                        assert!(oracle.max_all()?.to_scalar::<f32>()? > most, "some are out of range");
                    }
                    let differences = (ours.tensor()? - oracle)?.abs()?.flatten_all()?.to_vec1::<f32>()?;
                    // The last bit of a sum decides to which byte a value halfway between two goes: that is rare.
                    let far = differences.iter().filter(|difference| **difference > 1e-3).count();
                    assert!(far <= differences.len() / 100, "{far} of {} differ", differences.len());
                }
            }
        }
        Ok(())
    }

    #[test]
    fn an_image_has_the_same_result_in_any_company() -> Result<()> {
        for outputs in [37, 50] {
            let layers = Layers::new(37, outputs, 1)?;
            let x = random(&[7, 9, 8, 37], 1)?;
            for known in [None, Some(ranges(None)), Some(ranges(Some(5.0)))] {
                let apply = |x: &Tensor| layers.apply(CodedImages::new(x)?, known)?.tensor();
                let together = apply(&x)?;
                for image in 0..7 {
                    let [alone, together] = [apply(&x.narrow(0, image, 1)?)?, together.narrow(0, image, 1)?]
                        .map(|x| x.flatten_all()?.to_vec1::<f32>());
                    assert!(alone? == together?, "{outputs} {known:?} {image}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_not_finite_stays_visible_in_its_image() -> Result<()> {
        let mut values = random(&[3, 6, 5, 37], 1)?.flatten_all()?.to_vec1::<f32>()?;
        values[6 * 5 * 37 + 100] = f32::NAN;
        let x = Tensor::from_vec(values, (3, 6, 5, 37), &candle_core::Device::Cpu)?;
        for (outputs, stride) in [(37, 1), (50, 2)] {
            let layers = Layers::new(37, outputs, stride)?;
            for result in [None, Some(5.0)] {
                let result = layers.apply(CodedImages::new(&x)?, Some(ranges(result)))?.tensor()?;
                for image in 0..3 {
                    let values = result.narrow(0, image, 1)?.flatten_all()?.to_vec1::<f32>()?;
                    assert!(values.iter().all(|value| value.is_nan() == (image == 1)), "image {image}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn layers_that_do_not_fit_are_an_error() -> Result<()> {
        let layers = Layers::new(37, 50, 1)?;
        assert!(layers.apply(CodedImages::new(&random(&[1, 4, 5, 36], 1)?)?, None).is_err());
        let (x, narrow) = (|| CodedImages::new(&random(&[1, 4, 5, 37], 1)?), random(&[1, 4, 5, 9], 1)?);
        let without = Bottleneck { shortcut: None, ..layers.block() };
        assert!(bottleneck(x()?, Narrow::new(narrow.clone())?, without).is_err());
        assert!(bottleneck(x()?, Narrow::new(narrow.narrow(1, 0, 3)?)?, layers.block()).is_err());
        let other = Bottleneck { windows: layers.layer(2), known: Some(ranges(None)), ..layers.block() };
        let coded = first::narrow(&x()?, layers.layer(0), &other)?;
        assert!(bottleneck(x()?, coded, layers.block()).is_err(), "coded for another window");
        let (weight, bias, window, _) = layers.layer(1);
        let known = Some(ranges(None));
        let other = Bottleneck { windows: (weight, bias, window, Activation::None), known, ..layers.block() };
        let coded = first::narrow(&x()?, layers.layer(0), &other)?;
        assert!(bottleneck(x()?, coded, other).is_err(), "values below zero");
        Ok(())
    }
}
