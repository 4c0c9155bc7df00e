//! Numbers that took long to compute for photos, on disk: rows of one length in one file, found by their photo.
//!
//! Each row carries its photo's key and a checksum, and is written whole, so what is damaged or cut short counts as absent
//! and is computed anew. One process at a time writes, holding a lock on the file; once all rows are there, any number read.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Photo;
use super::store::{Key, checksum};
use super::tiles::key;

/// First bytes of a file. The number is raised when its rows change.
const MAGIC: &[u8; 16] = b"galley answers 1";

/// The extension of such files.
const EXTENSION: &str = "answers";

const KEY_BYTES: usize = size_of::<Key>();
const CHECKSUM_BYTES: usize = 8;

/// A file of rows, open to add to it.
pub struct Answers {
    path: PathBuf,
    file: File,
    /// Numbers of one row.
    width: usize,
    /// The place of each photo's row, and of the next.
    places: HashMap<Key, u32>,
    end: u32,
}

/// The rows of some photos, to be read by their numbers. Of all of them no more than their places is in memory.
pub struct Kept {
    path: PathBuf,
    file: File,
    width: usize,
    places: Vec<Option<u32>>,
}

impl Answers {
    /// Bytes of rows that are kept of all files together.
    pub const LIMIT_BYTES: u64 = 4_000_000_000;

    /// Opens or creates the file called `name` in `folder`, of rows of `width` numbers. `None` while another process writes
    /// it. Other such files go, the longest unused first, while all are more than `limit_bytes`.
    pub fn open(folder: &Path, name: &str, width: usize, limit_bytes: u64) -> io::Result<Option<Self>> {
        fs::create_dir_all(folder)?;
        let path = folder.join(name).with_extension(EXTENSION);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            // Where locks are not to be had: two who write at once only lose rows to their checksums.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // Says that it is in use.
        file.set_modified(SystemTime::now())?;
        drop_others(folder, &path, limit_bytes)?;
        let mut answers = Self { path, file, width, places: HashMap::new(), end: 0 };
        if !answers.read()? {
            answers.file.set_len(0)?;
            answers.file.write_all_at(MAGIC, 0)?;
        }
        Ok(Some(answers))
    }

    /// Finds the sound rows. False when this is no such file.
    fn read(&mut self) -> io::Result<bool> {
        let bytes = self.file.metadata()?.len();
        let mut reader = BufReader::new(&self.file);
        let mut magic = [0; MAGIC.len()];
        if bytes < MAGIC.len() as u64 || reader.read_exact(&mut magic).is_err() || magic != *MAGIC {
            return Ok(false);
        }
        self.end = ((bytes - MAGIC.len() as u64) / row_bytes(self.width) as u64) as u32;
        let mut row = vec![0; row_bytes(self.width)];
        for place in 0..self.end {
            reader.read_exact(&mut row)?;
            if let Some((key, _)) = sound(&row) {
                self.places.insert(key, place);
            }
        }
        Ok(true)
    }

    /// Whether there is a row for the photo as it is now.
    pub fn has(&self, photo: &Path) -> bool {
        key(photo).is_some_and(|key| self.places.contains_key(&key))
    }

    /// Adds the row of a photo. Nothing of one that is no longer there.
    pub fn put(&mut self, photo: &Path, values: &[f32]) -> io::Result<()> {
        debug_assert_eq!(values.len(), self.width);
        let Some(key) = key(photo) else { return Ok(()) };
        let mut row = key.to_vec();
        row.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        row.extend(checksum(&row).to_le_bytes());
        self.file.write_all_at(&row, start(self.end, self.width))?;
        self.places.insert(key, self.end);
        self.end += 1;
        Ok(())
    }

    /// The rows of these photos, on disk for good. Others may write from now on.
    pub fn of(self, photos: &[Photo]) -> io::Result<Kept> {
        self.file.sync_data()?;
        // The lock of a file that never could be locked.
        drop(self.file.unlock());
        let place = |photo: &Photo| self.places.get(&key(&photo.path)?).copied();
        let places = photos.iter().map(place).collect();
        Ok(Kept { path: self.path, file: self.file, width: self.width, places })
    }
}

impl Kept {
    /// The row of a photo; `None` where there never was one. Fails when it can no longer be read.
    pub fn row(&self, photo: usize) -> io::Result<Option<Vec<f32>>> {
        let Some(place) = self.places[photo] else { return Ok(None) };
        let mut row = vec![0; row_bytes(self.width)];
        self.file.read_exact_at(&mut row, start(place, self.width))?;
        let (_, values) = sound(&row).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a row is damaged"))?;
        Ok(Some(values.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect()))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn row_bytes(width: usize) -> usize {
    KEY_BYTES + size_of::<f32>() * width + CHECKSUM_BYTES
}

fn start(place: u32, width: usize) -> u64 {
    MAGIC.len() as u64 + u64::from(place) * row_bytes(width) as u64
}

/// The key and the values of a row; `None` when it is damaged.
fn sound(row: &[u8]) -> Option<(Key, &[u8])> {
    let (content, own) = row.split_last_chunk::<CHECKSUM_BYTES>()?;
    let (key, values) = content.split_first_chunk::<KEY_BYTES>()?;
    (*own == checksum(content).to_le_bytes()).then_some((*key, values))
}

/// Deletes files like `own`, the longest unused first, until all are at most `limit_bytes`. Who has one open reads on.
fn drop_others(folder: &Path, own: &Path, limit_bytes: u64) -> io::Result<()> {
    let mut others = Vec::new();
    let mut bytes = own.metadata()?.len();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_other = path != own && path.extension().is_some_and(|extension| extension == EXTENSION);
        // One that another process has just deleted is gone.
        let Some(metadata) = is_other.then(|| path.metadata().ok()).flatten() else { continue };
        bytes += metadata.len();
        others.push((metadata.modified()?, metadata.len(), path));
    }
    others.sort();
    for (_, of_one, path) in others {
        if bytes <= limit_bytes {
            break;
        }
        if fs::remove_file(path).is_ok() {
            bytes -= of_one;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;

    const LIMIT: u64 = 1_000_000;

    /// Files that stand for photos.
    fn photos(folder: &Path, count: usize) -> Vec<Photo> {
        let photo = |number: usize| {
            let path = folder.join(format!("{number}.jpg"));
            fs::write(&path, [number as u8]).unwrap();
            Photo { path, class: 0, split: Split::Train }
        };
        (0..count).map(photo).collect()
    }

    fn row(number: usize) -> [f32; 3] {
        [number as f32, 0.1 * number as f32, -1.5]
    }

    fn open(folder: &Path) -> Answers {
        Answers::open(folder, "a", 3, LIMIT).unwrap().unwrap()
    }

    fn fill(folder: &Path, photos: &[Photo]) -> Kept {
        let mut answers = open(folder);
        for (number, photo) in photos.iter().enumerate() {
            if !answers.has(&photo.path) {
                answers.put(&photo.path, &row(number)).unwrap();
            }
        }
        answers.of(photos).unwrap()
    }

    #[test]
    fn rows_are_found_again_and_a_photo_that_changed_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut photos = photos(folder.path(), 4);
        let kept = fill(folder.path(), &photos[..3]);
        assert_eq!(kept.row(2).unwrap().unwrap(), row(2));
        fs::write(&photos[1].path, b"another").unwrap();
        let answers = open(folder.path());
        assert_eq!(photos.iter().map(|photo| answers.has(&photo.path)).collect::<Vec<_>>(), [true, false, true, false]);
        photos.reverse();
        let kept = answers.of(&photos).unwrap();
        let rows: Vec<_> = (0..4).map(|photo| kept.row(photo).unwrap()).collect();
        assert_eq!(rows, [None, Some(row(2).to_vec()), None, Some(row(0).to_vec())]);
    }

    #[test]
    fn damage_anywhere_is_noticed_and_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let photos = photos(folder.path(), 3);
        let kept = fill(folder.path(), &photos);
        let sound = fs::read(kept.path()).unwrap();
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 0x10;
            for content in [&damaged[..], &sound[..at]] {
                fs::write(kept.path(), content).unwrap();
                let again = fill(folder.path(), &photos);
                (0..3).for_each(|photo| assert_eq!(again.row(photo).unwrap().unwrap(), row(photo)));
            }
        }
        // While it is read, damage is an error and never a number.
        fs::write(kept.path(), &sound).unwrap();
        let kept = fill(folder.path(), &photos);
        let mut damaged = sound.clone();
        damaged[MAGIC.len() + KEY_BYTES] ^= 1;
        fs::write(kept.path(), damaged).unwrap();
        assert!(kept.row(0).is_err() && kept.row(1).is_ok());
    }

    #[test]
    fn one_writes_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path());
        assert!(Answers::open(folder.path(), "a", 3, LIMIT).unwrap().is_none());
        let kept = first.of(&[]).unwrap();
        assert!(Answers::open(folder.path(), "a", 3, LIMIT).unwrap().is_some());
        drop(kept);
    }

    #[test]
    fn old_files_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        for (name, age) in [("a", 3), ("b", 9), ("c", 1)] {
            let answers = Answers::open(folder.path(), name, 3, LIMIT).unwrap().unwrap();
            let then = SystemTime::now() - std::time::Duration::from_secs(3600 * age);
            answers.file.set_modified(then).unwrap();
        }
        fs::write(folder.path().join("tiles.index"), [0; 100]).unwrap();
        drop(Answers::open(folder.path(), "d", 3, 2 * MAGIC.len() as u64).unwrap().unwrap());
        assert_eq!(names(), ["a.answers", "c.answers", "d.answers", "tiles.index"]);
    }
}
