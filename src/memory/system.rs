//! Asks the operating system: this process's footprint and peak, the system's free memory, the container's limit.

use sysinfo::{MemoryRefreshKind, System};

#[cfg(target_os = "linux")]
use super::groups::{GroupMemory, Groups};
use super::pressure::{self, Pressure};

/// The system's side of a reading, kept open between readings; empty on a system the library does not know.
pub struct Gauges {
    system: Option<System>,
    #[cfg(target_os = "linux")]
    groups: Option<Groups>,
}

impl Gauges {
    pub fn new() -> Self {
        Self {
            system: System::new().ok(),
            #[cfg(target_os = "linux")]
            groups: Groups::of_this_process(),
        }
    }

    pub fn refresh(&mut self) {
        if let Some(system) = &mut self.system {
            system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        }
    }

    pub fn available(&self) -> Option<u64> {
        known(self.system.as_ref()?.available_memory())
    }

    pub fn total(&self) -> Option<u64> {
        known(self.system.as_ref()?.total_memory())
    }

    /// The control groups' tightest limit, and what they have left; none when it is no tighter than the machine itself.
    /// The library would not count page cache as free, and it does not know the limit `memory.high`.
    #[cfg(target_os = "linux")]
    pub fn group(&self) -> (Option<u64>, Option<u64>) {
        let GroupMemory { limit, free } = self.groups.as_ref().map(Groups::read).unwrap_or_default();
        let is_tight = limit.zip(self.total()).is_none_or(|(limit, total)| limit < total);
        if is_tight { (limit, free) } else { (None, None) }
    }

    #[cfg(not(target_os = "linux"))]
    pub fn group(&self) -> (Option<u64>, Option<u64>) {
        (None, None)
    }

    /// Of the own control group where it is told, else of the system.
    #[cfg(target_os = "linux")]
    pub fn pressure(&self) -> Option<Pressure> {
        let own = self.groups.as_ref().and_then(Groups::pressure_file).and_then(|file| pressure::pressure(&file));
        own.or_else(|| pressure::pressure("/proc/pressure/memory".as_ref()))
    }

    #[cfg(not(target_os = "linux"))]
    pub fn pressure(&self) -> Option<Pressure> {
        pressure::pressure()
    }
}

// The library reports 0 for what it cannot read.
fn known(bytes: u64) -> Option<u64> {
    (bytes > 0).then_some(bytes)
}

/// This process's footprint and peak footprint.
#[cfg(target_os = "macos")]
pub fn own_use() -> (Option<u64>, Option<u64>) {
    let mut usage = std::mem::MaybeUninit::<libc::rusage_info_v4>::zeroed();
    // SAFETY: the buffer has the size and layout that flavor V4 fills, and lives across the call.
    let answer = unsafe { libc::proc_pid_rusage(libc::getpid(), libc::RUSAGE_INFO_V4, usage.as_mut_ptr().cast()) };
    if answer != 0 {
        return (None, None);
    }
    // SAFETY: the call succeeded, and zeroed integers were valid before it.
    let usage = unsafe { usage.assume_init() };
    (known(usage.ri_phys_footprint), known(usage.ri_lifetime_max_phys_footprint))
}

/// This process's footprint (proportional set size plus swap) and its highest resident size.
#[cfg(target_os = "linux")]
pub fn own_use() -> (Option<u64>, Option<u64>) {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let footprint = field_bytes(&rollup, "Pss:").map(|pss| pss + field_bytes(&rollup, "SwapPss:").unwrap_or(0));
    (footprint, field_bytes(&status, "VmHWM:"))
}

/// The same without looking at every page, which takes milliseconds when there are many: resident size plus swap.
#[cfg(target_os = "linux")]
pub fn own_use_roughly() -> (Option<u64>, Option<u64>) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let footprint = field_bytes(&status, "VmRSS:").map(|rss| rss + field_bytes(&status, "VmSwap:").unwrap_or(0));
    (footprint, field_bytes(&status, "VmHWM:"))
}

#[cfg(not(any(target_os = "macos", target_os = "linux")))]
pub fn own_use() -> (Option<u64>, Option<u64>) {
    (None, None)
}

#[cfg(not(target_os = "linux"))]
pub fn own_use_roughly() -> (Option<u64>, Option<u64>) {
    own_use()
}

/// The bytes of a line `Name:   123 kB` of a proc file, where kB is 1,024 bytes.
#[cfg(target_os = "linux")]
fn field_bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn proc_fields_are_in_kibibytes_and_may_be_missing() {
        let text = "Rss:  20 kB\nPss:     12 kB\nPss_Anon: 3 kB\n";
        assert_eq!(field_bytes(text, "Pss:"), Some(12 * 1024));
        assert_eq!(field_bytes(text, "SwapPss:"), None);
        assert_eq!(field_bytes("Pss: many kB", "Pss:"), None);
    }
}
