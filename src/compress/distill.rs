//! Distillation: a teacher is asked once about every photo that a student will train on, and is gone before that begins.
//!
//! Its answers stay on disk, under a name that follows from the teacher's files and from how it was asked, so that a second
//! run, or one that goes on, asks about new photos alone. What a student learns from them is in [`crate::train`].

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use candle_core::{Device, Tensor};
use sha2::{Digest as _, Sha256};

use crate::checkpoint::TensorInfo;
use crate::data::{self, Answers, DataError, EpochOrder, Loader, Photo, Tiles};
use crate::device::completed;
use crate::images::transform::Transform;
use crate::memory::{Place, Tally, heap};
use crate::models::{Architecture, ModelError, Network, Precision};
use crate::ops;
use crate::predict::{self, Loading, ModelSource, PredictError, TransformOverrides, Unloaded};
use crate::train::{Distill, Teacher, pooled};
use crate::worker::{Canceled, JobContext, Progress};

/// Photos that go through a teacher at once: enough for every thread to have some, and little memory.
pub const AT_ONCE: usize = 8;

/// How long to wait before looking again whether another process has got its answers.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Classes that are named in a message.
const NAMED: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum DistillError {
    #[error("cannot use the teacher {teacher}")]
    Teacher { teacher: String, source: Box<PredictError> },
    #[error(
        "the teacher {teacher} does not know {count} of the {of} classes of these photos: {missing}. Choose a teacher \
         that was trained on all of them, or leave their photos out"
    )]
    Classes { teacher: String, count: usize, of: usize, missing: String },
    #[error("the teacher's answer to a photo is no number, so nothing can be learned from it: {}", .0.display())]
    NotFinite(PathBuf),
    #[error("the teacher failed")]
    Model(#[from] ModelError),
    #[error("the teacher failed")]
    Compute(#[from] candle_core::Error),
    #[error("the teacher's photos cannot be made ready")]
    Photos(#[from] DataError),
    #[error("the teacher's answers cannot be kept in {}", .folder.display())]
    Answers { folder: PathBuf, source: io::Error },
    #[error("failed to read the teacher {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    // Not transparent, which would hide from the error's chain that it is a cancel.
    #[error("canceled")]
    Canceled(#[from] Canceled),
}

/// A teacher that was opened, and whose weights were not read.
pub struct OpenTeacher {
    unloaded: Unloaded,
    source: ModelSource,
    /// Of its features; 0 when these are not asked for.
    channels: usize,
    mirrors: bool,
    temperature: f64,
}

/// The same for photos of some classes.
pub struct Unasked {
    teacher: OpenTeacher,
    /// The teacher's class for each of the run's.
    places: Vec<usize>,
    name: String,
}

/// Where and with what a teacher is asked.
pub struct Asking<'a> {
    /// Of answers.
    pub folder: &'a Path,
    /// Resized as the teacher wants photos.
    pub tiles: Arc<Tiles>,
    pub device: &'a Device,
    /// That decode.
    pub threads: usize,
}

/// How asking went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Photos the teacher looked at, those whose answers were there before, and those it could not read.
    pub looked_at: usize,
    pub known: usize,
    pub unreadable: usize,
}

impl OpenTeacher {
    /// Opens the teacher of a run on photos that may be mirrored.
    pub fn open(distill: &Distill, mirrors: bool) -> Result<Self, DistillError> {
        let source = distill.teacher.clone().map_or(ModelSource::Starter, ModelSource::File);
        let unusable = |error| DistillError::Teacher { teacher: source.name(), source: Box::new(error) };
        let unloaded = Unloaded::open(&source, None, &TransformOverrides::default()).map_err(unusable)?;
        let side = side(unloaded.transform());
        let channels = if distill.features.is_some() { channels(unloaded.architecture(), side)? } else { 0 };
        Ok(Self { unloaded, source, channels, mirrors, temperature: distill.temperature })
    }

    /// The same for photos of these classes. Fails unless the teacher knows all of them; it may know more, and in another
    /// order.
    pub fn for_classes(self, classes: &[String]) -> Result<Unasked, DistillError> {
        let places = places(&self.unloaded, classes, &self.source)?;
        let name = self.digest(&places)?;
        Ok(Unasked { teacher: self, places, name })
    }

    pub fn architecture(&self) -> &Architecture {
        self.unloaded.architecture()
    }

    /// Those of its file.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.unloaded.tensors()
    }

    /// How it wants photos.
    pub fn transform(&self) -> &Transform {
        self.unloaded.transform()
    }

    /// Of its input; 0 where that is not one size.
    pub fn side(&self) -> usize {
        side(self.transform())
    }

    /// Numbers of the answer to one photo of so many classes.
    pub fn width(&self, classes: usize) -> usize {
        (classes + self.channels) * if self.mirrors { 2 } else { 1 }
    }

    /// From all that the answers follow from.
    fn digest(&self, places: &[usize]) -> Result<String, DistillError> {
        let mut hash = Sha256::new();
        let paths: Vec<&Path> = self.unloaded.paths().collect();
        if paths.is_empty() {
            hash.update(predict::STARTER);
        }
        for path in paths {
            let read = File::open(path).and_then(|mut file| io::copy(&mut file, &mut hash));
            let bytes = read.map_err(|source| DistillError::Read { path: path.to_owned(), source })?;
            hash.update(bytes.to_le_bytes());
        }
        let asked = (self.transform(), places, self.channels, self.mirrors);
        hash.write_all(format!("{asked:?}").as_bytes()).expect("a hash takes all bytes");
        Ok(hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Unasked {
    /// A name that is another for another teacher, or another way of asking it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the teacher wants photos.
    pub fn transform(&self) -> &Transform {
        self.teacher.transform()
    }

    pub fn title(&self) -> &str {
        &self.teacher.architecture().title
    }

    /// Asks about those photos whose answers are not on disk yet. The network is gone when this returns.
    pub fn ask(
        self,
        photos: &[Photo],
        asking: &Asking<'_>,
        ctx: &JobContext,
    ) -> Result<(Teacher, Asked), DistillError> {
        let unkept = |source| DistillError::Answers { folder: asking.folder.to_owned(), source };
        let mut answers = self.answers(asking.folder, ctx)?;
        let unknown: Vec<Photo> = photos.iter().filter(|photo| !answers.has(&photo.path)).cloned().collect();
        let OpenTeacher { channels: features, mirrors, temperature, .. } = self.teacher;
        let classes = self.places.len();
        let (all, known) = (unknown.len(), photos.len() - unknown.len());
        let unreadable = if unknown.is_empty() { 0 } else { self.look_at(unknown, &mut answers, asking, ctx)? };
        let answers = answers.of(photos).map_err(unkept)?;
        let asked = Asked { looked_at: all - unreadable, known, unreadable };
        Ok((Teacher { answers, classes, features, mirrors, temperature }, asked))
    }

    /// The file of answers, once no other process writes it.
    fn answers(&self, folder: &Path, ctx: &JobContext) -> Result<Answers, DistillError> {
        loop {
            ctx.check()?;
            let opened = Answers::open(folder, &self.name, self.teacher.width(self.places.len()), Answers::LIMIT_BYTES)
                .map_err(|source| DistillError::Answers { folder: folder.to_owned(), source })?;
            if let Some(answers) = opened {
                return Ok(answers);
            }
            let phase = "Waiting for another run that asks the same teacher".to_owned();
            ctx.report(Progress { phase, ..Progress::default() });
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Has the teacher look at these photos, and returns how many it could not read.
    fn look_at(
        self,
        photos: Vec<Photo>,
        answers: &mut Answers,
        asking: &Asking<'_>,
        ctx: &JobContext,
    ) -> Result<usize, DistillError> {
        let Self { teacher: OpenTeacher { unloaded, source, channels, mirrors, .. }, places, .. } = self;
        let classifier = unloaded
            .load(Loading::default(), asking.device)
            .map_err(|error| DistillError::Teacher { teacher: source.name(), source: Box::new(error) })?;
        let photos: Arc<[Photo]> = photos.into();
        let loader = Loader::new(photos.clone(), places.len(), asking.tiles.clone(), None, asking.threads, 1)?;
        let order = EpochOrder { seed: 0, epoch: 0, shuffle: false, batch_size: AT_ONCE, first_batch: 0 };
        let unkept = |source| DistillError::Answers { folder: asking.folder.to_owned(), source };
        let (mut done, mut unreadable) = (0, 0);
        for mut batch in loader.epoch(order).map_err(unkept)? {
            ctx.check()?;
            let (count, size) = (batch.indices.len(), batch.size);
            done += count + batch.skipped.len();
            unreadable += batch.skipped.len();
            let look = |pixels: &[f32]| {
                let pixels = Tensor::from_slice(pixels, (count, size, size, 3), asking.device)?;
                completed(classifier.device(), || look(&classifier.network, &pixels, &places, channels > 0))
            };
            if count > 0 {
                let mut rows = look(&batch.pixels)?;
                if mirrors {
                    batch.pixels.chunks_exact_mut(3 * size).for_each(data::mirror);
                    rows.iter_mut().zip(look(&batch.pixels)?).for_each(|(row, mirrored)| row.extend(mirrored));
                }
                for (row, photo) in rows.iter().zip(&batch.indices) {
                    let path = &photos[*photo].path;
                    if !row.iter().all(|value| value.is_finite()) {
                        return Err(DistillError::NotFinite(path.clone()));
                    }
                    answers.put(path, row).map_err(unkept)?;
                }
            }
            let phase = "Asking the teacher about the photos".to_owned();
            ctx.report(Progress { phase, done: done as u64, total: Some(photos.len() as u64), per_second: None });
        }
        drop(classifier);
        ops::release(asking.device)?;
        heap::release();
        Ok(unreadable)
    }
}

/// The side of the network's input.
fn side(transform: &Transform) -> usize {
    transform.output_size().map_or(0, |(height, _)| height)
}

/// Which of the teacher's classes each of these is.
fn places(unloaded: &Unloaded, classes: &[String], source: &ModelSource) -> Result<Vec<usize>, DistillError> {
    let place = |class: &String| unloaded.labels().iter().position(|label| **label == **class);
    let missing: Vec<&str> = classes.iter().filter(|class| place(class).is_none()).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(classes.iter().filter_map(place).collect());
    }
    let more = if missing.len() > NAMED { ", …" } else { "" };
    let named = missing.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ") + more;
    let (count, of) = (missing.len(), classes.len());
    Err(DistillError::Classes { teacher: source.name(), count, of, missing: named })
}

/// How many channels the block before the last has.
fn channels(architecture: &Architecture, side: usize) -> Result<usize, DistillError> {
    let outline = architecture.outline(&[], None, Precision::F32, &Device::Cpu)?;
    let photo = Tally::new(Place::cpu(1)).tensor(&[1, side, side, 3]);
    let features = outline.features(outline.blocks.len().saturating_sub(1), &photo)?;
    Ok(features.dims().last().copied().unwrap_or(0))
}

/// The logits of these classes for each photo, and its pooled features if they are wanted.
fn look(
    network: &Network,
    pixels: &Tensor,
    places: &[usize],
    with_features: bool,
) -> Result<Vec<Vec<f32>>, DistillError> {
    let (logits, features) = match network.blocks.split_last() {
        Some((head, before)) if with_features => {
            let output = network.features(before.len(), pixels)?;
            let features = pooled(&output)?.to_vec2::<f32>()?;
            (head.forward(output)?, features)
        }
        _ => (network.forward(pixels)?, Vec::new()),
    };
    let logits = logits.to_vec2::<f32>()?;
    let mut rows: Vec<Vec<f32>> = logits.iter().map(|row| places.iter().map(|place| row[*place]).collect()).collect();
    rows.iter_mut().zip(features).for_each(|(row, features)| row.extend(features));
    Ok(rows)
}
