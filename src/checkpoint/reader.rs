//! Reads a range of a source byte by byte through a small buffer, and knows where it stands.

use std::ops::Range;

use super::error::{Fault, malformed};
use super::source::Source;

const BUFFER_BYTES: u64 = 64 << 10;
const MAX_LINE_BYTES: usize = 4096;

pub(super) struct Reader<'a> {
    source: &'a Source,
    range: Range<u64>,
    /// Where `buffer` starts in the source.
    buffer_start: u64,
    buffer: Vec<u8>,
    /// The next byte within `buffer`.
    next: usize,
}

impl<'a> Reader<'a> {
    /// `range` is cut to what the source holds.
    pub(super) fn new(source: &'a Source, range: Range<u64>) -> Self {
        let end = range.end.min(source.len());
        let start = range.start.min(end);
        Reader { source, range: start..end, buffer_start: start, buffer: Vec::new(), next: 0 }
    }

    /// Where the next byte lies in the source.
    pub(super) fn position(&self) -> u64 {
        self.buffer_start + self.next as u64
    }

    /// The same, from the start of the range.
    pub(super) fn offset(&self) -> u64 {
        self.position() - self.range.start
    }

    pub(super) fn remaining(&self) -> u64 {
        self.range.end - self.position()
    }

    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        if self.next == self.buffer.len() {
            self.refill()?;
        }
        let byte = self.buffer.get(self.next).copied().ok_or_else(|| self.ended(1))?;
        self.next += 1;
        Ok(byte)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte()?;
        }
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn skip(&mut self, len: u64) -> Result<(), Fault> {
        if len > self.remaining() {
            return Err(self.ended(len));
        }
        let target = self.position() + len;
        match usize::try_from(target - self.buffer_start) {
            Ok(next) if next <= self.buffer.len() => self.next = next,
            _ => {
                self.buffer.clear();
                self.buffer_start = target;
                self.next = 0;
            }
        }
        Ok(())
    }

    /// Appends the next `len` bytes; fails before allocating when they are not there.
    pub(super) fn append_to(&mut self, into: &mut Vec<u8>, len: u64) -> Result<(), Fault> {
        let buffered = self.buffer.get(self.next..).unwrap_or_default();
        if let Some(bytes) = usize::try_from(len).ok().and_then(|len| buffered.get(..len)) {
            into.extend_from_slice(bytes);
            self.next += bytes.len();
            return Ok(());
        }
        if len > self.remaining() {
            return Err(self.ended(len));
        }
        into.extend(self.source.read(self.position(), len)?);
        self.skip(len)
    }

    /// Appends the bytes up to the next line feed, which is read and dropped.
    pub(super) fn append_line_to(&mut self, into: &mut Vec<u8>) -> Result<(), Fault> {
        for _ in 0..MAX_LINE_BYTES {
            match self.byte()? {
                b'\n' => return Ok(()),
                byte => into.push(byte),
            }
        }
        Err(malformed(format!("a name is longer than {MAX_LINE_BYTES} bytes")))
    }

    fn refill(&mut self) -> Result<(), Fault> {
        self.buffer_start = self.position();
        self.next = 0;
        let len = (self.range.end - self.buffer_start).min(BUFFER_BYTES);
        self.buffer.resize(len as usize, 0);
        self.source.read_exact_at(&mut self.buffer, self.buffer_start)
    }

    fn ended(&self, wanted: u64) -> Fault {
        malformed(format!("cut short: {wanted} more bytes are expected at byte {}", self.position()))
    }
}
