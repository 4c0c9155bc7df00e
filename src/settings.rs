//! Preferences: always valid after reading, with a warning for each thing that was not.

mod memory;

use std::io::{ErrorKind, Write as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::save_atomically;
use crate::device::DeviceChoice;
use crate::train::TrainConfig;

pub use memory::{MemorySetting, MemorySettings, SERVER_LARGEST_MODEL};

/// How many models and folders are remembered.
const RECENT: usize = 12;

/// Light or dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Look {
    #[default]
    System,
    Light,
    Dark,
}

/// What a person prefers. Each field is read on its own: a broken one falls back to its default.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    /// Checkpoints shown on the Models page, newest first.
    pub recent_models: Vec<PathBuf>,
    /// Folders classified before, newest first.
    pub recent_folders: Vec<PathBuf>,
    /// Most memory the thumbnail grid may keep, in MB (10⁶ bytes), 8 to 4,096.
    pub thumbnail_megabytes: u64,
    /// Classes kept per photo, 1 to 1,000.
    pub top_k: usize,
    /// Photos per forward pass, 1 to 1,024.
    pub batch_size: usize,
    /// Where photos are classified and models judged.
    pub device: DeviceChoice,
    pub look: Look,
    /// Where checkpoints are kept that Galley brings; `None`: see [`Self::models_folder`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models_folder: Option<PathBuf>,
    pub memory: MemorySettings,
    /// How the next run trains, but for its photos.
    pub train: TrainConfig,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            recent_models: Vec::new(),
            recent_folders: Vec::new(),
            thumbnail_megabytes: 64,
            top_k: 5,
            batch_size: 8,
            device: DeviceChoice::Auto,
            look: Look::System,
            models_folder: None,
            memory: MemorySettings::default(),
            train: TrainConfig::default(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("this system names no folder for settings; set GALLEY_SETTINGS to a file")]
    NoFolder,
    /// A variable of the environment.
    #[error("{name} cannot be used: {reason}")]
    Variable { name: &'static str, reason: String },
    #[error("failed to save the settings {}", .path.display())]
    Save { path: PathBuf, source: std::io::Error },
}

/// The settings' place: `GALLEY_SETTINGS`, or `settings.toml` in the user's configuration folder.
pub fn default_path() -> Result<PathBuf, SettingsError> {
    if let Some(path) = std::env::var_os("GALLEY_SETTINGS").filter(|name| !name.is_empty()) {
        return Ok(path.into());
    }
    let folders = directories::ProjectDirs::from("", "", "Galley").ok_or(SettingsError::NoFolder)?;
    Ok(folders.config_dir().join("settings.toml"))
}

impl Settings {
    /// Reads settings, and a sentence for each thing that could not be used. A missing file is no warning.
    pub fn load(path: &Path) -> (Self, Vec<String>) {
        let mut settings = Self::default();
        let mut warnings = Vec::new();
        match std::fs::read_to_string(path).map(|text| text.parse::<toml::Table>()) {
            Ok(Ok(table)) => settings.take(&table, &mut warnings),
            Ok(Err(error)) => {
                warnings.push(format!("The settings {} are not TOML: {}", path.display(), error.message()));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => warnings.push(format!("The settings {} could not be read: {error}", path.display())),
        }
        (settings, warnings)
    }

    fn take(&mut self, table: &toml::Table, warnings: &mut Vec<String>) {
        for (key, value) in table {
            match (key.as_str(), value.as_table()) {
                ("train", Some(fields)) => {
                    self.take_training(fields, warnings);
                    continue;
                }
                ("memory", Some(fields)) => {
                    self.memory.take(fields, warnings);
                    continue;
                }
                _ => {}
            }
            let taken = match key.as_str() {
                "recent_models" => take(&mut self.recent_models, value, |list| list.len() <= RECENT),
                "recent_folders" => take(&mut self.recent_folders, value, |list| list.len() <= RECENT),
                "thumbnail_megabytes" => take_within(&mut self.thumbnail_megabytes, value, 8..=4096),
                "top_k" => take_within(&mut self.top_k, value, 1..=1000),
                "batch_size" => take_within(&mut self.batch_size, value, 1..=1024),
                "device" => take(&mut self.device, value, |_| true),
                "look" => take(&mut self.look, value, |_| true),
                "models_folder" => take(&mut self.models_folder, value, Option::is_some),
                _ => false,
            };
            if !taken {
                warnings.push(format!("The setting {key} was not used: {value}"));
            }
        }
    }

    /// Each field by itself, as the others.
    fn take_training(&mut self, fields: &toml::Table, warnings: &mut Vec<String>) {
        for (key, value) in fields {
            let with = |mut table: toml::Table| -> Option<TrainConfig> {
                table.insert(key.clone(), value.clone());
                table.try_into().ok().filter(|config: &TrainConfig| config.check().is_ok())
            };
            match toml::Table::try_from(&self.train).ok().and_then(with) {
                Some(config) => self.train = config,
                None => warnings.push(format!("The setting train.{key} was not used: {value}")),
            }
        }
    }

    /// The settings of memory that hold now: the environment's before these. A variable that cannot be used is left out;
    /// [`MemorySettings::with_environment`] says why.
    pub fn memory_in_force(&self) -> MemorySettings {
        self.memory.with_environment().unwrap_or_else(|_| self.memory.clone())
    }

    /// The memory that Galley may take in all; `None`: what the system can give.
    pub fn memory_limit(&self) -> Option<u64> {
        self.memory_in_force().limit
    }

    /// Where checkpoints are kept that Galley brings: `GALLEY_MODELS`, the folder that was set, or one among the program's
    /// data.
    pub fn models_folder(&self) -> PathBuf {
        let named = std::env::var_os("GALLEY_MODELS").filter(|name| !name.is_empty()).map(PathBuf::from);
        let in_data = || Some(directories::ProjectDirs::from("", "", "Galley")?.data_dir().join("models"));
        named.or_else(|| self.models_folder.clone()).or_else(in_data).unwrap_or_else(|| "galley-models".into())
    }

    /// Writes to a temporary file beside `path`, then renames: a crash leaves the old settings or the new ones.
    pub fn save(&self, path: &Path) -> Result<(), SettingsError> {
        let text = toml::to_string(self).map_err(std::io::Error::other);
        let saved = text.and_then(|text| write(path, &text));
        saved.map_err(|source| SettingsError::Save { path: path.to_owned(), source })
    }

    /// Puts a model first among the recent ones.
    pub fn remember_model(&mut self, path: &Path) {
        remember(&mut self.recent_models, path);
    }

    /// Keeps how to train, but for the photos. What cannot be written is left as it was.
    pub fn remember_training(&mut self, config: &TrainConfig) {
        let without_photos = TrainConfig { data: PathBuf::new(), val: None, anyway: false, ..config.clone() };
        // TOML has neither paths that are no UTF-8 nor whole numbers above 2⁶³.
        if without_photos != self.train && toml::Table::try_from(&without_photos).is_ok() {
            self.train = without_photos;
        }
    }

    /// Puts a folder first among the recent ones.
    pub fn remember_folder(&mut self, path: &Path) {
        remember(&mut self.recent_folders, path);
    }
}

fn take<'a, T: Deserialize<'a>>(field: &mut T, value: &toml::Value, valid: impl Fn(&T) -> bool) -> bool {
    let read = value.clone().try_into().ok().filter(valid);
    let taken = read.is_some();
    if let Some(read) = read {
        *field = read;
    }
    taken
}

fn take_within<'a, T>(field: &mut T, value: &toml::Value, range: RangeInclusive<T>) -> bool
where
    T: Deserialize<'a> + PartialOrd,
{
    take(field, value, |number| range.contains(number))
}

fn remember(list: &mut Vec<PathBuf>, path: &Path) {
    // TOML is UTF-8: a path that is not could not be saved, and would take all other settings with it.
    if path.to_str().is_none() {
        return;
    }
    list.retain(|known| known != path);
    list.insert(0, path.to_owned());
    list.truncate(RECENT);
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    save_atomically(path, |file| file.write_all(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Unfreeze;

    #[test]
    fn saved_settings_read_back_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/settings.toml");
        let mut settings = Settings { top_k: 3, ..Settings::default() };
        for i in 0..20 {
            settings.remember_model(Path::new(&format!("/models/{i}.pth")));
        }
        settings.remember_model(Path::new("/models/15.pth"));
        assert_eq!(settings.recent_models[..2], [PathBuf::from("/models/15.pth"), "/models/19.pth".into()]);
        assert_eq!(settings.recent_models.len(), RECENT);
        settings.save(&path).unwrap();
        assert_eq!(Settings::load(&path), (settings, vec![]));
    }

    #[test]
    fn what_is_wrong_falls_back_alone_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.toml");
        std::fs::write(&path, "top_k = 0\nbatch_size = 32\nthumbnail_megabytes = \"big\"\ncolor = 1\n").unwrap();
        let (settings, warnings) = Settings::load(&path);
        assert_eq!(settings, Settings { batch_size: 32, ..Settings::default() });
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        for key in ["top_k", "thumbnail_megabytes", "color"] {
            assert!(warnings.iter().any(|warning| warning.contains(key)), "{key} in {warnings:?}");
        }
    }

    #[test]
    fn settings_of_training_read_back_the_same_and_wrong_ones_fall_back_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.toml");
        let mut settings = Settings::default();
        let config = TrainConfig {
            data: "/photos".into(),
            model: Some("/models/a.pth".into()),
            batch_size: 48,
            micro_batch: Some(12),
            unfreeze: Unfreeze::Last(3),
            lr: 0.1 + 0.2,
            ema: Some(0.99),
            ..TrainConfig::default()
        };
        settings.remember_training(&config);
        settings.remember_training(&TrainConfig { seed: u64::MAX, ..config.clone() });
        settings.save(&path).unwrap();
        let expected = TrainConfig { data: PathBuf::new(), ..config };
        assert_eq!(Settings::load(&path), (Settings { train: expected, ..Settings::default() }, vec![]));

        let text = "[train]\nbatch-size = 999\nepochs = 3\nlr = \"fast\"\ncolor = 1\n[train.augment]\nflip = 7.0\n";
        std::fs::write(&path, text).unwrap();
        let (settings, warnings) = Settings::load(&path);
        assert_eq!(settings.train, TrainConfig { epochs: 3, ..TrainConfig::default() });
        assert_eq!(warnings.len(), 4, "{warnings:?}");
    }

    #[test]
    fn memory_device_and_look_read_back_the_same_and_wrong_ones_fall_back_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.toml");
        let mut settings = Settings {
            device: DeviceChoice::Cpu,
            look: Look::Dark,
            models_folder: Some("/models".into()),
            ..Settings::default()
        };
        settings.memory.set(MemorySetting::Limit, "1.5GB").unwrap();
        settings.memory.set(MemorySetting::LoadTimeout, "never").unwrap();
        settings.save(&path).unwrap();
        assert_eq!(Settings::load(&path), (settings, vec![]));

        let text = "device = \"abacus\"\nlook = 3\n[memory]\nlimit = \"a lot\"\nshelf = 100000000\nidle-time = true\ncolor = 1\n";
        std::fs::write(&path, text).unwrap();
        let (settings, warnings) = Settings::load(&path);
        let memory = MemorySettings { shelf: Some(100_000_000), ..MemorySettings::default() };
        assert_eq!(settings, Settings { memory, ..Settings::default() });
        assert_eq!(warnings.len(), 5, "{warnings:?}");
        for key in ["device", "look", "memory.limit", "memory.idle-time", "memory.color"] {
            assert!(warnings.iter().any(|warning| warning.contains(key)), "{key} in {warnings:?}");
        }
    }

    #[test]
    fn a_missing_file_is_silent_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.toml");
        assert_eq!(Settings::load(&path), (Settings::default(), vec![]));
        std::fs::write(&path, "top_k = = 3").unwrap();
        assert_eq!(Settings::load(&path).1.len(), 1);
    }
}
