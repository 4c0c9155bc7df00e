//! Photos that macOS reads by itself: HEIC, AVIF and raw files of cameras, through ImageIO.
//!
//! All calls may be made on any thread; nothing here is shared between threads.

use std::io::Read;
use std::ptr;

use objc2_core_foundation::{
    CFBoolean, CFData, CFDictionary, CFNumber, CFRetained, CFString, CFType, CGPoint, CGRect, CGSize, kCFAllocatorNull,
};
use objc2_core_graphics::{
    CGBitmapContextCreate, CGColorSpace, CGContext, CGImage, CGImageAlphaInfo, kCGColorSpaceSRGB,
};
use objc2_image_io::{
    CGImageSource, kCGImagePropertyOrientation, kCGImagePropertyPixelHeight, kCGImagePropertyPixelWidth,
    kCGImageSourceCreateThumbnailFromImageAlways, kCGImageSourceCreateThumbnailWithTransform,
    kCGImageSourceShouldCache, kCGImageSourceThumbnailMaxPixelSize,
};

use super::kind::Kind;
use super::{ImageBudget, ImageError, Limits, Permit, Picture};

/// The decoder's tables, and what ImageIO keeps per file.
const DECODER_BYTES: u64 = 16 << 20;

/// Bytes of a pixel that ImageIO may hold: at most four samples of 16 bits, decoded and then drawn.
const DECODED_BYTES: u64 = 16;

/// Decodes upright in sRGB, over white. A reduced picture comes from the decoder in that size, its shorter side at least
/// twice `short_side`, as of large JPEGs.
pub fn decode<'a>(
    kind: Kind,
    mut reader: impl Read,
    bytes: u64,
    short_side: Option<u32>,
    limits: &Limits,
    budget: &'a ImageBudget,
) -> Result<(Picture, Permit<'a>), ImageError> {
    let mut file = Vec::with_capacity(bytes as usize);
    reader.read_to_end(&mut file)?;
    // What ImageIO leaves to the pool goes at the end of each photo, also on threads that have no pool of their own.
    objc2::rc::autoreleasepool(|_| {
        let source = open(&file).ok_or_else(|| ImageError::damaged("macOS finds no picture in it"))?;
        let size = Size::of(&source).ok_or_else(|| ImageError::unsupported(kind.name(), "macOS cannot read it"))?;
        let Size { width, height, .. } = size;
        limits.check_size(width, height)?;
        let longest = size.longest_for(short_side);
        let permit = limits.admit(2 * bytes + size.pixels() * DECODED_BYTES + DECODER_BYTES, budget)?;
        let image = reduced(&source, longest)
            .ok_or_else(|| ImageError::damaged("macOS could not decode it; the file may be cut short"))?;
        let picture = draw(&image, size).ok_or_else(|| ImageError::DecoderFailed(kind.name()))?;
        Ok((picture, permit))
    })
}

/// A source over the file's bytes, which must outlive it.
fn open(file: &[u8]) -> Option<CFRetained<CGImageSource>> {
    // SAFETY: the allocator that frees nothing leaves the bytes to their owner; the source is gone before them, as callers
    // keep both in one scope.
    unsafe {
        let data = CFData::with_bytes_no_copy(None, file.as_ptr(), file.len() as isize, kCFAllocatorNull)?;
        CGImageSource::with_data(&data, None)
    }
}

/// Size as stored, and whether the upright picture has its sides the other way round.
#[derive(Clone, Copy)]
struct Size {
    width: u32,
    height: u32,
    is_turned: bool,
}

impl Size {
    fn of(source: &CGImageSource) -> Option<Self> {
        // SAFETY: the index is the source's own, and the dictionary has texts as keys (ImageIO's documentation).
        let properties = unsafe {
            let properties = source.properties_at_index(source.primary_image_index(), None)?;
            CFRetained::cast_unchecked::<CFDictionary<CFString, CFType>>(properties)
        };
        let number = |key: &CFString| properties.get(key)?.downcast_ref::<CFNumber>()?.as_i64();
        // SAFETY: constants of the framework.
        let [width, height, orientation] =
            unsafe { [kCGImagePropertyPixelWidth, kCGImagePropertyPixelHeight, kCGImagePropertyOrientation] };
        let side = |key| u32::try_from(number(key)?).ok();
        // EXIF's numbers: 5 to 8 turn by a quarter.
        let is_turned = number(orientation).is_some_and(|orientation| (5..=8).contains(&orientation));
        Some(Self { width: side(width)?, height: side(height)?, is_turned })
    }

    fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    fn upright(self) -> (u32, u32) {
        if self.is_turned { (self.height, self.width) } else { (self.width, self.height) }
    }

    /// The longer side of what is decoded.
    fn longest_for(self, short_side: Option<u32>) -> u32 {
        let (short, long) = (self.width.min(self.height), self.width.max(self.height));
        match short_side.map(|side| 2 * u64::from(side)) {
            Some(wanted) if wanted < u64::from(short) => (u64::from(long) * wanted).div_ceil(u64::from(short)) as u32,
            _ => long,
        }
    }
}

/// The primary picture, turned upright, with `longest` pixels on its longer side if it has more.
fn reduced(source: &CGImageSource, longest: u32) -> Option<CFRetained<CGImage>> {
    let longest = CFNumber::new_i64(i64::from(longest));
    // SAFETY: constants of the framework, and values of the types that its documentation states for them.
    unsafe {
        let options = CFDictionary::<CFString, CFType>::from_slices(
            &[
                kCGImageSourceCreateThumbnailFromImageAlways,
                kCGImageSourceCreateThumbnailWithTransform,
                kCGImageSourceThumbnailMaxPixelSize,
                kCGImageSourceShouldCache,
            ],
            &[
                CFBoolean::new(true).as_ref(),
                CFBoolean::new(true).as_ref(),
                longest.as_ref(),
                CFBoolean::new(false).as_ref(),
            ],
        );
        source.thumbnail_at_index(source.primary_image_index(), Some(options.as_opaque()))
    }
}

/// Draws over white in sRGB, which converts from the picture's own colours.
fn draw(image: &CGImage, size: Size) -> Option<Picture> {
    let (width, height) = (CGImage::width(Some(image)), CGImage::height(Some(image)));
    let mut pixels = vec![255u8; width * height * 4];
    let bounds = CGRect::new(CGPoint::new(0.0, 0.0), CGSize::new(width as f64, height as f64));
    // SAFETY: the context writes rows of four bytes a pixel into `pixels`, which has them all and outlives it.
    unsafe {
        let colors = CGColorSpace::with_name(Some(kCGColorSpaceSRGB))?;
        let layout = CGImageAlphaInfo::NoneSkipLast.0;
        let target = ptr::from_mut(pixels.as_mut_slice()).cast();
        let context = CGBitmapContextCreate(target, width, height, 8, width * 4, Some(&colors), layout)?;
        CGContext::draw_image(Some(&context), bounds, Some(image));
    }
    let rgb = pixels.as_chunks::<4>().0.iter().flat_map(|[r, g, b, _]| [*r, *g, *b]).collect();
    let (full_width, full_height) = size.upright();
    let side = |length: usize| u32::try_from(length).ok();
    Some(Picture { width: side(width)?, height: side(height)?, rgb, full_width, full_height })
}
