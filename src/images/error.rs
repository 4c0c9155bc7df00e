//! Why a photo was not read, in words a person sees beside its name in a table of results. The path is left to the
//! caller, who shows it anyway.

use std::io;

use crate::format;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("failed to read the file")]
    Read(#[source] io::Error),
    #[error("{0}, not a photo")]
    NotAFile(&'static str),
    #[error("the file is empty (0 bytes)")]
    Empty,
    #[error("the file has {bytes} bytes, more than the {limit} that are read")]
    TooManyBytes { bytes: u64, limit: u64 },
    #[error("{width} × {height} pixels are more than Galley reads ({limit})")]
    TooManyPixels { width: u64, height: u64, limit: u64 },
    #[error("{width} × {height} pixels: no side may be longer than {limit}")]
    TooLong { width: u64, height: u64, limit: u32 },
    #[error(
        "decoding it needs {} of memory, and there are {} for that; with a higher memory limit it can be read",
        format::bytes(*.bytes), format::bytes(*.limit)
    )]
    TooMuchMemory { bytes: u64, limit: u64 },
    #[error("the picture has no pixels ({width} × {height})")]
    NoPixels { width: u64, height: u64 },
    #[error("not a photo Galley can read{}", looks_like(.0))]
    Unknown(Option<&'static str>),
    /// A kind of photo that is recognised and not decoded; the text says what to do.
    #[error("{0}")]
    Refused(&'static str),
    #[error("the file is cut short{}", how_much(.percent))]
    Truncated { percent: Option<u8> },
    #[error("the picture is damaged: {0}")]
    Damaged(String),
    #[error("this kind of {kind} cannot be read: {reason}")]
    Unsupported { kind: &'static str, reason: String },
    #[error("a picture of {width} × {height} pixels becomes too large when resized without a crop; set a crop")]
    TooLargeResized { width: u32, height: u32 },
    #[error("the {0} decoder failed on this file (an internal error)")]
    DecoderFailed(&'static str),
}

impl ImageError {
    pub(super) fn unsupported(kind: &'static str, reason: impl Into<String>) -> Self {
        Self::Unsupported { kind, reason: reason.into() }
    }

    pub(super) fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged(reason.into())
    }
}

impl From<io::Error> for ImageError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated { percent: None },
            _ => Self::Read(error),
        }
    }
}

fn looks_like(what: &Option<&str>) -> String {
    what.map(|what| format!(" (it starts like {what})")).unwrap_or_default()
}

fn how_much(percent: &Option<u8>) -> String {
    percent.map(|percent| format!(": {percent} % of the picture is there")).unwrap_or_default()
}
