//! What a file is, from its first bytes alone: names lie.

use super::ImageError;

/// A kind of photo that is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
    Tiff,
    Heic,
    Avif,
    Raw,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
            Self::Heic => "HEIC",
            Self::Avif => "AVIF",
            Self::Raw => "raw camera file",
        }
    }

    /// What to do where there is no decoder for it.
    pub fn refusal(self) -> Option<&'static str> {
        match self {
            Self::Heic => Some(HEIC),
            Self::Avif => Some(AVIF),
            Self::Raw => Some(RAW),
            _ => None,
        }
    }
}

/// How many first bytes [`recognise`] wants to see.
pub const HEAD_BYTES: usize = 64;

/// Extensions of photos, also of kinds that are refused with a reason: whoever has them wants to be told.
pub const EXTENSIONS: &[&str] = &[
    "jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff", "heic", "heif",
    "hif", "avif", "jxl", "jp2", "psd", "svg", "ico", "dng", "cr2", "cr3", "nef", "arw", "orf", "rw2", "raf", "pef",
    "srw",
];

const HEIC: &str = "HEIC photos cannot be read by a Galley that was built without `heic`; convert to JPEG";
const AVIF: &str = "AVIF photos can be read on a Mac alone; convert to JPEG";
const JPEG_XL: &str = "JPEG XL photos cannot be read; convert to JPEG";
const JPEG_2000: &str = "JPEG 2000 photos cannot be read; convert to JPEG";
const JPEG_LOSSLESS: &str = "JPEG-LS photos cannot be read; convert to JPEG";
const PSD: &str = "Photoshop documents cannot be read; save as JPEG";
const SVG: &str = "SVG drawings cannot be read: they are not photos";
const RAW: &str = "raw camera files can be read on a Mac alone; develop to JPEG";
const ICON: &str = "icons cannot be read: they are not photos";

/// The kind of photo that starts with these bytes, or why it is none.
pub fn recognise(head: &[u8]) -> Result<Kind, ImageError> {
    if head.is_empty() {
        return Err(ImageError::Empty);
    }
    if let Some(reason) = refusal(head) {
        return Err(ImageError::Refused(reason));
    }
    let kind = match head {
        [0xFF, 0xD8, ..] => Kind::Jpeg,
        [0x89, b'P', b'N', b'G', 0x0D, 0x0A, 0x1A, 0x0A, ..] => Kind::Png,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Kind::WebP,
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Kind::Gif,
        [b'B', b'M', ..] if is_bmp(head) => Kind::Bmp,
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => match iso_media(head) {
            Some(kind) => kind,
            None => return Err(ImageError::Unknown(resemblance(head))),
        },
        [b'I', b'I', 42, 0, _, _, _, _, b'C', b'R', ..] => Kind::Raw,
        [b'I', b'I', b'R', b'O' | b'S', ..] | [b'I', b'I', b'U', 0, ..] | [b'M', b'M', b'O', b'R', ..] => Kind::Raw,
        _ if head.starts_with(b"FUJIFILMCCD-RAW") => Kind::Raw,
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Kind::Tiff,
        _ => return Err(ImageError::Unknown(resemblance(head))),
    };
    Ok(kind)
}

/// Two letters are little evidence: the size of the info header must be a known one too.
fn is_bmp(head: &[u8]) -> bool {
    matches!(head.get(14..18), Some([12 | 16 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0]))
}

fn refusal(head: &[u8]) -> Option<&'static str> {
    let reason = match head {
        [0xFF, 0x0A, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => JPEG_XL,
        [0, 0, 0, 12, b'j', b'P', b' ', b' ', ..] | [0xFF, 0x4F, 0xFF, 0x51, ..] => JPEG_2000,
        [0xFF, 0xD8, 0xFF, 0xF7, ..] => JPEG_LOSSLESS,
        [b'8', b'B', b'P', b'S', ..] => PSD,
        [0, 0, 1 | 2, 0, count, 0, ..] if *count > 0 => ICON,
        _ if starts_like_svg(head) => SVG,
        _ => return None,
    };
    Some(reason)
}

/// Photos in ISO base media files, by their brands; films have other brands.
fn iso_media(head: &[u8]) -> Option<Kind> {
    let declared = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let end = declared.clamp(16, HEAD_BYTES).min(head.len());
    let brands: Vec<&[u8]> = head[8..end.max(8)].chunks_exact(4).collect();
    let names = |wanted: &[&[u8]]| brands.iter().any(|brand| wanted.contains(brand));
    if names(&[b"avif", b"avis"]) {
        Some(Kind::Avif)
    } else if names(&[b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1", b"mif2"]) {
        Some(Kind::Heic)
    } else if names(&[b"crx "]) {
        Some(Kind::Raw)
    } else {
        None
    }
}

fn starts_like_svg(head: &[u8]) -> bool {
    let text = head.strip_prefix(&[0xEF, 0xBB, 0xBF]).unwrap_or(head).trim_ascii_start();
    text.starts_with(b"<svg") || (text.starts_with(b"<?xml") && text.windows(4).any(|part| part == b"<svg"))
}

/// What a file that is no photo looks like, to say so.
fn resemblance(head: &[u8]) -> Option<&'static str> {
    let what = match head {
        [_, _, _, _, b'f', b't', b'y', b'p', b'q', b't', ..] => "a QuickTime video",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "an MP4 video",
        [0x1A, 0x45, 0xDF, 0xA3, ..] => "a Matroska or WebM video",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'A', b'V', b'I', ..] => "an AVI video",
        [b'P', b'K', 3, 4, ..] => "a zip archive",
        [0x1F, 0x8B, ..] => "a gzip archive",
        [b'%', b'P', b'D', b'F', ..] => "a PDF document",
        [b'S', b'Q', b'L', b'i', b't', b'e', ..] => "a SQLite database",
        [0, 0, 0, 0, ..] if head.iter().all(|byte| *byte == 0) => "nothing but zeros",
        _ if head.starts_with(b"version https://git-lfs") => "a Git LFS pointer: the photo itself was not fetched",
        _ if is_html(head) => "a web page",
        _ if head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => "a text",
        _ => return None,
    };
    Some(what)
}

fn is_html(head: &[u8]) -> bool {
    let start = head.trim_ascii_start();
    [b"<!doctype".as_slice(), b"<html", b"<head"]
        .iter()
        .any(|tag| start.len() >= tag.len() && start[..tag.len()].eq_ignore_ascii_case(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(head: &[u8]) -> String {
        recognise(head).unwrap_err().to_string()
    }

    #[test]
    fn photos_are_known_by_their_first_bytes() {
        assert_eq!(recognise(b"\xFF\xD8\xFF\xE0").unwrap(), Kind::Jpeg);
        assert_eq!(recognise(b"\x89PNG\r\n\x1a\n").unwrap(), Kind::Png);
        assert_eq!(recognise(b"RIFF\x10\0\0\0WEBPVP8 ").unwrap(), Kind::WebP);
        assert_eq!(recognise(b"GIF89a").unwrap(), Kind::Gif);
        assert_eq!(recognise(b"II*\0\x08\0\0\0").unwrap(), Kind::Tiff);
        assert_eq!(recognise(b"MM\0+\0\x08\0\0").unwrap(), Kind::Tiff);
        assert_eq!(recognise(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").unwrap(), Kind::Heic);
        assert_eq!(recognise(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf").unwrap(), Kind::Avif);
        assert_eq!(recognise(b"II*\0\x10\0\0\0CR\x02\0").unwrap(), Kind::Raw);
    }

    #[test]
    fn photos_of_other_kinds_are_named_and_say_what_to_do() {
        assert_eq!(reason(b"\xFF\x0A\x00\x01"), JPEG_XL);
        assert_eq!(reason(b"8BPS\0\x01"), PSD);
        assert_eq!(reason(b"<?xml version=\"1.0\"?>\n<svg xmlns=\"\">"), SVG);
    }

    #[test]
    fn what_is_no_photo_says_what_it_looks_like() {
        let film = reason(b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41");
        assert_eq!(film, "not a photo Galley can read (it starts like an MP4 video)");
        assert!(reason(b"PK\x03\x04").contains("zip archive"));
        assert!(reason(b"Hello, I am a text").contains("a text"));
        assert_eq!(reason(b"BM no bitmap, though \x01"), "not a photo Galley can read");
        assert_eq!(reason(b""), "the file is empty (0 bytes)");
    }

    #[test]
    fn every_short_head_is_answered() {
        let samples: [&[u8]; 4] = [b"\0\0\0\x18ftypheic", b"RIFF\x10\0\0\0WEBP", b"\x89PNG\r\n\x1a\n", b"BM......"];
        for sample in samples {
            for length in 0..sample.len() {
                let _ = recognise(&sample[..length]);
            }
        }
    }
}
