//! The worst photos, small, within the page.

use std::collections::HashMap;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder as _};

use crate::images::{self, ImageBudget, Limits, Picture};
use crate::predict::Evaluation;
use crate::worker::{Canceled, JobContext};

/// So many of them, of so long a longer side in pixels, in so many bytes together.
const MOST: usize = 48;
const SIDE: u32 = 192;
const MOST_BYTES: usize = 1_000_000;
const QUALITY: u8 = 75;

/// What decoding one may take.
const DECODE_BYTES: u64 = 100_000_000;

/// Pictures of photos. One that cannot be read any more is left out.
#[derive(Debug, Default)]
pub struct Thumbnails {
    /// By place in a list of the page: a number of its own.
    places: HashMap<usize, usize>,
    /// A rule of the page's style for each, so that a picture may be shown in several places and is there once.
    pub rules: String,
}

impl Thumbnails {
    /// Of the wrongly judged photos with the highest loss, by their places in [`Evaluation::judged`].
    pub fn of(evaluation: &Evaluation, ctx: &JobContext) -> Result<Self, Canceled> {
        let wrong = evaluation.judged.iter().enumerate().filter(|(_, one)| one.rank > 0);
        Self::of_paths(wrong.map(|(place, judged)| (place, judged.path.as_path())), ctx)
    }

    /// Of photos in these places of a list.
    pub fn of_paths<'a>(photos: impl Iterator<Item = (usize, &'a Path)>, ctx: &JobContext) -> Result<Self, Canceled> {
        let budget = ImageBudget::new(DECODE_BYTES);
        let (mut thumbnails, mut bytes) = (Self::default(), 0);
        for (place, path) in photos.take(MOST) {
            ctx.check()?;
            let Some(jpeg) = jpeg(path, &budget) else { continue };
            bytes += jpeg.len();
            if bytes > MOST_BYTES {
                break;
            }
            let number = thumbnails.places.len();
            thumbnails.places.insert(place, number);
            let jpeg = base64(&jpeg);
            thumbnails.rules += &format!(".t{number}{{background-image:url(data:image/jpeg;base64,{jpeg})}}\n");
        }
        Ok(thumbnails)
    }

    /// The picture of the photo in this place, if it has one.
    pub fn html(&self, place: usize) -> Option<String> {
        Some(format!("<span class=\"thumb t{}\" role=\"img\"></span>", self.places.get(&place)?))
    }
}

fn jpeg(path: &Path, budget: &ImageBudget) -> Option<Vec<u8>> {
    let picture = images::decode(path, Some(SIDE), &Limits::default(), budget).ok()?;
    let Picture { width, height, rgb, .. } = picture.shrunk_to(SIDE);
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    encoder.write_image(&rgb, width, height, ExtendedColorType::Rgb8).ok()?;
    Some(bytes)
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(three.get(at).copied().unwrap_or(0)));
        for letter in 0..4 {
            let index = (bits >> (18 - 6 * letter)) as usize & 63;
            text.push(if letter <= three.len() { char::from(LETTERS[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standards() {
        // The standard's own examples.
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
