//! A folder per class, at any depth: `Fruit/Banana/1.jpg` is a photo of the class `Fruit/Banana`. A folder that holds
//! nothing but `train`, `val` and `test` folders of classes names the parts as well.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::{DataError, Entry, Listing, Skipped, Split};
use crate::format;
use crate::images::folder::{Order, failure, is_sorted, walk};

/// The photos of the class folders in `root`.
pub(super) fn list(root: &Path) -> Result<Listing, DataError> {
    let mut listing = Listing::default();
    let mut outside = 0;
    // Photos directly in each folder: a folder without any is a class only when no other folder lies in it.
    let mut folders: BTreeMap<PathBuf, u64> = BTreeMap::new();
    let mut entries = walk(root, Order::ByName);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if error.depth() == 0 => {
                let source = error.into_io_error().unwrap_or_else(|| io::ErrorKind::Other.into());
                return Err(DataError::Read { path: root.to_owned(), source });
            }
            Err(error) => {
                listing.skipped.extend(failure(&error).map(|(path, reason)| Skipped { path, reason }));
                continue;
            }
        };
        let inside = entry.path().strip_prefix(root).unwrap_or(entry.path()).to_owned();
        if entry.file_type().is_dir() {
            if is_sorted(&entry) {
                entries.skip_current_dir();
                listing.notes.push(format!("{} is left out: Galley sorted copies into it", inside.display()));
            } else if entry.depth() > 0 {
                folders.entry(inside).or_default();
            }
            continue;
        }
        let Some(folder) = inside.parent().filter(|folder| *folder != Path::new("")) else {
            outside += 1;
            continue;
        };
        *folders.entry(folder.to_owned()).or_default() += 1;
        listing.entries.push(Entry { label: name_of(folder), ..Entry::new(entry.into_path()) });
    }
    if listing.entries.is_empty() {
        return Err(DataError::NoClasses(root.to_owned()));
    }
    if outside > 0 {
        let photos = format::counted(outside, "photo");
        listing.notes.push(format!("{photos} directly in the folder: left out, being in no class"));
    }
    let has_folders = |folder: &Path| folders.keys().any(|other| other != folder && other.starts_with(folder));
    let empty = folders.iter().filter(|(folder, photos)| **photos == 0 && !has_folders(folder));
    listing.notes.extend(empty.map(|(folder, _)| format!("{} holds no photos", folder.display())));
    name_parts(&mut listing.entries);
    Ok(listing)
}

/// A folder's path inside the root as the name of a class, the same on every system.
fn name_of(folder: &Path) -> String {
    folder.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Takes the first folder for the part when that is what all of them are: a class may be called `train` too.
fn name_parts(entries: &mut [Entry]) {
    let parts: Option<Vec<(Split, String)>> = entries
        .iter()
        .map(|entry| {
            let (part, class) = entry.label.split_once('/')?;
            Some((Split::from_name(part)?, class.to_owned()))
        })
        .collect();
    let Some(parts) = parts.filter(|parts| parts.iter().any(|(split, _)| *split == Split::Train)) else { return };
    for (entry, (split, class)) in entries.iter_mut().zip(parts) {
        (entry.split, entry.label) = (Some(split), class);
    }
}
