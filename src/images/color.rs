//! From what a decoder gives to 8-bit sRGB: embedded profiles are applied, ink becomes light, alpha lies over white.
//!
//! A profile that is broken, or that belongs to another colour space, is ignored: the pixels stay as they are.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use moxcms::{ColorProfile, DataColorSpace, Layout, TransformExecutor, TransformOptions};

/// What the bytes of a pixel mean, 8 bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Samples {
    Gray,
    GrayAlpha,
    Rgb,
    Rgba,
    /// 255 is full ink.
    Cmyk,
}

impl Samples {
    pub fn channels(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::GrayAlpha => 2,
            Self::Rgb => 3,
            Self::Rgba | Self::Cmyk => 4,
        }
    }
}

type Executor = Arc<dyn TransformExecutor<u8> + Send + Sync>;

/// How many pixels are converted at a time, through buffers that stay in the cache.
const CHUNK_PIXELS: usize = 4096;

/// Bytes that a profile takes at most while [`into_srgb`] applies it: its own tables as numbers of four bytes, and a grid
/// of 17⁴ inks with seven such numbers each.
pub fn profile_bytes(icc_profile: Option<&[u8]>) -> u64 {
    const GRID_BYTES: u64 = 17_u64.pow(4) * 7 * 4;
    icc_profile.map_or(0, |profile| 6 * profile.len() as u64 + GRID_BYTES)
}

/// Converts to sRGB. Three and four channels are converted in place; fewer need a new buffer.
pub fn into_srgb(samples: Samples, mut pixels: Vec<u8>, icc_profile: Option<&[u8]>) -> Vec<u8> {
    let executor = icc_profile.and_then(|profile| executor(samples, profile));
    if samples == Samples::Rgb && executor.is_none() {
        return pixels;
    }
    let channels = samples.channels();
    let count = pixels.len() / channels;
    let mut rgb = if channels < 3 { vec![0; count * 3] } else { Vec::new() };
    let mut source = vec![0; CHUNK_PIXELS * channels];
    let mut converter = Converter { samples, executor, rgba: vec![0; CHUNK_PIXELS * 4] };
    for start in (0..count).step_by(CHUNK_PIXELS) {
        let length = CHUNK_PIXELS.min(count - start);
        let source = &mut source[..length * channels];
        source.copy_from_slice(&pixels[start * channels..][..source.len()]);
        // With three or four channels the result never overtakes what is still to be read.
        let target = if channels < 3 { &mut rgb } else { &mut pixels };
        converter.convert(source, &mut target[start * 3..][..length * 3]);
    }
    if channels < 3 {
        return rgb;
    }
    pixels.truncate(count * 3);
    pixels.shrink_to_fit();
    pixels
}

struct Converter {
    samples: Samples,
    executor: Option<Executor>,
    rgba: Vec<u8>,
}

impl Converter {
    fn convert(&mut self, source: &[u8], rgb: &mut [u8]) {
        let rgb_pixels = rgb.as_chunks_mut::<3>().0;
        let rgba = &mut self.rgba[..rgb_pixels.len() * 4];
        match (self.samples, &self.executor) {
            (Samples::Gray | Samples::Rgb | Samples::Cmyk, Some(executor)) => {
                if executor.transform(source, rgb).is_err() {
                    plain(self.samples, source, rgb.as_chunks_mut::<3>().0);
                }
            }
            (Samples::GrayAlpha | Samples::Rgba, Some(executor)) if executor.transform(source, rgba).is_ok() => {
                plain(Samples::Rgba, rgba, rgb_pixels);
            }
            _ => plain(self.samples, source, rgb_pixels),
        }
    }
}

/// The conversion without a profile.
fn plain(samples: Samples, source: &[u8], rgb: &mut [[u8; 3]]) {
    let pixels = source.chunks_exact(samples.channels());
    for (pixel, rgb) in pixels.zip(rgb) {
        *rgb = match (samples, pixel) {
            (Samples::Gray, [gray]) => [*gray; 3],
            (Samples::GrayAlpha, [gray, alpha]) => [over_white(*gray, *alpha); 3],
            (Samples::Rgba, [r, g, b, alpha]) => [*r, *g, *b].map(|light| over_white(light, *alpha)),
            (Samples::Cmyk, [c, m, y, k]) => [*c, *m, *y].map(|ink| light_of_ink(ink, *k)),
            _ => [pixel[0], pixel[1], pixel[2]],
        };
    }
}

fn over_white(light: u8, alpha: u8) -> u8 {
    divide_by_255(u32::from(light) * u32::from(alpha) + 255 * u32::from(255 - alpha))
}

/// Pillow's conversion of an ink and black to light (`cmyk2rgb`).
fn light_of_ink(ink: u8, black: u8) -> u8 {
    let rest = 255 - black;
    rest - divide_by_255(u32::from(ink) * u32::from(rest))
}

/// Rounded division of at most 255².
fn divide_by_255(value: u32) -> u8 {
    ((value + 127) / 255) as u8
}

/// The high byte of each 16-bit sample, which is what Pillow keeps.
pub fn high_bytes(samples: Vec<u8>) -> Vec<u8> {
    samples.as_chunks::<2>().0.iter().map(|sample| (u16::from_ne_bytes(*sample) >> 8) as u8).collect()
}

/// The way from a profile to sRGB; none when the profile is of no use or already is sRGB.
fn executor(samples: Samples, profile: &[u8]) -> Option<Executor> {
    // Profiles are strangers' data: one that makes the library panic is a broken one.
    catch_unwind(AssertUnwindSafe(|| try_executor(samples, profile))).ok().flatten()
}

fn try_executor(samples: Samples, profile: &[u8]) -> Option<Executor> {
    let profile = ColorProfile::new_from_slice(profile).ok()?;
    let (space, from, to) = match samples {
        Samples::Gray => (DataColorSpace::Gray, Layout::Gray, Layout::Rgb),
        Samples::GrayAlpha => (DataColorSpace::Gray, Layout::GrayAlpha, Layout::Rgba),
        Samples::Rgb => (DataColorSpace::Rgb, Layout::Rgb, Layout::Rgb),
        Samples::Rgba => (DataColorSpace::Rgb, Layout::Rgba, Layout::Rgba),
        Samples::Cmyk => (DataColorSpace::Cmyk, Layout::Rgba, Layout::Rgb),
    };
    if profile.color_space != space {
        return None;
    }
    let srgb = ColorProfile::new_srgb();
    let options = TransformOptions::default();
    let executor = profile.create_transform_8bit(from, &srgb, to, options).ok()?;
    (!changes_nothing(samples, &executor)).then_some(executor)
}

/// True for profiles that mean sRGB up to rounding, of which there are dozens: their pixels stay exactly as they are.
fn changes_nothing(samples: Samples, executor: &Executor) -> bool {
    const LEVELS: [u8; 8] = [0, 16, 51, 96, 128, 170, 213, 255];
    if matches!(samples, Samples::Cmyk) {
        return false;
    }
    let channels = samples.channels();
    let cube =
        LEVELS.iter().flat_map(|r| LEVELS.iter().flat_map(move |g| LEVELS.iter().map(move |b| [*r, *g, *b, 255])));
    let mut source: Vec<u8> = Vec::new();
    let mut expected: Vec<u8> = Vec::new();
    for [r, g, b, alpha] in cube {
        match samples {
            Samples::Gray => source.push(r),
            Samples::GrayAlpha => source.extend([r, alpha]),
            Samples::Rgb => source.extend([r, g, b]),
            _ => source.extend([r, g, b, alpha]),
        }
        expected.extend(if channels < 3 { [r, r, r] } else { [r, g, b] });
    }
    let count = source.len() / channels;
    let step = if matches!(samples, Samples::Gray | Samples::Rgb) { 3 } else { 4 };
    let mut converted = vec![0; count * step];
    if executor.transform(&source, &mut converted).is_err() {
        return true;
    }
    let near = |(got, wanted): (&[u8], &[u8])| got.iter().zip(wanted).all(|(a, b)| a.abs_diff(*b) <= 1);
    converted.chunks_exact(step).zip(expected.chunks_exact(3)).all(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_lies_over_white() {
        assert_eq!(into_srgb(Samples::Rgba, vec![10, 20, 30, 255, 10, 20, 30, 0], None), [10, 20, 30, 255, 255, 255]);
        assert_eq!(into_srgb(Samples::GrayAlpha, vec![100, 255, 100, 0, 0, 128], None)[6..], [127; 3]);
    }

    #[test]
    fn ink_becomes_light() {
        let inks = vec![0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 255, 128, 128, 0, 128];
        assert_eq!(into_srgb(Samples::Cmyk, inks, None), [255, 255, 255, 0, 255, 255, 0, 0, 0, 63, 63, 127]);
    }

    #[test]
    fn display_p3_becomes_srgb() {
        let profile = ColorProfile::new_display_p3().encode().unwrap();
        let converted = into_srgb(Samples::Rgb, vec![255, 0, 0, 128, 128, 128, 200, 100, 50], Some(&profile));
        // Pure P3 red lies outside sRGB; grays are the same in both. (200, 100, 50) after the matrices of both spaces
        // (CSS Color 4, sample code) is (213.6, 95.5, 33.2).
        assert_eq!(converted[..3], [255, 0, 0]);
        assert!(converted[3..6].iter().all(|gray| gray.abs_diff(128) <= 1), "{converted:?}");
        assert!(converted[6..].iter().zip([214, 95, 33]).all(|(a, b)| a.abs_diff(b) <= 2), "{converted:?}");
    }

    #[test]
    fn an_srgb_profile_and_a_broken_one_leave_pixels_alone() {
        let srgb = ColorProfile::new_srgb().encode().unwrap();
        let pixels: Vec<u8> = (0..=255).collect::<Vec<u8>>()[..255].to_vec();
        assert_eq!(into_srgb(Samples::Rgb, pixels.clone(), Some(&srgb)), pixels);
        for end in (0..srgb.len()).step_by(7) {
            assert_eq!(into_srgb(Samples::Rgb, pixels.clone(), Some(&srgb[..end])), pixels, "cut at {end}");
        }
        assert_eq!(into_srgb(Samples::Rgb, pixels.clone(), Some(b"no profile at all")), pixels);
    }

    #[test]
    fn a_profile_of_another_color_space_is_ignored() {
        let profile = ColorProfile::new_display_p3().encode().unwrap();
        assert_eq!(into_srgb(Samples::Gray, vec![7, 200], Some(&profile)), [7, 7, 7, 200, 200, 200]);
    }
}
