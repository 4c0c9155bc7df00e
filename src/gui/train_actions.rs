//! What the Train page asks for, and what is then done: one call per action.

use std::path::PathBuf;

use egui::Context;

use super::actions::Action;
use super::{App, Page};
use crate::jobs::brought::Brought;
use crate::jobs::runs::{self, RunList};
use crate::predict::ModelSource;
use crate::train::{Distill, TrainConfig};

/// Something about training that is wanted done.
#[derive(Debug)]
pub enum TrainAction {
    SetPhotos(PathBuf),
    SetValidation(Option<PathBuf>),
    LookAgain,
    SetModel(ModelSource),
    /// Puts a checkpoint into the library and begins from it.
    OpenModel(PathBuf),
    /// Whose answers are learned too; none is the labels alone.
    SetTeacher(Option<ModelSource>),
    /// Puts a checkpoint into the library and learns from it.
    OpenTeacher(PathBuf),
    SetBatchSize(usize),
    /// The settings of a run that was; photos and checkpoint come along.
    TakeSettings(Box<TrainConfig>),
    /// Finds a folder for a new run.
    Start,
    Begin(PathBuf),
    Resume(PathBuf),
    /// Runs what was refused because it is predicted not to fit.
    RunAnyway,
    SetPaused(bool),
    Stop,
    StartSweep,
    StopSweep,
    FindRate,
    StopFindRate,
    ReadRuns,
    RunsRead(RunList),
    /// Makes the best weights of a run the model that classifies.
    UseBest(PathBuf),
    ShowFolder(PathBuf),
}

impl App {
    pub(super) fn apply_to_training(&mut self, ctx: &Context, action: TrainAction) {
        match action {
            TrainAction::SetPhotos(path) => self.set_photos(path, None),
            TrainAction::SetValidation(path) => self.train.config.val = path,
            TrainAction::LookAgain => self.train.look_again(),
            TrainAction::SetModel(source) => self.set_model_to_train(source),
            TrainAction::OpenModel(path) => self.open_model_to_train(ctx, path),
            TrainAction::SetTeacher(source) => self.set_teacher(source),
            TrainAction::OpenTeacher(path) => self.open_teacher(ctx, path),
            TrainAction::SetBatchSize(size) => self.train.config.batch_size = size,
            TrainAction::TakeSettings(config) => self.take_settings(ctx, *config),
            TrainAction::Start => self.start_training(ctx),
            TrainAction::Begin(folder) => self.train.begin(folder, self.places.jobs.clone(), ctx),
            TrainAction::Resume(folder) => self.train.resume(folder, self.places.jobs.clone(), ctx),
            TrainAction::RunAnyway => self.train.run_anyway(self.places.jobs.clone(), ctx),
            TrainAction::SetPaused(paused) => self.train.set_paused(paused),
            TrainAction::Stop => self.train.stop(),
            TrainAction::StartSweep => self.train.start_sweep(self.places.jobs.clone(), ctx),
            TrainAction::StopSweep => self.train.stop_sweep(),
            TrainAction::FindRate => self.train.find_rate(self.places.jobs.clone(), ctx),
            TrainAction::StopFindRate => self.train.stop_find_rate(),
            TrainAction::ReadRuns => self.read_runs(ctx),
            TrainAction::RunsRead(list) => self.train.set_runs(list),
            TrainAction::UseBest(folder) => self.use_best(ctx, &folder),
            TrainAction::ShowFolder(folder) => self.open_elsewhere(ctx, folder),
        }
    }

    fn set_photos(&mut self, data: PathBuf, val: Option<PathBuf>) {
        self.page = Page::Train;
        self.train.set_photos(data, val);
    }

    fn set_model_to_train(&mut self, source: ModelSource) {
        self.train.config.model = match source {
            ModelSource::Starter => None,
            ModelSource::File(path) => Some(path),
        };
    }

    fn open_model_to_train(&mut self, ctx: &Context, path: PathBuf) {
        self.open_checkpoint(ctx, &path);
        self.page = Page::Train;
        self.train.config.model = Some(path);
    }

    fn set_teacher(&mut self, source: Option<ModelSource>) {
        let before = self.train.config.distill.take();
        self.train.config.distill = source.map(|source| {
            let teacher = match source {
                ModelSource::Starter => None,
                ModelSource::File(path) => Some(path),
            };
            Distill { teacher, ..before.unwrap_or_default() }
        });
    }

    fn open_teacher(&mut self, ctx: &Context, path: PathBuf) {
        self.open_checkpoint(ctx, &path);
        self.page = Page::Train;
        self.set_teacher(Some(ModelSource::File(path)));
    }

    fn take_settings(&mut self, ctx: &Context, config: TrainConfig) {
        if let Some(path) = &config.model {
            self.open_checkpoint(ctx, path);
            self.page = Page::Train;
        }
        self.train.config = config;
        self.train.look_again();
    }

    /// Looks for a free name on another thread; the run begins there when it is found.
    fn start_training(&mut self, ctx: &Context) {
        if let Some(obstacle) = self.train.obstacle() {
            return self.toasts.error(obstacle);
        }
        self.train.prepare();
        let (root, config) = (self.places.runs.clone(), self.train.config.clone());
        self.spawn(ctx, "new run", move |_| {
            Ok(Some(Action::Train(TrainAction::Begin(runs::free_folder(&root, &config)))))
        });
    }

    pub(super) fn read_runs(&mut self, ctx: &Context) {
        let root = self.places.runs.clone();
        self.spawn(ctx, "read runs", move |job| {
            Ok(Some(Action::Train(TrainAction::RunsRead(runs::list(&root, job)?))))
        });
    }

    fn use_best(&mut self, ctx: &Context, folder: &std::path::Path) {
        let best = runs::best_of(folder);
        self.open_checkpoint(ctx, &best);
        self.library.use_model(&ModelSource::File(best));
        self.toasts.done(format!("{} is now the model that classifies", self.library.used().name()));
        self.page = Page::Classify;
    }

    /// What was dropped onto the Train page: photos to train on, or a checkpoint to begin from.
    pub(super) fn open_to_train(&mut self, ctx: &Context, brought: &Brought) {
        if let Some(path) = brought.checkpoints.first() {
            self.open_model_to_train(ctx, path.clone());
        }
        match Dropped::of(brought) {
            Dropped::Photos { data, val } => self.set_photos(data, val),
            Dropped::Nothing if brought.checkpoints.is_empty() => self.toasts.error(
                "To train, drop one folder that holds a subfolder of photos for each class, or a .csv or .jsonl table",
            ),
            Dropped::Nothing => {}
        }
    }
}

/// What there is to train on among what was brought.
#[derive(Debug, PartialEq)]
pub enum Dropped {
    Photos {
        data: PathBuf,
        /// The second of two, when it is called so.
        val: Option<PathBuf>,
    },
    Nothing,
}

impl Dropped {
    pub fn of(brought: &Brought) -> Self {
        let tables = brought.unknown.iter().filter(|path| is_table(path));
        let all: Vec<&PathBuf> = brought.folders.iter().chain(tables).collect();
        match all.as_slice() {
            [data] => Self::Photos { data: (*data).clone(), val: None },
            [one, other] if is_validation(other) => Self::Photos { data: (*one).clone(), val: Some((*other).clone()) },
            [one, other] if is_validation(one) => Self::Photos { data: (*other).clone(), val: Some((*one).clone()) },
            _ => Self::Nothing,
        }
    }
}

fn is_table(path: &std::path::Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["csv", "tsv", "jsonl", "ndjson"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

fn is_validation(path: &std::path::Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    ["val", "valid", "validation", "test"].iter().any(|known| stem.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_of_two_folders_is_understood_when_one_is_for_validation() {
        let brought = |folders: &[&str], unknown: &[&str]| Brought {
            folders: folders.iter().map(PathBuf::from).collect(),
            unknown: unknown.iter().map(PathBuf::from).collect(),
            ..Brought::default()
        };
        let photos = |data: &str, val: Option<&str>| Dropped::Photos { data: data.into(), val: val.map(PathBuf::from) };
        assert_eq!(Dropped::of(&brought(&["food"], &[])), photos("food", None));
        assert_eq!(Dropped::of(&brought(&["x/val", "x/train"], &[])), photos("x/train", Some("x/val")));
        assert_eq!(Dropped::of(&brought(&[], &["meals.CSV", "notes.txt"])), photos("meals.CSV", None));
        assert_eq!(Dropped::of(&brought(&["pizza", "soup"], &[])), Dropped::Nothing);
        assert_eq!(Dropped::of(&brought(&[], &["notes.txt"])), Dropped::Nothing);
    }
}
