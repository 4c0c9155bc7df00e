//! The models a person has opened: what is known of each, and how its input is to be made.

use std::path::{Path, PathBuf};

use crate::device::DeviceChoice;
use crate::jobs::classify::ClassifyConfig;
use crate::jobs::evaluate::EvaluateConfig;
use crate::jobs::inspect::Inspection;
use crate::predict::{ModelSource, Strictness, TransformOverrides};

/// What is known of a checkpoint.
#[derive(Debug, Clone, Default)]
pub enum Sheet {
    #[default]
    Unread,
    Reading,
    Read(Box<Inspection>),
    Failed(String),
}

#[derive(Debug, Clone)]
pub struct Model {
    pub source: ModelSource,
    pub sheet: Sheet,
    /// A file of labels chosen instead of the checkpoint's own.
    pub labels: Option<PathBuf>,
    pub transform: TransformOverrides,
    pub strictness: Strictness,
}

impl Model {
    fn new(source: ModelSource) -> Self {
        let sheet = Sheet::default();
        Self { source, sheet, labels: None, transform: TransformOverrides::default(), strictness: Strictness::Strict }
    }

    /// Where it lies; the starter lies in the program.
    pub fn path(&self) -> Option<&Path> {
        match &self.source {
            ModelSource::Starter => None,
            ModelSource::File(path) => Some(path),
        }
    }

    /// What a person calls it.
    pub fn name(&self) -> String {
        match &self.source {
            ModelSource::Starter => "Starter".to_owned(),
            ModelSource::File(path) => name_of(path),
        }
    }

    /// One line about it: the architecture once known, else its folder.
    pub fn subtitle(&self) -> String {
        match (&self.sheet, &self.source) {
            (Sheet::Failed(_), _) => "Cannot be used".to_owned(),
            (Sheet::Reading, _) => "Reading…".to_owned(),
            (_, ModelSource::Starter) => "Eight kinds of dishes, built in".to_owned(),
            (Sheet::Read(read), _) => read.title.clone().unwrap_or_else(|| "Unknown network".to_owned()),
            (Sheet::Unread, ModelSource::File(path)) => path.parent().unwrap_or(path).display().to_string(),
        }
    }

    pub fn inspection(&self) -> Option<&Inspection> {
        match &self.sheet {
            Sheet::Read(read) => Some(read),
            Sheet::Unread | Sheet::Reading | Sheet::Failed(_) => None,
        }
    }

    /// False once it is known that it cannot classify.
    pub fn is_usable(&self) -> bool {
        match &self.sheet {
            Sheet::Failed(_) => false,
            Sheet::Read(read) => read.architecture.is_some(),
            Sheet::Unread | Sheet::Reading => true,
        }
    }
}

/// The file's name; with its folder's where that is what tells it from others, as among runs.
fn name_of(path: &Path) -> String {
    let text = |name: &std::ffi::OsStr| name.to_string_lossy().into_owned();
    let name = text(path.file_name().unwrap_or(path.as_os_str()));
    let is_of_a_run = ["best.safetensors", "last.safetensors"].contains(&name.as_str());
    match path.parent().and_then(Path::file_name).filter(|_| is_of_a_run) {
        Some(folder) => format!("{}/{name}", text(folder)),
        None => name,
    }
}

/// The starter model first, then checkpoints, the newest first.
#[derive(Debug)]
pub struct Library {
    models: Vec<Model>,
    selected: ModelSource,
    used: ModelSource,
}

impl Library {
    pub fn new(recent: &[PathBuf]) -> Self {
        let sources = recent.iter().cloned().map(ModelSource::File);
        let models = std::iter::once(ModelSource::Starter).chain(sources).map(Model::new).collect();
        Self { models, selected: ModelSource::Starter, used: ModelSource::Starter }
    }

    pub fn models(&self) -> &[Model] {
        &self.models
    }

    pub fn get(&self, source: &ModelSource) -> Option<&Model> {
        self.models.iter().find(|model| model.source == *source)
    }

    pub fn get_mut(&mut self, source: &ModelSource) -> Option<&mut Model> {
        self.models.iter_mut().find(|model| model.source == *source)
    }

    pub fn selected(&self) -> &Model {
        self.find(&self.selected)
    }

    pub fn selected_mut(&mut self) -> &mut Model {
        let place = self.models.iter().position(|model| model.source == self.selected).unwrap_or(0);
        &mut self.models[place]
    }

    pub fn used(&self) -> &Model {
        self.find(&self.used)
    }

    pub fn is_used(&self, source: &ModelSource) -> bool {
        self.used == *source
    }

    /// Puts a checkpoint first after the starter and selects it. It is read again: the file may be another one by now.
    pub fn open(&mut self, path: &Path) {
        let source = ModelSource::File(path.to_owned());
        let known = self.models.iter().position(|model| model.source == source);
        let mut model = known.map_or_else(|| Model::new(source.clone()), |place| self.models.remove(place));
        model.sheet = Sheet::Unread;
        self.models.insert(1, model);
        self.select(&source);
    }

    pub fn select(&mut self, source: &ModelSource) {
        self.selected = source.clone();
        // A file that could not be read may have been mended since.
        let model = self.selected_mut();
        if matches!(model.sheet, Sheet::Failed(_)) {
            model.sheet = Sheet::Unread;
        }
    }

    pub fn use_model(&mut self, source: &ModelSource) {
        self.used = source.clone();
    }

    /// Takes a checkpoint off the list; the file stays.
    pub fn forget(&mut self, source: &ModelSource) {
        self.models.retain(|model| model.source == ModelSource::Starter || model.source != *source);
        for choice in [&mut self.selected, &mut self.used] {
            if choice == source {
                *choice = ModelSource::Starter;
            }
        }
    }

    /// Fills in the parts of a run that belong to the model in use.
    pub fn configure(&self, config: &mut ClassifyConfig) {
        let model = self.used();
        config.model = model.source.clone();
        config.labels = model.labels.clone();
        config.transform = model.transform;
        config.strictness = model.strictness;
    }

    /// How the model in use is judged on labelled photos.
    pub fn evaluation(&self, data: PathBuf, device: DeviceChoice) -> EvaluateConfig {
        const BATCH: usize = 8;
        let model = self.used();
        EvaluateConfig {
            model: model.source.clone(),
            labels: model.labels.clone(),
            data,
            batch_size: BATCH,
            device,
            transform: model.transform,
            ..EvaluateConfig::default()
        }
    }

    fn find(&self, source: &ModelSource) -> &Model {
        self.models.iter().find(|model| model.source == *source).unwrap_or(&self.models[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_of_a_run_is_called_after_it() {
        assert_eq!(name_of(Path::new("/runs/food-3/best.safetensors")), "food-3/best.safetensors");
        assert_eq!(name_of(Path::new("/models/resnet.pth")), "resnet.pth");
    }

    #[test]
    fn an_opened_checkpoint_comes_first_and_a_forgotten_one_falls_back_to_the_starter() {
        let mut library = Library::new(&["a.pth".into(), "b.pth".into()]);
        library.models[2].sheet = Sheet::Reading;
        library.open(Path::new("b.pth"));
        let names: Vec<_> = library.models().iter().map(Model::name).collect();
        assert_eq!(names, ["Starter", "b.pth", "a.pth"]);
        assert!(matches!(library.selected().sheet, Sheet::Unread));
        let source = library.selected().source.clone();
        library.use_model(&source);
        library.forget(&source);
        assert_eq!((library.selected().name(), library.used().name()), ("Starter".into(), "Starter".into()));
        library.forget(&ModelSource::Starter);
        assert_eq!(library.models().len(), 2);
    }
}
