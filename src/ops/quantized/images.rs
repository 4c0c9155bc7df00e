//! Images between two layers in 16 bits, half of what f32 takes: each pixel is coded by its own range, as a row of bytes that
//! products read as they are, and beside it how far each value lies from its byte, for what the image is added to.

use std::mem::MaybeUninit;

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::activations::{Code, range};
use super::product::SLACK;
use crate::ops::{space, vectorized, with_elements, written};

/// Pixels that are coded together.
const PIXELS: usize = 128;

/// Images of shape `(n, h, w, channels)`.
pub struct CodedImages {
    shape: [usize; 4],
    /// One per value, and [`SLACK`] behind.
    bytes: Vec<u8>,
    /// How far a value lies above its byte, in 256ths of a step.
    rests: Vec<i8>,
    /// One per pixel.
    codes: Vec<Code>,
}

impl CodedImages {
    /// Codes a tensor of shape `(n, h, w, channels)`.
    pub fn new(x: &Tensor) -> Result<Self> {
        let (batch, height, width, channels) = x.dims4()?;
        with_elements([x], |elements| {
            let fill = |pixels: Pixels| {
                let parts: Vec<_> = pixels.chunks(PIXELS).collect();
                let values = elements[0].par_chunks((PIXELS * channels).max(1));
                parts.into_par_iter().zip(values).for_each(|(pixels, values)| pixels.encode(values));
            };
            // SAFETY: every pixel is coded.
            Ok(unsafe { Self::filled([batch, height, width, channels], fill) })
        })
    }

    /// New images.
    ///
    /// # Safety
    /// `fill` must code every pixel.
    pub unsafe fn filled(shape: [usize; 4], fill: impl FnOnce(Pixels)) -> Self {
        let length = shape.iter().product::<usize>();
        let (mut bytes, mut rests) = (space(length + SLACK), space(length));
        let mut codes = vec![Code::default(); shape[..3].iter().product()];
        let (values, behind) = bytes.split_at_mut(length);
        behind.fill(MaybeUninit::new(0));
        fill(Pixels { channels: shape[3], bytes: values, rests: &mut rests, codes: &mut codes });
        // SAFETY: the caller's promise; what lies behind has been filled.
        unsafe { Self { shape, bytes: written(bytes), rests: written(rests), codes } }
    }

    /// The images of all, in this order, which are of one size.
    pub fn cat(parts: &[Self]) -> Result<Self> {
        let Some(Self { shape: [_, size @ ..], .. }) = parts.first() else {
            candle_core::bail!("no images were given")
        };
        if parts.iter().any(|part| part.shape[1..] != *size) {
            candle_core::bail!("images of several sizes were given");
        }
        let bytes = parts.iter().flat_map(|part| &part.bytes[..part.rests.len()]).chain(&[0; SLACK]);
        Ok(Self {
            shape: [parts.iter().map(|part| part.shape[0]).sum(), size[0], size[1], size[2]],
            bytes: bytes.copied().collect(),
            rests: parts.iter().flat_map(|part| &part.rests).copied().collect(),
            codes: parts.iter().flat_map(|part| &part.codes).copied().collect(),
        })
    }

    /// The values that the codes stand for.
    pub fn tensor(&self) -> Result<Tensor> {
        let mut values = vec![0.0; self.rests.len()];
        values.par_chunks_mut((PIXELS * self.shape[3]).max(1)).enumerate().for_each(|(index, values)| {
            self.decode(index * PIXELS, values);
        });
        Tensor::from_vec(values, &self.shape, &Device::Cpu)
    }

    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// All bytes, with what must follow them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn codes(&self) -> &[Code] {
        &self.codes
    }

    /// The values of whole pixels from `first` on.
    pub fn decode(&self, first: usize, values: &mut [f32]) {
        let channels = self.shape[3];
        let start = first * channels;
        let (bytes, rests) = (&self.bytes[start..], &self.rests[start..]);
        vectorized(
            #[inline(always)]
            || {
                let coded = bytes.chunks_exact(channels).zip(rests.chunks_exact(channels)).zip(&self.codes[first..]);
                for (values, ((bytes, rests), code)) in values.chunks_exact_mut(channels).zip(coded) {
                    code.decode(bytes, rests, values);
                }
            },
        );
    }
}

/// Pixels that are yet to be coded.
pub struct Pixels<'a> {
    channels: usize,
    bytes: &'a mut [MaybeUninit<u8>],
    rests: &'a mut [MaybeUninit<i8>],
    codes: &'a mut [Code],
}

impl<'a> Pixels<'a> {
    /// The first `count`, and all others.
    pub fn split_at(self, count: usize) -> (Self, Self) {
        let (bytes, other_bytes) = self.bytes.split_at_mut(count * self.channels);
        let (rests, other_rests) = self.rests.split_at_mut(count * self.channels);
        let (codes, other_codes) = self.codes.split_at_mut(count);
        (
            Self { bytes, rests, codes, ..self },
            Self { bytes: other_bytes, rests: other_rests, codes: other_codes, channels: self.channels },
        )
    }

    fn chunks(self, count: usize) -> impl Iterator<Item = Self> {
        let mut rest = Some(self);
        std::iter::from_fn(move || {
            let pixels = rest.take().filter(|pixels| !pixels.codes.is_empty())?;
            let count = count.min(pixels.codes.len());
            let (first, others) = pixels.split_at(count);
            rest = Some(others);
            Some(first)
        })
    }

    /// Codes as many pixels, each by its own range.
    pub fn encode(self, values: &[f32]) {
        let channels = self.channels;
        assert_eq!(values.len(), self.codes.len() * channels, "values of all pixels");
        let pixels = self.bytes.chunks_exact_mut(channels).zip(self.rests.chunks_exact_mut(channels)).zip(self.codes);
        for (values, ((bytes, rests), code)) in values.chunks_exact(channels).zip(pixels) {
            let coder = range(values).coder();
            vectorized(
                #[inline(always)]
                || coder.encode_finely(values, bytes, rests),
            );
            *code = coder.code;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::quantized::activations::encode_rows;
    use crate::ops::testing::{random, views};

    #[test]
    fn values_are_within_a_256th_of_a_step_and_bytes_those_of_rows() -> Result<()> {
        for x in views(&[2, 9, 15, 37])? {
            let coded = CodedImages::new(&x)?;
            let values = x.flatten_all()?.to_vec1::<f32>()?;
            let (mut bytes, mut codes) = (vec![0; values.len()], vec![Code::default(); values.len() / 37]);
            encode_rows(&values, 37, &mut bytes, &mut codes);
            assert_eq!((&coded.bytes()[..values.len()], coded.codes()), (&*bytes, &*codes));
            let decoded = coded.tensor()?.flatten_all()?.to_vec1::<f32>()?;
            for (index, (value, decoded)) in values.iter().zip(decoded).enumerate() {
                let error = (value - decoded).abs();
                assert!(error <= codes[index / 37].scale / 255.0, "{value} became {decoded}");
            }
        }
        Ok(())
    }

    #[test]
    fn images_put_together_stay_what_they_are() -> Result<()> {
        let x = random(&[5, 3, 4, 8], 1)?;
        let parts = [(0, 1), (1, 3), (4, 1)].map(|(first, count)| CodedImages::new(&x.narrow(0, first, count)?));
        let together = CodedImages::cat(&parts.into_iter().collect::<Result<Vec<_>>>()?)?;
        let all = CodedImages::new(&x)?;
        assert_eq!((together.shape(), together.bytes()), (all.shape(), all.bytes()));
        assert_eq!(together.tensor()?.flatten_all()?.to_vec1::<f32>()?, all.tensor()?.flatten_all()?.to_vec1::<f32>()?);
        assert!(CodedImages::cat(&[all, CodedImages::new(&random(&[5, 4, 3, 8], 1)?)?]).is_err());
        Ok(())
    }

    #[test]
    fn what_is_not_finite_stays_visible_in_its_pixel() -> Result<()> {
        let mut values = vec![1.0; 6 * 4];
        values[9] = f32::NEG_INFINITY;
        let decoded = CodedImages::new(&Tensor::from_vec(values, (1, 2, 3, 4), &Device::Cpu)?)?.tensor()?;
        for (index, value) in decoded.flatten_all()?.to_vec1::<f32>()?.into_iter().enumerate() {
            assert_eq!(value.is_nan(), index / 4 == 2);
        }
        Ok(())
    }
}
