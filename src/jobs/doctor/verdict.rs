//! What a comparison on a device found, in a file, so that it runs once for each system, processor and program.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::checkpoint::save_atomically;
use crate::device::{self, Chosen};
use crate::ops::selfcheck::Check;

/// Operations that a device gets wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// By their kernel alone: composed of simpler ones they are right.
    pub composed: BTreeSet<String>,
    /// In every form.
    pub wrong: BTreeSet<String>,
}

impl Verdict {
    pub fn of(checks: &[Check]) -> Self {
        let mut verdict = Self::default();
        for check in checks.iter().filter(|check| check.composed_error.is_some()) {
            let right = check.composed_error.is_some_and(|error| error <= check.tolerance);
            let list = if right { &mut verdict.composed } else { &mut verdict.wrong };
            list.insert(check.op.to_owned());
        }
        verdict.composed.retain(|op| !verdict.wrong.contains(op));
        verdict
    }
}

/// What a verdict holds for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    /// The operating system's build, which names its drivers too.
    system: String,
    processor: String,
    program: String,
}

/// What is known of a device before a job uses it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Comparisons that have begun since the last one that ended.
    pub begun: u32,
    pub verdict: Option<Verdict>,
}

#[derive(Serialize, Deserialize)]
struct Content {
    key: Key,
    begun: u32,
    verdict: Option<Verdict>,
}

/// The file of one device.
pub struct VerdictFile {
    pub path: PathBuf,
    key: Key,
}

impl VerdictFile {
    pub fn new(folder: &Path, chosen: &Chosen) -> Self {
        let key =
            Key { system: device::system_build(), processor: device::processor(&chosen.device), program: program() };
        Self { path: folder.join(format!("{}.json", chosen.name.to_lowercase())), key }
    }

    /// Nothing is known when there is no file, or one that is damaged or of another system, processor or program.
    pub fn read(&self) -> Known {
        let content = std::fs::read(&self.path).ok().and_then(|bytes| serde_json::from_slice::<Content>(&bytes).ok());
        match content {
            Some(Content { key, begun, verdict }) if key == self.key => Known { begun, verdict },
            _ => Known::default(),
        }
    }

    pub fn write(&self, known: &Known) -> io::Result<()> {
        let Known { begun, verdict } = known.clone();
        let text = serde_json::to_vec(&Content { key: self.key.clone(), begun, verdict })?;
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        save_atomically(&self.path, |file| file.write_all(&text))
    }
}

/// Galley's version, and when this program was built, for between versions the kernels change too.
fn program() -> String {
    let built = || std::fs::metadata(std::env::current_exe().ok()?).ok()?.modified().ok();
    let seconds = built().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |age| age.as_secs());
    format!("{} {seconds}", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceChoice;

    fn check(op: &'static str, worst_error: f32, composed_error: Option<f32>) -> Check {
        Check { op, pass: "forward", worst_error, composed_error, tolerance: 1e-4, ok: worst_error <= 1e-4 }
    }

    fn file(folder: &Path) -> VerdictFile {
        VerdictFile::new(folder, &device::choose(DeviceChoice::Cpu).unwrap())
    }

    fn failing() -> Verdict {
        Verdict::of(&[check("conv", 2.0, Some(1e-6)), check("softmax", 2.0, Some(f32::INFINITY))])
    }

    #[test]
    fn an_operation_is_composed_when_that_form_is_right_in_both_passes() {
        let checks = [
            check("add", 1e-6, None),
            check("conv", f32::INFINITY, Some(1e-6)),
            check("conv", 1e-6, Some(2e-6)),
            check("linear", 1.0, Some(1e-6)),
            check("linear", 1e-6, Some(1.0)),
        ];
        let verdict = Verdict::of(&checks);
        assert_eq!(verdict.composed.into_iter().collect::<Vec<_>>(), ["conv"]);
        assert_eq!(verdict.wrong.into_iter().collect::<Vec<_>>(), ["linear"]);
        assert_eq!(Verdict::of(&checks[..1]), Verdict::default());
    }

    #[test]
    fn what_was_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder.path().join("new"));
        assert_eq!(file.read(), Known::default());
        let known = Known { begun: 1, verdict: Some(failing()) };
        file.write(&known).unwrap();
        assert_eq!(file.read(), known);
    }

    #[test]
    fn a_damaged_file_and_one_for_something_else_are_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = file(folder.path());
        file.write(&Known { begun: 0, verdict: Some(failing()) }).unwrap();
        let key = file.key.clone();
        let parts: [fn(&mut Key) -> &mut String; 3] =
            [|key| &mut key.system, |key| &mut key.processor, |key| &mut key.program];
        for part in parts {
            part(&mut file.key).push('0');
            assert_eq!(file.read(), Known::default());
            file.key = key.clone();
        }
        assert!(file.read().verdict.is_some());
        let whole = std::fs::read(&file.path).unwrap();
        std::fs::write(&file.path, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(file.read(), Known::default());
        std::fs::write(&file.path, b"\xff\x00").unwrap();
        assert_eq!(file.read(), Known::default());
    }
}
