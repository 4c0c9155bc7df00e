//! Photos: decoded upright in sRGB within stated limits, and transformed to network input.
//!
//! What a file is decides its content, never its name. Its header is read first; from that the memory of decoding is
//! estimated, and the photo waits for that much of the [`ImageBudget`]. A file that is cut short is an error, never a
//! picture that is part gray.

mod budget;
mod color;
mod error;
pub mod folder;
mod formats;
mod gif;
#[cfg(all(feature = "heic", not(target_os = "macos")))]
mod heif;
#[cfg(target_os = "macos")]
mod imageio;
mod jpeg;
mod kind;
mod orientation;
mod resize;
mod source;
mod tiff;
pub mod transform;

use std::io::{BufRead, BufReader, Cursor, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

pub use budget::{ImageBudget, Permit};
pub use error::ImageError;
pub use kind::EXTENSIONS;
use kind::Kind;
use resize::Target;
use transform::{Interpolation, Transform};

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

impl Picture {
    /// The picture shrunk until its longer side is `side` pixels; one that is no longer stays as it is.
    pub fn shrunk_to(self, side: u32) -> Self {
        let longest = self.width.max(self.height);
        if longest <= side {
            return self;
        }
        let scaled = |length: u32| (u64::from(length) * u64::from(side)).div_ceil(u64::from(longest)) as u32;
        let (width, height) = (scaled(self.width), scaled(self.height));
        self.resized_to(width, height, Interpolation::Bilinear)
    }

    /// The part of the picture that starts at `left` and `top`; it must lie inside.
    pub fn cut(&self, left: u32, top: u32, width: u32, height: u32) -> Self {
        let stride = self.width as usize * 3;
        let columns = left as usize * 3..(left + width) as usize * 3;
        let rows = self.rgb.chunks_exact(stride).skip(top as usize).take(height as usize);
        let mut rgb = Vec::with_capacity(columns.len() * height as usize);
        rows.for_each(|row| rgb.extend_from_slice(&row[columns.clone()]));
        Self { width, height, rgb, ..*self }
    }

    /// The picture in another size, by Pillow's antialiased resize.
    pub fn resized_to(&self, width: u32, height: u32, interpolation: Interpolation) -> Self {
        let target = Target::whole(width as usize, height as usize);
        let rgb = resize::resize(&self.rgb, self.width as usize, self.height as usize, &target, interpolation);
        Self { width, height, rgb, ..*self }
    }
}

/// What is refused before decoding.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_file_bytes: u64,
    pub max_pixels: u64,
    pub max_side: u32,
    /// Estimated memory of decoding one photo.
    pub max_decode_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_file_bytes: 512 << 20, max_pixels: 250_000_000, max_side: 65_535, max_decode_bytes: 2_000_000_000 }
    }
}

impl Limits {
    fn check_size(&self, width: u32, height: u32) -> Result<(), ImageError> {
        let (width, height) = (u64::from(width), u64::from(height));
        if width == 0 || height == 0 {
            return Err(ImageError::NoPixels { width, height });
        }
        if width.max(height) > u64::from(self.max_side) {
            return Err(ImageError::TooLong { width, height, limit: self.max_side });
        }
        if width * height > self.max_pixels {
            return Err(ImageError::TooManyPixels { width, height, limit: self.max_pixels });
        }
        Ok(())
    }

    /// Takes the permit for so many bytes, or says that no photo may need that many.
    fn admit<'a>(&self, bytes: u64, budget: &'a ImageBudget) -> Result<Permit<'a>, ImageError> {
        if bytes > self.max_decode_bytes {
            return Err(ImageError::TooMuchMemory { bytes, limit: self.max_decode_bytes });
        }
        Ok(budget.acquire(bytes))
    }
}

/// Runs a loop compiled for the best vector instructions of this machine. All of it must be inlined: what is called as a
/// function of its own is compiled for any machine.
fn vectorized<R>(compute: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(compute)
}

/// Decodes a photo upright in sRGB.
///
/// `short_side` is the least useful length of the shorter side: JPEGs of more than 4 megapixels may be decoded at a
/// reduced scale as long as their shorter side stays at least twice that (none: full size).
pub fn decode(
    path: &Path,
    short_side: Option<u32>,
    limits: &Limits,
    budget: &ImageBudget,
) -> Result<Picture, ImageError> {
    let (file, bytes) = source::open(path, limits)?;
    decode_reader(BufReader::new(file), bytes, short_side, limits, budget).map(|(picture, _)| picture)
}

/// As [`decode`], from memory.
pub fn decode_bytes(
    bytes: &[u8],
    short_side: Option<u32>,
    limits: &Limits,
    budget: &ImageBudget,
) -> Result<Picture, ImageError> {
    let length = bytes.len() as u64;
    decode_reader(Cursor::new(bytes), length, short_side, limits, budget).map(|(picture, _)| picture)
}

/// Network input of one photo: normalized pixels of shape `(height, width, 3)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub height: usize,
    pub width: usize,
    pub pixels: Vec<f32>,
}

/// Network input of a photo.
///
/// Decodes, resizes and normalizes under one permit, so the full-size photo is gone when the permit is given back.
pub fn load_input(
    path: &Path,
    transform: &Transform,
    limits: &Limits,
    budget: &ImageBudget,
) -> Result<Input, ImageError> {
    let (file, bytes) = source::open(path, limits)?;
    let (picture, permit) = decode_reader(BufReader::new(file), bytes, Some(transform.short_side()), limits, budget)?;
    transform.check_output(&picture)?;
    let (height, width) = transform.size_for(&picture);
    let input = Input { height, width, pixels: transform.apply(&picture) };
    drop(picture);
    drop(permit);
    Ok(input)
}

/// A photo resized and not cropped ([`Transform::resized`]), under one permit as [`load_input`].
pub fn load_resized(
    path: &Path,
    transform: &Transform,
    limits: &Limits,
    budget: &ImageBudget,
) -> Result<Picture, ImageError> {
    let (file, bytes) = source::open(path, limits)?;
    let (picture, permit) = decode_reader(BufReader::new(file), bytes, Some(transform.short_side()), limits, budget)?;
    transform.check_output(&picture)?;
    let resized = transform.resized(&picture);
    drop(picture);
    drop(permit);
    Ok(resized)
}

fn decode_reader<'a, R: BufRead + Seek>(
    mut reader: R,
    bytes: u64,
    short_side: Option<u32>,
    limits: &Limits,
    budget: &'a ImageBudget,
) -> Result<(Picture, Permit<'a>), ImageError> {
    let kind = match kind::recognise(&head(&mut reader)?)? {
        Kind::Tiff if tiff::inspect(&mut reader, bytes)? == tiff::Content::Raw => Kind::Raw,
        kind => kind,
    };
    if let Some(reason) = kind.refusal().filter(|_| !is_readable(kind)) {
        return Err(ImageError::Refused(reason));
    }
    // Decoders are other people's code on strangers' files: a panic in one costs that photo, not the batch.
    let decoded = catch_unwind(AssertUnwindSafe(|| match kind {
        Kind::Jpeg => jpeg::decode(reader, bytes, short_side, limits, budget),
        Kind::Gif => gif::decode(reader, limits, budget),
        #[cfg(target_os = "macos")]
        Kind::Heic | Kind::Avif | Kind::Raw => imageio::decode(kind, reader, bytes, short_side, limits, budget),
        #[cfg(all(feature = "heic", not(target_os = "macos")))]
        Kind::Heic => heif::decode(reader, bytes, limits, budget),
        _ => formats::decode(kind, reader, bytes, limits, budget),
    }));
    decoded.unwrap_or(Err(ImageError::DecoderFailed(kind.name())))
}

/// Whether there is a decoder for the kinds that not every system or build has one for.
fn is_readable(kind: Kind) -> bool {
    cfg!(target_os = "macos") || kind == Kind::Heic && cfg!(feature = "heic")
}

/// The first bytes, with the reader back at the start.
fn head(reader: &mut (impl BufRead + Seek)) -> Result<Vec<u8>, ImageError> {
    use std::io::Read;
    let mut head = Vec::with_capacity(kind::HEAD_BYTES);
    reader.by_ref().take(kind::HEAD_BYTES as u64).read_to_end(&mut head)?;
    reader.rewind()?;
    Ok(head)
}

/// True for a file name whose extension is one of a photo (also of kinds that are refused with a reason, such as HEIC).
pub fn is_photo_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_shrinks_to_its_longer_side_and_keeps_its_full_size() {
        let picture = |width: u32, height: u32| {
            let rgb = [10, 20, 30].repeat((width * height) as usize);
            Picture { width, height, rgb, full_width: width, full_height: height }
        };
        let small = picture(400, 100).shrunk_to(100);
        assert_eq!((small.width, small.height, small.full_width, small.full_height), (100, 25, 400, 100));
        assert_eq!(small.rgb, [10, 20, 30].repeat(100 * 25));
        assert_eq!(picture(40, 10).shrunk_to(100).width, 40);
        assert_eq!(picture(4000, 1).shrunk_to(100).height, 1);
    }

    #[test]
    fn photo_names_are_known_by_extension_in_any_case() {
        for name in ["a.jpg", "b.JPEG", "c.PnG", "folder/d.webp", "e.HEIC", "download (1).jpg", "f.tiff"] {
            assert!(is_photo_name(Path::new(name)), "{name}");
        }
        for name in ["a.txt", "jpg", ".jpg", "b.jpg.part", "c.mp4", "folder/", ""] {
            assert!(!is_photo_name(Path::new(name)), "{name}");
        }
    }
}
