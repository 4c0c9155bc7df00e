//! The bytes of a checkpoint, read in pieces and only where asked: a file, or bytes the program already holds.
//!
//! Every length is checked against the file before anything is allocated for it.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::error::{Fault, malformed};

/// How much of a file is in memory at once while its elements are converted: a multiple of every element's size.
const CHUNK_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) enum Source {
    /// Read with `pread`: a file that shrinks meanwhile is an error, never a fault of the process.
    File {
        path: PathBuf,
        file: File,
        len: u64,
    },
    Memory(Cow<'static, [u8]>),
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        // Before opening, because opening a pipe waits for its writer.
        if !fs::metadata(path)?.is_file() {
            return Err(Fault::Unrecognised("it is a folder or a device, not a file".into()));
        }
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Source::File { path: path.to_owned(), file, len })
    }

    /// The file read from, if it is one.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Source::File { path, .. } => Some(path),
            Source::Memory(_) => None,
        }
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Source::File { len, .. } => *len,
            Source::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// `len` bytes from `start`; fails before allocating when the file does not hold them.
    pub(super) fn read(&self, start: u64, len: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = vec![0; self.checked(start, len)?];
        self.read_exact_at(&mut bytes, start)?;
        Ok(bytes)
    }

    /// Calls `take` with the `len` bytes from `start`, in order, in pieces whose length is a multiple of 1 MB
    /// (the last one excepted).
    pub(super) fn chunks(&self, start: u64, len: u64, mut take: impl FnMut(&[u8])) -> Result<(), Fault> {
        let len = self.checked(start, len)?;
        if let Source::Memory(bytes) = self {
            take(&bytes[start as usize..start as usize + len]);
            return Ok(());
        }
        let mut buffer = vec![0; len.min(CHUNK_BYTES)];
        let mut done = 0;
        while done < len {
            let piece = &mut buffer[..(len - done).min(CHUNK_BYTES)];
            self.read_exact_at(piece, start + done as u64)?;
            take(piece);
            done += piece.len();
        }
        Ok(())
    }

    /// Fills `buffer` from `start`.
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], start: u64) -> Result<(), Fault> {
        self.checked(start, buffer.len() as u64)?;
        match self {
            Source::Memory(bytes) => {
                let start = start as usize;
                buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
                Ok(())
            }
            Source::File { file, .. } => file.read_exact_at(buffer, start).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => malformed("the file became shorter while it was read"),
                _ => Fault::Read(error),
            }),
        }
    }

    /// `len` as an index, once the file is known to hold that many bytes from `start`.
    fn checked(&self, start: u64, len: u64) -> Result<usize, Fault> {
        match start.checked_add(len) {
            Some(end) if end <= self.len() => Ok(len as usize),
            _ => Err(malformed(format!(
                "{len} bytes are expected at byte {start}, but the file ends at byte {}",
                self.len()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_shrinks_after_opening_is_an_error() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 100_000]).unwrap();
        let source = Source::open(file.path()).unwrap();
        source.chunks(0, 100_000, |_| ()).unwrap();
        file.as_file().set_len(10).unwrap();
        assert!(matches!(source.chunks(0, 100_000, |_| ()), Err(Fault::Malformed(_))));
    }

    #[test]
    fn a_range_beyond_the_end_is_refused_before_it_is_allocated() {
        let source = Source::Memory(Cow::Borrowed(b"abc"));
        assert!(source.read(0, u64::MAX).is_err());
        assert!(source.read(u64::MAX, 2).is_err());
        assert_eq!(source.read(1, 2).unwrap(), b"bc");
    }
}
