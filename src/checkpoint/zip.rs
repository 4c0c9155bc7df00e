//! The directory of a zip archive as `torch.save` writes it: stored entries, never compressed, zip64 where needed.
//!
//! An own reader because the general one reserves some hundred bytes for every entry that the archive merely claims
//! to have, and because tensors are read where they lie, not through a decompressor.

use std::collections::HashMap;
use std::ops::Range;

use super::error::{Fault, malformed, refused};
use super::reader::Reader;
use super::source::Source;

const END_SIGNATURE: [u8; 4] = *b"PK\x05\x06";
const END_BYTES: u64 = 22;
const ZIP64_LOCATOR_BYTES: u64 = 20;
const MAX_COMMENT_BYTES: u64 = 65_535;
const MAX_DIRECTORY_BYTES: u64 = 64 << 20;

#[derive(Debug, Clone)]
pub(super) struct Entry {
    header_offset: u64,
    pub(super) bytes: u64,
    encrypted: bool,
    compressed: bool,
}

/// The entries by name.
#[derive(Debug)]
pub(super) struct Directory(HashMap<String, Entry>);

impl Directory {
    pub(super) fn read(source: &Source) -> Result<Self, Fault> {
        let (range, count) = locate(source)?;
        if range.end - range.start > MAX_DIRECTORY_BYTES {
            return Err(refused("its zip directory is larger than 64 MB"));
        }
        let mut reader = Reader::new(source, range);
        let mut entries = HashMap::new();
        for _ in 0..count {
            let (name, entry) = read_entry(&mut reader)?;
            if let Some(name) = entries.insert(name.clone(), entry).map(|_| name) {
                return Err(malformed(format!("the zip entry {name} appears twice")));
            }
        }
        Ok(Directory(entries))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.0.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Entry {
    /// Where the entry's bytes lie in the file.
    pub(super) fn range(&self, source: &Source) -> Result<Range<u64>, Fault> {
        if self.encrypted {
            return Err(refused("its zip entries are encrypted"));
        }
        if self.compressed {
            return Err(refused(
                "its zip entries are compressed, which torch.save never does; unpack and save it again with torch.save",
            ));
        }
        let mut header = Reader::new(source, self.header_offset..source.len());
        if header.array()? != *b"PK\x03\x04" {
            return Err(malformed(format!("no zip entry starts at byte {}", self.header_offset)));
        }
        header.skip(22)?;
        let [name_len, extra_len] = [header.array()?, header.array()?].map(u16::from_le_bytes);
        header.skip(u64::from(name_len) + u64::from(extra_len))?;
        let start = header.position();
        if self.bytes > source.len() - start {
            return Err(malformed(format!("a zip entry of {} bytes at byte {start} reaches past the end", self.bytes)));
        }
        Ok(start..start + self.bytes)
    }
}

/// Where the directory lies, and how many entries it has.
fn locate(source: &Source) -> Result<(Range<u64>, u64), Fault> {
    let tail_start = source.len().saturating_sub(END_BYTES + MAX_COMMENT_BYTES);
    let tail = source.read(tail_start, source.len() - tail_start)?;
    let windows = tail.windows(END_BYTES as usize).enumerate().rev();
    let is_end = |at: usize, end: &[u8]| {
        let comment_len = usize::from(u16::from_le_bytes([end[20], end[21]]));
        end.starts_with(&END_SIGNATURE) && at + END_BYTES as usize + comment_len == tail.len()
    };
    let at = windows.into_iter().find(|(at, end)| is_end(*at, end)).map(|(at, _)| tail_start + at as u64);
    let end_start =
        at.ok_or_else(|| malformed("the zip archive has no directory at its end; the file is cut short"))?;
    let mut end = Reader::new(source, end_start + 10..source.len());
    let count = u64::from(u16::from_le_bytes(end.array()?));
    let (bytes, start) = (u64::from(end.u32()?), u64::from(end.u32()?));
    // Any field at its limit means that the 64-bit record holds the truth; PyTorch always writes that record.
    if count == 0xffff || bytes == 0xffff_ffff || start == 0xffff_ffff {
        return locate_zip64(source, end_start);
    }
    within(start, bytes, end_start).map(|range| (range, count))
}

fn locate_zip64(source: &Source, end_start: u64) -> Result<(Range<u64>, u64), Fault> {
    let missing = || malformed("the 64-bit zip directory is missing");
    let locator_start = end_start.checked_sub(ZIP64_LOCATOR_BYTES).ok_or_else(missing)?;
    let mut locator = Reader::new(source, locator_start..end_start);
    if locator.array()? != *b"PK\x06\x07" {
        return Err(missing());
    }
    locator.skip(4)?;
    let record_start = locator.u64()?;
    let mut record = Reader::new(source, record_start..locator_start);
    if record.array()? != *b"PK\x06\x06" {
        return Err(missing());
    }
    record.skip(28)?;
    let (count, bytes, start) = (record.u64()?, record.u64()?, record.u64()?);
    within(start, bytes, record_start).map(|range| (range, count))
}

fn within(start: u64, bytes: u64, limit: u64) -> Result<Range<u64>, Fault> {
    match start.checked_add(bytes) {
        Some(end) if end <= limit => Ok(start..end),
        _ => Err(malformed(format!("a zip directory of {bytes} bytes at byte {start} reaches past byte {limit}"))),
    }
}

fn read_entry(reader: &mut Reader) -> Result<(String, Entry), Fault> {
    if reader.array()? != *b"PK\x01\x02" {
        return Err(malformed(format!("no zip directory entry starts at byte {}", reader.position())));
    }
    reader.skip(4)?;
    let [flags, method] = [reader.array()?, reader.array()?].map(u16::from_le_bytes);
    reader.skip(8)?;
    let (stored, mut bytes) = (u64::from(reader.u32()?), u64::from(reader.u32()?));
    let [name_len, extra_len, comment_len] =
        [reader.array()?, reader.array()?, reader.array()?].map(u16::from_le_bytes);
    reader.skip(8)?;
    let mut header_offset = u64::from(reader.u32()?);
    let mut name = Vec::new();
    reader.append_to(&mut name, name_len.into())?;
    let mut extra = Vec::new();
    reader.append_to(&mut extra, extra_len.into())?;
    reader.skip(comment_len.into())?;
    let wide = [bytes, stored, header_offset].map(|field| field == 0xffff_ffff);
    let [wide_bytes, wide_stored, wide_offset] = zip64_fields(&extra, wide)?;
    bytes = wide_bytes.unwrap_or(bytes);
    header_offset = wide_offset.unwrap_or(header_offset);
    let compressed = method != 0 || wide_stored.unwrap_or(stored) != bytes;
    let name = String::from_utf8(name).map_err(|_| malformed("a zip entry's name is not UTF-8"))?;
    Ok((name, Entry { header_offset, bytes, encrypted: flags & 1 != 0, compressed }))
}

/// The 64-bit forms of the fields that `wide` says are kept in the extra field, in their fixed order.
fn zip64_fields(extra: &[u8], wide: [bool; 3]) -> Result<[Option<u64>; 3], Fault> {
    let mut fields = [None; 3];
    if wide == [false; 3] {
        return Ok(fields);
    }
    let missing = || malformed("a zip entry's 64-bit size is missing");
    let mut rest = extra;
    while let [id0, id1, len0, len1, after @ ..] = rest {
        let (body, next) =
            after.split_at_checked(usize::from(u16::from_le_bytes([*len0, *len1]))).ok_or_else(missing)?;
        if [*id0, *id1] == [1, 0] {
            let mut numbers = body.as_chunks::<8>().0.iter();
            for (field, _) in fields.iter_mut().zip(wide).filter(|(_, wide)| *wide) {
                *field = Some(u64::from_le_bytes(*numbers.next().ok_or_else(missing)?));
            }
            return Ok(fields);
        }
        rest = next;
    }
    Err(missing())
}
