//! Preferences: always valid after reading, with a warning for each thing that was not.

use std::io::{ErrorKind, Write as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::save_atomically;
use crate::train::TrainConfig;

/// How many models and folders are remembered.
const RECENT: usize = 12;

/// What a person prefers. Each field is read on its own: a broken one falls back to its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
            train: TrainConfig::default(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("this system names no folder for settings; set GALLEY_SETTINGS to a file")]
    NoFolder,
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
            if let ("train", Some(fields)) = (key.as_str(), value.as_table()) {
                self.take_training(fields, warnings);
                continue;
            }
            let taken = match key.as_str() {
                "recent_models" => take(&mut self.recent_models, value, |list| list.len() <= RECENT),
                "recent_folders" => take(&mut self.recent_folders, value, |list| list.len() <= RECENT),
                "thumbnail_megabytes" => take_within(&mut self.thumbnail_megabytes, value, 8..=4096),
                "top_k" => take_within(&mut self.top_k, value, 1..=1000),
                "batch_size" => take_within(&mut self.batch_size, value, 1..=1024),
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
    fn a_missing_file_is_silent_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.toml");
        assert_eq!(Settings::load(&path), (Settings::default(), vec![]));
        std::fs::write(&path, "top_k = = 3").unwrap();
        assert_eq!(Settings::load(&path).1.len(), 1);
    }
}
