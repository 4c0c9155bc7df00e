//! Finds photos as it goes: any depth, sorted by name, each file once. Keeps one folder's names at a time, and 16 bytes
//! per photo to know it again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use walkdir::DirEntry;

use crate::images::folder::{Order, Walk, failure, is_sorted, walk};
use crate::journal::PhotoIdentity;
use crate::worker::{Canceled, JobContext};

/// What a scan comes across.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// `path` as it was reached, for people; `identity` for the journal.
    Photo {
        path: PathBuf,
        identity: PhotoIdentity,
    },
    Unreadable {
        path: PathBuf,
        reason: String,
    },
    /// A folder that was left out because Galley sorted photos into it: they are copies.
    Sorted(PathBuf),
}

/// Walks the inputs in their order: folders by name, hidden entries and names that are no photo's left out; a file
/// that was named itself is always tried. Links are followed, loops are not.
pub struct Scan {
    inputs: std::vec::IntoIter<PathBuf>,
    folder: Option<Walk>,
    seen: HashSet<[u8; 16]>,
    ctx: JobContext,
}

/// All photos of a folder, and what could not be read of it and why.
pub fn photos_in(folder: &Path, ctx: &JobContext) -> (Vec<PathBuf>, Vec<(PathBuf, String)>) {
    let (mut photos, mut unreadable) = (Vec::new(), Vec::new());
    for found in Scan::new(vec![folder.to_owned()], ctx.clone()) {
        match found {
            Found::Photo { path, .. } => photos.push(path),
            Found::Unreadable { path, reason } => unreadable.push((path, reason)),
            Found::Sorted(_) => {}
        }
    }
    (photos, unreadable)
}

impl Scan {
    /// Ends early once the job is canceled.
    pub fn new(inputs: Vec<PathBuf>, ctx: JobContext) -> Self {
        Self { inputs: inputs.into_iter(), folder: None, seen: HashSet::new(), ctx }
    }

    fn input(&mut self, input: PathBuf) -> Option<Found> {
        if input.is_dir() {
            self.folder = Some(walk(&input, Order::ByName));
            return None;
        }
        self.photo(input)
    }

    fn entry(&mut self, entry: walkdir::Result<DirEntry>) -> Option<Found> {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return failure(&error).and_then(|(path, reason)| self.unreadable(path, reason)),
        };
        if !entry.file_type().is_dir() {
            return self.photo(entry.into_path());
        }
        if !is_sorted(&entry) {
            return None;
        }
        self.folder.as_mut()?.skip_current_dir();
        Some(Found::Sorted(entry.into_path()))
    }

    /// `None` when the file was reached before.
    fn photo(&mut self, path: PathBuf) -> Option<Found> {
        let checked = path.metadata().and_then(|metadata| Ok((path.canonicalize()?, metadata)));
        match checked {
            Ok((canonical, metadata)) if metadata.is_file() => {
                let identity = PhotoIdentity::new(canonical, &metadata);
                self.is_new(&identity.path).then_some(Found::Photo { path, identity })
            }
            // A pipe would keep its reader waiting for ever.
            Ok(_) => self.unreadable(path, "this is neither a file nor a folder".to_owned()),
            Err(error) => self.unreadable(path, error.to_string()),
        }
    }

    fn unreadable(&mut self, path: PathBuf, reason: String) -> Option<Found> {
        let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        self.is_new(&absolute).then_some(Found::Unreadable { path, reason })
    }

    fn is_new(&mut self, path: &Path) -> bool {
        self.seen.insert(fingerprint(path))
    }
}

impl Iterator for Scan {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            let found = match self.folder.as_mut().and_then(Iterator::next) {
                Some(entry) => self.entry(entry),
                None => {
                    self.folder = None;
                    let input = self.inputs.next()?;
                    self.input(input)
                }
            };
            // A tree with few photos is searched for long: whoever waits for the next one may have given up.
            if found.is_some() || self.ctx.is_canceled() {
                return found;
            }
        }
    }
}

/// How many photos there are, without keeping or sorting anything; a file reached twice counts twice.
pub fn count(inputs: &[PathBuf], ctx: &JobContext) -> Result<u64, Canceled> {
    let mut photos = 0;
    for input in inputs {
        if !input.is_dir() {
            photos += 1;
            continue;
        }
        let mut folder = walk(input, Order::AsFound);
        while let Some(entry) = folder.next() {
            ctx.check()?;
            match entry {
                Ok(entry) if !entry.file_type().is_dir() => photos += 1,
                Ok(entry) if is_sorted(&entry) => folder.skip_current_dir(),
                Ok(_) => {}
                Err(error) => photos += u64::from(failure(&error).is_some()),
            }
        }
    }
    Ok(photos)
}

fn fingerprint(path: &Path) -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(path.as_os_str().as_encoded_bytes()).into();
    let (half, _) = digest.split_at(16);
    half.try_into().expect("half of 32 bytes is 16")
}
