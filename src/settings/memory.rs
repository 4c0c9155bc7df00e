//! What Galley may take: the memory limit, and what stays loaded. Each is read on its own, from the settings, from the
//! environment, which wins, or from what a person typed.

use std::path::PathBuf;
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::SettingsError;
use crate::format::{exact_bytes, exact_duration, parse_bytes, parse_duration};
use crate::memory::{self, Allowance, shelf::ShelfLimits};

/// The largest model of a process that serves others, when nothing else is said.
pub const SERVER_LARGEST_MODEL: u64 = 350_000_000;

/// No job runs in less.
const LEAST_LIMIT: u64 = 50_000_000;
/// No model is smaller.
const LEAST_MODEL: u64 = 1_000_000;

/// What can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemorySetting {
    Limit,
    Shelf,
    LargestModel,
    Idle,
    LoadTimeout,
    LightModel,
}

impl MemorySetting {
    pub const ALL: [Self; 6] =
        [Self::Limit, Self::Shelf, Self::LargestModel, Self::Idle, Self::LoadTimeout, Self::LightModel];

    /// Its name in the settings' table `memory`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Shelf => "shelf",
            Self::LargestModel => "largest-model",
            Self::Idle => "idle-time",
            Self::LoadTimeout => "load-timeout",
            Self::LightModel => "light-model",
        }
    }

    /// The variable of the environment that wins over the settings.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Limit => "GALLEY_MEMORY_LIMIT",
            Self::Shelf => "GALLEY_SHELF",
            Self::LargestModel => "GALLEY_LARGEST_MODEL",
            Self::Idle => "GALLEY_IDLE_TIME",
            Self::LoadTimeout => "GALLEY_LOAD_TIMEOUT",
            Self::LightModel => "GALLEY_LIGHT_MODEL",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemorySettings {
    /// Bytes that Galley may take in all; `None`: what the system can give.
    pub limit: Option<u64>,
    /// Bytes of the models that stay loaded; `None`: the limit, or half of what the system can give.
    pub shelf: Option<u64>,
    /// Bytes of the largest model that is loaded.
    pub largest_model: Option<u64>,
    /// A model that nobody has used for so long is unloaded; `None`: never.
    pub idle: Option<Duration>,
    /// How long a job waits for its model; `None`: as long as it takes.
    pub load_timeout: Option<Duration>,
    /// The checkpoint to use when the chosen one does not fit.
    pub light_model: Option<PathBuf>,
}

impl Default for MemorySettings {
    fn default() -> Self {
        Self {
            limit: None,
            shelf: None,
            largest_model: None,
            idle: Some(Duration::from_secs(3600)),
            load_timeout: Some(Duration::from_secs(300)),
            light_model: None,
        }
    }
}

impl MemorySettings {
    /// Takes what a person wrote; nothing sets the default. The error says what would be right.
    pub fn set(&mut self, setting: MemorySetting, text: &str) -> Result<(), String> {
        let text = text.trim();
        let default = Self::default();
        match setting {
            MemorySetting::Limit => self.limit = size(text, LEAST_LIMIT)?,
            MemorySetting::Shelf => self.shelf = size(text, LEAST_MODEL)?,
            MemorySetting::LargestModel => self.largest_model = size(text, LEAST_MODEL)?,
            MemorySetting::Idle => self.idle = time(text, default.idle, Duration::ZERO)?,
            MemorySetting::LoadTimeout => {
                self.load_timeout = time(text, default.load_timeout, Duration::from_millis(1))?;
            }
            MemorySetting::LightModel => self.light_model = (!text.is_empty()).then(|| text.into()),
        }
        Ok(())
    }

    /// What [`Self::set`] takes back; empty where nothing is set.
    pub fn text(&self, setting: MemorySetting) -> String {
        let size = |bytes: Option<u64>| bytes.map(exact_bytes).unwrap_or_default();
        let time = |time: Option<Duration>| time.map_or_else(|| "never".to_owned(), exact_duration);
        match setting {
            MemorySetting::Limit => size(self.limit),
            MemorySetting::Shelf => size(self.shelf),
            MemorySetting::LargestModel => size(self.largest_model),
            MemorySetting::Idle => time(self.idle),
            MemorySetting::LoadTimeout => time(self.load_timeout),
            MemorySetting::LightModel => {
                let path = self.light_model.as_ref().and_then(|path| path.to_str());
                path.unwrap_or_default().to_owned()
            }
        }
    }

    /// Reads the settings' table. A value that cannot be used is left out and named.
    pub(super) fn take(&mut self, table: &toml::Table, warnings: &mut Vec<String>) {
        for (key, value) in table {
            let setting = MemorySetting::ALL.into_iter().find(|setting| setting.key() == key);
            let text =
                value.as_str().map(str::to_owned).or_else(|| value.as_integer().map(|number| number.to_string()));
            let taken = match setting.zip(text) {
                Some((setting, text)) => self.set(setting, &text),
                None => Err("there is no such setting".to_owned()),
            };
            if let Err(reason) = taken {
                warnings.push(format!("The setting memory.{key} was not used: {reason}"));
            }
        }
    }

    /// The same with what the environment says instead. Fails for a variable that cannot be used.
    pub fn with_environment(&self) -> Result<Self, SettingsError> {
        self.with_variables(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn with_variables(&self, value: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<Self, SettingsError> {
        let mut settings = self.clone();
        for setting in MemorySetting::ALL {
            let Some(value) = value(setting.variable()) else { continue };
            let taken = match setting {
                MemorySetting::LightModel => {
                    settings.light_model = Some(value.into());
                    Ok(())
                }
                setting => settings.set(setting, &value.to_string_lossy()),
            };
            taken.map_err(|reason| SettingsError::Variable { name: setting.variable(), reason })?;
        }
        Ok(settings)
    }

    /// How much stays loaded, and for how long.
    pub fn shelf_limits(&self) -> ShelfLimits {
        let free_half = || Some(Allowance { limit: None }.budget(&memory::read(), None)?.bytes / 2);
        ShelfLimits {
            capacity: self.shelf.or(self.limit).or_else(free_half),
            largest: self.largest_model,
            idle: self.idle,
            load_timeout: self.load_timeout,
        }
    }
}

impl Serialize for MemorySettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let texts = MemorySetting::ALL.map(|setting| (setting.key(), self.text(setting)));
        let mut map = serializer.serialize_map(None)?;
        for (key, text) in texts.iter().filter(|(_, text)| !text.is_empty()) {
            map.serialize_entry(key, text)?;
        }
        map.end()
    }
}

fn size(text: &str, least: u64) -> Result<Option<u64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match parse_bytes(text)? {
        bytes if bytes < least => Err(format!("this must be at least {}, not {text:?}", exact_bytes(least))),
        bytes => Ok(Some(bytes)),
    }
}

fn time(text: &str, default: Option<Duration>, least: Duration) -> Result<Option<Duration>, String> {
    match text {
        "" => Ok(default),
        "never" => Ok(None),
        text => match parse_duration(text).map_err(|reason| format!("{reason}; or never"))? {
            time if time < least => Err(format!("this must be longer than 0, or never, not {text:?}")),
            time => Ok(Some(time)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_reads_back_what_it_writes() {
        let mut settings = MemorySettings::default();
        let texts = ["2 GB", "1.5 GB", "350 MB", "0 s", "never", "/models/light.gguf"];
        for (setting, text) in MemorySetting::ALL.into_iter().zip(texts) {
            settings.set(setting, text).unwrap();
            assert_eq!(settings.text(setting), text);
        }
        assert_eq!(
            (settings.limit, settings.idle, settings.load_timeout),
            (Some(2_000_000_000), Some(Duration::ZERO), None)
        );
        for setting in MemorySetting::ALL {
            settings.set(setting, " ").unwrap();
        }
        assert_eq!(settings, MemorySettings::default());
    }

    #[test]
    fn a_value_that_cannot_be_used_changes_nothing_and_is_explained() {
        let mut settings = MemorySettings::default();
        let cases = [
            (MemorySetting::Limit, "49MB", "at least 50 MB"),
            (MemorySetting::Limit, "much", "such as 400MB"),
            (MemorySetting::Shelf, "0", "at least 1 MB"),
            (MemorySetting::LargestModel, "-1", "such as 400MB"),
            (MemorySetting::Idle, "always", "or never"),
            (MemorySetting::LoadTimeout, "0", "longer than 0"),
        ];
        for (setting, text, reason) in cases {
            let error = settings.set(setting, text).unwrap_err();
            assert!(error.contains(reason) && error.contains(text), "{error}");
        }
        assert_eq!(settings, MemorySettings::default());
    }

    #[test]
    fn the_environment_wins_and_a_bad_variable_is_named() {
        let saved = MemorySettings { limit: Some(1_000_000_000), ..MemorySettings::default() };
        let variables = |name: &str| match name {
            "GALLEY_MEMORY_LIMIT" => Some("400MB".into()),
            "GALLEY_LOAD_TIMEOUT" => Some("30".into()),
            "GALLEY_LIGHT_MODEL" => Some("light.gguf".into()),
            _ => None,
        };
        let with = saved.with_variables(variables).unwrap();
        let expected = MemorySettings {
            limit: Some(400_000_000),
            load_timeout: Some(Duration::from_secs(30)),
            light_model: Some("light.gguf".into()),
            ..saved.clone()
        };
        assert_eq!(with, expected);
        for setting in MemorySetting::ALL.into_iter().filter(|setting| *setting != MemorySetting::LightModel) {
            let bad = |name: &str| (name == setting.variable()).then(|| "much".into());
            let error = saved.with_variables(bad).unwrap_err().to_string();
            assert!(error.contains(setting.variable()) && error.contains("\"much\""), "{error}");
        }
    }

    #[test]
    fn models_that_stay_loaded_keep_within_the_limit() {
        let limited = MemorySettings { limit: Some(400_000_000), ..MemorySettings::default() };
        assert_eq!(limited.shelf_limits().capacity, Some(400_000_000));
        let both = MemorySettings { shelf: Some(100_000_000), ..limited };
        assert_eq!(both.shelf_limits().capacity, Some(100_000_000));
        assert!(MemorySettings::default().shelf_limits().capacity > Some(LEAST_LIMIT));
    }
}
