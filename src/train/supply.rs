//! Where a run's batches come from: photos, or what the frozen blocks have made of all of them.
//!
//! Frozen blocks compute as for inference, where no operation's result depends on its batch. So kept features are, to the
//! last bit, what would be computed anew, and a run is the same with and without them.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use rayon::ThreadPool;

use super::TrainError;
use crate::data::{Batch, EpochOrder, Loader};
use crate::device::completed;
use crate::models::Network;
use crate::worker::{JobContext, Progress};

/// Batches of the photos of one part.
pub enum Supply {
    Photos(Loader),
    Features(Arc<Features>),
}

/// What the frozen blocks made of every photo of a part.
pub struct Features {
    /// Of one photo.
    shape: Vec<usize>,
    /// By photo: the values, or why there are none.
    rows: Vec<Result<Vec<f32>, String>>,
    /// By photo; of one that could not be read, anything.
    labels: Vec<u32>,
    classes: usize,
}

impl Supply {
    pub fn batches(&self, batch_size: usize) -> usize {
        match self {
            Self::Photos(loader) => loader.batches(batch_size),
            Self::Features(features) => features.rows.len().div_ceil(batch_size.max(1)),
        }
    }

    /// The shape of one photo's values in a batch.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::Photos(loader) => vec![loader.size(), loader.size(), 3],
            Self::Features(features) => features.shape.clone(),
        }
    }

    /// Changes how many batches of photos are made ahead.
    pub fn set_ahead(&self, batches: usize) {
        if let Self::Photos(loader) = self {
            loader.set_ahead(batches);
        }
    }

    /// The batches of an epoch. Those of features hold them in place of pixels.
    pub fn epoch(&self, order: EpochOrder) -> Result<Box<dyn Iterator<Item = Batch>>, TrainError> {
        match self {
            Self::Photos(loader) => Ok(Box::new(loader.epoch(order)?)),
            Self::Features(features) => Ok(Box::new(Features::epoch(features.clone(), order))),
        }
    }
}

/// What computes features.
#[derive(Clone, Copy)]
pub struct Frozen<'a> {
    pub network: &'a Network,
    /// How many of its blocks.
    pub blocks: usize,
    pub device: &'a Device,
    pub compute: &'a ThreadPool,
    pub batch_size: usize,
}

impl Features {
    /// Of all photos of a loader that changes none of them. `None` when the job is to pause.
    pub fn of(loader: &Loader, frozen: Frozen, ctx: &JobContext) -> Result<Option<Self>, TrainError> {
        let order = EpochOrder { seed: 0, epoch: 0, shuffle: false, batch_size: frozen.batch_size, first_batch: 0 };
        let (photos, classes) = (loader.photos(), loader.classes());
        let mut features =
            Self { shape: Vec::new(), rows: vec![Err(String::new()); photos], labels: vec![0; photos], classes };
        let mut done = 0;
        for batch in loader.epoch(order)? {
            if ctx.is_paused() {
                return Ok(None);
            }
            ctx.check()?;
            done += batch.indices.len() + batch.skipped.len();
            features.take(batch, frozen)?;
            let (phase, total) =
                ("Computing what the frozen blocks make of the photos".to_owned(), Some(photos as u64));
            ctx.report(Progress { phase, done: done as u64, total, per_second: None });
        }
        Ok(Some(features))
    }

    fn take(&mut self, batch: Batch, frozen: Frozen) -> Result<(), TrainError> {
        for (photo, reason) in batch.skipped {
            self.rows[photo] = Err(reason);
        }
        let count = batch.indices.len();
        if count == 0 {
            return Ok(());
        }
        let (values, shape) = frozen.compute.install(|| {
            completed(frozen.device, || {
                let pixels = Tensor::from_vec(batch.pixels, (count, batch.size, batch.size, 3), frozen.device)?;
                let features = frozen.network.features(frozen.blocks, &pixels)?;
                Ok::<_, TrainError>((features.flatten_all()?.to_vec1::<f32>()?, features.dims()[1..].to_vec()))
            })
        })?;
        let rows = values.chunks_exact(values.len() / count);
        for ((photo, label), row) in batch.indices.into_iter().zip(batch.labels).zip(rows) {
            self.rows[photo] = Ok(row.to_vec());
            self.labels[photo] = label;
        }
        self.shape = shape;
        Ok(())
    }

    /// The batches that a loader without random changes would make.
    fn epoch(self: Arc<Self>, order: EpochOrder) -> impl Iterator<Item = Batch> {
        let indices = order.indices(self.rows.len());
        let batches = indices.len().div_ceil(order.batch_size);
        (order.first_batch..batches).map(move |number| {
            let first = number * order.batch_size;
            self.batch(&indices[first..(first + order.batch_size).min(indices.len())])
        })
    }

    fn batch(&self, photos: &[usize]) -> Batch {
        let mut batch = Batch::default();
        for &photo in photos {
            match &self.rows[photo] {
                Ok(values) => {
                    let target = batch.targets.len() + self.labels[photo] as usize;
                    batch.targets.resize(batch.targets.len() + self.classes, 0.0);
                    batch.targets[target] = 1.0;
                    batch.pixels.extend_from_slice(values);
                    batch.indices.push(photo);
                    batch.labels.push(self.labels[photo]);
                    batch.mirrored.push(false);
                }
                Err(reason) => batch.skipped.push((photo, reason.clone())),
            }
        }
        batch
    }
}
