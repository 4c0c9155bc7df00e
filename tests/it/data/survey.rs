//! Copies are found whatever was done to them, different photos are not taken for copies, and what cannot be read is
//! listed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use galley::data::{DataOptions, Dataset, Duplicates, Group, Split, Survey, Tiles, survey};
use galley::images::transform::{Resize, Transform};
use galley::worker::{Canceled, JobContext};
use image::codecs::jpeg::JpegEncoder;

use crate::support::{test_data, write_photo};

fn survey_of(dataset: &Dataset) -> Survey {
    let tiles = Arc::new(Tiles::new(&Transform::default()));
    survey(dataset, &tiles, 2, &JobContext::detached()).unwrap()
}

fn open(data: &Path, validation: Option<&Path>) -> Dataset {
    Dataset::open(data, validation, &DataOptions::default()).unwrap()
}

fn names(dataset: &Dataset, group: &Group) -> Vec<String> {
    let name = |index: &usize| dataset.photos[*index].path.file_name().unwrap().to_string_lossy().into_owned();
    group.photos.iter().map(name).collect()
}

#[test]
fn food_photos_hold_two_pairs_that_look_the_same_and_no_other() {
    let Some(data) = test_data() else { return };
    let food = data.join("food/food101-512");
    let mut dataset = open(&food.join("train"), Some(&food.join("test")));
    let found = survey_of(&dataset);
    assert_eq!((found.corrupt.len(), found.exact.len()), (0, 0));
    // Looked at by eye: the same photo each time, in other colours. The first is in both parts.
    let near: Vec<_> = found.near.iter().map(|group| (names(&dataset, group), group.leaks)).collect();
    let pair = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
    assert_eq!(near, [(pair("92331.jpg", "34793.jpg"), true), (pair("66533.jpg", "71719.jpg"), false)]);

    let before = dataset.photos.len();
    dataset.leave_out(&found, Duplicates::WithoutExact);
    assert_eq!(dataset.photos.len(), before);
    dataset.leave_out(&found, Duplicates::WithoutNear);
    assert_eq!(dataset.photos.len(), before - 1);
    assert!(!dataset.photos.iter().any(|photo| photo.path.ends_with("34793.jpg")));
}

#[test]
fn photos_of_one_shelf_are_not_taken_for_copies() {
    let Some(data) = test_data() else { return };
    let found = survey_of(&open(&data.join("food/grocery-store"), None));
    assert_eq!(found, Survey::default());
}

/// Thirty real photos of ten classes.
fn thirty(food: &Path) -> Vec<PathBuf> {
    let mut classes: Vec<PathBuf> =
        fs::read_dir(food.join("test")).unwrap().map(|entry| entry.unwrap().path()).collect();
    classes.sort();
    let some = |class: &PathBuf| {
        let mut photos: Vec<PathBuf> = fs::read_dir(class).unwrap().map(|entry| entry.unwrap().path()).collect();
        photos.sort();
        photos.truncate(3);
        photos
    };
    classes.iter().flat_map(some).collect()
}

fn encode(photo: &Path, quality: u8, divisor: u32, copy: &Path) {
    let picture = image::open(photo).unwrap();
    let (width, height) = (picture.width() / divisor, picture.height() / divisor);
    let picture = picture.resize_exact(width, height, image::imageops::FilterType::Lanczos3).to_rgb8();
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    JpegEncoder::new_with_quality(File::create(copy).unwrap(), quality).encode_image(&picture).unwrap();
}

#[test]
fn encoded_and_resized_copies_in_the_other_part_are_found() {
    let Some(data) = test_data() else { return };
    let photos = thirty(&data.join("food/food101-512"));
    let root = tempfile::tempdir().unwrap();
    for (at, photo) in photos.iter().enumerate() {
        let class = photo.parent().unwrap().file_name().unwrap();
        let train = root.path().join("train").join(class).join(format!("{at}.jpg"));
        fs::create_dir_all(train.parent().unwrap()).unwrap();
        fs::copy(photo, train).unwrap();
        let copy = root.path().join("val").join(class).join(format!("copy of {at}.jpg"));
        encode(photo, [50, 75, 60][at % 3], [1, 2, 3][at % 3], &copy);
    }
    let mut dataset = open(root.path(), None);
    let found = survey_of(&dataset);
    assert_eq!(found.exact, []);
    let mut pairs: Vec<_> = found.near.iter().map(|group| names(&dataset, group)).collect();
    pairs.sort();
    let mut expected: Vec<_> = (0..30).map(|at| vec![format!("{at}.jpg"), format!("copy of {at}.jpg")]).collect();
    expected.sort();
    assert_eq!(pairs, expected);
    assert!(found.near.iter().all(|group| group.leaks && !group.labels_differ));
    dataset.leave_out(&found, Duplicates::WithoutNear);
    assert_eq!(dataset.part(Split::Train).count(), 0);
    assert_eq!(dataset.part(Split::Validation).count(), 30);
}

#[test]
fn the_same_file_is_kept_once_and_one_that_cannot_be_read_is_left_out() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    for (name, seed) in [
        ("train/a/1.png", 1),
        ("train/a/2.png", 1),
        ("train/a/3.png", 3),
        ("train/b/4.png", 4),
        ("train/b/5.png", 3),
        ("train/b/6.png", 6),
        ("val/a/7.png", 7),
        ("val/a/8.png", 7),
        ("val/b/9.png", 4),
    ] {
        write_photo(&path(name), seed);
    }
    fs::write(path("train/a/0.jpg"), "no photo").unwrap();
    let dataset = open(root.path(), None);
    let found = survey_of(&dataset);
    let [(broken, reason)] = found.corrupt.as_slice() else { panic!("{found:?}") };
    assert!(dataset.photos[*broken].path.ends_with("a/0.jpg"));
    assert!(reason.starts_with("not a photo Galley can read"), "{reason}");
    let mut exact: Vec<_> =
        found.exact.iter().map(|group| (names(&dataset, group).concat(), group.leaks, group.labels_differ)).collect();
    exact.sort();
    let group = |names: &str, leaks, labels_differ| (names.to_owned(), leaks, labels_differ);
    let expected = [
        group("1.png2.png", false, false),
        group("3.png5.png", false, true),
        group("4.png9.png", true, false),
        group("7.png8.png", false, false),
    ];
    assert_eq!(exact, expected);
    assert_eq!(found.near, []);

    let left = |duplicates| {
        let mut dataset = dataset.clone();
        dataset.leave_out(&found, duplicates);
        dataset.photos.iter().map(|photo| photo.path.file_stem().unwrap().to_string_lossy()).collect::<String>()
    };
    assert_eq!(left(Duplicates::Keep), "123456789");
    assert_eq!(left(Duplicates::WithoutExact), "13679");
    assert_eq!(left(Duplicates::WithoutNear), "13679");
}

#[test]
fn a_canceled_survey_ends_as_canceled() {
    let root = tempfile::tempdir().unwrap();
    write_photo(&root.path().join("a/1.png"), 1);
    let ctx = JobContext::detached();
    ctx.cancel();
    let tiles = Arc::new(Tiles::new(&Transform { resize: Resize::ShortSide(32), ..Transform::default() }));
    let error = survey(&open(root.path(), None), &tiles, 1, &ctx).unwrap_err();
    assert!(error.is::<Canceled>());
}

#[test]
fn ten_times_as_many_photos_of_one_class_are_warned_of() {
    let root = tempfile::tempdir().unwrap();
    let photo = |class: &str, number: usize| {
        let path = root.path().join(format!("{class}/{number}.jpg"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    };
    let options = DataOptions { validation_fraction: 0.0, ..DataOptions::default() };
    let warning = || Dataset::open(root.path(), None, &options).unwrap().imbalance_warning();
    (0..2).for_each(|number| photo("pie", number));
    (0..19).for_each(|number| photo("soup", number));
    assert_eq!(warning(), None);
    photo("soup", 19);
    let expected =
        "`soup` has 20 photos to train on and `pie` has 2 photos. Weigh the classes, or add photos of the small ones.";
    assert_eq!(warning().as_deref(), Some(expected));
}
