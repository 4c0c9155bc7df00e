//! A file while it arrives: `NAME.part`, with a small record beside it of what it is a part of. Under its own name it
//! appears whole or not at all.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::error::DownloadError;
use crate::checkpoint::{UNFINISHED, save_atomically};

/// Records are a few hundred bytes; more is none of ours.
const LARGEST_RECORD: u64 = 1 << 16;

/// What tells one state of a file at a server from another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    /// A strong ETag: equal ones mean equal bytes.
    pub etag: Option<String>,
    pub last_modified: Option<String>,
}

impl Validators {
    /// True when bytes of two answers can be told to be of the same file.
    pub fn can_tell(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }
}

/// Where a file came from, or is coming from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Without what may be secret.
    pub address: String,
    /// SHA-256 of the whole address.
    pub address_digest: String,
    #[serde(flatten)]
    pub validators: Validators,
    /// Of the whole file, once known.
    pub bytes: Option<u64>,
    /// Of the whole file, once it is there.
    pub sha256: Option<String>,
}

impl Origin {
    pub fn of(address: &Address) -> Self {
        Self { address: address.shown(), address_digest: address.digest(), ..Self::default() }
    }

    /// Where the finished file `path` came from, if that was written down and the file is still as long.
    pub fn read(path: &Path) -> Option<Self> {
        let origin = read_record(&beside(path, ".source.json"))?;
        let length = std::fs::metadata(path).ok()?.len();
        (origin.bytes == Some(length)).then_some(origin)
    }
}

/// An open part. Its file is locked: two downloads never write into the same one.
pub struct Part {
    target: PathBuf,
    file: File,
    length: u64,
    origin: Origin,
}

impl Part {
    /// Opens what is there of `target`, or begins it. A part of another address is begun anew.
    pub fn open(target: &Path, address: &Address) -> Result<Self, DownloadError> {
        let path = path_of(target);
        let write = |source| DownloadError::Write { path: path.clone(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(write)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DownloadError::Busy(target.to_owned())),
            // Some network disks know no locks.
            Err(TryLockError::Error(source)) if source.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(source)) => return Err(write(source)),
        }
        // Another download may have given it its name between the two steps.
        let is_there =
            std::fs::metadata(&path).is_ok_and(|now| file.metadata().is_ok_and(|own| own.ino() == now.ino()));
        if !is_there {
            return Err(DownloadError::Busy(target.to_owned()));
        }
        let origin = Origin::of(address);
        let length = file.seek(SeekFrom::End(0)).map_err(write)?;
        let mut part = Self { target: target.to_owned(), file, length, origin: origin.clone() };
        match read_record(&record_of(target)) {
            // The validators decide whether the file is still the same.
            Some(known) if known.address == origin.address => {
                part.origin = Origin { address_digest: origin.address_digest, ..known }
            }
            _ => part.begin(origin.validators, None)?,
        }
        Ok(part)
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn path(&self) -> PathBuf {
        path_of(&self.target)
    }

    pub fn folder(&self) -> &Path {
        self.target.parent().unwrap_or(Path::new("."))
    }

    pub fn validators(&self) -> &Validators {
        &self.origin.validators
    }

    /// The length of the whole file, once a server told it.
    pub fn total(&self) -> Option<u64> {
        self.origin.bytes
    }

    /// Empties the part for a file with these validators.
    pub fn begin(&mut self, validators: Validators, total: Option<u64>) -> Result<(), DownloadError> {
        self.write_with(|part| {
            // Emptied first: a record never speaks of bytes of another file.
            if part.length > 0 {
                part.file.set_len(0)?;
                part.file.seek(SeekFrom::Start(0))?;
                part.length = 0;
            }
            part.origin = Origin { validators, bytes: total, sha256: None, ..part.origin.clone() };
            write_record(&record_of(&part.target), &part.origin)
        })
    }

    /// Adds bytes at the end.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), DownloadError> {
        self.write_with(|part| {
            let written = part.file.write_all(bytes);
            // Of a failed write, what arrived on disk counts.
            part.length = part.file.stream_position().unwrap_or(part.length);
            written
        })
    }

    fn write_with(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) -> Result<(), DownloadError> {
        write(self).map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                DownloadError::DiskFull { kept: self.length, path: self.path() }
            }
            _ => DownloadError::Write { path: self.path(), source },
        })
    }

    /// Gives the whole file its name, with a record of where it came from.
    pub fn finish(mut self, sha256: String) -> Result<(), DownloadError> {
        self.origin.bytes = Some(self.length);
        self.origin.sha256 = Some(sha256);
        self.write_with(|part| {
            part.file.sync_all()?;
            write_record(&beside(&part.target, ".source.json"), &part.origin)?;
            std::fs::rename(path_of(&part.target), &part.target)?;
            // The rename itself lasts through a power cut only once the folder is on disk.
            File::open(part.folder())?.sync_all()?;
            remove(&record_of(&part.target))
        })
    }

    /// Deletes the part and its record.
    pub fn discard(mut self) -> Result<(), DownloadError> {
        self.write_with(|part| remove(&path_of(&part.target)).and_then(|()| remove(&record_of(&part.target))))
    }
}

/// Where the part of `target` lies while it arrives.
pub fn path_of(target: &Path) -> PathBuf {
    beside(target, &format!(".{UNFINISHED}"))
}

fn record_of(target: &Path) -> PathBuf {
    beside(target, &format!(".{UNFINISHED}.json"))
}

fn beside(target: &Path, ending: &str) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// `None` for a record that is missing or broken: the download is then begun anew.
fn read_record(path: &Path) -> Option<Origin> {
    let length = std::fs::metadata(path).ok()?.len();
    let bytes = (length <= LARGEST_RECORD).then(|| std::fs::read(path).ok())??;
    serde_json::from_slice(&bytes).ok()
}

fn write_record(path: &Path, origin: &Origin) -> io::Result<()> {
    save_atomically::<io::Error>(path, |writer| Ok(serde_json::to_writer(writer, origin)?))
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn a_part_goes_on_for_its_address_and_begins_anew_for_another() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("food.pth");
        let validators = Validators { etag: Some("\"1\"".to_owned()), last_modified: None };
        let open = |text| Part::open(&target, &address(text)).unwrap();
        let mut part = open("https://a.org/food.pth?signed=1");
        part.begin(validators.clone(), Some(9)).unwrap();
        part.write(b"hello").unwrap();
        assert!(matches!(Part::open(&target, &address("https://a.org/food.pth")), Err(DownloadError::Busy(_))));
        drop(part);
        let part = open("https://a.org/food.pth?signed=2");
        assert_eq!((part.length(), part.total(), part.validators()), (5, Some(9), &validators));
        drop(part);
        let part = open("https://b.org/food.pth");
        assert_eq!((part.length(), part.total(), part.validators()), (0, None, &Validators::default()));
    }

    #[test]
    fn a_finished_part_has_its_name_and_a_record_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("food.pth");
        let mut part = Part::open(&target, &address("https://a.org/food.pth")).unwrap();
        part.write(b"hello").unwrap();
        part.finish("abc".to_owned()).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"hello");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        assert_eq!(Origin::read(&target).unwrap().sha256.as_deref(), Some("abc"));
        std::fs::write(&target, "longer than before").unwrap();
        assert_eq!(Origin::read(&target), None);
    }
}
