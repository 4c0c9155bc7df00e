//! JPEGs. At a reduced scale, and for inks, by our own decoder, whose memory is known and small; at full size by
//! `zune-jpeg`, which is faster there.

mod component;
mod decoder;
mod entropy;
mod header;
mod idct;
mod scan;
mod upsample;

use std::io::{BufRead, Read, Seek};

use decoder::Raw;
use header::{Colors, Header};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;

use super::color::{self, Samples};
use super::{ImageBudget, ImageError, Limits, Permit, Picture, orientation};

pub fn decode<'a, R: BufRead + Seek>(
    mut reader: R,
    bytes: u64,
    short_side: Option<u32>,
    limits: &Limits,
    budget: &'a ImageBudget,
) -> Result<(Picture, Permit<'a>), ImageError> {
    let header = header::read_header(&mut reader)?;
    let (width, height) = (header.frame.width, header.frame.height);
    limits.check_size(width, height)?;
    let scale = scale(&header, short_side);
    let permit = limits.admit(estimate(&header, bytes, scale), budget)?;

    reader.rewind()?;
    let mut file = Vec::with_capacity(bytes as usize);
    reader.take(bytes).read_to_end(&mut file)?;
    let raw = decode_pixels(&file, &header, scale)?;
    drop(file);

    let rgb = color::into_srgb(raw.samples, raw.pixels, header.icc_profile.as_deref());
    let rgb = orientation::upright(header.orientation, raw.width as usize, raw.height as usize, rgb);
    let (full_width, full_height) = orientation::upright_size(header.orientation, width, height);
    let (width, height) = orientation::upright_size(header.orientation, raw.width, raw.height);
    Ok((Picture { width, height, rgb, full_width, full_height }, permit))
}

/// The smallest scale, in eighths, at which the shorter side is still twice what is needed.
fn scale(header: &Header, short_side: Option<u32>) -> usize {
    let Some(needed) = short_side else { return 8 };
    let enough = |scale: &usize| {
        let (width, height) = decoder::scaled_size(&header.frame, *scale);
        width.min(height) >= needed.saturating_mul(2)
    };
    [1, 2, 4].into_iter().find(enough).unwrap_or(8)
}

/// Bytes of memory that decoding takes at most, the file included.
fn estimate(header: &Header, file_bytes: u64, scale: usize) -> u64 {
    let frame = &header.frame;
    let (width, height) = decoder::scaled_size(frame, scale);
    let pixels = u64::from(width) * u64::from(height);
    let own = decoder::estimate(frame, header.colors, scale);
    let zune = if scale == 8 { zune_estimate(header) } else { 0 };
    // Gray becomes RGB in a new buffer, and sides that change places need one too.
    let widen = if header.colors == Colors::Gray { 3 * pixels } else { 0 };
    let turn = if orientation::swaps_sides(header.orientation) { 3 * pixels } else { 0 };
    file_bytes + own.max(zune) + widen + turn + SMALL_CHANGE
}

/// Tables, rows and profile.
const SMALL_CHANGE: u64 = 2 << 20;

/// What `zune-jpeg` takes: its output, a row of units as 16-bit samples with their enlarged copies, and two bytes per
/// sample when the samples do not come interleaved.
fn zune_estimate(header: &Header) -> u64 {
    let frame = &header.frame;
    let (across, down) = frame.mcus();
    let blocks: usize = frame.components.iter().map(|component| component.horizontal * component.vertical).sum();
    let samples = (across * down * blocks * 64) as u64;
    let rows = (across * frame.max_horizontal() * 8 * 8 * frame.max_vertical() * 24) as u64;
    let output = u64::from(frame.width) * u64::from(frame.height) * frame.components.len() as u64;
    let stored = if frame.progressive || !header.is_interleaved { 2 * samples } else { 0 };
    output + rows + stored
}

fn decode_pixels(file: &[u8], header: &Header, scale: usize) -> Result<Raw, ImageError> {
    let fast = (scale == 8 && !header.frame.progressive).then(|| decode_with_zune(file, header)).flatten();
    match fast {
        Some(raw) => Ok(raw),
        // What the fast decoder refuses, ours names, or reads.
        None => decoder::decode(file, &header.frame, header.colors, scale),
    }
}

/// Full size through `zune-jpeg`; none when it is not certain to give every pixel right.
fn decode_with_zune(file: &[u8], header: &Header) -> Option<Raw> {
    let (samples, wanted, stored) = match header.colors {
        Colors::Gray => (Samples::Gray, ColorSpace::Luma, ColorSpace::Luma),
        Colors::YCbCr => (Samples::Rgb, ColorSpace::RGB, ColorSpace::YCbCr),
        _ => return None,
    };
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(wanted);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(file), options);
    decoder.decode_headers().ok()?;
    let (width, height) = (header.frame.width, header.frame.height);
    if decoder.input_colorspace()? != stored || decoder.dimensions()? != (width as usize, height as usize) {
        return None;
    }
    let pixels = decoder.decode().ok()?;
    let expected = width as usize * height as usize * samples.channels();
    (pixels.len() == expected).then_some(Raw { width, height, samples, pixels })
}
