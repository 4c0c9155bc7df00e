//! Asks the operating system: this process's footprint and peak, the system's free memory, the container's limit.

use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// The system's side of a reading, kept open between readings; empty on a system the library does not know.
pub struct Gauges {
    system: Option<System>,
    own: Pid,
}

impl Gauges {
    pub fn new() -> Self {
        Self { system: System::new().ok(), own: Pid::from_u32(std::process::id()) }
    }

    pub fn refresh(&mut self) {
        let Some(system) = &mut self.system else { return };
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let own = ProcessesToUpdate::Some(&[self.own]);
        system.refresh_processes_specifics(own, false, ProcessRefreshKind::nothing().without_tasks());
    }

    pub fn available(&self) -> Option<u64> {
        known(self.system.as_ref()?.available_memory())
    }

    pub fn total(&self) -> Option<u64> {
        known(self.system.as_ref()?.total_memory())
    }

    /// The control group's limit on this process; `None` when it is no tighter than the machine itself.
    pub fn limit(&self) -> Option<u64> {
        let limit = self.system.as_ref()?.process(self.own)?.cgroup_limits()?.total_memory;
        known(limit).filter(|limit| Some(*limit) < self.total())
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

#[cfg(not(any(target_os = "macos", target_os = "linux")))]
pub fn own_use() -> (Option<u64>, Option<u64>) {
    (None, None)
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
