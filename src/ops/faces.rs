//! Which of its forms an operation runs in: a kernel of the tensors' device, or composed of candle's operations.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};

use candle_core::{DType, Device, Tensor};

/// The forms of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    Cpu,
    Metal,
    Composed,
}

/// What has kernels on Metal; all else is composed there.
const ON_METAL: [&str; 10] = [
    "activation",
    "blocks",
    "conv",
    "depthwise",
    "global-average-pool",
    "layer-norm",
    "linear",
    "max-pool",
    "mlp",
    "update",
];

/// Kernels that were found wrong on a device of this process, by operation; true for Metal.
static OFF: RwLock<BTreeSet<(&'static str, bool)>> = RwLock::new(BTreeSet::new());

/// The form in which `operation` computes `x`.
pub(super) fn face(operation: &'static str, x: &Tensor) -> Face {
    if x.dtype() != DType::F32 || !uses_kernel(operation, x.device()) {
        return Face::Composed;
    }
    if x.device().is_metal() { Face::Metal } else { Face::Cpu }
}

/// Whether an operation has a kernel on the device and nobody has switched it off.
pub fn uses_kernel(operation: &'static str, device: &Device) -> bool {
    let exists = device.is_cpu() || (device.is_metal() && ON_METAL.contains(&operation));
    exists && !OFF.read().unwrap_or_else(PoisonError::into_inner).contains(&(operation, device.is_metal()))
}

/// From now on the operation runs composed on devices of this kind, or as it would by itself again.
pub fn set_kernel(operation: &'static str, device: &Device, enabled: bool) {
    let mut off = OFF.write().unwrap_or_else(PoisonError::into_inner);
    let entry = (operation, device.is_metal());
    if enabled {
        off.remove(&entry)
    } else {
        off.insert(entry)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_switched_off_runs_composed_until_it_is_switched_on() -> candle_core::Result<()> {
        let x = Tensor::zeros((1, 2), DType::F32, &Device::Cpu)?;
        assert_eq!(face("no operation", &x), Face::Cpu);
        set_kernel("no operation", &Device::Cpu, false);
        assert_eq!(face("no operation", &x), Face::Composed);
        set_kernel("no operation", &Device::Cpu, true);
        assert_eq!(face("no operation", &x), Face::Cpu);
        assert_eq!(face("no operation", &x.to_dtype(DType::F64)?), Face::Composed);
        Ok(())
    }
}
