//! Signs that the system runs out of memory: how long everything stood still for it, and what was written to swap.

#[cfg(target_os = "linux")]
use std::path::Path;

/// How the system is off for memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    #[default]
    Calm,
    /// Caches should go.
    Warning,
    /// Work suffers.
    Critical,
}

/// Shares of the last ten seconds in which all that could run waited for memory.
#[cfg(target_os = "linux")]
const WARNING: f64 = 0.02;
#[cfg(target_os = "linux")]
const CRITICAL: f64 = 0.10;

/// From the kernel's pressure stall information in `file`: `full avg10=…`, in percent.
#[cfg(target_os = "linux")]
pub fn pressure(file: &Path) -> Option<Pressure> {
    stalled(&std::fs::read_to_string(file).ok()?).map(|share| match share {
        CRITICAL.. => Pressure::Critical,
        WARNING.. => Pressure::Warning,
        _ => Pressure::Calm,
    })
}

#[cfg(target_os = "linux")]
fn stalled(text: &str) -> Option<f64> {
    let full = text.lines().find_map(|line| line.strip_prefix("full "))?;
    let percent = full.split(' ').find_map(|field| field.strip_prefix("avg10="))?;
    percent.parse::<f64>().ok().map(|percent| percent / 100.0)
}

/// Bytes written to swap since the system started.
#[cfg(target_os = "linux")]
pub fn swapped_out() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    let pages: u64 = text.lines().find_map(|line| line.strip_prefix("pswpout "))?.parse().ok()?;
    // SAFETY: sysconf only reads a number.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    Some(pages * page)
}

/// The kernel's own level: 1, 2 or 4.
#[cfg(target_os = "macos")]
pub fn pressure() -> Option<Pressure> {
    let mut level: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>();
    let name = c"kern.memorystatus_vm_pressure_level";
    // SAFETY: the kernel writes at most `length` bytes, which `level` has, and nothing else is handed over.
    let answer =
        unsafe { libc::sysctlbyname(name.as_ptr(), (&raw mut level).cast(), &raw mut length, std::ptr::null_mut(), 0) };
    match (answer, level) {
        (0, 1) => Some(Pressure::Calm),
        (0, 2) => Some(Pressure::Warning),
        (0, 4) => Some(Pressure::Critical),
        _ => None,
    }
}

/// Calls `wake` whenever the level changes, on a thread of the system, for as long as the program runs: a window that
/// nobody looks at is not drawn, and would learn of it too late.
#[cfg(target_os = "macos")]
pub fn watch(wake: impl Fn() + Send + Sync + 'static) {
    use dispatch2::{
        _dispatch_source_type_memorypressure, DispatchObject, DispatchQoS, DispatchQueue, DispatchSource,
        GlobalQueueIdentifier,
    };
    /// Normal, warning and critical (`dispatch/source.h`).
    const LEVELS: usize = 1 | 2 | 4;
    let queue = DispatchQueue::global_queue(GlobalQueueIdentifier::QualityOfService(DispatchQoS::Utility));
    let kind = (&raw const _dispatch_source_type_memorypressure).cast_mut();
    let handler = block2::RcBlock::new(wake);
    // SAFETY: the type is the system's own constant; the source copies the block, which may be called on any thread.
    let source = unsafe {
        let source = DispatchSource::new(kind, 0, LEVELS, Some(&queue));
        source.set_event_handler_with_block(block2::RcBlock::as_ptr(&handler));
        source
    };
    source.resume();
    // It tells as long as it exists.
    std::mem::forget(source);
}

/// Nothing tells of it elsewhere: whoever wants to know asks.
#[cfg(not(target_os = "macos"))]
pub fn watch(_wake: impl Fn() + Send + Sync + 'static) {}

/// Bytes written to swap since the system started.
#[cfg(target_os = "macos")]
pub fn swapped_out() -> Option<u64> {
    let mut statistics = std::mem::MaybeUninit::<libc::vm_statistics64>::zeroed();
    let mut count = libc::HOST_VM_INFO64_COUNT;
    #[expect(deprecated, reason = "libc points to another crate for this one number")]
    // SAFETY: the buffer has the size and layout of this flavor, `count` says so, and both live across the call.
    let answer = unsafe {
        libc::host_statistics64(
            libc::mach_host_self(),
            libc::HOST_VM_INFO64,
            statistics.as_mut_ptr().cast(),
            &raw mut count,
        )
    };
    if answer != libc::KERN_SUCCESS {
        return None;
    }
    // SAFETY: the call succeeded, and zeroed integers were valid before it.
    let pages = unsafe { statistics.assume_init() }.swapouts;
    // SAFETY: sysconf only reads a number.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    Some(pages * page)
}

#[cfg(not(any(target_os = "macos", target_os = "linux")))]
pub fn pressure() -> Option<Pressure> {
    None
}

#[cfg(not(any(target_os = "macos", target_os = "linux")))]
pub fn swapped_out() -> Option<u64> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_what_keeps_everything_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.pressure");
        let of = |full: &str| {
            let text = format!("some avg10=88.00 avg60=0.00 avg300=0.00 total=5\n{full}\n");
            std::fs::write(&file, text).unwrap();
            pressure(&file)
        };
        assert_eq!(of("full avg10=0.50 avg60=90.00 avg300=0.00 total=1"), Some(Pressure::Calm));
        assert_eq!(of("full avg10=2.00 avg60=0.00 avg300=0.00 total=1"), Some(Pressure::Warning));
        assert_eq!(of("full avg10=10.00 avg60=0.00 avg300=0.00 total=1"), Some(Pressure::Critical));
        assert_eq!(of(""), None);
        assert_eq!(pressure(Path::new("/nothing/here")), None);
    }
}
