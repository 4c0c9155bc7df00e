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

/// The vector instructions of this CPU among those that kernels choose from at run time.
pub fn cpu_features() -> Vec<&'static str> {
    macro_rules! detected {
        ($detect:ident, $($feature:tt)*) => {
            [$(($feature, std::arch::$detect!($feature))),*].into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect()
        };
    }
    #[cfg(target_arch = "x86_64")]
    return detected!(is_x86_feature_detected, "sse4.1" "avx2" "fma" "f16c" "avxvnni" "avx512f" "avx512bw" "avx512vnni");
    #[cfg(target_arch = "aarch64")]
    return detected!(is_aarch64_feature_detected, "neon" "dotprod" "i8mm" "fp16");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    Vec::new()
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum DeviceError {
    #[error("this system has no Metal device; choose the device auto or cpu")]
    NoMetal,
    #[error("computing on Metal needs macOS 15 or newer; choose the device auto or cpu")]
    OldSystem,
    #[error("Metal cannot be used: {0}; choose the device auto or cpu")]
    Failed(String),
}

/// The device for a choice. `Auto` is the CPU: Metal computes where it is asked for by name, until the self-check of a
/// device runs, and is remembered, before its first use.
pub fn choose(choice: DeviceChoice) -> Result<Chosen, DeviceError> {
    let cpu = |reason| Chosen { device: Device::Cpu, name: "CPU", reason };
    match choice {
        DeviceChoice::Cpu => Ok(cpu("chosen by you")),
        DeviceChoice::Metal => Ok(Chosen { device: metal_device()?, name: "Metal", reason: "chosen by you" }),
        DeviceChoice::Auto if cfg!(target_os = "macos") => {
            Ok(cpu("Metal is used when you choose it; `galley doctor --device metal` checks it first"))
        }
        DeviceChoice::Auto => Ok(cpu("this system has no Metal device")),
    }
}

/// The process's Metal device: made once, for two devices of candle know nothing of each other's commands.
#[cfg(target_os = "macos")]
fn metal_device() -> Result<Device, DeviceError> {
    use std::sync::OnceLock;
    static DEVICE: OnceLock<Result<Device, DeviceError>> = OnceLock::new();
    DEVICE.get_or_init(|| scoped(new_metal_device)).clone()
}

#[cfg(target_os = "macos")]
fn new_metal_device() -> Result<Device, DeviceError> {
    // candle panics without either of these.
    if objc2::runtime::AnyClass::get(c"MTLResidencySetDescriptor").is_none() {
        return Err(DeviceError::OldSystem);
    }
    if candle_metal_kernels::metal::Device::all().is_empty() {
        return Err(DeviceError::NoMetal);
    }
    Device::new_metal(0).map_err(|error| DeviceError::Failed(error.to_string()))
}

#[cfg(not(target_os = "macos"))]
fn metal_device() -> Result<Device, DeviceError> {
    Err(DeviceError::NoMetal)
}

/// Computes a batch or a training step. On macOS what Metal's objects leave behind on this thread is freed at the end;
/// a thread without such a scope keeps it until it ends.
pub fn scoped<R>(compute: impl FnOnce() -> R) -> R {
    #[cfg(target_os = "macos")]
    return objc2::rc::autoreleasepool(|_| compute());
    #[cfg(not(target_os = "macos"))]
    compute()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_is_a_device_with_a_reason_or_says_what_to_choose() {
        for choice in [DeviceChoice::Auto, DeviceChoice::Cpu] {
            assert!(!choose(choice).unwrap().reason.is_empty());
        }
        assert!(choose(DeviceChoice::Cpu).unwrap().device.is_cpu());
        match choose(DeviceChoice::Metal) {
            Ok(chosen) => assert!(chosen.device.is_metal()),
            Err(error) => assert!(error.to_string().contains("choose the device auto or cpu")),
        }
    }
}
