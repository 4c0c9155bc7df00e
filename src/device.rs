//! Chooses where tensors live, and says why.
//!
//! Metal's devices, queues, buffers and pipelines may be used on any thread, and are: jobs compute on threads of their own. What
//! their calls leave to be freed goes with [`scoped`], as such threads have no pool.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Error, Result as TensorResult};
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
    pub reason: String,
    /// How often it had been made anew: what lies on the one before is of no use to it.
    pub renewals: u64,
}

impl Chosen {
    /// Whether the device was made anew since it was chosen.
    pub fn is_outdated(&self) -> bool {
        !self.device.is_cpu() && self.renewals != RENEWALS.load(Relaxed)
    }
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

/// Why there is no Metal.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}; choose the device auto or cpu")]
pub struct DeviceError(String);

/// The device for a choice. `Auto` is Metal where there is one; whether it computes rightly is not asked here.
pub fn choose(choice: DeviceChoice) -> Result<Chosen, DeviceError> {
    let cpu = |reason| Chosen { device: Device::Cpu, name: "CPU", reason, renewals: 0 };
    let renewals = RENEWALS.load(Relaxed);
    let metal = |device, reason: &str| Chosen { device, name: "Metal", reason: reason.to_owned(), renewals };
    match choice {
        DeviceChoice::Cpu => Ok(cpu("chosen by you".to_owned())),
        DeviceChoice::Metal => metal_device().map(|device| metal(device, "chosen by you")).map_err(DeviceError),
        DeviceChoice::Auto => Ok(metal_device().map_or_else(cpu, |device| metal(device, "it is this Mac's GPU"))),
    }
}

/// Names the processor that computes: another one may err where this one does not.
pub fn processor(device: &Device) -> String {
    #[cfg(target_os = "macos")]
    if let Device::Metal(device) = device {
        return scoped(|| objc2_metal::MTLDevice::name(device.metal_device().as_ref()).to_string());
    }
    debug_assert!(device.is_cpu());
    format!("{} {}", std::env::consts::ARCH, cpu_features().join(" ")).trim_end().to_owned()
}

/// True for what a device fails at when its memory runs out or it is lost, and not for what is wrong in itself.
pub fn is_failure(error: &Error) -> bool {
    match error {
        Error::WithBacktrace { inner, .. } | Error::WithPath { inner, .. } | Error::Context { inner, .. } => {
            is_failure(inner)
        }
        error => {
            matches!(error, Error::Metal(_) | Error::Cuda(_) | Error::Wrapped(_) | Error::WrappedContext { .. })
        }
    }
}

/// What a device with memory of its own kind has, in bytes. On unified memory it is part of the process's footprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    pub allocated: u64,
    /// What the system advises to stay below.
    pub recommended: u64,
    /// No single buffer may be larger.
    pub largest_buffer: u64,
}

/// None for the CPU, whose memory is the process's.
pub fn memory(device: &Device) -> Option<DeviceMemory> {
    #[cfg(target_os = "macos")]
    if let Device::Metal(device) = device {
        return scoped(|| {
            let device = device.metal_device();
            let system: &objc2::runtime::ProtocolObject<dyn objc2_metal::MTLDevice> = device.as_ref();
            Some(DeviceMemory {
                allocated: device.current_allocated_size() as u64,
                recommended: device.recommended_max_working_set_size() as u64,
                largest_buffer: objc2_metal::MTLDevice::maxBufferLength(system) as u64,
            })
        });
    }
    debug_assert!(device.is_cpu());
    None
}

/// Names the build of the operating system, and with it those of its drivers; empty where it cannot be had.
pub fn system_build() -> String {
    #[cfg(target_os = "macos")]
    let build = system_value(c"kern.osversion");
    #[cfg(not(target_os = "macos"))]
    let build = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {}", std::env::consts::OS, build.trim()).trim_end().to_owned()
}

/// A text that the kernel knows; empty when it does not.
#[cfg(target_os = "macos")]
fn system_value(name: &std::ffi::CStr) -> String {
    let mut text = [0u8; 64];
    let mut length = text.len();
    // SAFETY: the kernel writes at most `length` bytes, which `text` has, and nothing else is handed over.
    let answer = unsafe {
        libc::sysctlbyname(name.as_ptr(), text.as_mut_ptr().cast(), &raw mut length, std::ptr::null_mut(), 0)
    };
    let known = if answer == 0 { std::ffi::CStr::from_bytes_until_nul(&text).ok() } else { None };
    known.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

const NO_METAL: &str = "this system has no Metal device";

/// The process's Metal device: made once, for two devices of candle know nothing of each other's commands.
#[cfg(target_os = "macos")]
static METAL: Mutex<Option<Result<Device, String>>> = Mutex::new(None);

#[cfg(target_os = "macos")]
fn metal_device() -> Result<Device, String> {
    let mut device = METAL.lock().unwrap_or_else(PoisonError::into_inner);
    device.get_or_insert_with(|| scoped(new_metal_device)).clone()
}

/// Has the next choice make Metal's device anew, with a queue of its own: one that failed at a command may refuse all that
/// follow. Returns the device before: what lies on it stays there, and with it. None where no such device was made.
pub fn renew() -> Option<Device> {
    #[cfg(target_os = "macos")]
    {
        let mut device = METAL.lock().unwrap_or_else(PoisonError::into_inner);
        let before = device.take().and_then(Result::ok);
        RENEWALS.fetch_add(u64::from(before.is_some()), Relaxed);
        before
    }
    #[cfg(not(target_os = "macos"))]
    None
}

static RENEWALS: AtomicU64 = AtomicU64::new(0);

#[cfg(target_os = "macos")]
fn new_metal_device() -> Result<Device, String> {
    // candle panics without either of these.
    if objc2::runtime::AnyClass::get(c"MTLResidencySetDescriptor").is_none() {
        return Err("computing on Metal needs macOS 15 or newer".to_owned());
    }
    if candle_metal_kernels::metal::Device::all().is_empty() {
        return Err(NO_METAL.to_owned());
    }
    Device::new_metal(0).map_err(|error| format!("Metal cannot be used: {error}"))
}

#[cfg(not(target_os = "macos"))]
fn metal_device() -> Result<Device, String> {
    Err(NO_METAL.to_owned())
}

/// Computes a batch, a training step, or what a job does besides. On macOS what Metal's objects leave behind on this thread
/// is freed at the end; a thread without such a scope keeps it until it ends.
pub fn scoped<R>(compute: impl FnOnce() -> R) -> R {
    #[cfg(target_os = "macos")]
    return objc2::rc::autoreleasepool(|_| compute());
    #[cfg(not(target_os = "macos"))]
    compute()
}

/// Waits until all that was begun on a device is done, whoever began it. Fails if something failed of which nobody was told.
pub fn wait(device: &Device) -> TensorResult<()> {
    Witness::of(device).wait()
}

/// Computes as in [`scoped`], waits until it is done, and fails if something failed meanwhile: a result that was read may be
/// of commands of which an earlier one failed, which reading does not tell.
pub fn completed<R, E: From<Error>>(device: &Device, compute: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
    scoped(|| {
        let witness = Witness::of(device);
        let result = compute()?;
        witness.wait()?;
        Ok(result)
    })
}

/// Learns of everything that fails on a device. candle tells of a failed command once, to whoever waits next; a job must
/// know of its own also when another thread was told.
#[derive(Debug)]
pub struct Witness {
    device: Device,
    heard: AtomicU64,
}

static WAITS: Waits = Waits(Mutex::new(0));

impl Witness {
    /// Who learns of what fails from now on.
    pub fn of(device: &Device) -> Self {
        Self { device: device.clone(), heard: AtomicU64::new(WAITS.failures()) }
    }

    /// From now on.
    pub fn start(&self) {
        self.heard.store(WAITS.failures(), Relaxed);
    }

    /// Waits until all that was begun on the device is done. Fails if something failed since the last wait or start, whoever
    /// was told.
    pub fn wait(&self) -> TensorResult<()> {
        if self.device.is_cpu() {
            return Ok(());
        }
        WAITS.wait(&self.heard, || scoped(|| self.device.synchronize()))
    }
}

/// How many waits for devices have failed. One waits at a time, so that nobody goes on before a failure is counted.
struct Waits(Mutex<u64>);

impl Waits {
    fn failures(&self) -> u64 {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, heard: &AtomicU64, synchronize: impl FnOnce() -> TensorResult<()>) -> TensorResult<()> {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *failures;
        let done = synchronize();
        *failures += u64::from(done.is_err());
        let missed = heard.swap(*failures, Relaxed) != before;
        done?;
        if missed { Err(Error::wrap("commands failed on the device, of which another job was told")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_another_thread_was_told_of_is_learned_once() {
        let waits = Waits(Mutex::new(0));
        let [ours, theirs] = [(); 2].map(|()| AtomicU64::new(waits.failures()));
        let wait =
            |heard, fails: bool| waits.wait(heard, || if fails { Err(Error::wrap("out of memory")) } else { Ok(()) });
        wait(&ours, false).unwrap();
        assert!(wait(&theirs, true).unwrap_err().to_string().contains("out of memory"));
        assert!(is_failure(&wait(&ours, false).unwrap_err()));
        wait(&ours, false).unwrap();
        wait(&theirs, false).unwrap();
        assert!(wait(&ours, true).is_err() && wait(&ours, false).is_ok());
        // Who begins now has nothing to do with it.
        wait(&AtomicU64::new(waits.failures()), false).unwrap();
    }

    #[test]
    fn every_choice_is_a_device_with_a_reason_or_says_what_to_choose() {
        for choice in [DeviceChoice::Auto, DeviceChoice::Cpu] {
            assert!(!choose(choice).unwrap().reason.is_empty());
        }
        assert!(choose(DeviceChoice::Cpu).unwrap().device.is_cpu());
        assert!(processor(&Device::Cpu).starts_with(std::env::consts::ARCH));
        assert!(system_build().starts_with(std::env::consts::OS));
        match choose(DeviceChoice::Metal) {
            Ok(chosen) => assert!(chosen.device.is_metal()),
            Err(error) => assert!(error.to_string().contains("choose the device auto or cpu")),
        }
    }
}
