//! Looks at the photos of a run before it begins: their classes and parts, what is wrong with them, and how they will be
//! changed from epoch to epoch.

use std::path::PathBuf;
use std::sync::Arc;

use super::open;
use crate::data::{self, Augment, Dataset, Survey, Tiles};
use crate::format;
use crate::images::Picture;
use crate::images::transform::Transform;
use crate::jobs::Places;
use crate::train::TrainConfig;
use crate::worker::{BoxError, Events, Job, JobContext, Progress};

/// Tells what photos there are, and ends with what is wrong with them.
pub type LookJob = Job<Survey, Arc<Dataset>>;

/// Looks at every photo that `config` names, also at those that its caps would leave out.
pub fn look(
    config: &TrainConfig,
    places: &Places,
    ctx: &JobContext,
    on_dataset: &mut dyn FnMut(&Dataset) -> Result<(), BoxError>,
) -> Result<Survey, BoxError> {
    ctx.report(Progress { phase: "Reading folders".to_owned(), ..Progress::default() });
    let config = TrainConfig { per_class: None, max_photos: None, ..config.clone() };
    let dataset = open::dataset(&config)?;
    on_dataset(&dataset)?;
    // Those a run will use, so that it need not decode the photos again.
    let tiles = open::tiles(places, &transform(&config), &dataset, u64::MAX, &mut Vec::new())?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    data::survey(&dataset, &tiles, threads, ctx)
}

/// The same as a job on its own thread. `wake` is called whenever there is something to see.
pub fn start_look(
    config: TrainConfig,
    places: Places,
    wake: impl Fn() + Send + Sync + 'static,
) -> std::io::Result<LookJob> {
    Job::start("look at photos", wake, move |ctx, events: &Events<Arc<Dataset>>| {
        look(&config, &places, ctx, &mut |dataset| Ok(events.send(Arc::new(dataset.clone()))?))
    })
}

/// The model's transform. A model that cannot be opened says so when it is to be trained; its photos can be looked at.
fn transform(config: &TrainConfig) -> Transform {
    open::Model::open(&open::source(config), config).map_or_else(|_| Transform::default(), |model| model.transform)
}

/// A photo as a run would see it.
#[derive(Debug, Clone)]
pub struct Previewed {
    pub path: PathBuf,
    /// Unchanged, then in one epoch after the other; or why there is none.
    pub pictures: Result<Vec<Picture>, String>,
}

/// Shows photos as the first `epochs` epochs would change them. Each comes with its place among the training photos.
pub fn preview(
    config: &TrainConfig,
    photos: &[(usize, PathBuf)],
    epochs: u64,
    ctx: &JobContext,
) -> Result<Vec<Previewed>, BoxError> {
    config.augment.check()?;
    let tiles = Tiles::new(&transform(config));
    let mut previewed = Vec::new();
    for (index, path) in photos {
        ctx.check()?;
        let changed = |augment, epochs| data::preview(&tiles, path, *index, augment, config.seed, epochs);
        let pictures = changed(&Augment::NONE, 1).and_then(|first| {
            let rest = changed(&config.augment, epochs)?;
            Ok(first.into_iter().chain(rest).collect())
        });
        let pictures = pictures.map_err(|error| format::error_chain(&error));
        previewed.push(Previewed { path: path.clone(), pictures });
    }
    Ok(previewed)
}
