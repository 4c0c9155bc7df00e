//! File dialogs. Each is asked for on the window's thread, waited for on another, and ends in an action.

use std::future::Future;
use std::path::PathBuf;

use rfd::{AsyncFileDialog, FileHandle};

use super::settings_actions::SettingsAction;
use super::{Action, CompressAction, EvaluateAction, TrainAction};
use crate::export::ExportTarget;
use crate::predict::ModelSource;
use crate::settings::MemorySetting;

/// What a person is asked to choose.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    Checkpoint,
    Folders,
    Photos,
    Labels(ModelSource),
    Export(ExportKind),
    /// A folder of class folders.
    TrainPhotos,
    /// A table of paths and labels.
    TrainTable,
    ValidationPhotos,
    /// The checkpoint to begin from.
    TrainModel,
    /// The checkpoint to learn from.
    Teacher,
    /// A folder of class folders to evaluate on.
    EvaluatePhotos,
    EvaluateTable,
    /// Photos to compare a smaller model on.
    ComparisonPhotos,
    /// Photos that a pruned network learns from.
    RepairPhotos,
    /// Where an evaluation is written as a page.
    Report,
    /// The checkpoint to use when the chosen one does not fit.
    LightModel,
    ModelsFolder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportKind {
    Csv,
    JsonLines,
    SortedFolders,
}

impl ExportKind {
    pub const ALL: [Self; 3] = [Self::Csv, Self::JsonLines, Self::SortedFolders];

    pub fn label(self) -> &'static str {
        match self {
            Self::Csv => "CSV table…",
            Self::JsonLines => "JSON lines…",
            Self::SortedFolders => "Copies sorted into class folders…",
        }
    }
}

const TABLES: [&str; 4] = ["csv", "tsv", "jsonl", "ndjson"];
const CHECKPOINTS: [&str; 8] = ["safetensors", "pth", "pt", "th", "ckpt", "bin", "gguf", "tar"];

/// Extensions of photos, as some systems tell them apart by case.
fn photos() -> Vec<String> {
    let extensions = crate::images::EXTENSIONS.iter();
    extensions.flat_map(|extension| [(*extension).to_owned(), extension.to_uppercase()]).collect()
}

/// Opens the dialog, as a sheet of a window if one is given; the future ends with what was chosen, or `None` when nothing was.
pub fn open(ask: Ask, parent: Option<&winit::window::Window>) -> impl Future<Output = Option<Action>> + Send + use<> {
    // The dialogs are made here, on the calling thread: macOS wants them on the window's.
    let dialog = AsyncFileDialog::new();
    let dialog = if let Some(parent) = parent { dialog.set_parent(parent) } else { dialog };
    let chosen: Chosen = match &ask {
        Ask::Checkpoint | Ask::TrainModel | Ask::Teacher | Ask::LightModel => {
            let dialog = dialog.set_title("Open checkpoint");
            // A Mac's panel takes names of types alone, and a checkpoint may be called anything.
            one(if cfg!(target_os = "macos") {
                dialog.pick_file()
            } else {
                dialog.add_filter("Checkpoints", &CHECKPOINTS).add_filter("All files", &["*"]).pick_file()
            })
        }
        Ask::TrainPhotos | Ask::EvaluatePhotos => {
            one(dialog.set_title("Choose a folder that holds a folder per class").pick_folder())
        }
        Ask::RepairPhotos => one(dialog.set_title("Choose a folder that holds a folder per class").pick_folder()),
        Ask::ComparisonPhotos => one(dialog.set_title("Choose a folder of photos to compare on").pick_folder()),
        Ask::ValidationPhotos => one(dialog.set_title("Choose a folder of validation photos").pick_folder()),
        Ask::TrainTable | Ask::EvaluateTable => {
            one(dialog.set_title("Choose a table of paths and labels").add_filter("Tables", &TABLES).pick_file())
        }
        Ask::ModelsFolder => one(dialog.set_title("Choose where checkpoints are kept").pick_folder()),
        Ask::Folders => many(dialog.set_title("Choose folders of photos").pick_folders()),
        Ask::Photos => many(dialog.set_title("Choose photos").add_filter("Photos", &photos()).pick_files()),
        Ask::Labels(_) => {
            one(dialog.set_title("Choose a file of labels").add_filter("Labels", &["txt", "json", "csv"]).pick_file())
        }
        Ask::Report => one(dialog.set_title("Save report").set_file_name("evaluation.html").save_file()),
        Ask::Export(ExportKind::Csv) => {
            one(dialog.set_title("Export as CSV").set_file_name("predictions.csv").save_file())
        }
        Ask::Export(ExportKind::JsonLines) => {
            one(dialog.set_title("Export as JSON lines").set_file_name("predictions.jsonl").save_file())
        }
        Ask::Export(ExportKind::SortedFolders) => {
            one(dialog.set_title("Choose where the class folders go").pick_folder())
        }
    };
    async move { action(ask, chosen.await.into_iter().map(|file| file.path().to_owned()).collect()) }
}

type Chosen = std::pin::Pin<Box<dyn Future<Output = Vec<FileHandle>> + Send>>;

fn one(file: impl Future<Output = Option<FileHandle>> + Send + 'static) -> Chosen {
    Box::pin(async { file.await.into_iter().collect() })
}

fn many(files: impl Future<Output = Option<Vec<FileHandle>>> + Send + 'static) -> Chosen {
    Box::pin(async { files.await.unwrap_or_default() })
}

/// What follows from the chosen paths.
pub fn action(ask: Ask, paths: Vec<PathBuf>) -> Option<Action> {
    let first = paths.first().cloned()?;
    Some(match ask {
        Ask::Checkpoint => Action::OpenCheckpoint(first),
        Ask::TrainPhotos | Ask::TrainTable => Action::Train(TrainAction::SetPhotos(first)),
        Ask::ValidationPhotos => Action::Train(TrainAction::SetValidation(Some(first))),
        Ask::TrainModel => Action::Train(TrainAction::OpenModel(first)),
        Ask::Teacher => Action::Train(TrainAction::OpenTeacher(first)),
        Ask::EvaluatePhotos | Ask::EvaluateTable => Action::Evaluate(EvaluateAction::SetPhotos(first)),
        Ask::RepairPhotos => Action::Compress(CompressAction::SetRepairPhotos(Some(first))),
        Ask::ComparisonPhotos => Action::Compress(CompressAction::SetPhotos(Some(first))),
        Ask::Report => Action::Evaluate(EvaluateAction::SaveReport(first)),
        Ask::LightModel => {
            let path = first.to_string_lossy().into_owned();
            Action::Settings(SettingsAction::Memory(MemorySetting::LightModel, path))
        }
        Ask::ModelsFolder => Action::Settings(SettingsAction::ModelsFolder(Some(first))),
        Ask::Folders | Ask::Photos => Action::AddInputs(paths),
        Ask::Labels(model) => Action::SetLabels(model, Some(first)),
        Ask::Export(ExportKind::Csv) => Action::Export(ExportTarget::Csv(first)),
        Ask::Export(ExportKind::JsonLines) => Action::Export(ExportTarget::JsonLines(first)),
        Ask::Export(ExportKind::SortedFolders) => Action::Export(ExportTarget::SortedFolders(first)),
    })
}
