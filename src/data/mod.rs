//! Labelled photos: from folders or a manifest, split for training and validation, and as batches of network input.
//!
//! Everything that is drawn follows from a seed and a name or an index: the order of the file system, the number of
//! threads and what was drawn before do not matter.

mod answers;
mod augment;
mod error;
mod folders;
mod loader;
mod manifest;
mod ordered;
pub mod random;
mod split;
mod store;
mod survey;
mod tiles;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use answers::{Answers, Kept};
pub use augment::{Augment, AugmentError, mirror, preview};
pub use error::DataError;
pub use loader::{Batch, Epoch, EpochOrder, Loader};
pub use survey::{Duplicates, Group, Survey, survey};
pub use tiles::Tiles;

/// A labelled set of photos.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The folder of the classes or of the manifest, absolute.
    pub root: PathBuf,
    /// Sorted; a photo's class is an index into these.
    pub classes: Vec<String>,
    /// Sorted by path.
    pub photos: Vec<Photo>,
    /// The manifest's columns of numbers.
    pub columns: Vec<Column>,
    /// Photos that were named and are not there, and folders that cannot be read.
    pub skipped: Vec<Skipped>,
    /// What else a person should know, as sentences.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Photo {
    /// Absolute.
    pub path: PathBuf,
    pub class: usize,
    pub split: Split,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    Train,
    Validation,
    /// Named so by the data: never trained on.
    Test,
}

impl Split {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name.to_lowercase().as_str() {
            "train" | "training" => Self::Train,
            "val" | "valid" | "validation" => Self::Validation,
            "test" | "testing" => Self::Test,
            _ => return None,
        })
    }
}

/// Numbers beside the photos, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub name: String,
    pub values: Vec<Option<f64>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    pub path: PathBuf,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DataOptions {
    /// Share of each class kept for validation, when the data names no validation part: from 0 to below 1.
    pub validation_fraction: f64,
    pub seed: u64,
    /// Most training photos of one class, and of all together.
    pub per_class: Option<usize>,
    pub max_photos: Option<usize>,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self { validation_fraction: 0.15, seed: 0, per_class: None, max_photos: None }
    }
}

/// What a folder or a manifest names.
#[derive(Default)]
struct Listing {
    entries: Vec<Entry>,
    /// Names of the entries' values.
    columns: Vec<String>,
    skipped: Vec<Skipped>,
    notes: Vec<String>,
}

struct Entry {
    path: PathBuf,
    label: String,
    split: Option<Split>,
    values: Vec<Option<f64>>,
}

impl Entry {
    fn new(path: PathBuf) -> Self {
        Self { path, label: String::new(), split: None, values: Vec::new() }
    }
}

fn list(path: &Path) -> Result<Listing, DataError> {
    if path.is_dir() { folders::list(path) } else { manifest::list(path) }
}

impl Dataset {
    /// Opens a folder of class folders, or a manifest. `validation`, another such, takes the place of the data's own
    /// validation part; without either, a part of the training photos is drawn.
    pub fn open(data: &Path, validation: Option<&Path>, options: &DataOptions) -> Result<Self, DataError> {
        if !(0.0..1.0).contains(&options.validation_fraction) {
            return Err(DataError::Fraction(options.validation_fraction));
        }
        let data = absolute(data)?;
        let mut listing = list(&data)?;
        if let Some(validation) = validation {
            listing.replace_validation(list(&absolute(validation)?)?);
        }
        let root = if data.is_dir() { data } else { data.parent().unwrap_or(&data).to_owned() };
        let mut dataset = listing.into_dataset(root)?;
        if !dataset.photos.iter().any(|photo| photo.split == Split::Validation) {
            let (fraction, seed) = (options.validation_fraction, options.seed);
            split::keep_for_validation(&mut dataset.photos, &dataset.root, fraction, seed);
        }
        let remain = split::capped(&dataset.photos, &dataset.root, options.per_class, options.max_photos, options.seed);
        dataset.retain(|index| remain[index]);
        Ok(dataset)
    }

    /// Keeps the photos whose index is wanted, and their values.
    pub fn retain(&mut self, is_wanted: impl Fn(usize) -> bool) {
        fn kept<T>(items: &mut Vec<T>, is_wanted: &impl Fn(usize) -> bool) {
            let mut index = 0..;
            items.retain(|_| index.next().is_some_and(is_wanted));
        }
        kept(&mut self.photos, &is_wanted);
        self.columns.iter_mut().for_each(|column| kept(&mut column.values, &is_wanted));
    }

    /// The photos of one part, in order.
    pub fn part(&self, split: Split) -> impl Iterator<Item = &Photo> {
        self.photos.iter().filter(move |photo| photo.split == split)
    }

    /// How many photos of each class one part has.
    pub fn class_counts(&self, split: Split) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        self.part(split).for_each(|photo| counts[photo.class] += 1);
        counts
    }
}

fn absolute(path: &Path) -> Result<PathBuf, DataError> {
    std::path::absolute(path).map_err(|source| DataError::Read { path: path.to_owned(), source })
}

impl Listing {
    /// All of `other` becomes the validation part, in place of any there was.
    fn replace_validation(&mut self, other: Self) {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.split != Some(Split::Validation));
        if self.entries.len() < before {
            self.notes.push("The data's own validation part is left out, because another was named".to_owned());
        }
        for entry in other.entries {
            let value = |name| entry.values.get(other.columns.iter().position(|other| other == name)?).copied()?;
            let values = self.columns.iter().map(value).collect();
            self.entries.push(Entry { split: Some(Split::Validation), values, ..entry });
        }
        self.skipped.extend(other.skipped);
        self.notes.extend(other.notes);
    }

    fn into_dataset(mut self, root: PathBuf) -> Result<Dataset, DataError> {
        self.entries.sort_by(|a, b| a.path.cmp(&b.path));
        let labels = |split: Split| -> BTreeSet<&str> {
            let of_part = self.entries.iter().filter(|entry| entry.split.unwrap_or(Split::Train) == split);
            of_part.map(|entry| entry.label.as_str()).collect()
        };
        let classes = labels(Split::Train);
        if classes.is_empty() {
            return Err(DataError::NothingToTrainOn(root));
        }
        for (part, split) in [("the validation part", Split::Validation), ("the test part", Split::Test)] {
            let strangers: Vec<String> = labels(split).difference(&classes).map(|class| (*class).to_owned()).collect();
            if !strangers.is_empty() {
                return Err(DataError::Strangers { part, classes: strangers });
            }
        }
        let classes: Vec<String> = classes.into_iter().map(str::to_owned).collect();
        let photo = |entry: &Entry| Photo {
            path: entry.path.clone(),
            class: classes.binary_search(&entry.label).expect("the labels of every part are among the classes"),
            split: entry.split.unwrap_or(Split::Train),
        };
        let photos = self.entries.iter().map(photo).collect();
        let column = |(at, name): (usize, String)| Column {
            name,
            values: self.entries.iter().map(|entry| entry.values.get(at).copied().flatten()).collect(),
        };
        let columns = std::mem::take(&mut self.columns).into_iter().enumerate().map(column).collect();
        Ok(Dataset { root, classes, photos, columns, skipped: self.skipped, notes: self.notes })
    }
}
