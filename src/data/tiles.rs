//! Photos resized once: a tile is a photo resized as the transform asks and not cropped, kept on disk so that the
//! second epoch decodes nothing.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::store::{Key, Store};
use crate::images::transform::{Interpolation, Resize, Transform};
use crate::images::{ImageBudget, ImageError, Limits, Picture, load_resized};

/// Makes tiles, and keeps them if it has a folder for them.
pub struct Tiles {
    transform: Transform,
    limits: Limits,
    budget: ImageBudget,
    store: Option<Store>,
}

impl Tiles {
    /// Bytes of tiles that are kept unless told otherwise.
    pub const LIMIT_BYTES: u64 = 4_000_000_000;

    /// Decodes every photo each time.
    pub fn new(transform: &Transform) -> Self {
        let (budget, limits) = ImageBudget::with_left(u64::MAX);
        Self { transform: *transform, limits, budget, store: None }
    }

    /// The same with so much memory for decoding, see [`ImageBudget::with_left`].
    pub fn decoding_with(self, left: u64) -> Self {
        let (budget, limits) = ImageBudget::with_left(left);
        Self { budget, limits, ..self }
    }

    /// Keeps tiles in `folder`, which transforms of other sizes may use too, up to `limit_bytes` for each size. Photos
    /// beyond are decoded each time.
    pub fn in_folder(folder: &Path, transform: &Transform, limit_bytes: u64) -> io::Result<Self> {
        let shape = shape(transform);
        let digest: [u8; 32] = Sha256::digest(format!("{shape:?}")).into();
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let store = Store::open(folder, &format!("tiles-{name}"), limit_bytes)?;
        Ok(Self { store: Some(store), ..Self::new(transform) })
    }

    /// Whether the tiles of two transforms are the same.
    pub fn are_shared(one: &Transform, other: &Transform) -> bool {
        shape(one) == shape(other)
    }

    /// Drops the tiles of other photos if those of `photos` would not fit beside them.
    pub fn make_room<'a>(&self, photos: impl Iterator<Item = &'a Path>) -> io::Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let wanted: HashSet<Key> = photos.filter_map(key).collect();
        store.make_room(&wanted)
    }

    /// How many tiles are kept.
    pub fn kept(&self) -> usize {
        self.store.as_ref().map_or(0, Store::len)
    }

    /// The photo's tile. `buffer` is memory to use again, a former tile's.
    pub fn load(&self, path: &Path, mut buffer: Vec<u8>) -> Result<Picture, ImageError> {
        let kept = self.store.as_ref().zip(key(path));
        if let Some(tile) = kept.as_ref().and_then(|(store, key)| store.get(key, &mut buffer)) {
            return Ok(tile);
        }
        let tile = load_resized(path, &self.transform, &self.limits, &self.budget)?;
        if let Some((store, key)) = kept {
            store.put(&key, &tile);
        }
        Ok(tile)
    }

    pub fn transform(&self) -> &Transform {
        &self.transform
    }
}

/// What tiles follow from.
fn shape(transform: &Transform) -> (Resize, Interpolation, u64) {
    (transform.resize, transform.interpolation, transform.longest_side())
}

/// From the photo's path, size and time of change; `None` when it cannot be looked at.
pub(super) fn key(path: &Path) -> Option<Key> {
    let metadata = fs::metadata(path).ok()?;
    let mut hash = Sha256::new();
    hash.update(path.as_os_str().as_encoded_bytes());
    hash.update([0]);
    hash.update(metadata.len().to_le_bytes());
    hash.update(metadata.mtime().to_le_bytes());
    hash.update(metadata.mtime_nsec().to_le_bytes());
    hash.finalize().first_chunk().copied()
}
