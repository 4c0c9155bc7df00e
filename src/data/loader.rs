//! Batches of network input: decoded on threads of its own a few batches ahead, in an order that follows from the seed
//! and the epoch alone.
//!
//! What is drawn for a photo follows from the seed, the epoch and its index too, so threads and interruptions change
//! nothing. Rows wait as 8-bit samples, a quarter of what they are as network input, and become that as their batch is taken.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::augment::{Augment, Sample, Turn, blend_rows, mix};
use super::ordered::Ordered;
use super::random::Random;
use super::{DataError, Photo, Tiles};

/// Which batches an epoch has, and in what order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochOrder {
    pub seed: u64,
    pub epoch: u64,
    /// False keeps the photos' own order.
    pub shuffle: bool,
    pub batch_size: usize,
    /// Batches before this one are left out; the others are the same as without it.
    pub first_batch: usize,
}

/// Rows of one batch, photos that cannot be read left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Which photos the rows are.
    pub indices: Vec<usize>,
    /// `(rows, size, size, 3)`, normalized.
    pub pixels: Vec<f32>,
    pub size: usize,
    /// `(rows, classes)`; each row sums to 1. Photos that are mixed have a part in two classes.
    pub targets: Vec<f32>,
    /// The photos' own classes.
    pub labels: Vec<u32>,
    /// By row: whether the photo is turned left to right.
    pub mirrored: Vec<bool>,
    /// What each row has of its own photo, where each is mixed with the one before it.
    pub kept: Option<f32>,
    /// Photos of this batch that could not be read, and why.
    pub skipped: Vec<(usize, String)>,
}

impl Batch {
    /// Mixes other values of the rows' photos, of one length each, as the photos are mixed.
    pub fn mix_too(&self, values: &mut [f32]) {
        if let Some(kept) = self.kept {
            blend_rows(values, self.indices.len(), kept);
        }
    }
}

/// Makes epochs of batches of the same photos.
pub struct Loader {
    plan: Arc<Plan>,
    threads: usize,
    /// Batches; shared with the epochs that go on.
    ahead: Arc<AtomicUsize>,
}

struct Plan {
    photos: Arc<[Photo]>,
    classes: usize,
    size: usize,
    tiles: Arc<Tiles>,
    augment: Option<Augment>,
}

/// A photo, or why there is none.
type Row = Result<Sample, String>;

impl Loader {
    /// The transform of `tiles` must give squares of one size. Without `augment` rows are what evaluating sees.
    /// `ahead` batches at most are ready or in work; they are made by `threads` threads, which with 0 have a photo each.
    pub fn new(
        photos: Arc<[Photo]>,
        classes: usize,
        tiles: Arc<Tiles>,
        augment: Option<Augment>,
        threads: usize,
        ahead: usize,
    ) -> Result<Self, DataError> {
        let size = tiles.transform().output_size().filter(|(height, width)| height == width);
        let (size, _) = size.ok_or(DataError::NoSquare)?;
        let plan = Arc::new(Plan { photos, classes, size, tiles, augment });
        Ok(Self { plan, threads, ahead: Arc::new(AtomicUsize::new(ahead)) })
    }

    /// Changes how many batches are made ahead, also in an epoch that goes on.
    pub fn set_ahead(&self, batches: usize) {
        self.ahead.store(batches, Ordering::Relaxed);
    }

    /// How many photos there are, readable or not.
    pub fn photos(&self) -> usize {
        self.plan.photos.len()
    }

    pub fn classes(&self) -> usize {
        self.plan.classes
    }

    /// The side of the squares.
    pub fn size(&self) -> usize {
        self.plan.size
    }

    /// How many batches an epoch has.
    pub fn batches(&self, batch_size: usize) -> usize {
        self.plan.photos.len().div_ceil(batch_size.max(1))
    }

    /// Starts an epoch, and with it the threads; dropping it ends them.
    pub fn epoch(&self, order: EpochOrder) -> io::Result<Epoch> {
        let order = EpochOrder { batch_size: order.batch_size.max(1), ..order };
        let first = (order.first_batch.saturating_mul(order.batch_size)).min(self.plan.photos.len());
        let indices: Arc<[usize]> = order.indices(self.plan.photos.len()).split_off(first).into();
        let worker = || {
            let (plan, indices) = (self.plan.clone(), indices.clone());
            let mut buffer = Vec::new();
            move |task: usize| plan.row(order.turn(indices[task]), &mut buffer)
        };
        let (ahead, threads) = (self.ahead.clone(), self.threads);
        let ahead = move || match ahead.load(Ordering::Relaxed) {
            0 => threads.min(order.batch_size),
            batches => batches.saturating_mul(order.batch_size),
        };
        let rows = Ordered::start("tiles", self.threads, indices.len(), ahead, worker)?;
        Ok(Epoch { plan: self.plan.clone(), indices, rows, order, taken: 0 })
    }
}

impl EpochOrder {
    /// The photos in the order of the epoch.
    pub fn indices(&self, photos: usize) -> Vec<usize> {
        const ORDER: u64 = u64::from_le_bytes(*b"order   ");
        let mut indices: Vec<usize> = (0..photos).collect();
        if self.shuffle {
            Random::of(&[self.seed, self.epoch, ORDER]).shuffle(&mut indices);
        }
        indices
    }

    fn turn(&self, index: usize) -> Turn {
        Turn { seed: self.seed, epoch: self.epoch, index }
    }
}

/// The batches of an epoch in their order.
pub struct Epoch {
    plan: Arc<Plan>,
    indices: Arc<[usize]>,
    rows: Ordered<Row>,
    order: EpochOrder,
    /// Photos of this epoch that batches were made of.
    taken: usize,
}

impl Iterator for Epoch {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let indices = self.indices.get(self.taken..).filter(|rest| !rest.is_empty())?;
        let indices = &indices[..self.order.batch_size.min(indices.len())];
        let number = self.order.first_batch + self.taken / self.order.batch_size;
        self.taken += indices.len();
        let mut skipped = Vec::new();
        let mut rows = Vec::new();
        for (index, row) in indices.iter().zip(&mut self.rows) {
            match row.unwrap_or_else(|_| Err("the decoder failed on this file (an internal error)".to_owned())) {
                Ok(row) => rows.push((*index, row)),
                Err(reason) => skipped.push((*index, reason)),
            }
        }
        let mut batch = self.plan.batch(&rows, skipped);
        if let Some(augment) = &self.plan.augment {
            mix(augment, &mut batch, self.order.turn(number));
        }
        Some(batch)
    }
}

impl Plan {
    fn row(&self, turn: Turn, buffer: &mut Vec<u8>) -> Row {
        let tile = self.tiles.load(&self.photos[turn.index].path, std::mem::take(buffer));
        let tile = tile.map_err(|error| crate::format::error_chain(&error))?;
        let transform = self.tiles.transform();
        let sample = match &self.augment {
            Some(augment) => augment.sample(&tile, transform, self.size, turn),
            None => Sample { levels: transform.crop(&tile), mirrored: false, erased: None },
        };
        *buffer = tile.rgb;
        Ok(sample)
    }

    fn batch(&self, rows: &[(usize, Sample)], skipped: Vec<(usize, String)>) -> Batch {
        let row_len = self.size * self.size * 3;
        let mut pixels = vec![0.0; rows.len() * row_len];
        let mut targets = vec![0.0; rows.len() * self.classes];
        let mut labels = Vec::with_capacity(rows.len());
        for (at, (index, sample)) in rows.iter().enumerate() {
            let row = &mut pixels[at * row_len..][..row_len];
            self.tiles.transform().normalize(&sample.levels, row);
            for erased in sample.erased.iter().flat_map(|erased| erased.rows(self.size)) {
                row[erased.start * 3..erased.end * 3].fill(0.0);
            }
            let class = self.photos[*index].class;
            targets[at * self.classes + class] = 1.0;
            labels.push(class as u32);
        }
        let indices = rows.iter().map(|(index, _)| *index).collect();
        let mirrored = rows.iter().map(|(_, sample)| sample.mirrored).collect();
        Batch { indices, pixels, size: self.size, targets, labels, mirrored, kept: None, skipped }
    }
}
