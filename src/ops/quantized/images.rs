//! Images between two layers in 16 bits, half of what f32 takes: each pixel is coded by its own range, or all by one that is
//! known beforehand, as a row of bytes that products read as they are, and beside it what each value has beyond its byte, for
//! what the image is added to.

use std::mem::MaybeUninit;

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::activations::{Code, Coder, encode_rows_finely};
use super::bottleneck::FAR;
use super::output::CodedTarget;
use super::product::CodedRows;
use super::row_bytes::RowBytes;
use crate::ops::{vectorized, with_elements};

/// Pixels that are coded together.
const PIXELS: usize = 128;

/// Images of shape `(n, h, w, channels)`.
pub struct CodedImages {
    shape: [usize; 4],
    /// One per value.
    bytes: RowBytes,
    /// As many, see [`Code::fine`].
    rests: RowBytes,
    /// One per pixel.
    codes: Vec<Code>,
    /// [`Code::fine`] of each.
    fine: Vec<Code>,
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
        let mut codes = vec![Code::default(); shape[..3].iter().product()];
        let mut filled = None;
        // SAFETY: the caller's promise.
        let bytes = unsafe {
            RowBytes::filled(length, |bytes| {
                let fill =
                    |rests: &mut _| fill(Pixels { channels: shape[3], bytes, rests, codes: &mut codes, held: &[] });
                filled = Some(RowBytes::filled(length, fill));
            })
        };
        let rests = filled.expect("rests are filled with the bytes");
        Self { shape, bytes, rests, fine: fine(&codes), codes }
    }

    /// The same images of other values, in the same memory. Those pixels that `fill` does not code stay as they are.
    pub fn recoded(mut self, fill: impl FnOnce(Pixels)) -> Self {
        let (length, channels) = (self.length(), self.shape[3]);
        let [bytes, rests] = [&mut self.bytes, &mut self.rests].map(|bytes| &mut bytes.with_slack_mut()[..length]);
        // SAFETY: pixels only ever write bytes that hold values.
        let [bytes, rests] = [bytes, rests].map(|bytes| unsafe { &mut *(std::ptr::from_mut(bytes) as *mut [_]) });
        fill(Pixels { channels, bytes, rests, codes: &mut self.codes, held: &self.fine });
        self.fine = fine(&self.codes);
        self
    }

    /// The images of all, in this order, which are of one size.
    pub fn cat(parts: &[Self]) -> Result<Self> {
        let Some(Self { shape: [_, size @ ..], .. }) = parts.first() else {
            candle_core::bail!("no images were given")
        };
        if parts.iter().any(|part| part.shape[1..] != *size) {
            candle_core::bail!("images of several sizes were given");
        }
        let cat = |bytes: fn(&Self) -> &RowBytes| {
            let length = parts.iter().map(Self::length).sum();
            let fill = |mut space: &mut [MaybeUninit<u8>]| {
                for part in parts {
                    let (own, others) = space.split_at_mut(part.length());
                    own.write_copy_of_slice(&bytes(part).with_slack()[..part.length()]);
                    space = others;
                }
            };
            // SAFETY: the parts are all of it.
            unsafe { RowBytes::filled(length, fill) }
        };
        let codes: Vec<_> = parts.iter().flat_map(|part| &part.codes).copied().collect();
        Ok(Self {
            shape: [parts.iter().map(|part| part.shape[0]).sum(), size[0], size[1], size[2]],
            bytes: cat(|part| &part.bytes),
            rests: cat(|part| &part.rests),
            fine: fine(&codes),
            codes,
        })
    }

    /// Whether all values of each image are finite, and none is [`FAR`].
    pub fn are_near(&self) -> Vec<bool> {
        let pixels = self.shape[1] * self.shape[2];
        let is_near = |code: &Code| 255.0 * code.scale < FAR;
        self.codes.chunks(pixels.max(1)).map(|codes| codes.iter().all(is_near)).collect()
    }

    /// Makes an image such that all that is computed from it is not finite.
    pub fn spoil(&mut self, image: usize) {
        let pixels = self.shape[1] * self.shape[2];
        let nothing = Code { scale: f32::NAN, offset: f32::NAN };
        for codes in [&mut self.codes, &mut self.fine] {
            codes[image * pixels..][..pixels].fill(nothing);
        }
    }

    /// The values that the codes stand for.
    pub fn tensor(&self) -> Result<Tensor> {
        let mut values = vec![0.0; self.length()];
        values.par_chunks_mut((PIXELS * self.shape[3]).max(1)).enumerate().for_each(|(index, values)| {
            self.decode(index * PIXELS, values);
        });
        Tensor::from_vec(values, &self.shape, &Device::Cpu)
    }

    fn length(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// All bytes, with what must follow them.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.with_slack()
    }

    pub fn codes(&self) -> &[Code] {
        &self.codes
    }

    /// The values of whole pixels from `first` on.
    fn decode(&self, first: usize, values: &mut [f32]) {
        let channels = self.shape[3];
        let start = first * channels;
        let (bytes, rests) = (&self.bytes.with_slack()[start..], &self.rests.with_slack()[start..]);
        vectorized(
            #[inline(always)]
            || {
                let coded = bytes.chunks_exact(channels).zip(rests.chunks_exact(channels)).zip(&self.fine[first..]);
                for (values, ((bytes, rests), code)) in values.chunks_exact_mut(channels).zip(coded) {
                    code.decode(bytes, rests, values);
                }
            },
        );
    }
}

fn fine(codes: &[Code]) -> Vec<Code> {
    codes.iter().map(|code| code.fine()).collect()
}

/// Pixels that are to be coded.
pub struct Pixels<'a> {
    channels: usize,
    bytes: &'a mut [MaybeUninit<u8>],
    rests: &'a mut [MaybeUninit<u8>],
    codes: &'a mut [Code],
    /// [`Code::fine`] of each, or none where there are no values yet.
    held: &'a [Code],
}

impl<'a> Pixels<'a> {
    pub fn count(&self) -> usize {
        self.codes.len()
    }

    /// The first `count`, and all others.
    pub fn split_at(self, count: usize) -> (Self, Self) {
        let (bytes, other_bytes) = self.bytes.split_at_mut(count * self.channels);
        let (rests, other_rests) = self.rests.split_at_mut(count * self.channels);
        let (codes, other_codes) = self.codes.split_at_mut(count);
        let (held, other_held) = self.held.split_at(count.min(self.held.len()));
        (
            Self { bytes, rests, codes, held, ..self },
            Self { bytes: other_bytes, rests: other_rests, codes: other_codes, held: other_held, ..self },
        )
    }

    /// Some of them after the other: `count` at a time, the last ones fewer.
    pub fn chunks(self, count: usize) -> impl Iterator<Item = Self> {
        let mut rest = Some(self);
        std::iter::from_fn(move || {
            let pixels = rest.take().filter(|pixels| !pixels.codes.is_empty())?;
            let count = count.min(pixels.codes.len());
            let (first, others) = pixels.split_at(count);
            rest = Some(others);
            Some(first)
        })
    }

    /// What they hold so far, if anything.
    pub fn held(&self) -> Option<CodedRows<'_>> {
        if self.held.is_empty() {
            return None;
        }
        // SAFETY: they hold values.
        let [bytes, rests] = [&*self.bytes, &*self.rests].map(|bytes| unsafe { bytes.assume_init_ref() });
        Some(CodedRows { bytes, rests, codes: self.held })
    }

    /// The place for rows that are all coded alike, to which what these pixels hold is added, if anything.
    pub fn coded_alike(self, coder: Coder) -> CodedTarget<'a> {
        let Self { channels, bytes, rests, codes, held } = self;
        codes.fill(coder.code);
        // SAFETY: pixels with codes hold values.
        unsafe { CodedTarget::finely(bytes, rests, channels, coder, (!held.is_empty()).then_some(held)) }
    }

    /// Codes as many pixels, each by its own range.
    pub fn encode(self, values: &[f32]) {
        assert_eq!(values.len(), self.codes.len() * self.channels, "values of all pixels");
        encode_rows_finely(values, self.channels, self.bytes, self.rests, self.codes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::quantized::activations::encode_rows;
    use crate::ops::testing::{random, views};

    #[test]
    fn values_are_within_a_512th_of_a_step_and_bytes_those_of_rows() -> Result<()> {
        for x in views(&[2, 9, 15, 37])? {
            let coded = CodedImages::new(&x)?;
            let values = x.flatten_all()?.to_vec1::<f32>()?;
            let (mut bytes, mut codes) = (vec![0; values.len()], vec![Code::default(); values.len() / 37]);
            encode_rows(&values, 37, &mut bytes, &mut codes);
            assert_eq!(coded.codes(), codes);
            for ((byte, ours), rest) in bytes.into_iter().zip(coded.bytes()).zip(coded.rests.with_slack()) {
                // Halfway between two bytes the last place of sixteen bits decides.
                let above = i16::from(*ours) - i16::from(byte);
                assert!(
                    above == 0 || (above, *rest) == (1, 0) || (above, *rest) == (-1, 255),
                    "{ours} with a rest of {rest} instead of {byte}"
                );
            }
            let decoded = coded.tensor()?.flatten_all()?.to_vec1::<f32>()?;
            for (index, (value, decoded)) in values.iter().zip(decoded).enumerate() {
                let error = (value - decoded).abs();
                // The end of the range may lie one place beyond the last one.
                let is_last = (coded.bytes()[index], coded.rests.with_slack()[index]) == (255, 255);
                let allowed = codes[index / 37].scale / if is_last { 250.0 } else { 500.0 };
                assert!(error <= allowed, "{value} became {decoded}");
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
