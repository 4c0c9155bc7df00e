//! Folders of photos: which of their entries are wanted, and which are copies that Galley sorted itself.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, FilterEntry, WalkDir};

use super::is_photo_name;

/// The file that marks a folder of sorted copies, so that no scan takes them for photos of their own.
pub const SORTED_MARK: &str = ".galley-sorted";

#[derive(PartialEq)]
pub enum Order {
    ByName,
    AsFound,
}

pub type Walk = FilterEntry<walkdir::IntoIter, fn(&DirEntry) -> bool>;

/// The folder and all below it: folders, and files whose names are a photo's, without hidden ones. Links are followed,
/// loops are not. Whoever meets a folder that [`is_sorted`] skips it.
pub fn walk(folder: &Path, order: Order) -> Walk {
    let walk = WalkDir::new(folder).follow_links(true);
    let walk = if order == Order::ByName { walk.sort_by_file_name() } else { walk };
    walk.into_iter().filter_entry(is_wanted)
}

/// Folders and photo names that are not hidden: a leading dot also marks the `._` files macOS leaves on other disks.
fn is_wanted(entry: &DirEntry) -> bool {
    let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
    entry.depth() == 0 || (!hidden && (entry.file_type().is_dir() || is_photo_name(entry.path())))
}

/// True for a folder of copies, unless it was named itself.
pub fn is_sorted(entry: &DirEntry) -> bool {
    entry.depth() > 0 && entry.path().join(SORTED_MARK).exists()
}

/// An entry that could not be read; `None` when no photo can be lost by it.
pub fn failure(error: &walkdir::Error) -> Option<(PathBuf, String)> {
    let (path, source) = (error.path()?, error.io_error()?); // neither for a loop of links, whose photos are reached anyway
    let dangling_link = source.kind() == ErrorKind::NotFound;
    if dangling_link && !is_photo_name(path) {
        return None;
    }
    Some((path.to_owned(), source.to_string()))
}
