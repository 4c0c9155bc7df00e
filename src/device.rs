//! Chooses where tensors live, and says why.

use candle_core::Device;
use serde::{Deserialize, Serialize};

/// What a person asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    #[default]
    Auto,
    Cpu,
    Metal,
}

/// The device a job computes on, and the reason in words.
#[derive(Debug, Clone)]
pub struct Chosen {
    pub device: Device,
    pub name: &'static str,
    pub reason: &'static str,
}

#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("this system has no Metal device; choose the device auto or cpu")]
    NoMetal,
    #[error("this version of Galley computes on the CPU only; choose the device auto or cpu")]
    MetalNotBuilt,
}

/// The device for a choice. Galley's operations have no Metal kernels yet, so `Auto` is the CPU and `Metal` an error
/// with the reason: candle's own convolutions are wrong on Metal and are never used.
pub fn choose(choice: DeviceChoice) -> Result<Chosen, DeviceError> {
    let cpu = |reason| Ok(Chosen { device: Device::Cpu, name: "CPU", reason });
    match choice {
        DeviceChoice::Cpu => cpu("chosen by you"),
        DeviceChoice::Auto if cfg!(target_os = "macos") => cpu("this version computes on the CPU only"),
        DeviceChoice::Auto => cpu("this system has no Metal device"),
        DeviceChoice::Metal if cfg!(target_os = "macos") => Err(DeviceError::MetalNotBuilt),
        DeviceChoice::Metal => Err(DeviceError::NoMetal),
    }
}
