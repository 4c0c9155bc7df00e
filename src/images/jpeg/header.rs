//! The marker segments of a JPEG, and what they say before the picture itself begins.

use std::io::{BufRead, Read};

use image::metadata::Orientation;

use crate::images::ImageError;
use crate::images::orientation;

pub const EOI: u8 = 0xD9;
pub const SOS: u8 = 0xDA;
pub const DQT: u8 = 0xDB;
pub const DHT: u8 = 0xC4;
pub const DRI: u8 = 0xDD;
const DAC: u8 = 0xCC;
const APP0: u8 = 0xE0;
const APP1: u8 = 0xE1;
const APP2: u8 = 0xE2;
const APP14: u8 = 0xEE;

/// Profiles beyond this are ignored: real ones stay under a megabyte or two.
const MAX_ICC_BYTES: usize = 4 << 20;

/// One marker with its payload (without the length field).
#[derive(Debug)]
pub struct Segment {
    pub marker: u8,
    pub payload: Vec<u8>,
}

/// Reads up to the next marker and its payload. Bytes between segments are skipped, as libjpeg does.
pub fn next_segment(reader: &mut impl BufRead) -> Result<Segment, ImageError> {
    loop {
        reader.skip_until(0xFF)?;
        let mut marker = read_u8(reader)?;
        while marker == 0xFF {
            marker = read_u8(reader)?;
        }
        match marker {
            0 => {}
            0x01 | 0xD0..=EOI => return Ok(Segment { marker, payload: Vec::new() }),
            _ => return Ok(Segment { marker, payload: read_payload(reader)? }),
        }
    }
}

fn read_u8(reader: &mut impl BufRead) -> Result<u8, ImageError> {
    let mut byte = [0];
    reader.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn read_payload(reader: &mut impl BufRead) -> Result<Vec<u8>, ImageError> {
    let length = u16::from_be_bytes([read_u8(reader)?, read_u8(reader)?]);
    let Some(length) = length.checked_sub(2) else {
        return Err(ImageError::damaged("a JPEG segment has an impossible length"));
    };
    let mut payload = Vec::with_capacity(usize::from(length));
    reader.take(u64::from(length)).read_to_end(&mut payload)?;
    if payload.len() < usize::from(length) {
        return Err(ImageError::Truncated { percent: Some(0) });
    }
    Ok(payload)
}

/// One colour component: how it is sampled and which quantization table it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Component {
    pub id: u8,
    pub horizontal: usize,
    pub vertical: usize,
    pub quantization_table: usize,
}

/// The frame header: size, coding process and components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub width: u32,
    pub height: u32,
    pub progressive: bool,
    pub components: Vec<Component>,
}

impl Frame {
    /// Reads a SOF segment; kinds of JPEG that are not decoded give the reason.
    pub fn from_segment(segment: &Segment) -> Result<Self, ImageError> {
        let refuse = |reason: &str| Err(ImageError::unsupported("JPEG", reason));
        match segment.marker {
            0xC0..=0xC2 => {}
            0xC3 => return refuse("it is coded losslessly"),
            0xC5..=0xC7 | 0xCD..=0xCF => return refuse("it is coded in a hierarchy of pictures"),
            _ => return refuse("it uses arithmetic coding"),
        }
        let [precision, h1, h0, w1, w0, count, specs @ ..] = segment.payload.as_slice() else {
            return Err(ImageError::damaged("the JPEG frame header is too short"));
        };
        let (width, height) = (u16::from_be_bytes([*w1, *w0]), u16::from_be_bytes([*h1, *h0]));
        if *precision != 8 {
            return Err(ImageError::unsupported("JPEG", format!("it has {precision} bits per channel instead of 8")));
        }
        if height == 0 && width > 0 {
            return refuse("its height is not in its header");
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(ImageError::unsupported("JPEG", format!("it has {count} colour channels")));
        }
        let components =
            specs.chunks_exact(3).take(usize::from(*count)).map(component).collect::<Result<Vec<_>, _>>()?;
        if components.len() != usize::from(*count) {
            return Err(ImageError::damaged("the JPEG frame header is too short"));
        }
        let progressive = segment.marker == 0xC2;
        Ok(Self { width: width.into(), height: height.into(), progressive, components })
    }

    pub fn max_horizontal(&self) -> usize {
        self.components.iter().map(|component| component.horizontal).max().unwrap_or(1)
    }

    pub fn max_vertical(&self) -> usize {
        self.components.iter().map(|component| component.vertical).max().unwrap_or(1)
    }

    /// Interleaved units across and down.
    pub fn mcus(&self) -> (usize, usize) {
        let across = (self.width as usize).div_ceil(8 * self.max_horizontal());
        let down = (self.height as usize).div_ceil(8 * self.max_vertical());
        (across, down)
    }
}

fn component(spec: &[u8]) -> Result<Component, ImageError> {
    let (horizontal, vertical) = (usize::from(spec[1] >> 4), usize::from(spec[1] & 15));
    if !(1..=4).contains(&horizontal) || !(1..=4).contains(&vertical) || spec[2] > 3 {
        return Err(ImageError::damaged("the JPEG frame header has impossible sampling factors"));
    }
    Ok(Component { id: spec[0], horizontal, vertical, quantization_table: usize::from(spec[2]) })
}

/// How the components become colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colors {
    Gray,
    Rgb,
    YCbCr,
    /// `inverted`: Adobe writes 255 for no ink.
    Cmyk {
        inverted: bool,
    },
    Ycck {
        inverted: bool,
    },
}

/// Everything before the first scan.
#[derive(Debug)]
pub struct Header {
    pub frame: Frame,
    pub colors: Colors,
    pub orientation: Orientation,
    pub icc_profile: Option<Vec<u8>>,
}

#[derive(Default)]
struct Metadata {
    jfif: bool,
    adobe_transform: Option<u8>,
    exif: Option<Orientation>,
    xmp: Option<Orientation>,
    icc_bytes: usize,
    /// Number, count and bytes of each part of the profile.
    icc_parts: Vec<(u8, u8, Vec<u8>)>,
}

/// Reads up to the first scan. Fails on kinds of JPEG that are not decoded.
pub fn read_header(reader: &mut impl BufRead) -> Result<Header, ImageError> {
    let mut metadata = Metadata::default();
    let mut frame: Option<Frame> = None;
    loop {
        let segment = next_segment(reader)?;
        match segment.marker {
            SOS | EOI => break,
            DHT => {}
            DAC => return Err(ImageError::unsupported("JPEG", "it uses arithmetic coding")),
            0xC0..=0xCF if frame.is_none() => frame = Some(Frame::from_segment(&segment)?),
            _ => metadata.take(segment),
        }
    }
    let frame = frame.ok_or_else(|| ImageError::damaged("the JPEG has no frame header"))?;
    Ok(Header {
        colors: metadata.colors(&frame),
        orientation: metadata.exif.or(metadata.xmp).unwrap_or(Orientation::NoTransforms),
        icc_profile: metadata.icc_profile(),
        frame,
    })
}

impl Metadata {
    fn take(&mut self, segment: Segment) {
        let payload = segment.payload;
        match segment.marker {
            APP0 if payload.starts_with(b"JFIF\0") => self.jfif = true,
            APP1 if payload.starts_with(b"Exif\0") && self.exif.is_none() => {
                self.exif = orientation::from_exif(&payload);
            }
            APP1 if payload.starts_with(b"http://ns.adobe.com/xap/") => self.xmp = orientation::from_xmp(&payload),
            APP2 if payload.starts_with(b"ICC_PROFILE\0") && self.takes_more_profile() => {
                if let [number, count, part @ ..] = &payload[12..] {
                    self.icc_bytes += part.len();
                    self.icc_parts.push((*number, *count, part.to_vec()));
                }
            }
            APP14 if payload.starts_with(b"Adobe") => self.adobe_transform = payload.get(11).copied(),
            _ => {}
        }
    }

    /// The rules of libjpeg, which every writer of JPEGs is tested against.
    fn colors(&self, frame: &Frame) -> Colors {
        let ids: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
        match (frame.components.len(), self.adobe_transform) {
            (1, _) => Colors::Gray,
            (4, Some(2)) => Colors::Ycck { inverted: true },
            (4, adobe) => Colors::Cmyk { inverted: adobe.is_some() },
            _ if self.jfif => Colors::YCbCr,
            (_, Some(0)) => Colors::Rgb,
            (_, None) if ids == *b"RGB" => Colors::Rgb,
            _ => Colors::YCbCr,
        }
    }

    /// What has more bytes than a profile, or more parts than a byte can number, is none: the rest need not be kept.
    fn takes_more_profile(&self) -> bool {
        self.icc_bytes <= MAX_ICC_BYTES && self.icc_parts.len() <= usize::from(u8::MAX)
    }

    /// The profile put together, when all its parts are there.
    fn icc_profile(mut self) -> Option<Vec<u8>> {
        if self.icc_parts.is_empty() || self.icc_bytes > MAX_ICC_BYTES {
            return None;
        }
        self.icc_parts.sort_by_key(|(number, _, _)| *number);
        let count = self.icc_parts.len();
        let complete = |(at, (number, of, _)): (usize, &(u8, u8, Vec<u8>))| {
            usize::from(*number) == at + 1 && usize::from(*of) == count
        };
        let complete = self.icc_parts.iter().enumerate().all(complete);
        complete.then(|| self.icc_parts.into_iter().flat_map(|(_, _, part)| part).collect())
    }
}
