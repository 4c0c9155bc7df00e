//! What folders and manifests say, how they are split, and what is said of wrong ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use galley::data::{DataOptions, Dataset, Split};
use tempfile::TempDir;

use crate::support::test_data;

/// A folder with these files, each with its own name inside: no photo is decoded here.
fn folder(files: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    root
}

fn open(data: &Path) -> Dataset {
    Dataset::open(data, None, &DataOptions::default()).unwrap()
}

fn error(data: &Path, validation: Option<&Path>) -> String {
    let error = Dataset::open(data, validation, &DataOptions::default()).unwrap_err();
    galley::format::error_chain(&error)
}

/// Each photo inside the root with its class and part.
fn rows(dataset: &Dataset) -> BTreeMap<String, (&str, Split)> {
    let row = |photo: &galley::data::Photo| {
        let inside = photo.path.strip_prefix(&dataset.root).unwrap_or(&photo.path);
        (inside.display().to_string(), (dataset.classes[photo.class].as_str(), photo.split))
    };
    dataset.photos.iter().map(row).collect()
}

fn paths(dataset: &Dataset, split: Split) -> Vec<PathBuf> {
    dataset.part(split).map(|photo| photo.path.strip_prefix(&dataset.root).unwrap().to_owned()).collect()
}

#[test]
fn a_class_is_the_path_of_its_folder_at_any_depth() {
    let root = folder(&[
        "Fruit/Banana/1.jpg",
        "Fruit/Banana/2.JPG",
        "Fruit/apples.png",
        "Vegetables/Pepper/Red-Bell-Pepper/1.jpg",
        "Vegetables/Pepper/Red-Bell-Pepper/._1.jpg",
        "Vegetables/Pepper/notes.txt",
        "Vegetables/Onion/readme.txt",
        ".thumbnails/x/1.jpg",
        "sorted/.galley-sorted",
        "sorted/pizza/1.jpg",
        "loose.jpg",
    ]);
    let dataset = Dataset::open(root.path(), None, &DataOptions { validation_fraction: 0.0, ..DataOptions::default() });
    let dataset = dataset.unwrap();
    assert_eq!(dataset.classes, ["Fruit", "Fruit/Banana", "Vegetables/Pepper/Red-Bell-Pepper"]);
    let expected = [
        ("Fruit/Banana/1.jpg", "Fruit/Banana"),
        ("Fruit/Banana/2.JPG", "Fruit/Banana"),
        ("Fruit/apples.png", "Fruit"),
        ("Vegetables/Pepper/Red-Bell-Pepper/1.jpg", "Vegetables/Pepper/Red-Bell-Pepper"),
    ];
    let expected = expected.map(|(path, class)| (path.to_owned(), (class, Split::Train)));
    assert_eq!(rows(&dataset), BTreeMap::from(expected));
    assert_eq!(dataset.class_counts(Split::Train), [1, 2, 1]);
    let notes = dataset.notes.join("\n");
    for said in ["1 photo directly in the folder", "Vegetables/Onion holds no photos", "sorted is left out"] {
        assert!(notes.contains(said), "{notes}");
    }
}

#[test]
fn folders_of_parts_are_recognised_and_a_class_may_still_be_called_train() {
    let parts = folder(&["train/a/1.jpg", "train/b/1.jpg", "Valid/a/1.jpg", "test/b/1.jpg"]);
    let dataset = open(parts.path());
    assert_eq!(dataset.classes, ["a", "b"]);
    let counts = [Split::Train, Split::Validation, Split::Test].map(|split| dataset.class_counts(split));
    assert_eq!(counts, [[1, 1], [1, 0], [0, 1]]);

    let vehicles = folder(&["train/1.jpg", "bus/1.jpg", "train/2.jpg"]);
    assert_eq!(open(vehicles.path()).classes, ["bus", "train"]);
}

#[test]
fn a_validation_folder_takes_the_place_of_the_datas_own() {
    let data = folder(&["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg"]);
    let other = folder(&["b/8.jpg", "b/9.jpg"]);
    let dataset = Dataset::open(data.path(), Some(other.path()), &DataOptions::default()).unwrap();
    assert_eq!(dataset.class_counts(Split::Train), [1, 1]);
    assert_eq!(dataset.class_counts(Split::Validation), [0, 2]);
    assert!(dataset.notes.iter().any(|note| note.contains("another was named")), "{:?}", dataset.notes);

    let strange = folder(&["b/1.jpg", "c/1.jpg", "d/1.jpg"]);
    let error = error(data.path(), Some(strange.path()));
    assert_eq!(error, "the validation part has classes that training has not: `c`, `d`");
}

/// Twelve photos of each of three classes, one of two and one of one.
fn unequal() -> Vec<String> {
    let counts = [("a", 12), ("b", 12), ("c", 40), ("one", 1), ("two", 2)];
    counts.iter().flat_map(|(class, count)| (0..*count).map(move |at| format!("{class}/{at}.jpg"))).collect()
}

#[test]
fn the_split_is_stratified_and_seeded_and_follows_names_alone() {
    let files = unequal();
    let names: Vec<&str> = files.iter().map(String::as_str).collect();
    let backwards: Vec<&str> = names.iter().rev().copied().collect();
    let (first, second) = (folder(&names), folder(&backwards));
    let (one, other) = (open(first.path()), open(second.path()));
    // round(0.15 · 12) = 2, round(0.15 · 40) = 6; one of two, and a class of one is not split.
    assert_eq!(one.class_counts(Split::Validation), [2, 2, 6, 0, 1]);
    assert_eq!(one.class_counts(Split::Train), [10, 10, 34, 1, 1]);
    assert_eq!(paths(&one, Split::Validation), paths(&other, Split::Validation));

    let seeded = |seed| Dataset::open(first.path(), None, &DataOptions { seed, ..DataOptions::default() }).unwrap();
    assert_ne!(paths(&seeded(1), Split::Validation), paths(&one, Split::Validation));

    // The same photos as rows of a manifest, in an order of no meaning.
    let mut lines: Vec<String> =
        names.iter().map(|name| format!("{name},{}", &name[..name.find('/').unwrap()])).collect();
    lines.sort_by_key(|line| line.len() * 31 % 17);
    fs::write(first.path().join("list.csv"), format!("path,label\n{}\n", lines.join("\n"))).unwrap();
    let listed = open(&first.path().join("list.csv"));
    assert_eq!(paths(&listed, Split::Validation), paths(&one, Split::Validation));
}

#[test]
fn a_photo_that_is_added_moves_hardly_any_other() {
    let files = unequal();
    let mut names: Vec<&str> = files.iter().map(String::as_str).collect();
    let before = open(folder(&names).path());
    names.push("c/new.jpg");
    let after = open(folder(&names).path());
    let (before, after) = (paths(&before, Split::Validation), paths(&after, Split::Validation));
    let moved = before.iter().filter(|path| !after.contains(path)).count();
    assert!(moved <= 1, "{moved} photos left the validation part");
}

#[test]
fn caps_take_shares_of_the_training_photos_and_leave_validation_alone() {
    let files = unequal();
    let root = folder(&files.iter().map(String::as_str).collect::<Vec<_>>());
    let open = |per_class, max_photos| {
        let options = DataOptions { per_class, max_photos, ..DataOptions::default() };
        Dataset::open(root.path(), None, &options).unwrap()
    };
    assert_eq!(open(Some(5), None).class_counts(Split::Train), [5, 5, 5, 1, 1]);
    let trial = open(None, Some(28));
    // One each, then by size: 10, 10 and 34 of the remaining 26.
    assert_eq!(trial.class_counts(Split::Train), [5, 5, 16, 1, 1]);
    assert_eq!(trial.class_counts(Split::Validation), [2, 2, 6, 0, 1]);
    let larger = paths(&open(None, Some(40)), Split::Train);
    assert_eq!(larger.len(), 40);
    assert!(paths(&trial, Split::Train).iter().all(|path| larger.contains(path)));
}

#[test]
fn manifests_of_both_kinds_keep_parts_and_numbers() {
    let root = folder(&["photos/1.jpg", "photos/2.jpg", "photos/3.jpg"]);
    let elsewhere = folder(&["4.jpg"]);
    let far = elsewhere.path().join("4.jpg");
    let csv = format!(
        "\u{feff}File;Class;note;Split;kcal\nphotos/2.jpg;soup;good;train;12.5\nphotos/1.jpg;pie;;VAL;\n\n{};pie;x;train;7\nphotos/3.jpg;soup;;test;-1e2\n",
        far.display()
    );
    let jsonl = format!(
        "{}\n{}\n\n{}\n{}\n",
        r#"{"path": "photos/2.jpg", "label": "soup", "split": "train", "kcal": 12.5, "note": "good"}"#,
        r#"{"path": "photos/1.jpg", "label": "pie", "split": "val", "kcal": null}"#,
        format_args!(r#"{{"label": "pie", "path": {:?}, "kcal": 7}}"#, far.display().to_string()),
        r#"{"path": "photos/3.jpg", "label": "soup", "split": "test", "kcal": -100}"#,
    );
    for (name, text) in [("list.csv", csv), ("list.jsonl", jsonl)] {
        let manifest = root.path().join(name);
        fs::write(&manifest, text).unwrap();
        let dataset = open(&manifest);
        assert_eq!(dataset.classes, ["pie", "soup"]);
        let expected = [
            ("photos/1.jpg".to_owned(), ("pie", Split::Validation)),
            ("photos/2.jpg".to_owned(), ("soup", Split::Train)),
            ("photos/3.jpg".to_owned(), ("soup", Split::Test)),
            (far.display().to_string(), ("pie", Split::Train)),
        ];
        assert_eq!(rows(&dataset), BTreeMap::from(expected), "{name}");
        let [kcal] = dataset.columns.as_slice() else { panic!("{name}: {:?}", dataset.columns) };
        assert_eq!(kcal.name, "kcal");
        let of = |file: &str| kcal.values[dataset.photos.iter().position(|photo| photo.path.ends_with(file)).unwrap()];
        assert_eq!(["1.jpg", "2.jpg", "3.jpg", "4.jpg"].map(of), [None, Some(12.5), Some(-100.0), Some(7.0)]);
    }
}

#[test]
fn what_is_wrong_with_a_manifest_is_said_with_its_line() {
    let root = folder(&["1.jpg", "2.jpg"]);
    let path = root.path().join("list");
    let message = |text: &[u8]| {
        fs::write(&path, text).unwrap();
        error(&path, None).replace(&format!(": {}", path.display()), "")
    };
    for (text, expected) in [
        ("path,lable\n1.jpg,a\n", "the manifest has no column `label`, only `path`, `lable`"),
        ("path,label\n1.jpg,a\n2.jpg\n", "line 3 of the manifest has 1 cell, the heading 2"),
        ("path,label\n1.jpg,a\n2.jpg,\n", "line 3 of the manifest has no label"),
        ("path,label\n\n,a\n", "line 3 of the manifest has no path"),
        (
            "path,label,split\n1.jpg,a,training\n2.jpg,a,hold-out\n",
            "line 3 of the manifest has the split `hold-out`, which is none of train, validation and test",
        ),
        (
            "path,label,split\n1.jpg,a,train\n2.jpg,b,val\n",
            "the validation part has classes that training has not: `b`",
        ),
        (
            "path,label\n8.jpg,a\n9.jpg,a\n",
            "none of the 2 photos in the manifest is there; paths count from the manifest's folder",
        ),
    ] {
        assert_eq!(message(text.as_bytes()), expected, "{text}");
    }
    let broken = message(b"{\"path\": \"1.jpg\", \"label\": \"a\"}\n{\"path\": \"2.jpg\"\n");
    assert!(broken.starts_with("line 2 of the manifest is no JSON object"), "{broken}");
    assert!(message(&[0xFF, 0xD8, 0xFF, 0xE0]).contains("which are text"));
    let nowhere = error(&root.path().join("nowhere"), None);
    assert!(nowhere.starts_with("failed to read") && nowhere.contains("nowhere"), "{nowhere}");
    let flat = error(root.path(), None);
    assert!(flat.starts_with("no photos in class folders"), "{flat}");
}

#[test]
fn photos_that_are_missing_or_named_twice_are_listed_and_the_rest_is_used() {
    let root = folder(&["1.jpg", "2.jpg"]);
    let path = root.path().join("list.csv");
    fs::write(&path, "path,label\n1.jpg,a\n3.jpg,a\n2.jpg,b\n1.jpg,b\n").unwrap();
    let dataset = open(&path);
    assert_eq!(dataset.photos.len(), 2);
    let skipped: Vec<String> = dataset.skipped.iter().map(|skipped| skipped.reason.clone()).collect();
    assert_eq!(skipped, ["line 3 names it, and it is not there", "named again on line 5, after line 2"]);
}

#[test]
fn real_nested_folders_are_read_as_their_readme_counts_them() {
    let Some(data) = test_data() else { return };
    let dataset = open(&data.join("food/grocery-store"));
    assert_eq!(dataset.classes.len(), 12);
    assert!(dataset.classes.contains(&"Fruit/Banana".to_owned()));
    assert!(dataset.classes.contains(&"Vegetables/Pepper/Red-Bell-Pepper".to_owned()));
    assert_eq!(dataset.photos.len(), 631);
    assert!(dataset.class_counts(Split::Train).iter().all(|count| (26..=30).contains(count)));
    assert!(dataset.class_counts(Split::Validation).iter().all(|count| (5..=6).contains(count)));
    assert_eq!(dataset.class_counts(Split::Test), [18; 12]);

    let food = data.join("food/food101-512");
    let dataset = Dataset::open(&food.join("train"), Some(&food.join("test")), &DataOptions::default()).unwrap();
    assert_eq!(dataset.class_counts(Split::Train), [50, 38, 60, 12, 8, 20, 28, 36, 26, 28]);
    assert_eq!(dataset.class_counts(Split::Validation), [18, 14, 25, 6, 5, 8, 10, 14, 9, 11]);
}
