//! Decodes a JPEG at 1/8, 1/4, 1/2 or full size in memory that is known from its header: a sequential one needs its
//! reduced pixels, a progressive one also the coefficients that the scale needs.
//!
//! Data that ends early is an error that says how much of the picture is there.

use std::io::Cursor;

use super::component::{Channel, Coefficients, Geometry};
use super::entropy::Huffman;
use super::header::{self, Colors, Frame, Segment};
use super::scan::{self, Fault, Scan, Tables, Target};
use super::upsample;
use crate::images::ImageError;
use crate::images::color::Samples;

/// More than any encoder writes; each scan costs a walk over all blocks, and can be a few bytes long.
const MAX_SCANS: usize = 256;

/// Pixels as the file means them, before colour conversion.
pub struct Raw {
    pub width: u32,
    pub height: u32,
    pub samples: Samples,
    pub pixels: Vec<u8>,
}

/// Bytes that [`decode`] needs besides the file.
pub fn estimate(frame: &Frame, colors: Colors, scale: usize) -> u64 {
    let channels = frame.components.iter().map(|component| Geometry::new(frame, component, scale));
    let (planes, coefficients) = channels.fold((0, 0), |(planes, coefficients), channel| {
        (planes + channel.plane_bytes() as u64, coefficients + channel.coefficient_bytes() as u64)
    });
    let (width, height) = scaled_size(frame, scale);
    let output = u64::from(width) * u64::from(height) * samples(colors).channels() as u64;
    // The coefficients are gone before there is any output.
    planes + if frame.progressive { output.max(coefficients) } else { output }
}

/// Size of the picture at `scale` eighths.
pub fn scaled_size(frame: &Frame, scale: usize) -> (u32, u32) {
    let scaled = |side: u32| (side * scale as u32).div_ceil(8);
    (scaled(frame.width), scaled(frame.height))
}

fn samples(colors: Colors) -> Samples {
    match colors {
        Colors::Gray => Samples::Gray,
        Colors::Rgb | Colors::YCbCr => Samples::Rgb,
        Colors::Cmyk { .. } | Colors::Ycck { .. } => Samples::Cmyk,
    }
}

/// Decodes `file` at `scale` eighths (1, 2, 4 or 8). `frame` and `colors` are from its header.
pub fn decode(file: &[u8], frame: &Frame, colors: Colors, scale: usize) -> Result<Raw, ImageError> {
    let mut decoder = Decoder::new(frame, scale);
    decoder.read_scans(file)?;
    let channels = decoder.finish();
    let (width, height) = scaled_size(frame, scale);
    let pixels = upsample::interleave(&channels, colors, width as usize, height as usize);
    Ok(Raw { width, height, samples: samples(colors), pixels })
}

struct Decoder<'a> {
    frame: &'a Frame,
    channels: Vec<Channel>,
    /// Per channel; empty for sequential pictures.
    coefficients: Vec<Coefficients>,
    /// Which channels have been in a scan: all of a sequential one, the constants at least of a progressive one.
    is_seen: Vec<bool>,
    quantization: [Option<[i32; 64]>; 4],
    tables: Tables,
    /// Sequential and at a reduced scale: some coefficients are stepped over.
    is_reduced: bool,
}

impl<'a> Decoder<'a> {
    fn new(frame: &'a Frame, scale: usize) -> Self {
        let channels: Vec<_> =
            frame.components.iter().map(|component| Channel::new(frame, *component, scale)).collect();
        let coefficients = channels.iter().filter(|_| frame.progressive);
        Self {
            frame,
            coefficients: coefficients.map(|channel| Coefficients::new(&channel.geometry)).collect(),
            is_seen: vec![false; channels.len()],
            channels,
            quantization: [None; 4],
            tables: Tables::default(),
            is_reduced: !frame.progressive && scale < 8,
        }
    }

    fn read_scans(&mut self, file: &[u8]) -> Result<(), ImageError> {
        let mut reader = Cursor::new(file);
        let mut scans = 0;
        loop {
            let segment = match header::next_segment(&mut reader) {
                // Without an end marker the picture may still be all there; of a progressive one nobody can know.
                Err(ImageError::Truncated { .. }) if self.is_whole() && !self.frame.progressive => return Ok(()),
                Err(ImageError::Truncated { .. }) if scans > 0 => {
                    return Err(ImageError::Truncated { percent: None });
                }
                other => other?,
            };
            match segment.marker {
                header::EOI if self.is_whole() => return Ok(()),
                header::EOI => return Err(ImageError::Truncated { percent: None }),
                header::DQT => self.read_quantization(&segment)?,
                header::DHT => self.read_huffman(&segment)?,
                header::DRI => {
                    let interval = segment.payload.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
                    self.tables.restart_interval = usize::from(interval);
                }
                header::SOS => {
                    scans += 1;
                    if scans > MAX_SCANS {
                        return Err(ImageError::damaged(format!("it has more than {MAX_SCANS} scans")));
                    }
                    let start = reader.position() as usize;
                    let length = self.read_scan(&segment, &file[start..])?;
                    reader.set_position((start + length) as u64);
                }
                _ => {}
            }
        }
    }

    fn read_scan(&mut self, segment: &Segment, data: &[u8]) -> Result<usize, ImageError> {
        let scan = Scan::from_segment(segment, self.frame)?;
        for member in &scan.channels {
            let channel = &mut self.channels[member.channel];
            if channel.quantization.is_none() {
                channel.quantization = self.quantization[channel.component.quantization_table];
            }
        }
        let target = if self.frame.progressive { Target::Kept(&mut self.coefficients) } else { Target::Pixels };
        let end = scan::decode(data, &scan, &self.tables, &mut self.channels, target, self.frame.mcus());
        let whole_picture = !self.frame.progressive && scan.channels.len() == self.channels.len();
        let percent = |done: usize, of: usize| whole_picture.then(|| (done * 100 / of) as u8);
        let end = end.map_err(|fault| match fault {
            Fault::CutShort { done, of } => ImageError::Truncated { percent: percent(done, of) },
            Fault::Damaged { done, of } => ImageError::damaged(match percent(done, of) {
                Some(percent) => format!("its compressed data makes no sense after {percent} % of the picture"),
                None => "its compressed data makes no sense".to_owned(),
            }),
        })?;
        for member in scan.channels.iter().filter(|_| scan.first == 0) {
            self.is_seen[member.channel] = true;
        }
        Ok(end)
    }

    fn is_whole(&self) -> bool {
        self.is_seen.iter().all(|is_seen| *is_seen)
    }

    fn read_quantization(&mut self, segment: &Segment) -> Result<(), ImageError> {
        let wrong = || ImageError::damaged("a quantization table is impossible");
        let mut rest = segment.payload.as_slice();
        while let Some((kind, values)) = rest.split_first() {
            let bytes = if kind >> 4 == 0 { 1 } else { 2 };
            let (values, behind) = values.split_at_checked(64 * bytes).ok_or_else(wrong)?;
            let mut table = [0; 64];
            for (step, value) in table.iter_mut().zip(values.chunks_exact(bytes)) {
                *step = value.iter().fold(0, |number, byte| number * 256 + i32::from(*byte));
            }
            *self.quantization.get_mut(usize::from(kind & 15)).ok_or_else(wrong)? = Some(table);
            rest = behind;
        }
        Ok(())
    }

    fn read_huffman(&mut self, segment: &Segment) -> Result<(), ImageError> {
        let wrong = || ImageError::damaged("a Huffman table is impossible");
        let mut rest = segment.payload.as_slice();
        while let Some((kind, behind)) = rest.split_first() {
            let (counts, behind) = behind.split_first_chunk::<16>().ok_or_else(wrong)?;
            let symbols = counts.iter().map(|count| usize::from(*count)).sum();
            let (symbols, behind) = behind.split_at_checked(symbols).ok_or_else(wrong)?;
            let mut table = Huffman::new(counts, symbols)?;
            let is_for_constants = kind >> 4 == 0;
            let tables = if is_for_constants { &mut self.tables.dc } else { &mut self.tables.ac };
            if self.is_reduced && !is_for_constants {
                table.prepare_skips();
            }
            *tables.get_mut(usize::from(kind & 15)).ok_or_else(wrong)? = Some(table);
            rest = behind;
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<Channel> {
        for (coefficients, channel) in self.coefficients.drain(..).zip(&mut self.channels) {
            coefficients.write(channel);
        }
        self.channels
    }
}
