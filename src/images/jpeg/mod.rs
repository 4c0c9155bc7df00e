//! JPEGs, by a decoder of our own. It is here for three things that the pure-Rust decoders at hand do not give together:
//! memory that is small and known from the header, also for progressive files at a reduced scale; an error, with how
//! much is there, for every file that is cut short; and at full size the very pixels that libjpeg gives, on which
//! networks were trained.

mod component;
mod decoder;
mod entropy;
mod header;
mod idct;
mod islow;
mod scan;
mod upsample;

use std::io::{BufRead, Read, Seek};

use header::{Colors, Header};

use super::{ImageBudget, ImageError, Limits, Permit, Picture, color, orientation};

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
    let raw = decoder::decode(&file, &header.frame, header.colors, scale)?;
    drop(file);

    let rgb = color::into_srgb(raw.samples, raw.pixels, header.icc_profile.as_deref());
    let rgb = orientation::upright(header.orientation, raw.width as usize, raw.height as usize, rgb);
    let (full_width, full_height) = orientation::upright_size(header.orientation, width, height);
    let (width, height) = orientation::upright_size(header.orientation, raw.width, raw.height);
    Ok((Picture { width, height, rgb, full_width, full_height }, permit))
}

/// Photos up to this many pixels are decoded in full: that costs little, and gives exactly the numbers that PyTorch gets.
/// At a reduced scale saturated colours are cut off after the reduction instead of before, which moves means by a level
/// or more where a photo is full of fine detail.
const ALWAYS_FULL_PIXELS: u64 = 4_000_000;

/// The smallest scale, in eighths, at which the shorter side is still twice what is needed.
fn scale(header: &Header, short_side: Option<u32>) -> usize {
    let pixels = u64::from(header.frame.width) * u64::from(header.frame.height);
    let Some(needed) = short_side.filter(|_| pixels > ALWAYS_FULL_PIXELS) else { return 8 };
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
    let decoding = file_bytes + decoder::estimate(frame, header.colors, scale);
    // What decoding needed is gone when gray becomes RGB in a new buffer, and when sides change places in another.
    let widening = if header.colors == Colors::Gray { 4 * pixels } else { 0 };
    let turning = if orientation::swaps_sides(header.orientation) { 6 * pixels } else { 0 };
    let profile = color::profile_bytes(header.icc_profile.as_deref());
    decoding.max(widening).max(turning) + profile + SMALL_CHANGE
}

/// Tables and rows.
const SMALL_CHANGE: u64 = 2 << 20;
