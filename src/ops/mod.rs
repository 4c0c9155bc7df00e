//! The operations networks are made of, in NHWC: one file per operation, each a public function on tensors, its CPU
//! kernels in f32, forward and backward, and the same computation composed of plain candle operations.
//!
//! Inputs may be views of any stride and offset; results are new and contiguous. Kernels run on the calling thread's
//! rayon pool, in rows, and each row is computed in one fixed order, so results repeat bit by bit. Where there is no
//! kernel (another device or type), the composed form runs: it is right everywhere, and the oracle of the kernels.
//!
//! When an argument is tracked, the result can be differentiated: what one kernel fuses is then a sequence of operations
//! with a backward each. A backward computes gradients for tracked arguments only, so frozen weights cost nothing.

/// Runs a loop compiled for the best vector instructions of this machine: `vectorized!(|| …)`.
macro_rules! vectorized {
    (|| $compute:expr) => {
        $crate::ops::vectorized(
            #[inline(always)]
            || $compute,
        )
    };
}

mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod backward;
mod batch_norm;
mod blocks;
mod composed;
mod conv;
mod depthwise;
mod expand_depthwise;
mod faces;
mod gemm;
mod grn;
mod join;
mod layer_norm;
mod linear;
pub mod metal;
mod mlp;
pub mod outline;
mod packed;
mod pool;
mod products;
mod quantized;
mod residual;
mod samples;
mod scratch;
mod seed;
pub mod selfcheck;
mod simd;
mod squeeze_excite;
#[cfg(test)]
pub mod testing;
mod update;
mod watched;
mod weight;
mod window;
pub mod work;

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, Device, Layout, Result, Shape, Storage, Tensor};

pub use activation::activation_backward;
pub use activation::{Activation, activate, softmax};
pub use attention::{attention, attention_backward};
pub use batch_norm::learning::{
    Gradients as BatchGradients, Layers as BatchLayers, Normal, backward as batch_norm_backward,
    forward as batch_norm_forward,
};
pub use batch_norm::{BatchStatistics, batch_norm, batch_norm_of_batch};
pub use blocks::BlockMatrix;
pub use conv::{conv, conv_backward};
pub use depthwise::{depthwise, depthwise_backward};
pub use expand_depthwise::expand_depthwise;
pub use faces::{set_kernel, uses_kernel};
pub use grn::global_response_norm;
pub use join::{join_channels, split_channels};
pub use layer_norm::{layer_norm, layer_norm_backward};
pub use linear::{linear, linear_backward};
pub use mlp::learning::{
    Gradients as MlpGradients, Layers as MlpLayers, backward as mlp_backward, forward as mlp_forward,
};
pub use mlp::{Mlp, mlp};
pub use packed::{PANEL, PLACES, PackedMatrix, WinogradWeight, filtered as winograd_filtered, suits as suits_winograd};
pub use pool::{global_average_pool, max_pool, max_pool_backward};
pub use quantized::{
    BLOCK, BlockType, Bottleneck, CodedImages, CodedLayer, FAR, KnownRanges, Narrow, QuantizedMatrix, bottleneck,
    codes_in_8_bits, conv_max_pool, is_near, narrow,
};
pub use residual::{activate_sum, add, add_scaled};
pub use seed::gradients_of;
pub use squeeze_excite::{Gate, KeptGate, project_gated, squeeze_excite};
pub use update::{AdamStep, Moments, blend, descend, follow_moments, sum_of_squares};
pub use watched::{InputMeans, LayerInputs, WatchedWeight};
pub use weight::Weight;
pub use window::{Geometry, Padding, Window};

use faces::{Face, face};

/// Whether an operation without a kernel on Metal has one for `x`; else it runs composed.
fn has_kernel(operation: &'static str, x: &Tensor) -> bool {
    face(operation, x) == Face::Cpu
}

/// Whether layers whose gradients are taken without a graph can be computed for `x`.
pub fn has_backward(x: &Tensor) -> bool {
    [
        "activation",
        "attention",
        "batch-norm",
        "conv",
        "depthwise",
        "layer-norm",
        "linear",
        "max-pool",
        "mlp",
        "packed",
        "squeeze-excite",
    ]
    .iter()
    .all(|operation| face(operation, x) == Face::Cpu)
}

/// Gives the memory that a device keeps for reuse back to the system, after all that was begun on it is done.
pub fn release(device: &Device) -> Result<()> {
    crate::device::wait(device)?;
    #[cfg(target_os = "macos")]
    if let Device::Metal(device) = device {
        crate::device::scoped(|| metal::release(device));
    }
    Ok(())
}

/// Gives up what is kept for reuse on a device that failed for good; what is in use there goes with its last user.
pub fn forget(device: &Device) {
    #[cfg(target_os = "macos")]
    if let Device::Metal(device) = device {
        crate::device::scoped(|| metal::forget(device));
    }
    debug_assert!(device.is_cpu() || device.is_metal());
}

/// Bytes that a device keeps for reuse and [`release`] would give back; none for the CPU. candle's own pool cannot be asked.
pub fn kept_bytes(device: &Device) -> Option<u64> {
    #[cfg(target_os = "macos")]
    if let Device::Metal(device) = device {
        return Some(metal::kept_bytes(device));
    }
    debug_assert!(device.is_cpu());
    None
}

/// True when a gradient is wanted for any of `tensors`.
fn is_tracked(tensors: &[&Tensor]) -> bool {
    tensors.iter().any(|tensor| tensor.track_op())
}

/// The elements of a contiguous f32 argument of a custom operation.
fn elements<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => candle_core::bail!("a kernel was given a view that is not contiguous"),
    }
}

/// A kernel's result.
fn output(elements: Vec<f32>, shape: impl Into<Shape>) -> (CpuStorage, Shape) {
    (CpuStorage::F32(elements), shape.into())
}

/// Calls `compute` with the elements of tensors on the CPU, row-major: what an operation carries beyond its arguments.
fn with_elements<'a, R>(
    tensors: impl IntoIterator<Item = &'a Tensor>,
    compute: impl FnOnce(&[&[f32]]) -> Result<R>,
) -> Result<R> {
    let tensors = tensors.into_iter().map(Tensor::contiguous).collect::<Result<Vec<_>>>()?;
    let guards: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let slices = guards.iter().map(|(storage, layout)| match &**storage {
        Storage::Cpu(storage) => elements(storage, layout),
        _ => candle_core::bail!("a CPU kernel was given a tensor of another device"),
    });
    compute(&slices.collect::<Result<Vec<_>>>()?)
}

/// A new tensor on the CPU.
///
/// # Safety
/// `fill` must write every value.
unsafe fn filled(shape: impl Into<Shape>, fill: impl FnOnce(&mut [MaybeUninit<f32>])) -> Result<Tensor> {
    let shape = shape.into();
    let mut values = space(shape.elem_count());
    fill(&mut values);
    // SAFETY: all values are written as the caller promises.
    Tensor::from_vec(unsafe { written(values) }, shape, &Device::Cpu)
}

/// Memory for values that are all going to be written: zeros would cost a pass of their own.
fn space<T>(length: usize) -> Vec<MaybeUninit<T>> {
    let mut space = Vec::with_capacity(length);
    // SAFETY: what may be uninitialised needs no initialisation.
    unsafe { space.set_len(length) };
    space
}

/// # Safety
/// Every value must have been written.
unsafe fn written<T>(space: Vec<MaybeUninit<T>>) -> Vec<T> {
    let mut space = std::mem::ManuallyDrop::new(space);
    // SAFETY: the same allocation, whose values hold numbers as the caller promises.
    unsafe { Vec::from_raw_parts(space.as_mut_ptr().cast(), space.len(), space.capacity()) }
}

/// Runs a loop compiled for the best vector instructions of this machine. What is not inlined is compiled for any machine:
/// a closure is only certain to be inlined with `#[inline(always)]`, which the macro of this name adds.
fn vectorized<R>(compute: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(compute)
}
