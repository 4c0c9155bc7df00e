//! Copies of photos in one folder per class. Never overwrites: a photo of the same name gets ` (2)`, and one that lies
//! there already, byte for byte, is left alone, so sorting again adds nothing.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::{ExportError, ExportOptions, ExportSummary, Row, RowResult, failed, temporary_in};
use crate::images::folder::SORTED_MARK;

/// Longest folder name in bytes: far below the 255 of common file systems.
const LONGEST_NAME: usize = 100;

pub struct SortedFolders {
    root: PathBuf,
    /// The folder of each label so far.
    folders: HashMap<String, PathBuf>,
}

impl SortedFolders {
    /// Takes an empty or new folder, or one that was sorted into before: photos a person keeps there are not mixed up
    /// with copies.
    pub fn create(root: &Path) -> Result<Self, ExportError> {
        let write_error = |error| failed(root, error);
        fs::create_dir_all(root).map_err(write_error)?;
        let mark = root.join(SORTED_MARK);
        if !mark.exists() {
            if fs::read_dir(root).map_err(write_error)?.next().is_some() {
                return Err(ExportError::NotEmpty(root.to_owned()));
            }
            fs::write(&mark, "Copies sorted by Galley, which leaves this folder out when it looks for photos\n")
                .map_err(write_error)?;
        }
        Ok(Self { root: root.to_owned(), folders: HashMap::new() })
    }

    pub fn add(&mut self, row: &Row, options: &ExportOptions, summary: &mut ExportSummary) -> Result<(), ExportError> {
        let RowResult::Ok { predictions, .. } = &row.result else { return Ok(()) };
        let (Some(label), Some(name)) = (options.label(predictions), row.path.file_name()) else { return Ok(()) };
        let folder = self.folder(label)?;
        match File::open(&row.path) {
            Ok(photo) => {
                let copied = copy_into(photo, name, &folder).map_err(|error| failed(&folder.join(name), error))?;
                summary.copied += u64::from(copied);
            }
            Err(_) => summary.missing += 1,
        }
        Ok(())
    }

    fn folder(&mut self, label: &str) -> Result<PathBuf, ExportError> {
        if let Some(folder) = self.folders.get(label) {
            return Ok(folder.clone());
        }
        let name = folder_name(label);
        let mut folder = self.root.join(&name);
        let mut number = 2;
        // Different labels may make the same safe name, and some disks take upper and lower case for the same.
        while self.folders.values().any(|taken| same_ignoring_case(taken, &folder)) {
            folder = self.root.join(format!("{name} ({number})"));
            number += 1;
        }
        fs::create_dir_all(&folder).map_err(|error| failed(&folder, error))?;
        self.folders.insert(label.to_owned(), folder.clone());
        Ok(folder)
    }
}

fn same_ignoring_case(a: &Path, b: &Path) -> bool {
    a.to_string_lossy().to_lowercase() == b.to_string_lossy().to_lowercase()
}

/// A label as a folder name that every common file system takes and that stays inside its parent.
fn folder_name(label: &str) -> String {
    let forbidden = |c: char| c.is_control() || r#"/\:*?"<>|"#.contains(c);
    let mut name: String = label.chars().map(|c| if forbidden(c) { '_' } else { c }).collect();
    let end = (0..=LONGEST_NAME.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name.truncate(end);
    // Dots and spaces at the end are lost on some systems, a dot at the start hides the folder, and `..` leaves it.
    let name = name.trim_end_matches(['.', ' ']).trim_start();
    let stem = name.split('.').next().unwrap_or_default().to_ascii_uppercase();
    let device = ["CON", "PRN", "AUX", "NUL"].contains(&stem.as_str())
        || (stem.len() == 4
            && (stem.starts_with("COM") || stem.starts_with("LPT"))
            && stem.ends_with(char::is_numeric));
    if name.is_empty() || name.starts_with('.') || device { format!("_{name}") } else { name.to_owned() }
}

/// False when the same photo lay there already.
fn copy_into(mut photo: File, name: &OsStr, folder: &Path) -> io::Result<bool> {
    let mut copy = None;
    for number in 1.. {
        let target = folder.join(numbered(name, number));
        if target.symlink_metadata().is_ok() {
            if same_content(&photo, &target)? {
                return Ok(false);
            }
            continue;
        }
        let temporary = match copy.take() {
            Some(copy) => copy,
            None => copied(&mut photo, folder)?,
        };
        match temporary.persist_noclobber(&target) {
            Ok(_) => return Ok(true),
            // Somebody was faster: try the next name.
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => copy = Some(error.file),
            Err(error) => return Err(error.error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn copied(photo: &mut File, folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut temporary = temporary_in(folder)?;
    io::Seek::rewind(photo)?;
    io::copy(photo, &mut temporary)?;
    if let Ok(modified) = photo.metadata().and_then(|metadata| metadata.modified()) {
        temporary.as_file().set_modified(modified)?;
    }
    temporary.as_file().sync_all()?;
    Ok(temporary)
}

/// `pizza.jpg`, `pizza (2).jpg`, …
fn numbered(name: &OsStr, number: u32) -> OsString {
    if number == 1 {
        return name.to_owned();
    }
    let path = Path::new(name);
    let mut numbered = path.file_stem().unwrap_or(name).to_owned();
    numbered.push(format!(" ({number})"));
    if let Some(extension) = path.extension() {
        numbered.push(".");
        numbered.push(extension);
    }
    numbered
}

fn same_content(photo: &File, other: &Path) -> io::Result<bool> {
    let other = File::open(other)?;
    if photo.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let mut photo = photo.try_clone()?;
    io::Seek::rewind(&mut photo)?;
    let (mut ours, mut theirs) = (BufReader::new(photo).bytes(), BufReader::new(other).bytes());
    loop {
        match (ours.next().transpose()?, theirs.next().transpose()?) {
            (None, None) => return Ok(true),
            (a, b) if a != b => return Ok(false),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_names_are_safe_and_stay_inside() {
        for (label, name) in [
            ("pizza", "pizza"),
            ("Crème brûlée", "Crème brûlée"),
            ("soup/stew", "soup_stew"),
            ("../../etc", "_.._.._etc"),
            ("..", "_"),
            ("", "_"),
            (".hidden", "_.hidden"),
            ("ends. ", "ends"),
            ("a\nb:c", "a_b_c"),
            ("con", "_con"),
        ] {
            assert_eq!(folder_name(label), name, "{label:?}");
        }
        let long = folder_name(&"é".repeat(300));
        assert!(long.len() <= LONGEST_NAME && !long.is_empty());
    }

    #[test]
    fn labels_that_make_one_name_keep_folders_of_their_own() {
        let root = tempfile::tempdir().unwrap();
        let mut folders = SortedFolders::create(root.path()).unwrap();
        let names = ["a/b", "a:b", "A_B", "a/b"].map(|label| folders.folder(label).unwrap());
        assert_eq!(names[0], root.path().join("a_b"));
        assert_eq!(names[0], names[3]);
        assert_eq!(names[1..3], [root.path().join("a_b (2)"), root.path().join("A_B (3)")]);
    }
}
