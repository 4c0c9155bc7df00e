//! Compares every operation on a device, forward and backward, and some steps of training with the same computed slowly
//! and exactly; tells what machine this is; and keeps what jobs then do without.

mod prepare;
mod verdict;

use std::path::{Path, PathBuf};

use serde::Serialize;

use self::prepare::Examined;
use self::verdict::VerdictFile;
use crate::device::{self, DeviceChoice};
use crate::format::counted;
use crate::jobs::bench;
use crate::ops::selfcheck::Check;
use crate::worker::{BoxError, JobContext};

pub use prepare::{Prepared, prepare};

#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    pub version: &'static str,
    /// `linux x86_64`.
    pub system: String,
    pub device: &'static str,
    /// Why it is that device.
    pub reason: String,
    pub threads: usize,
    /// Vector instructions that kernels use where they help.
    pub cpu_features: Vec<&'static str>,
    pub findings: Vec<Finding>,
    /// The share of training's time that giving memory back takes at the usual intervals; none when that cannot be measured.
    pub flush_cost: Option<f64>,
    /// Operations that jobs on this device compute in a slower way from now on.
    pub composed: Vec<String>,
    /// Operations that are wrong in every way: `auto` is another device then.
    pub wrong: Vec<String>,
    /// The file that says so to jobs.
    pub kept_in: String,
    /// Why it does not.
    pub not_kept: Option<String>,
}

impl Diagnosis {
    /// In a sentence, for a person.
    pub fn summary(&self) -> String {
        let Self { device, findings, composed, wrong, .. } = self;
        let off = findings.iter().filter(|finding| !finding.ok).count();
        let largest = findings.iter().map(|finding| finding.worst_error).fold(0.0, f32::max);
        let compared =
            format!("{} of {device} with slow and exact forms", counted(findings.len() as u64, "comparison"));
        if off == 0 {
            return format!("{compared}: it computes rightly (largest error {largest:.1e})");
        }
        let mut said = format!("{compared}: {off} differ by more than is allowed");
        if !composed.is_empty() {
            said += &format!("; a slower form is used for {}", composed.join(", "));
        }
        if !wrong.is_empty() {
            said += &format!("; {} cannot be trusted on this device", wrong.join(", "));
        }
        said
    }
}

/// What came of one operation in one direction.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub op: &'static str,
    /// `forward` or `backward`.
    pub pass: &'static str,
    /// Infinite (in JSON null) when no number was computed.
    pub worst_error: f32,
    pub tolerance: f32,
    pub ok: bool,
}

impl From<Check> for Finding {
    fn from(Check { op, pass, worst_error, tolerance, ok, .. }: Check) -> Self {
        Self { op, pass, worst_error, tolerance, ok }
    }
}

/// Where verdicts are kept: `GALLEY_VERDICTS`, or the user's folder for what can be made again.
pub fn default_folder() -> PathBuf {
    let in_cache_folder = || Some(directories::ProjectDirs::from("", "", "Galley")?.cache_dir().join("verdicts"));
    let named = std::env::var_os("GALLEY_VERDICTS").filter(|name| !name.is_empty()).map(PathBuf::from);
    named.or_else(in_cache_folder).unwrap_or_else(|| "galley-verdicts".into())
}

/// Compares anew and keeps the verdict in `folder`. Fails only when there is no such device; operations that fail are
/// findings.
pub fn diagnose(choice: DeviceChoice, folder: &Path) -> Result<Diagnosis, BoxError> {
    let chosen = device::choose(choice)?;
    let file = VerdictFile::new(folder, &chosen);
    let ctx = JobContext::detached();
    let Examined { checks, verdict, not_kept } = prepare::examine_again(&chosen, &file, &ctx)?;
    let flush_cost = bench::flush_cost(&chosen, &ctx).ok();
    Ok(Diagnosis {
        version: env!("CARGO_PKG_VERSION"),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        device: chosen.name,
        reason: chosen.reason,
        threads: rayon::current_num_threads(),
        cpu_features: device::cpu_features(),
        findings: checks.into_iter().map(Finding::from).collect(),
        flush_cost,
        composed: verdict.composed.into_iter().collect(),
        wrong: verdict.wrong.into_iter().collect(),
        kept_in: file.path.display().to_string(),
        not_kept,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_what_was_compared_and_what_became_of_it() {
        let finding = |op, worst_error: f32| Finding {
            op,
            pass: "forward",
            worst_error,
            tolerance: 1e-4,
            ok: worst_error <= 1e-4,
        };
        let diagnosis = |findings, composed: &[&str], wrong: &[&str]| Diagnosis {
            version: "0",
            system: String::new(),
            device: "Metal",
            reason: String::new(),
            threads: 1,
            cpu_features: Vec::new(),
            findings,
            flush_cost: None,
            composed: composed.iter().map(|op| (*op).to_owned()).collect(),
            wrong: wrong.iter().map(|op| (*op).to_owned()).collect(),
            kept_in: String::new(),
            not_kept: None,
        };
        let right = diagnosis(vec![finding("pool", 1e-6), finding("conv", 2e-6)], &[], &[]).summary();
        assert_eq!(
            right,
            "2 comparisons of Metal with slow and exact forms: it computes rightly (largest error 2.0e-6)"
        );
        let odd = diagnosis(vec![finding("pool", 1.0), finding("conv", f32::INFINITY)], &["pool"], &["conv"]).summary();
        assert!(
            odd.contains("2 differ") && odd.contains("slower form is used for pool") && odd.contains("conv cannot"),
            "{odd}"
        );
    }
}
