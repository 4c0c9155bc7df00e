//! The teacher of a run that has one: opened before anything is begun, and asked before the student's network is read.

use std::path;
use std::sync::Arc;

use super::plan::TeacherCost;
use crate::compress::distill::{Asking, OpenTeacher, Unasked};
use crate::data::{Dataset, Photo, Split, Tiles};
use crate::device::Chosen;
use crate::format::counted;
use crate::images::transform::Transform;
use crate::jobs::Places;
use crate::memory::heap;
use crate::train::{Distill, Teacher, TrainConfig};
use crate::worker::{BoxError, JobContext};

/// The same wherever the run is continued from.
pub fn absolute_teacher(distill: &Distill) -> std::io::Result<Distill> {
    let teacher = distill.teacher.as_ref().map(path::absolute).transpose()?;
    Ok(Distill { teacher, ..distill.clone() })
}

/// The teacher of a run on these classes, and what it takes, if the run has one.
pub fn teacher(
    config: &TrainConfig,
    classes: &[String],
    chosen: &Chosen,
) -> Result<(Option<Unasked>, Option<TeacherCost>), BoxError> {
    let Some(distill) = &config.distill else { return Ok((None, None)) };
    let opened = OpenTeacher::open(distill, config.augment.flip > 0.0)?;
    let cost = TeacherCost::of(&opened, classes.len(), chosen);
    Ok((Some(opened.for_classes(classes)?), Some(cost)))
}

/// What asking a teacher takes beside it.
pub struct AskTeacher<'a> {
    pub places: &'a Places,
    /// The student's, whose tiles are there.
    pub transform: &'a Transform,
    /// For [`Tiles::decoding_with`].
    pub left: u64,
    pub chosen: &'a Chosen,
}

impl AskTeacher<'_> {
    /// The teacher's answers to the training photos, from the disk as far as they are there.
    pub fn ask(
        &self,
        teacher: Option<Unasked>,
        dataset: &Dataset,
        notices: &mut Vec<String>,
        ctx: &JobContext,
    ) -> Result<Option<Teacher>, BoxError> {
        let Some(unasked) = teacher else { return Ok(None) };
        let Self { places, transform, left, chosen } = *self;
        let (title, wanted) = (unasked.title().to_owned(), unasked.transform());
        // Of another size they would be kept on disk for this once.
        let tiles = match Tiles::are_shared(transform, wanted) {
            true => Tiles::in_folder(&places.tiles, wanted, Tiles::LIMIT_BYTES).unwrap_or_else(|_| Tiles::new(wanted)),
            false => Tiles::new(wanted),
        };
        let tiles = Arc::new(tiles.decoding_with(left));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let photos: Vec<Photo> = dataset.part(Split::Train).cloned().collect();
        let asking = Asking { folder: &places.tiles, tiles, device: &chosen.device, threads };
        let (teacher, asked) = unasked.ask(&photos, &asking, ctx)?;
        // What a run is measured to take shall be its steps', whether a teacher was asked before or not.
        heap::reset_peak();
        let [looked_at, known, unreadable] =
            [asked.looked_at, asked.known, asked.unreadable].map(|photos| counted(photos as u64, "photo"));
        notices.push(format!("The teacher, {title}, was asked about {looked_at}; its answers to {known} were kept"));
        if asked.unreadable > 0 {
            notices.push(format!("The teacher could not read {unreadable}: only their labels are learned"));
        }
        Ok(Some(teacher))
    }
}
