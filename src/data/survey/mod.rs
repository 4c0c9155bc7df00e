//! What is wrong with a set of photos: those that cannot be read, copies, and copies on both sides of a split.

mod fingerprint;
mod near;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::ordered::Ordered;
use super::{Dataset, Photo, Split, Tiles};
use crate::format;
use crate::worker::{BoxError, JobContext, Progress};

/// What a look at every photo found. Numbers are indices into the photos of the set that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Photos that cannot be read, and why.
    pub corrupt: Vec<(usize, String)>,
    /// Photos that are the same file, byte for byte.
    pub exact: Vec<Group>,
    /// Photos that look the same: re-encoded, resized or recoloured copies, perhaps shots in a row. Groups that are
    /// one exact group are left out.
    pub near: Vec<Group>,
}

/// Two or more photos that belong together, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub photos: Vec<usize>,
    /// Some are trained on and others measure the result, which then looks better than it is.
    pub leaks: bool,
    /// They are of different classes: some must be wrong.
    pub labels_differ: bool,
}

/// What is done about copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Duplicates {
    #[default]
    Keep,
    /// One of each exact group stays in each part, and in training none that another part has.
    WithoutExact,
    /// As before, and none stays in training that looks like one of another part.
    WithoutNear,
}

/// Looks at every photo on `threads` threads; the tiles are kept for training. Ends with
/// [`Canceled`](crate::worker::Canceled) when the job is.
pub fn survey(dataset: &Dataset, tiles: &Arc<Tiles>, threads: usize, ctx: &JobContext) -> Result<Survey, BoxError> {
    const AHEAD: usize = 64;
    let photos: Arc<[(Photo, bool)]> = with_companions(&dataset.photos).into();
    let worker = || {
        let (photos, tiles) = (photos.clone(), tiles.clone());
        let mut buffer = Vec::new();
        move |index: usize| {
            let (photo, has_companion) = &photos[index];
            look(&photo.path, *has_companion, &tiles, &mut buffer)
        }
    };
    let total = photos.len() as u64;
    let mut survey = Survey::default();
    let mut files: HashMap<[u8; 32], Vec<usize>> = HashMap::new();
    let mut fingerprints = Vec::new();
    for (index, looked) in Ordered::start("survey", threads, photos.len(), || AHEAD, worker)?.enumerate() {
        ctx.check()?;
        match looked.unwrap_or_else(|_| Err("the decoder failed on this file (an internal error)".to_owned())) {
            Ok(look) => {
                fingerprints.extend(look.fingerprint.map(|fingerprint| (fingerprint, index)));
                look.digest.into_iter().for_each(|digest| files.entry(digest).or_default().push(index));
            }
            Err(reason) => survey.corrupt.push((index, reason)),
        }
        let done = index as u64 + 1;
        ctx.report(Progress { phase: "Looking at photos".to_owned(), done, total: Some(total), per_second: None });
    }
    let group = |photos| Group::new(photos, &dataset.photos);
    survey.exact = files.into_values().filter(|group| group.len() > 1).map(group).collect();
    survey.exact.sort_by_key(|group| group.photos[0]);
    let near = near::groups(&fingerprints).into_iter().map(group);
    let is_exact = |group: &Group| {
        let found = survey.exact.binary_search_by_key(&group.photos[0], |exact| exact.photos[0]);
        found.is_ok_and(|at| survey.exact[at] == *group)
    };
    survey.near = near.filter(|group| !is_exact(group)).collect();
    Ok(survey)
}

/// Each photo, and whether another file has its length: only those may be the same.
fn with_companions(photos: &[Photo]) -> Vec<(Photo, bool)> {
    let lengths: Vec<Option<u64>> =
        photos.iter().map(|photo| fs::metadata(&photo.path).ok().map(|metadata| metadata.len())).collect();
    let mut counts: HashMap<u64, u32> = HashMap::new();
    lengths.iter().flatten().for_each(|length| *counts.entry(*length).or_default() += 1);
    let is_shared = |length: &Option<u64>| length.is_some_and(|length| counts[&length] > 1);
    photos.iter().zip(&lengths).map(|(photo, length)| (photo.clone(), is_shared(length))).collect()
}

struct Look {
    fingerprint: Option<u64>,
    /// SHA-256 of the file, where another has its length.
    digest: Option<[u8; 32]>,
}

fn look(path: &Path, has_companion: bool, tiles: &Tiles, buffer: &mut Vec<u8>) -> Result<Look, String> {
    let tile = tiles.load(path, std::mem::take(buffer)).map_err(|error| format::error_chain(&error))?;
    let fingerprint = fingerprint::of(&tile);
    *buffer = tile.rgb;
    Ok(Look { fingerprint, digest: if has_companion { digest(path).ok() } else { None } })
}

fn digest(path: &Path) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hash.finalize().into())
}

impl Group {
    fn new(indices: Vec<usize>, photos: &[Photo]) -> Self {
        let trained = indices.iter().filter(|index| photos[**index].split == Split::Train).count();
        let leaks = 0 < trained && trained < indices.len();
        let labels_differ = indices.windows(2).any(|pair| photos[pair[0]].class != photos[pair[1]].class);
        Self { photos: indices, leaks, labels_differ }
    }
}

impl Survey {
    /// The photos to leave out: those that cannot be read, and the copies that are not wanted. Sorted.
    pub fn left_out(&self, photos: &[Photo], duplicates: Duplicates) -> Vec<usize> {
        let mut left_out: Vec<usize> = self.corrupt.iter().map(|(index, _)| *index).collect();
        let is_trained = |index: &usize| photos[*index].split == Split::Train;
        if duplicates != Duplicates::Keep {
            for group in &self.exact {
                let mut parts: BTreeMap<Split, Vec<usize>> = BTreeMap::new();
                group.photos.iter().for_each(|index| parts.entry(photos[*index].split).or_default().push(*index));
                left_out.extend(parts.values().flat_map(|part| &part[1..]));
            }
        }
        let leaks = |groups: &[Group]| -> Vec<usize> {
            let leaking = groups.iter().filter(|group| group.leaks);
            leaking.flat_map(|group| group.photos.clone()).filter(is_trained).collect()
        };
        match duplicates {
            Duplicates::Keep => {}
            Duplicates::WithoutExact => left_out.extend(leaks(&self.exact)),
            Duplicates::WithoutNear => left_out.extend(leaks(&self.exact).into_iter().chain(leaks(&self.near))),
        }
        left_out.sort_unstable();
        left_out.dedup();
        left_out
    }
}

impl Dataset {
    /// Leaves out what [`Survey::left_out`] names. The survey's numbers are those of the set before.
    pub fn leave_out(&mut self, survey: &Survey, duplicates: Duplicates) {
        let left_out = survey.left_out(&self.photos, duplicates);
        self.retain(|index| left_out.binary_search(&index).is_err());
    }

    /// A warning when the largest class has ten times the training photos of the smallest.
    pub fn imbalance_warning(&self) -> Option<String> {
        const RATIO: usize = 10;
        let counts = self.class_counts(Split::Train).into_iter().enumerate();
        let (smallest, least) = counts.clone().min_by_key(|(_, count)| *count)?;
        let (largest, most) = counts.rev().max_by_key(|(_, count)| *count)?;
        let photos = |count: usize| format::counted(count as u64, "photo");
        (most >= RATIO * least.max(1)).then(|| {
            format!(
                "`{}` has {} to train on and `{}` has {}. Weigh the classes, or add photos of the small ones.",
                self.classes[largest],
                photos(most),
                self.classes[smallest],
                photos(least),
            )
        })
    }
}
