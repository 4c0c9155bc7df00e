//! Compares every operation on a device, forward and backward, with the same computed slowly and exactly, and tells
//! what machine this is.

use serde::Serialize;

use crate::device::{self, DeviceChoice};
use crate::ops::selfcheck::{self, Check};
use crate::worker::BoxError;

#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    pub version: &'static str,
    /// `linux x86_64`.
    pub system: String,
    pub device: &'static str,
    /// Why it is that device.
    pub reason: &'static str,
    pub threads: usize,
    /// Vector instructions that kernels use where they help.
    pub cpu_features: Vec<&'static str>,
    pub findings: Vec<Finding>,
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
    fn from(Check { op, pass, worst_error, tolerance, ok }: Check) -> Self {
        Self { op, pass, worst_error, tolerance, ok }
    }
}

/// Fails only when there is no such device; operations that fail are findings.
pub fn diagnose(choice: DeviceChoice) -> Result<Diagnosis, BoxError> {
    let chosen = device::choose(choice)?;
    Ok(Diagnosis {
        version: env!("CARGO_PKG_VERSION"),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        device: chosen.name,
        reason: chosen.reason,
        threads: rayon::current_num_threads(),
        cpu_features: device::cpu_features(),
        findings: selfcheck::run(&chosen.device).into_iter().map(Finding::from).collect(),
    })
}
