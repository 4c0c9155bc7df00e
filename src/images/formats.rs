//! Photos other than JPEGs, through the decoders of the `image` crate: PNG, WebP, BMP and TIFF.

use std::error::Error;
use std::io::{self, BufRead, Seek, SeekFrom};

use image::codecs::{bmp::BmpDecoder, png::PngDecoder, tiff::TiffDecoder, webp::WebPDecoder};
use image::error::UnsupportedErrorKind;
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder};

use super::color::{self, Samples};
use super::kind::Kind;
use super::{ImageBudget, ImageError, Limits, Permit, Picture, orientation};

/// What a decoder may hold besides pixels: text, profile and palette chunks, tables, one row.
const METADATA_BYTES: u64 = 8 << 20;

pub fn decode<'a, R: BufRead + Seek>(
    kind: Kind,
    mut reader: R,
    bytes: u64,
    limits: &Limits,
    budget: &'a ImageBudget,
) -> Result<(Picture, Permit<'a>), ImageError> {
    let largest_frame = if kind == Kind::WebP { check_webp_chunks(&mut reader, bytes)? } else { 0 };
    let raw_orientation = if kind == Kind::Png { raw_exif_profile(&mut reader)? } else { None };
    let named = |error| reason(kind, error);
    let mut decoder = open(kind, reader).map_err(named)?;
    let (width, height) = decoder.dimensions();
    limits.check_size(width, height)?;
    if largest_frame > u64::from(width) * u64::from(height) {
        return Err(ImageError::damaged("a frame is larger than the picture"));
    }
    let samples = Layout::of(kind, decoder.color_type())?;
    let orientation = raw_orientation.unwrap_or_else(|| orientation_of(kind, decoder.as_mut()));
    let profile = decoder.icc_profile().ok().flatten();

    let mut estimate = Estimate::new(kind, bytes, u64::from(width) * u64::from(height), &samples);
    estimate.conversion_bytes += color::profile_bytes(profile.as_deref());
    let permit = limits.admit(estimate.total(orientation), budget)?;
    let mut decoder_limits = image::Limits::no_limits();
    decoder_limits.max_alloc = Some(estimate.decoder_bytes);
    decoder.set_limits(decoder_limits).map_err(named)?;
    let mut pixels = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut pixels).map_err(named)?;

    let pixels = if samples.sixteen_bits { color::high_bytes(pixels) } else { pixels };
    let rgb = color::into_srgb(samples.samples, pixels, profile.as_deref());
    let rgb = orientation::upright(orientation, width as usize, height as usize, rgb);
    let (width, height) = orientation::upright_size(orientation, width, height);
    Ok((Picture { width, height, rgb, full_width: width, full_height: height }, permit))
}

fn open<'r, R: BufRead + Seek + 'r>(kind: Kind, reader: R) -> image::ImageResult<Box<dyn ImageDecoder + 'r>> {
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some(METADATA_BYTES);
    Ok(match kind {
        Kind::Png => Box::new(PngDecoder::with_limits(reader, limits)?),
        Kind::WebP => Box::new(WebPDecoder::new(reader)?),
        Kind::Bmp => Box::new(BmpDecoder::new(reader)?),
        Kind::Tiff => Box::new(TiffDecoder::new(reader)?),
        _ => unreachable!("the others have modules of their own"),
    })
}

/// The samples of a decoder's pixels.
struct Layout {
    samples: Samples,
    sixteen_bits: bool,
}

impl Layout {
    fn of(kind: Kind, color: ColorType) -> Result<Self, ImageError> {
        let (samples, sixteen_bits) = match color {
            ColorType::L8 => (Samples::Gray, false),
            ColorType::La8 => (Samples::GrayAlpha, false),
            ColorType::Rgb8 => (Samples::Rgb, false),
            ColorType::Rgba8 => (Samples::Rgba, false),
            ColorType::L16 => (Samples::Gray, true),
            ColorType::La16 => (Samples::GrayAlpha, true),
            ColorType::Rgb16 => (Samples::Rgb, true),
            ColorType::Rgba16 => (Samples::Rgba, true),
            other => return Err(ImageError::unsupported(kind.name(), format!("its pixels are {other:?}"))),
        };
        Ok(Self { samples, sixteen_bits })
    }

    fn bytes_per_pixel(&self) -> u64 {
        self.samples.channels() as u64 * if self.sixteen_bits { 2 } else { 1 }
    }
}

/// Upper bounds of memory, from the header alone.
struct Estimate {
    pixels: u64,
    /// What the decoder and its output may take.
    decoder_bytes: u64,
    /// Further buffers while samples become sRGB.
    conversion_bytes: u64,
}

impl Estimate {
    fn new(kind: Kind, file_bytes: u64, pixels: u64, layout: &Layout) -> Self {
        let output = pixels * layout.bytes_per_pixel();
        let inside = match kind {
            Kind::Png | Kind::Bmp => 0,
            // Lossy: planes (1.5 bytes per pixel), first partition and alpha; lossless: a second buffer of 4 bytes per
            // pixel; animations: frame and canvas.
            Kind::WebP => 9 * pixels + file_bytes,
            // The decoder's own buffer, CMYK having four samples for our three, and one strip or tile.
            _ => 3 * output + file_bytes,
        };
        let narrow = if layout.sixteen_bits { output / 2 } else { 0 };
        let widen = if layout.samples.channels() < 3 { 3 * pixels } else { 0 };
        Self { pixels, decoder_bytes: METADATA_BYTES + output + inside, conversion_bytes: narrow + widen }
    }

    fn total(&self, orientation: Orientation) -> u64 {
        let turn = if orientation::swaps_sides(orientation) { 3 * self.pixels } else { 0 };
        self.decoder_bytes + self.conversion_bytes + turn
    }
}

/// The orientation from EXIF (TIFF: the tag), else from XMP; what cannot be read counts as upright.
fn orientation_of(kind: Kind, decoder: &mut dyn ImageDecoder) -> Orientation {
    let stated = match kind {
        Kind::Tiff => decoder.orientation().ok().filter(|orientation| *orientation != Orientation::NoTransforms),
        _ => decoder.exif_metadata().ok().flatten().and_then(|exif| orientation::from_exif(&exif)),
    };
    stated
        .or_else(|| orientation::from_xmp(&decoder.xmp_metadata().ok().flatten()?))
        .unwrap_or(Orientation::NoTransforms)
}

/// The EXIF data that ImageMagick writes as hexadecimal text instead of an `eXIf` chunk.
fn raw_exif_profile<R: BufRead + Seek>(reader: &mut R) -> Result<Option<Orientation>, ImageError> {
    const KEYWORD: &[u8] = b"Raw profile type exif\0";
    const MAX_BYTES: u32 = 1 << 20;
    let mut found = None;
    reader.seek(SeekFrom::Start(8))?;
    let mut header = [0; 8];
    while found.is_none() && reader.read_exact(&mut header).is_ok() {
        let [length @ .., _, _, _, _] = header;
        let length = u32::from_be_bytes(length);
        match &header[4..] {
            b"IDAT" | b"IEND" => break,
            b"tEXt" if length <= MAX_BYTES => {
                let mut text = vec![0; length as usize];
                reader.read_exact(&mut text)?;
                found = text.strip_prefix(KEYWORD).and_then(orientation::from_hexadecimal_exif);
                reader.seek_relative(4)?;
            }
            _ => reader.seek_relative(i64::from(length) + 4)?,
        }
    }
    reader.rewind()?;
    Ok(found)
}

/// Walks the chunks of a WebP, those of its frames too, and checks that each ends inside the file, before anything is
/// allocated by its stated length. Returns the pixels of the largest lossy frame by the frames' own headers, by which
/// the decoder allocates.
fn check_webp_chunks<R: BufRead + Seek>(reader: &mut R, bytes: u64) -> Result<u64, ImageError> {
    const FRAME_HEADER_BYTES: u64 = 16;
    let mut largest = 0;
    let mut at = 12;
    while at + 8 <= bytes {
        reader.seek(SeekFrom::Start(at))?;
        let mut header = [0; 8];
        reader.read_exact(&mut header)?;
        let [name @ .., _, _, _, _] = header;
        let length = u64::from(u32::from_le_bytes([header[4], header[5], header[6], header[7]]));
        if at + 8 + length > bytes {
            let percent = (bytes * 100 / (at + 8 + length)) as u8;
            return Err(ImageError::Truncated { percent: Some(percent) });
        }
        if name == *b"VP8 " && length >= 10 {
            let mut frame = [0; 10];
            reader.read_exact(&mut frame)?;
            let side = |low, high| u64::from(u16::from_le_bytes([low, high]) & 0x3FFF);
            largest = largest.max(side(frame[6], frame[7]) * side(frame[8], frame[9]));
        }
        let inside = if name == *b"ANMF" { FRAME_HEADER_BYTES.min(length) } else { length + length % 2 };
        at += 8 + inside;
    }
    reader.rewind()?;
    Ok(largest)
}

/// A decoder's error as a person should read it.
fn reason(kind: Kind, error: image::ImageError) -> ImageError {
    let chain = std::iter::successors(Some(&error as &(dyn Error + 'static)), |error| (*error).source());
    let innermost = chain.last().map(|cause| (cause.to_string(), is_end_of_file(cause)));
    let (text, ended) = innermost.unwrap_or_default();
    match error {
        _ if ended => ImageError::Truncated { percent: None },
        image::ImageError::IoError(error) => ImageError::from(error),
        image::ImageError::Unsupported(error) => match error.kind() {
            UnsupportedErrorKind::Color(color) => {
                ImageError::unsupported(kind.name(), format!("its pixels are {color:?}"))
            }
            UnsupportedErrorKind::GenericFeature(feature) => ImageError::unsupported(kind.name(), feature),
            _ => ImageError::unsupported(kind.name(), text),
        },
        // What follows "while decoding" is the inside of the decoder.
        _ => ImageError::damaged(text.split(" while decoding").next().unwrap_or_default().trim_end_matches('.')),
    }
}

fn is_end_of_file(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
}
