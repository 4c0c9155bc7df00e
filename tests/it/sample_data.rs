//! The photos in `sample-data/` are what their generator makes, balanced and small.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../../sample-data/generate/mod.rs"]
mod generate;

fn photos() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/photos")
}

fn sorted_names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_dish_has_as_many_photos_as_every_other() {
    for (split, per_class) in [("train", 40), ("test", 12)] {
        let folder = photos().join(split);
        assert_eq!(sorted_names(&folder), generate::names(), "{split}");
        for name in generate::names() {
            let expected: Vec<_> = (1..=per_class).map(|number| format!("{number:03}.jpg")).collect();
            assert_eq!(sorted_names(&folder.join(name)), expected, "{split}/{name}");
        }
    }
}

#[test]
fn all_photos_together_stay_under_six_megabytes() {
    let files = walkdir::WalkDir::new(photos()).into_iter().map(Result::unwrap);
    let bytes: u64 =
        files.filter(|entry| entry.file_type().is_file()).map(|entry| entry.metadata().unwrap().len()).sum();
    assert!(bytes < 6_000_000, "{bytes} bytes");
}

/// Compared as pixels: the last bit of a sine differs between platforms, and may move a pixel by a level.
#[test]
fn photos_are_what_the_generator_makes() {
    for (dish, name) in generate::names().into_iter().enumerate() {
        for (split, seed, number) in [("train", 1, 7), ("test", 2, 11)] {
            let path = photos().join(format!("{split}/{name}/{:03}.jpg", number + 1));
            let kept = image::open(&path).unwrap().into_rgb8();
            let made = image::load_from_memory(&generate::jpeg(dish, number, seed)).unwrap().into_rgb8();
            assert_eq!(kept.dimensions(), made.dimensions(), "{}", path.display());
            let differences = kept.iter().zip(made.iter()).map(|(one, other)| f64::from(one.abs_diff(*other)));
            let mean = differences.sum::<f64>() / kept.len() as f64;
            assert!(mean < 0.5, "{} differs by {mean} levels on average", path.display());
        }
    }
}
