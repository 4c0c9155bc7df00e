//! Tiles on disk: their pixels one after another in one file, and a record of fixed length for each in an index.
//!
//! One process writes, holding a lock on the index; others read what was there when they opened. Records and pixels
//! carry checksums, and pixels are written before their record, so what is damaged, cut short or half written is
//! noticed and counts as absent.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::images::Picture;

/// First bytes of an index. The number is raised when its records change, or the pixels of a tile.
const MAGIC: &[u8; 16] = b"galley tiles 1\r\n";

const RECORD_BYTES: usize = 56;

/// Tells a tile from others, and from one of another state of its photo.
pub(super) type Key = [u8; 16];

/// What the index says of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    key: Key,
    /// Where its pixels start in their file.
    start: u64,
    /// Width and height of the tile, then of the photo.
    sizes: [u32; 4],
    checksum: u64,
}

pub(super) struct Store {
    pixels: File,
    limit_bytes: u64,
    state: Mutex<State>,
}

struct State {
    tiles: HashMap<Key, Record>,
    /// Where the next tile's pixels go, and its record.
    end: u64,
    index_end: u64,
    /// `None` for whoever may only read.
    index: Option<File>,
}

impl Store {
    /// Opens or creates the two files called `name` in `folder`, which hold no more than `limit_bytes` of pixels.
    pub fn open(folder: &Path, name: &str, limit_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let open = |extension: &str| {
            let path = folder.join(name).with_extension(extension);
            File::options().read(true).write(true).create(true).truncate(false).open(path)
        };
        let (pixels, index) = (open("pixels")?, open("index")?);
        // Held until the file is closed. Where locks are not to be had, nothing is written either.
        let may_write = index.try_lock().is_ok();
        let (records, is_sound) = read_index(&index)?;
        let pixel_bytes = pixels.metadata()?.len();
        let state = State {
            index_end: (MAGIC.len() + records.len() * RECORD_BYTES) as u64,
            end: records.iter().map(Record::end).max().unwrap_or(0).min(pixel_bytes),
            tiles: records
                .into_iter()
                .filter(|record| record.end() <= pixel_bytes)
                .map(|record| (record.key, record))
                .collect(),
            index: may_write.then_some(index),
        };
        match &state.index {
            // Behind a damaged record lie others, which would count again once it was overwritten.
            Some(index) if is_sound => index.set_len(state.index_end)?,
            _ => {}
        }
        let store = Self { pixels, limit_bytes, state: Mutex::new(state) };
        if !is_sound {
            store.clear(&mut store.lock())?;
        }
        Ok(store)
    }

    /// The tile, its pixels in `buffer`; `None` when there is none or it is damaged.
    pub fn get(&self, key: &Key, buffer: &mut Vec<u8>) -> Option<Picture> {
        let record = *self.lock().tiles.get(key)?;
        buffer.resize(record.bytes() as usize, 0);
        let read = self.pixels.read_exact_at(buffer, record.start);
        if read.is_err() || checksum(buffer) != record.checksum {
            self.lock().tiles.remove(key);
            return None;
        }
        let [width, height, full_width, full_height] = record.sizes;
        Some(Picture { width, height, rgb: std::mem::take(buffer), full_width, full_height })
    }

    /// Keeps the tile, if there is room. A disk that takes no more is written to no more.
    pub fn put(&self, key: &Key, tile: &Picture) {
        let mut state = self.lock();
        let record = Record {
            key: *key,
            start: state.end,
            sizes: [tile.width, tile.height, tile.full_width, tile.full_height],
            checksum: checksum(&tile.rgb),
        };
        let Some(index) = &state.index else { return };
        if record.end() > self.limit_bytes || state.tiles.contains_key(key) {
            return;
        }
        let written = self
            .pixels
            .write_all_at(&tile.rgb, record.start)
            .and_then(|()| index.write_all_at(&record.to_bytes(), state.index_end));
        if written.is_err() {
            state.index = None;
            return;
        }
        state.end = record.end();
        state.index_end += RECORD_BYTES as u64;
        state.tiles.insert(record.key, record);
    }

    /// Starts anew when the tiles of `wanted` that are missing do not fit beside the others, unless most of what is
    /// there is wanted.
    pub fn make_room(&self, wanted: &HashSet<Key>) -> io::Result<()> {
        let mut state = self.lock();
        let useful: Vec<u64> =
            state.tiles.values().filter(|tile| wanted.contains(&tile.key)).map(Record::bytes).collect();
        let useful_bytes: u64 = useful.iter().sum();
        let mean_bytes = state.end / state.tiles.len().max(1) as u64;
        let missing_bytes = (wanted.len() - useful.len()) as u64 * mean_bytes;
        let fits = state.end + missing_bytes <= self.limit_bytes;
        if fits || useful_bytes * 2 >= state.end { Ok(()) } else { self.clear(&mut state) }
    }

    pub fn len(&self) -> usize {
        self.lock().tiles.len()
    }

    fn clear(&self, state: &mut State) -> io::Result<()> {
        let Some(index) = &state.index else { return Ok(()) };
        // The index first: pixels without records are nothing, records without pixels would be damage.
        index.set_len(0)?;
        index.write_all_at(MAGIC, 0)?;
        self.pixels.set_len(0)?;
        state.tiles.clear();
        (state.end, state.index_end) = (0, MAGIC.len() as u64);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The records up to the first that is damaged or cut short, the later of two with one key last; false when this is no
/// index.
fn read_index(index: &File) -> io::Result<(Vec<Record>, bool)> {
    let mut bytes = vec![0; index.metadata()?.len() as usize];
    index.read_exact_at(&mut bytes, 0)?;
    let Some(records) = bytes.strip_prefix(MAGIC) else { return Ok((Vec::new(), false)) };
    Ok((records.as_chunks().0.iter().map_while(Record::from_bytes).collect(), true))
}

impl Record {
    fn bytes(&self) -> u64 {
        u64::from(self.sizes[0]) * u64::from(self.sizes[1]) * 3
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes())
    }

    fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = self.key.to_vec();
        bytes.extend(self.start.to_le_bytes());
        bytes.extend(self.sizes.iter().flat_map(|side| side.to_le_bytes()));
        bytes.extend(self.checksum.to_le_bytes());
        bytes.extend(checksum(&bytes).to_le_bytes());
        bytes.try_into().expect("16 + 8 + 16 + 8 + 8 bytes are a record's 56")
    }

    /// `None` when the record is damaged.
    fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let (key, rest) = bytes.split_first_chunk::<16>()?;
        let (start, rest) = rest.split_first_chunk::<8>()?;
        let (sizes, rest) = rest.split_first_chunk::<16>()?;
        let (pixels, own) = rest.split_first_chunk::<8>()?;
        let mut sides = [0; 4];
        for (side, bytes) in sides.iter_mut().zip(sizes.as_chunks::<4>().0) {
            *side = u32::from_le_bytes(*bytes);
        }
        let record =
            Self { key: *key, start: u64::from_le_bytes(*start), sizes: sides, checksum: u64::from_le_bytes(*pixels) };
        let is_sound = own == checksum(&bytes[..RECORD_BYTES - 8]).to_le_bytes();
        is_sound.then_some(record)
    }
}

/// Against damage, not malice. Each step is a bijection of the state and of the word it takes in, so a change of any
/// one word always shows.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    let take = |state: u64, word: u64| (state ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    let (words, rest) = bytes.as_chunks::<8>();
    let state = words.iter().fold(bytes.len() as u64, |state, word| take(state, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    take(state, u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(seed: u8, width: u32, height: u32) -> Picture {
        let rgb = (0..width * height * 3).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        Picture { width, height, rgb, full_width: width * 3, full_height: height * 3 }
    }

    fn got(store: &Store, seed: u8) -> Option<Vec<u8>> {
        store.get(&[seed; 16], &mut Vec::new()).map(|tile| tile.rgb)
    }

    fn filled(folder: &Path, limit_bytes: u64) -> Store {
        let store = Store::open(folder, "t", limit_bytes).unwrap();
        (1..=5).for_each(|seed| store.put(&[seed; 16], &tile(seed, 10, 10)));
        store
    }

    #[test]
    fn tiles_are_found_again_by_a_later_process() {
        let folder = tempfile::tempdir().unwrap();
        drop(filled(folder.path(), 10_000));
        let store = Store::open(folder.path(), "t", 10_000).unwrap();
        let mut buffer = Vec::new();
        let found = store.get(&[3; 16], &mut buffer).unwrap();
        assert_eq!((found.width, found.height, found.full_width, found.full_height), (10, 10, 30, 30));
        assert_eq!(found.rgb, tile(3, 10, 10).rgb);
        assert_eq!(got(&store, 6), None);
    }

    #[test]
    fn no_more_is_kept_than_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let store = filled(folder.path(), 1_000);
        assert_eq!(store.len(), 3);
        assert_eq!(fs::metadata(folder.path().join("t.pixels")).unwrap().len(), 900);
        // Those in use stay; others make room.
        store.make_room(&HashSet::from([[1; 16], [2; 16], [8; 16]])).unwrap();
        assert_eq!(store.len(), 3);
        store.make_room(&HashSet::from([[8; 16], [9; 16]])).unwrap();
        assert_eq!(store.len(), 0);
        store.put(&[8; 16], &tile(8, 10, 10));
        assert_eq!(got(&store, 8), Some(tile(8, 10, 10).rgb));
    }

    #[test]
    fn damage_anywhere_is_noticed_and_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        drop(filled(folder.path(), 10_000));
        let (pixels, index) = (folder.path().join("t.pixels"), folder.path().join("t.index"));
        let sound = [&pixels, &index].map(|path| fs::read(path).unwrap());
        for (which, file) in [&pixels, &index].into_iter().enumerate() {
            for at in (0..sound[which].len()).step_by(7) {
                let mut damaged = sound[which].clone();
                damaged[at] ^= 0x10;
                fs::write(file, damaged).unwrap();
                check_and_repair(folder.path());
                fs::write(file, &sound[which][..at]).unwrap();
                check_and_repair(folder.path());
                fs::write(&pixels, &sound[0]).unwrap();
                fs::write(&index, &sound[1]).unwrap();
            }
        }
    }

    fn check_and_repair(folder: &Path) {
        let store = Store::open(folder, "t", 10_000).unwrap();
        let wrong = (1..=5).filter(|seed| got(&store, *seed).is_some_and(|rgb| rgb != tile(*seed, 10, 10).rgb));
        assert_eq!(wrong.count(), 0);
        assert!((1..=5).any(|seed| got(&store, seed).is_none()));
        (1..=5).for_each(|seed| store.put(&[seed; 16], &tile(seed, 10, 10)));
        drop(store);
        let store = Store::open(folder, "t", 10_000).unwrap();
        (1..=5).for_each(|seed| assert_eq!(got(&store, seed), Some(tile(seed, 10, 10).rgb)));
    }

    #[test]
    fn a_second_process_reads_and_leaves_the_writing_to_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = filled(folder.path(), 10_000);
        let second = Store::open(folder.path(), "t", 10_000).unwrap();
        assert_eq!(got(&second, 2), Some(tile(2, 10, 10).rgb));
        second.put(&[7; 16], &tile(7, 10, 10));
        assert_eq!(got(&second, 7), None);
        // The first starts anew with other tiles: the second must not take them for its own.
        first.make_room(&HashSet::from_iter((100..200).map(|key| [key; 16]))).unwrap();
        (100..105).for_each(|seed| first.put(&[seed; 16], &tile(seed, 10, 10)));
        assert_eq!(got(&second, 3), None);
        assert_eq!(got(&first, 103), Some(tile(103, 10, 10).rgb));
    }
}
