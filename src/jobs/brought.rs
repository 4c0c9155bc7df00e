//! Sorts what a person brings (drops, chooses, names on the command line) into folders, photos, checkpoints and the
//! rest. Looks at a file's first bytes only when its name does not tell.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::checkpoint::UNFINISHED;
use crate::images;

/// Paths by what they are, each list in the order they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Brought {
    pub folders: Vec<PathBuf>,
    pub photos: Vec<PathBuf>,
    pub checkpoints: Vec<PathBuf>,
    /// What can be read and is none of these.
    pub unknown: Vec<PathBuf>,
    /// Named, and not there.
    pub missing: Vec<PathBuf>,
}

impl Brought {
    /// Sorts `paths`. Asks the file system, so the window calls it from a job.
    pub fn sort(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut brought = Self::default();
        for path in paths {
            let list = if path.is_dir() {
                &mut brought.folders
            } else if !path.exists() {
                &mut brought.missing
            } else if images::is_photo_name(&path) {
                &mut brought.photos
            } else if is_checkpoint_name(&path) || starts_like_a_checkpoint(&path) {
                &mut brought.checkpoints
            } else {
                &mut brought.unknown
            };
            list.push(path);
        }
        brought
    }

    /// Everything that can be classified: folders first, then single photos.
    pub fn inputs(&self) -> Vec<PathBuf> {
        [self.folders.as_slice(), self.photos.as_slice()].concat()
    }
}

/// The sample photos: among an app bundle's resources, beside the program, in the working directory, or in the source
/// tree whose `target/release` holds the program.
pub fn sample_photos() -> Option<PathBuf> {
    photos_near(std::env::current_exe().ok().as_deref(), std::env::current_dir().ok())
}

fn photos_near(program: Option<&Path>, working: Option<PathBuf>) -> Option<PathBuf> {
    let beside = program.and_then(Path::parent);
    let places = [
        beside.map(|folder| folder.join("../Resources")),
        beside.map(Path::to_owned),
        working,
        beside.map(|folder| folder.join("../..")),
    ];
    places.into_iter().flatten().find_map(|place| place.join("sample-data/photos").canonicalize().ok())
}

fn is_checkpoint_name(path: &Path) -> bool {
    const EXTENSIONS: [&str; 8] = ["pth", "pt", "th", "ckpt", "bin", "tar", "safetensors", "gguf"];
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_shard_index = path.to_string_lossy().ends_with(".safetensors.index.json");
    is_shard_index || EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// True for the first bytes of a zip archive, a protocol 2–5 pickle, a gguf file, or a safetensors header.
fn starts_like_a_checkpoint(path: &Path) -> bool {
    if path.extension().is_some_and(|ending| ending == UNFINISHED) {
        return false;
    }
    let mut head = [0; 9];
    let read = File::open(path).and_then(|mut file| file.read(&mut head)).unwrap_or_default();
    let is_zip_or_pickle = matches!(&head[..read], [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..]);
    let is_safetensors = matches!(&head[..read], [_, _, _, _, _, 0, 0, 0, b'{']);
    is_zip_or_pickle || is_safetensors || head.starts_with(b"GGUF")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_photos_of_a_bundle_come_before_those_of_the_working_directory() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let program = root.join("Galley.app/Contents/MacOS/galley");
        let own = root.join("Galley.app/Contents/Resources/sample-data/photos");
        let working = root.join("work");
        let others = working.join("sample-data/photos");
        for made in [program.parent().unwrap(), &others] {
            std::fs::create_dir_all(made).unwrap();
        }
        assert_eq!(photos_near(Some(&program), Some(working.clone())), Some(others));
        std::fs::create_dir_all(&own).unwrap();
        assert_eq!(photos_near(Some(&program), Some(working)), Some(own));
    }

    #[test]
    fn the_sample_photos_of_the_source_tree_are_found_from_its_build() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().unwrap();
        let program = source.join("target/release/galley");
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        assert_eq!(photos_near(Some(&program), None), Some(source.join("sample-data/photos")));
        assert_eq!(photos_near(None, None), None);
    }

    #[test]
    fn files_without_a_telling_name_are_known_by_their_first_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let zip = file("resnet20", b"PK\x03\x04rest");
        let pickle = file("legacy-12fca82f", b"\x80\x02\x8a\x0a");
        let tensors = file("weights", b"\x10\0\0\0\0\0\0\0{\"a\":{}}");
        let text = file("notes.txt", b"hello");
        let half = file("food.gguf.part", b"GGUF");
        let empty = file("empty", b"");
        let missing = folder.path().join("missing");
        let named = file("model.SafeTensors", b"");
        let missing_photo = folder.path().join("IMG_0001.jpg");
        let all = [&zip, &text, &half, &pickle, &empty, &tensors, &missing, &missing_photo, &named].map(Clone::clone);
        let brought = Brought::sort(all.into_iter().chain([folder.path().to_owned()]));
        assert_eq!(brought.checkpoints, [zip, pickle, tensors, named]);
        assert_eq!(brought.unknown, [text, half, empty]);
        assert_eq!(brought.missing, [missing, missing_photo]);
        assert_eq!(brought.folders, [folder.path()]);
    }
}
