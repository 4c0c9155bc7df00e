//! The runs in a folder: what each was begun with, how far it came, and how it went.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::curves::Curves;
use crate::format;
use crate::train::{RunError, RunFolder, RunRecord, TrainConfig, read_metrics, read_record};
use crate::worker::{BoxError, JobContext};

/// A run as its folder tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    pub folder: PathBuf,
    /// When it was begun, where the file system knows.
    pub begun: Option<SystemTime>,
    pub record: RunRecord,
    pub curves: Curves,
    /// Its best weights, once there are any.
    pub best: Option<PathBuf>,
}

impl RunSummary {
    pub fn name(&self) -> String {
        name(&self.folder)
    }

    /// True when every epoch was trained.
    pub fn is_complete(&self) -> bool {
        self.curves.epochs.len() >= self.record.config.epochs
    }
}

/// What a person calls the run of a folder.
pub fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned()
}

/// The runs of a folder, and those that cannot be read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunList {
    /// The newest first.
    pub runs: Vec<RunSummary>,
    /// A sentence each.
    pub broken: Vec<String>,
}

/// Reads every run in `root`; a folder that does not exist holds none.
pub fn list(root: &Path, ctx: &JobContext) -> Result<RunList, BoxError> {
    let mut list = RunList::default();
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(list),
        Err(error) => return Err(format!("failed to read the folder of runs {}: {error}", root.display()).into()),
    };
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    for folder in folders {
        ctx.check()?;
        match read(&folder) {
            Ok(run) => list.runs.push(run),
            // A folder of something else.
            Err(RunError::NoRun(_)) => {}
            Err(error) => list.broken.push(format::error_chain(&error)),
        }
    }
    list.runs.sort_by(|a, b| b.begun.cmp(&a.begun).then_with(|| a.folder.cmp(&b.folder)));
    Ok(list)
}

fn read(folder: &Path) -> Result<RunSummary, RunError> {
    let record = read_record(folder)?;
    let curves = Curves::of(&read_metrics(folder)?);
    let begun = RunFolder::begun(folder);
    let best = Some(best_of(folder)).filter(|best| best.exists());
    Ok(RunSummary { folder: folder.to_owned(), begun, record, curves, best })
}

/// Where the best weights of a run are, once there are any.
pub fn best_of(folder: &Path) -> PathBuf {
    RunFolder::best_of(folder)
}

/// Where the report of a run is, once it has ended.
pub fn report_of(folder: &Path) -> PathBuf {
    folder.join("report.html")
}

/// A folder in `root` for a new run, named after its photos and the next free number.
pub fn free_folder(root: &Path, config: &TrainConfig) -> PathBuf {
    let data = &config.data;
    // Every set has its training part: what tells it from others is the folder around.
    let is_part = data.file_name().is_some_and(|name| ["train", "training"].iter().any(|part| name == *part));
    let whole = data.parent().filter(|parent| is_part && parent.file_name().is_some()).unwrap_or(data);
    let stem = if data.is_dir() { whole.file_name() } else { whole.file_stem() };
    let stem = stem.unwrap_or("run".as_ref()).to_string_lossy().into_owned();
    let folders = (1_u64..).map(|number| root.join(format!("{stem}-{number}")));
    folders.into_iter().find(|folder| !folder.exists()).expect("there are endless numbers")
}

/// Where runs go that are begun in the window: `GALLEY_RUNS`, or a folder among the program's data.
pub fn default_root() -> PathBuf {
    let in_data_folder = || Some(directories::ProjectDirs::from("", "", "Galley")?.data_dir().join("runs"));
    let named = std::env::var_os("GALLEY_RUNS").filter(|name| !name.is_empty()).map(PathBuf::from);
    named.or_else(in_data_folder).unwrap_or_else(|| "galley-runs".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{Record, StepRecord};

    fn begin(folder: &Path, loss: f64) {
        let classes = vec!["a".to_owned(), "b".to_owned()];
        let record = RunRecord {
            teacher: None,
            config: TrainConfig::default(),
            classes,
            photos: 1,
            left_out: Vec::new(),
            galley: String::new(),
        };
        let mut run = RunFolder::create(folder, &record).unwrap();
        let step = StepRecord { step: 0, epoch: 0, loss, accuracy: 0.0, lr: 0.1, gradient_norm: 1.0 };
        run.write(&Record::Step(step)).unwrap();
    }

    #[test]
    fn runs_are_listed_with_their_curves_and_a_broken_one_hides_no_other() {
        let root = tempfile::tempdir().unwrap();
        begin(&root.path().join("food-1"), 2.0);
        begin(&root.path().join("food-2"), 3.0);
        std::fs::write(root.path().join("food-2/metrics.jsonl"), "nonsense\n{}\n").unwrap();
        std::fs::create_dir(root.path().join("something else")).unwrap();
        let list = list(root.path(), &JobContext::detached()).unwrap();
        let names: Vec<String> = list.runs.iter().map(RunSummary::name).collect();
        assert_eq!(names, ["food-1"]);
        assert_eq!(list.runs[0].curves.loss.points(), [[0.0, 2.0]]);
        assert!(!list.runs[0].is_complete() && list.runs[0].best.is_none());
        assert_eq!(list.broken.len(), 1, "{:?}", list.broken);
        assert!(list.broken[0].contains("line 1"), "{:?}", list.broken);
    }

    #[test]
    fn a_new_run_takes_no_folder_that_is_there() {
        let root = tempfile::tempdir().unwrap();
        let photos = root.path().join("food.photos");
        std::fs::create_dir(&photos).unwrap();
        let config = TrainConfig { data: photos, ..TrainConfig::default() };
        assert_eq!(free_folder(root.path(), &config), root.path().join("food.photos-1"));
        std::fs::create_dir(root.path().join("food.photos-1")).unwrap();
        assert_eq!(free_folder(root.path(), &config), root.path().join("food.photos-2"));
        std::fs::create_dir_all(root.path().join("dishes/train")).unwrap();
        let config = TrainConfig { data: root.path().join("dishes/train"), ..config };
        assert_eq!(free_folder(root.path(), &config), root.path().join("dishes-1"));
        let config = TrainConfig { data: "meals.csv".into(), ..config };
        assert_eq!(free_folder(root.path(), &config), root.path().join("meals-1"));
    }

    #[test]
    fn no_folder_of_runs_is_no_runs() {
        let root = tempfile::tempdir().unwrap();
        let missing = root.path().join("missing");
        assert_eq!(list(&missing, &JobContext::detached()).unwrap(), RunList::default());
    }
}
