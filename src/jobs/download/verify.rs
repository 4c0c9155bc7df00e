//! Whether what came is what was wanted: its SHA-256, and that it is no web page.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::error::DownloadError;
use crate::format::hex;
use crate::worker::{BoxError, JobContext, Progress};

/// The fewest digits that are taken for a checksum: as many as torchvision writes into its names.
const FEWEST_DIGITS: usize = 8;

const BLOCK: usize = 1 << 20;

/// A SHA-256 as far as it is known, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    digits: String,
    from: &'static str,
}

impl Checksum {
    /// The whole 64 hexadecimal digits, or the first 8 or more, in any case.
    pub fn parse(text: &str) -> Result<Self, DownloadError> {
        let digits = text.trim().to_ascii_lowercase();
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        match is_hex && (FEWEST_DIGITS..=64).contains(&digits.len()) {
            true => Ok(Self { digits, from: "the one who asked" }),
            false => Err(DownloadError::NoChecksum(text.to_owned())),
        }
    }

    pub fn said_by(self, from: &'static str) -> Self {
        Self { from, ..self }
    }

    pub fn digits(&self) -> &str {
        &self.digits
    }

    /// `sha256` are all 64 digits, in lower case.
    pub fn fits(&self, sha256: &str) -> bool {
        sha256.starts_with(&self.digits)
    }

    /// Fails, with both checksums named, when `sha256` is another one.
    pub fn check(&self, sha256: &str, address: &str) -> Result<(), DownloadError> {
        match self.fits(sha256) {
            true => Ok(()),
            false => Err(DownloadError::WrongChecksum {
                found: sha256.to_owned(),
                expected: self.digits.clone(),
                from: self.from,
                address: address.to_owned(),
            }),
        }
    }
}

/// The SHA-256 of a file in lower-case hexadecimal digits.
pub fn sha256_of(path: &Path, ctx: &JobContext) -> Result<String, BoxError> {
    let unreadable = |source| DownloadError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let total = file.metadata().map_err(unreadable)?.len();
    let (mut hash, mut block, mut done) = (Sha256::new(), vec![0; BLOCK], 0);
    loop {
        ctx.check()?;
        ctx.report(Progress { phase: "Verifying".to_owned(), done, total: Some(total), per_second: None });
        match file.read(&mut block).map_err(unreadable)? {
            0 => return Ok(hex(&hash.finalize())),
            read => {
                hash.update(&block[..read]);
                done += read as u64;
            }
        }
    }
}

/// The title of a web page, when these first bytes are one.
///
/// No checkpoint begins so: a safetensors file's eight bytes of length would name a table of exabytes.
pub fn web_page(start: &[u8]) -> Option<Option<String>> {
    const OPENINGS: [&str; 7] = ["<!doc", "<html", "<head", "<body", "<?xml", "<scri", "<!--"];
    let text = String::from_utf8_lossy(start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start));
    let lower = text.trim_start().to_ascii_lowercase();
    if !OPENINGS.iter().any(|opening| lower.starts_with(opening)) {
        return None;
    }
    let text = text.trim_start();
    let title = lower.find("<title>").and_then(|begin| {
        let begin = begin + "<title>".len();
        let end = begin + lower[begin..].find("</title>")?;
        Some(text.get(begin..end)?.split_whitespace().collect::<Vec<_>>().join(" "))
    });
    Some(title.filter(|title| !title.is_empty()).map(|title| title.chars().take(80).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_compared_as_far_as_it_is_known() {
        let whole = "11ad3fa62dbf6aee0b6ce6b2ed0d2b1b1bde5f8a1f10b2b0d3e5a5a0c6b5d1f0";
        assert!(Checksum::parse("11AD3FA6").unwrap().fits(whole));
        assert!(Checksum::parse(whole).unwrap().fits(whole));
        assert!(!Checksum::parse("11ad3fa7").unwrap().fits(whole));
        for wrong in ["", "11ad3fa", "11ad3fax", &format!("{whole}0")] {
            assert!(Checksum::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pages_are_told_from_checkpoints() {
        assert_eq!(web_page(b"\n<!DOCTYPE html><html><title>Sign\n in</title>"), Some(Some("Sign in".to_owned())));
        assert_eq!(web_page("\u{feff}<HTML>".as_bytes()), Some(None));
        for start in [&b"PK\x03\x04"[..], b"GGUF", b"<h\0\0\0\0\0\0{\"a\"", b"", b"\x80\x02"] {
            assert_eq!(web_page(start), None);
        }
    }

    #[test]
    fn the_sha256_of_a_file_is_the_published_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        // FIPS 180-2, appendix B.1.
        let published = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of(&path, &JobContext::detached()).unwrap(), published);
    }
}
