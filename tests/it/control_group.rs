//! Training and classifying within a limit that the system enforces: a control group where one may be made, else a limit
//! on data. What the process had at most is read from the kernel.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::runs::write_picture;

/// What holds a child to a number of bytes.
enum Limit {
    /// A control group below the one of this process, for the child alone.
    Group(PathBuf),
    /// On the data of the process, thread stacks included.
    Data(u64),
}

impl Limit {
    /// None where no such group may be made.
    fn group(name: &str, bytes: u64) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let first = groups.lines().find_map(|line| line.split_once(":memory:").map(|(_, path)| path));
        let second = groups.lines().find_map(|line| line.strip_prefix("0::"));
        let (root, path, file) = match (first, second) {
            (Some(path), _) => ("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes"),
            (None, Some(path)) => ("/sys/fs/cgroup", path, "memory.max"),
            (None, None) => return None,
        };
        let own = Path::new(root).join(path.trim_start_matches('/'));
        let folder = own.join(format!("galley-test-{name}-{}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        let group = Self::Group(folder.clone());
        fs::write(folder.join(file), bytes.to_string()).ok()?;
        Some(group)
    }

    /// Has a command begin under the limit.
    fn apply(&self, command: &mut Command) {
        match self {
            Self::Group(folder) => {
                let file = fs::OpenOptions::new().write(true).open(folder.join("cgroup.procs")).unwrap();
                // SAFETY: between fork and exec only an open file is written to; "0" is the process that writes.
                unsafe { command.pre_exec(move || (&file).write_all(b"0")) };
            }
            Self::Data(bytes) => {
                let limit = libc::rlimit { rlim_cur: *bytes, rlim_max: *bytes };
                let limited = move || {
                    // SAFETY: the call only reads `limit`.
                    match unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) } {
                        0 => Ok(()),
                        _ => Err(std::io::Error::last_os_error()),
                    }
                };
                // SAFETY: between fork and exec only a number of the kernel is set.
                unsafe { command.pre_exec(limited) };
            }
        }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Self::Group(folder) = self {
            drop(fs::remove_dir(folder));
        }
    }
}

/// What a command printed, how it ended, and the most it had resident, in bytes.
struct Ended {
    succeeded: bool,
    text: String,
    peak: u64,
}

fn galley(folder: &Path, arguments: &str, limit: Option<&Limit>) -> Ended {
    let log = folder.join("log.txt");
    let file = fs::File::create(&log).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_galley"));
    command.args(arguments.split(' ')).current_dir(folder);
    for (name, value) in [("TILES", "tiles"), ("VERDICTS", "verdicts"), ("JOURNAL", "journal.sqlite")] {
        command.env(format!("GALLEY_{name}"), folder.join(value));
    }
    command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    if let Some(limit) = limit {
        limit.apply(&mut command);
    }
    let mut child = command.spawn().unwrap();
    // Not what `wait4` tells: that counts what this process was when it forked.
    let of_child = format!("/proc/{}/status", child.id());
    let highest = || {
        let status = fs::read_to_string(&of_child).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    };
    let mut peak = 0;
    let status = loop {
        peak = highest().unwrap_or(0).max(peak);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ended { succeeded: status.success(), text: fs::read_to_string(log).unwrap(), peak }
}

/// Three classes of eight pictures.
fn kitchen() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (class, color) in [("beetroot", [150, 20, 60]), ("pea", [60, 170, 40]), ("plum", [60, 40, 130])] {
        for number in 0..16 {
            write_picture(&folder.path().join(format!("photos/{class}/{number:02}.png")), color, number);
        }
    }
    folder
}

const TRAIN: &str = "train --arch convnext_atto --data photos --image-size 96 --epochs 1 --batch-size 32 --device cpu";

/// Less than the 195 MB that the whole batch takes at once.
const LIMIT: u64 = 150_000_000;

fn assert_finished_within(ended: &Ended, limit: u64) {
    assert!(ended.succeeded, "{}", ended.text);
    assert!(
        ended.text.contains("To stay within") && ended.text.contains("keeps the effective batch of 32"),
        "{}",
        ended.text
    );
    assert!(ended.peak < limit, "{} of {limit}: {}", ended.peak, ended.text);
}

#[test]
fn training_finds_its_own_micro_batch_and_stays_below_a_persons_limit() {
    let folder = kitchen();
    let ended = galley(folder.path(), &format!("{TRAIN} --memory-limit 150MB --out run"), None);
    assert_finished_within(&ended, LIMIT);
}

#[test]
fn training_finds_its_own_micro_batch_in_a_control_group() {
    let folder = kitchen();
    let Some(group) = Limit::group("train", LIMIT) else {
        eprintln!("skipped: no control group may be made here");
        return;
    };
    let ended = galley(folder.path(), &format!("{TRAIN} --out run"), Some(&group));
    assert_finished_within(&ended, LIMIT);
}

#[test]
fn a_limit_on_data_ends_no_run_that_keeps_its_own() {
    let folder = kitchen();
    // Stacks of threads count as data although hardly any of them is ever touched.
    let limit = Limit::Data(LIMIT + 600_000_000);
    let ended = galley(folder.path(), &format!("{TRAIN} --memory-limit 150MB --out run"), Some(&limit));
    assert_finished_within(&ended, LIMIT);
}

#[test]
fn what_does_not_fit_in_f32_is_refused_with_what_would() {
    let folder = kitchen();
    let made =
        "train --arch convnext_atto --data photos --image-size 32 --epochs 1 --batch-size 8 --device cpu --out run";
    let made = galley(folder.path(), made, None);
    assert!(made.succeeded, "{}", made.text);
    let classify = |rest: &str| {
        let begin = "classify --fresh --device cpu --threads 2 --batch-size 4 --model run/best.safetensors photos";
        galley(folder.path(), &format!("{begin} {rest}"), None)
    };
    let refused = classify("--memory-limit 1MB");
    assert!(!refused.succeeded && refused.text.contains("No near setting would fit"), "{}", refused.text);
    let about = refused.text.split("take about ").nth(1).unwrap().split(" MB").next().unwrap();
    let limit = about.parse::<f64>().unwrap() - 3.0;
    let refused = classify(&format!("--memory-limit {limit}MB"));
    assert!(!refused.succeeded, "{}", refused.text);
    for part in ["the memory budget is", "your own limit", "--precision int8 (", "--anyway"] {
        assert!(refused.text.contains(part), "{part}: {}", refused.text);
    }
    let fits = classify(&format!("--memory-limit {limit}MB --precision int8"));
    assert!(fits.succeeded && fits.text.contains("48 photos: 48 classified"), "{}", fits.text);
    let anyway = classify("--memory-limit 1MB --anyway");
    assert!(anyway.succeeded && anyway.text.contains("It runs anyway, as you chose"), "{}", anyway.text);
    assert!(
        anyway.text.contains("because this run took") && anyway.text.contains("48 photos: 48 classified"),
        "{}",
        anyway.text
    );
}
