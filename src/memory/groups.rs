//! The control groups of this process on Linux, versions 1 and 2: every limit from its own group up to the root counts.
//!
//! Page cache that nobody used lately counts as free: the kernel takes it back before it refuses anything.

use std::fs;
use std::path::{Path, PathBuf};

/// What the groups leave, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupMemory {
    /// The tightest limit.
    pub limit: Option<u64>,
    /// The least that any group with a limit has left.
    pub free: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The folders of the groups, the process's own first.
#[derive(Debug, PartialEq, Eq)]
pub struct Groups {
    version: Version,
    folders: Vec<PathBuf>,
}

impl Groups {
    /// None where there are no control groups for memory.
    pub fn of_this_process() -> Option<Self> {
        Self::find(&fs::read_to_string("/proc/self/cgroup").ok()?, &fs::read_to_string("/proc/self/mountinfo").ok()?)
    }

    /// From the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
    fn find(groups: &str, mounts: &str) -> Option<Self> {
        let (mut one, mut two) = (None, None);
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            match controllers {
                "" => two = Some(path),
                names if names.split(',').any(|name| name == "memory") => one = Some(path),
                _ => {}
            }
        }
        // Where both versions are mounted, the controller belongs to the one that names it.
        let (version, path) = one.map(|path| (Version::One, path)).or(two.map(|path| (Version::Two, path)))?;
        let (root, mount) = mounts.lines().find_map(|line| mounted(line, version))?;
        let inside = Path::new(path).strip_prefix(&root).unwrap_or(Path::new(""));
        let own = mount.join(inside);
        let folders = own.ancestors().take_while(|folder| folder.starts_with(&mount)).map(Path::to_owned).collect();
        Some(Self { version, folders })
    }

    pub fn read(&self) -> GroupMemory {
        let mut memory = GroupMemory::default();
        let tighter = |one: Option<u64>, other: u64| Some(one.map_or(other, |one| one.min(other)));
        for folder in &self.folders {
            let Some(limit) = self.limit(folder) else { continue };
            memory.limit = tighter(memory.limit, limit);
            if let Some(used) = self.used(folder) {
                memory.free = tighter(memory.free, limit.saturating_sub(used));
            }
        }
        memory
    }

    /// The file that says how long the own group waited for memory; version 1 has none.
    pub fn pressure_file(&self) -> Option<PathBuf> {
        (self.version == Version::Two).then(|| self.folders.first().map(|own| own.join("memory.pressure"))).flatten()
    }

    fn limit(&self, folder: &Path) -> Option<u64> {
        // Above `high` the kernel slows a group down until it stands nearly still.
        let names: &[&str] = match self.version {
            Version::One => &["memory.limit_in_bytes"],
            Version::Two => &["memory.max", "memory.high"],
        };
        let limits = names.iter().filter_map(|name| number(&folder.join(name)));
        // Version 1 says "none" with the highest number of pages there is.
        limits.filter(|limit| *limit < 1 << 60).min()
    }

    fn used(&self, folder: &Path) -> Option<u64> {
        let (usage, cache) = match self.version {
            Version::One => ("memory.usage_in_bytes", "total_inactive_file "),
            Version::Two => ("memory.current", "inactive_file "),
        };
        let statistics = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let cache = statistics.lines().find_map(|line| line.strip_prefix(cache)?.trim().parse::<u64>().ok());
        Some(number(&folder.join(usage))?.saturating_sub(cache.unwrap_or(0)))
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// What a line of `mountinfo` mounts, and where, if it is the memory controller of this version.
fn mounted(line: &str, version: Version) -> Option<(PathBuf, PathBuf)> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3).map(|field| PathBuf::from(field.replace("\\040", " ")));
    let mut kind = after.split(' ');
    let is_wanted = match (version, kind.next()?) {
        (Version::One, "cgroup") => kind.nth(1)?.split(',').any(|name| name == "memory"),
        (Version::Two, "cgroup2") => true,
        _ => false,
    };
    is_wanted.then_some((fields.next()?, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
    }

    #[test]
    fn the_tightest_limit_of_version_two_counts_up_to_the_root_and_cache_is_free() {
        let root = tempfile::tempdir().unwrap();
        let mounts = format!(
            "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 24 0:26 / {} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
            root.path().display()
        );
        let groups = Groups::find("0::/user.slice/job\n", &mounts).unwrap();
        let (own, parent) = (root.path().join("user.slice/job"), root.path().join("user.slice"));
        assert_eq!(groups.folders, [own.clone(), parent.clone(), root.path().to_owned()]);
        assert_eq!(groups.pressure_file(), Some(own.join("memory.pressure")));
        assert_eq!(groups.read(), GroupMemory::default(), "no file can be read");
        write(&own, &[("memory.max", "max\n"), ("memory.high", "900\n"), ("memory.current", "300\n")]);
        assert_eq!(groups.read(), GroupMemory { limit: Some(900), free: Some(600) });
        // The parent allows more and has less left, for others use it too.
        write(&parent, &[("memory.max", "1000\n"), ("memory.high", "max\n"), ("memory.current", "800\n")]);
        write(&parent, &[("memory.stat", "anon 500\nfile 300\ninactive_file 50\n")]);
        assert_eq!(groups.read(), GroupMemory { limit: Some(900), free: Some(250) });
    }

    #[test]
    fn version_one_is_found_among_the_controllers_and_its_largest_number_is_no_limit() {
        let root = tempfile::tempdir().unwrap();
        let mount = root.path().join("memory");
        // The mount shows the tree from /docker on, as in a container that keeps its host's view of groups.
        let mounts = format!(
            "31 24 0:27 /docker {} rw - cgroup cgroup rw,cpu\n32 24 0:28 /docker {} rw - cgroup cgroup rw,memory\n\
             33 24 0:29 / /unified rw - cgroup2 cgroup2 rw\n",
            root.path().join("cpu").display(),
            mount.display()
        );
        let groups = Groups::find("5:cpu:/a\n4:memory:/docker/abc\n0::/\n", &mounts).unwrap();
        assert_eq!(groups.folders, [mount.join("abc"), mount.clone()]);
        write(&mount, &[("memory.limit_in_bytes", "9223372036854771712\n"), ("memory.usage_in_bytes", "7\n")]);
        let own = [("memory.limit_in_bytes", "4096\n"), ("memory.usage_in_bytes", "3000\n")];
        write(&mount.join("abc"), &own);
        write(&mount.join("abc"), &[("memory.stat", "inactive_file 1\ntotal_inactive_file 1000\n")]);
        assert_eq!(groups.read(), GroupMemory { limit: Some(4096), free: Some(2096) });
        assert_eq!(groups.pressure_file(), None);
        assert_eq!(Groups::find("4:cpu:/\n", &mounts), None);
    }
}
