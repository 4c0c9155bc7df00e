//! A block's first convolution: the narrow images that its windows read.

use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{Bottleneck, CodedLayer, TILE, multiply, product};
use crate::ops::packed::{FEW_ROWS, Line, Rows, Start, Target, lines, tile_rows};
use crate::ops::quantized::activations::{Coder, Range, range};
use crate::ops::quantized::conv::Coded;
use crate::ops::quantized::images::CodedImages;
use crate::ops::quantized::output::CodedTarget;
use crate::ops::quantized::product::Residual;
use crate::ops::window::Geometry;
use crate::ops::{Activation, Window, filled, scratch, with_elements, work};

/// What a block's first convolution gives.
pub struct Narrow(Images);

enum Images {
    /// With the range of each image.
    Floats(Tensor, Vec<Range>),
    /// As the windows read it.
    Coded(Coded),
}

impl Narrow {
    /// Of a tensor of shape `(n, h, w, channels)`.
    pub fn new(values: Tensor) -> Result<Self> {
        let (batch, ..) = values.dims4()?;
        let image = (values.elem_count() / batch.max(1)).max(1);
        let ranges = with_elements([&values], |elements| Ok(elements[0].par_chunks(image).map(range).collect()))?;
        Ok(Self(Images::Floats(values, ranges)))
    }

    /// Whether it is bytes already.
    pub(super) fn is_coded(&self) -> bool {
        matches!(self.0, Images::Coded(_))
    }

    /// What windows read of it.
    pub(super) fn coded(self, window: Window) -> Result<(Coded, Geometry)> {
        Ok(match self.0 {
            Images::Floats(values, ranges) => {
                let geometry = window.over(values.dims())?;
                let coded = with_elements([&values], |elements| {
                    Ok(Coded::images_within(&geometry, elements[0], |image, _| ranges[image]))
                })?;
                (coded, geometry)
            }
            Images::Coded(coded) => {
                let geometry = *coded.geometry();
                (coded, geometry)
            }
        })
    }
}

/// `activation(x · weight + bias)`, the first convolution of `block`, with a window of one pixel.
pub fn narrow(x: &CodedImages, layer: CodedLayer, block: &Bottleneck) -> Result<Narrow> {
    let ([_, height, width, inputs], outputs) = (x.shape(), layer.0.columns());
    if layer.0.depth() != inputs || layer.2 != Window::centered(1, 1) || layer.1.elem_count() != outputs {
        candle_core::bail!("a layer of {} inputs was given images of {:?}", layer.0.depth(), x.shape());
    }
    work::product(x.codes().len(), inputs, outputs);
    with_elements([layer.1], |elements| {
        let bias = lines(elements[0]);
        match block.known {
            Some(known) if layer.3 == Activation::Relu => {
                let geometry = block.windows.2.over(&[x.shape()[0], height, width, outputs])?;
                Ok(Narrow(Images::Coded(narrow_coded(x, layer, &bias, &geometry, Coder::up_to(known.narrow)))))
            }
            _ => narrow_floats(x, layer, &bias),
        }
    })
}

/// The same in f32.
fn narrow_floats(x: &CodedImages, layer: CodedLayer, bias: &[Line]) -> Result<Narrow> {
    let ([batch, height, width, inputs], outputs) = (x.shape(), layer.0.columns());
    let rows = x.codes().len();
    let (image, ranges) = (height * width, Mutex::new(vec![Range::ZERO; batch]));
    let is_shared = rows <= FEW_ROWS;
    let tile = if is_shared { rows } else { tile_rows(rows, usize::MAX) };
    let write = |space: &mut [MaybeUninit<f32>]| {
        space.par_chunks_mut((tile * outputs).max(1)).enumerate().for_each(|(index, space)| {
            let (first, target) = (index * tile, Target::new(&mut *space, outputs));
            let rows = Rows::dense(&x.bytes()[first * inputs..], target.rows, inputs);
            let codes = &x.codes()[first..][..target.rows];
            let last = first + target.rows;
            multiply(layer, (rows, codes), Start::Bias(bias), Residual::None, target, is_shared);
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
    let values = unsafe { filled((batch, height, width, outputs), write) }?;
    Ok(Narrow(Images::Floats(values, ranges.into_inner().unwrap_or_else(PoisonError::into_inner))))
}

/// The same as the bytes that windows read, all coded alike.
fn narrow_coded(x: &CodedImages, layer: CodedLayer, bias: &[Line], geometry: &Geometry, coder: Coder) -> Coded {
    let (inputs, outputs) = (layer.0.depth(), layer.0.columns());
    let &Geometry { height, width, .. } = geometry;
    let is_shared = x.codes().len() <= FEW_ROWS;
    let share = (geometry.batch * height).div_ceil(rayon::current_num_threads()).max(1);
    let band = if is_shared { height } else { TILE.div_ceil(width.max(1)).min(share) };
    let fill = |image, y, coder, places: &mut [&mut [MaybeUninit<u8>]]| {
        let (first, count) = ((image * height + y) * width, places.len() * width);
        let rows = Rows::dense(&x.bytes()[first * inputs..], count, inputs);
        let rows = (rows, &x.codes()[first..][..count]);
        scratch::with_bytes(0, count * outputs, |_, bytes| {
            let target = CodedTarget::bytes(bytes, outputs, coder);
            product(layer, rows, Start::Bias(bias), Residual::None).write_coded(target, is_shared);
            for (bytes, place) in bytes.chunks_exact(width * outputs).zip(places) {
                place.write_copy_of_slice(&bytes[..place.len()]);
            }
        });
    };
    // SAFETY: every row is copied to its place.
    unsafe { Coded::framed(geometry, band, |_| coder, fill) }
}
