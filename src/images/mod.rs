//! Photos: decoded upright in sRGB within stated limits, and transformed to network input.

pub mod transform;

use std::path::Path;

/// An upright sRGB picture, 8 bits per channel, rows from the top, `rgb.len() == width * height * 3`.
#[derive(Debug, Clone)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    pub rgb: Vec<u8>,
    /// Size of the photo itself, upright: larger than the picture's when it was decoded at a reduced scale.
    pub full_width: u32,
    pub full_height: u32,
}

/// What is refused before decoding.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_file_bytes: u64,
    pub max_pixels: u64,
    pub max_side: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_file_bytes: 512 << 20, max_pixels: 250_000_000, max_side: 65_535 }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("stub")]
    Stub,
}

/// Bounds the decoding memory of all threads together: a permit is taken, by estimated bytes, before a photo is decoded.
#[derive(Debug)]
pub struct ImageBudget {}

impl ImageBudget {
    pub fn new(_bytes: u64) -> Self {
        todo!()
    }
}

/// Decodes a photo upright in sRGB.
///
/// `short_side` is the least useful length of the shorter side: JPEGs may be decoded at a reduced scale as long as their
/// shorter side stays at least twice that (none: full size).
pub fn decode(
    _path: &Path,
    _short_side: Option<u32>,
    _limits: &Limits,
    _budget: &ImageBudget,
) -> Result<Picture, ImageError> {
    todo!()
}

/// True for a file name whose extension is one of a photo (also of kinds that are refused with a reason, such as HEIC).
pub fn is_photo_name(_path: &Path) -> bool {
    todo!()
}
