//! Gives a job its device: compared with the CPU once, and with what it computes wrongly switched off.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::verdict::{Known, Verdict, VerdictFile};
use crate::device::{self, Chosen, DeviceChoice};
use crate::format::error_chain;
use crate::memory::heap;
use crate::ops;
use crate::ops::selfcheck::{self, Check};
use crate::worker::{self, BoxError, Canceled, JobContext, Outcome, Progress};

/// Comparisons that may end early, by a driver that ends the process or by a power cut, before there is no other.
const MOST_BEGUN: u32 = 2;

/// One comparison at a time: whoever comes second finds its result.
static COMPARING: Mutex<()> = Mutex::new(());

/// A device, and what a person should know about it.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub chosen: Chosen,
    pub notices: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}; choose the device auto or cpu")]
pub struct Unfit(String);

/// The device for a choice. It is compared before its first use, which takes a CPU a tenth of a second and Metal some
/// seconds; the verdict is kept in `folder`.
///
/// Where Metal is wrong beyond help, that is an error when it was chosen by name; else the CPU takes its place.
pub fn prepare(choice: DeviceChoice, folder: &Path, ctx: &JobContext) -> Result<Prepared, BoxError> {
    compared(choice, device::choose(choice)?, folder, ctx, compare)
}

/// The device by its verdict, which `compare` gives when there is none.
fn compared(
    choice: DeviceChoice,
    chosen: Chosen,
    folder: &Path,
    ctx: &JobContext,
    compare: impl FnOnce(&Chosen, &JobContext) -> Result<Vec<Check>, BoxError>,
) -> Result<Prepared, BoxError> {
    let mut notices = Vec::new();
    let verdict = verdict(&chosen, &VerdictFile::new(folder, &chosen), ctx, compare, &mut notices)?;
    notices.extend(verdict.iter().filter_map(|verdict| switched_off(&chosen, verdict)));
    let unfit = match verdict {
        Ok(verdict) if verdict.wrong.is_empty() => return Ok(Prepared { chosen, notices }),
        Ok(verdict) => format!("{} computes {} wrongly on this machine", chosen.name, listed(&verdict.wrong)),
        Err(reason) => format!("the check of {} {reason}", chosen.name),
    };
    if is_cpu(&chosen) {
        notices.push(format!("Do not trust results of this machine: {unfit} (see galley doctor --device cpu)"));
        return Ok(Prepared { chosen, notices });
    }
    if choice != DeviceChoice::Auto {
        return Err(Unfit(unfit).into());
    }
    notices.push(format!("Galley computes on the CPU: {unfit} (galley doctor --device metal checks it again)"));
    let mut instead = prepare(DeviceChoice::Cpu, folder, ctx)?;
    instead.chosen.reason = unfit;
    instead.notices.splice(0..0, notices);
    Ok(instead)
}

/// There is no other to take its place.
fn is_cpu(chosen: &Chosen) -> bool {
    chosen.name == "CPU"
}

/// The verdict that is known, or found now; or why there is none.
fn verdict(
    chosen: &Chosen,
    file: &VerdictFile,
    ctx: &JobContext,
    compare: impl FnOnce(&Chosen, &JobContext) -> Result<Vec<Check>, BoxError>,
    notices: &mut Vec<String>,
) -> Result<Result<Verdict, String>, Canceled> {
    if let Some(verdict) = file.read().verdict {
        return Ok(Ok(verdict));
    }
    ctx.report(Progress { phase: format!("Checking {}", chosen.name), ..Progress::default() });
    let _one = COMPARING.lock().unwrap_or_else(PoisonError::into_inner);
    // Another job may have found it meanwhile.
    let known = file.read();
    if let Some(verdict) = known.verdict {
        return Ok(Ok(verdict));
    }
    if known.begun >= MOST_BEGUN {
        return Ok(Err("ended early each time".to_owned()));
    }
    match worker::run(|| examine(chosen, file, ctx, compare)) {
        Outcome::Finished(Examined { verdict, not_kept, .. }) => {
            let again = |reason| format!("The check of {} runs again next time, for its file: {reason}", chosen.name);
            // A tenth of a second is not worth a word.
            notices.extend(not_kept.filter(|_| !is_cpu(chosen)).map(again));
            Ok(Ok(verdict))
        }
        Outcome::Canceled => Err(Canceled),
        Outcome::Failed(error) => Ok(Err(format!("failed ({})", error_chain(&*error)))),
    }
}

/// A comparison that has just run.
pub(super) struct Examined {
    pub checks: Vec<Check>,
    pub verdict: Verdict,
    /// Why the verdict is not in its file.
    pub not_kept: Option<String>,
}

/// Compares, and keeps the verdict. That it has begun is noted before, for a driver may end the process.
pub(super) fn examine(
    chosen: &Chosen,
    file: &VerdictFile,
    ctx: &JobContext,
    compare: impl FnOnce(&Chosen, &JobContext) -> Result<Vec<Check>, BoxError>,
) -> Result<Examined, BoxError> {
    let before = file.read();
    let noted = file.write(&Known { begun: before.begun + 1, verdict: None });
    let checks = match compare(chosen, ctx) {
        Ok(checks) => checks,
        Err(error) => {
            // Whoever cancels it is not its failure.
            if ctx.is_canceled() && noted.is_ok() {
                file.write(&before)?;
            }
            return Err(error);
        }
    };
    let verdict = Verdict::of(&checks);
    let kept = file.write(&Known { begun: 0, verdict: Some(verdict.clone()) });
    Ok(Examined { checks, verdict, not_kept: kept.err().map(|error| error.to_string()) })
}

/// Compares now, whatever is known.
pub(super) fn examine_again(chosen: &Chosen, file: &VerdictFile, ctx: &JobContext) -> Result<Examined, BoxError> {
    let _one = COMPARING.lock().unwrap_or_else(PoisonError::into_inner);
    examine(chosen, file, ctx, compare)
}

/// Every operation on the device with the same on the CPU.
fn compare(chosen: &Chosen, ctx: &JobContext) -> Result<Vec<Check>, BoxError> {
    let mut checks = Vec::new();
    for check in selfcheck::run(&chosen.device) {
        checks.push(check);
        ctx.check()?;
    }
    ops::release(&chosen.device)?;
    heap::release();
    Ok(checks)
}

/// From now on these operations run composed; says so.
fn switched_off(chosen: &Chosen, verdict: &Verdict) -> Option<String> {
    let operations = &verdict.composed;
    selfcheck::switch_off(operations.iter().map(String::as_str), &chosen.device);
    let name = chosen.name;
    (!operations.is_empty()).then(|| {
        let operations = listed(operations);
        format!("Galley's fast way to compute {operations} is wrong on this machine's {name}, so a slower one is used")
    })
}

fn listed(operations: &BTreeSet<String>) -> String {
    operations.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::ops::uses_kernel;

    /// A device that calls itself Metal and computes on the CPU.
    fn like_metal() -> Chosen {
        Chosen { name: "Metal", ..device::choose(DeviceChoice::Cpu).unwrap() }
    }

    /// A finding about what has no kernel: switched off, nothing else runs differently.
    fn finding(worst_error: f32, composed_error: Option<f32>) -> Check {
        let ok = worst_error <= 1e-4;
        Check { op: "training-step", pass: "forward", worst_error, composed_error, tolerance: 1e-4, ok }
    }

    fn prepared(choice: DeviceChoice, folder: &Path, check: Check) -> Result<Prepared, BoxError> {
        compared(choice, like_metal(), folder, &JobContext::detached(), |_, _| Ok(vec![check]))
    }

    fn says(notices: &[String], text: &str) -> bool {
        notices.iter().any(|notice| notice.contains(text))
    }

    #[test]
    fn a_device_is_compared_once() {
        let folder = tempfile::tempdir().unwrap();
        let times = Cell::new(0);
        for _ in 0..3 {
            let compare = |_: &Chosen, _: &JobContext| {
                times.set(times.get() + 1);
                Ok(vec![finding(1e-6, None)])
            };
            let ctx = JobContext::detached();
            let prepared = compared(DeviceChoice::Auto, like_metal(), folder.path(), &ctx, compare).unwrap();
            assert_eq!((prepared.chosen.name, prepared.notices), ("Metal", vec![]));
        }
        assert_eq!(times.get(), 1);
        let file = VerdictFile::new(folder.path(), &like_metal());
        std::fs::write(&file.path, "{").unwrap();
        prepared(DeviceChoice::Auto, folder.path(), finding(1e-6, None)).unwrap();
        assert_eq!(file.read(), Known { begun: 0, verdict: Some(Verdict::default()) }, "a damaged file is made anew");
    }

    #[test]
    fn a_kernel_that_failed_stays_off_on_a_device_that_is_used_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let device = like_metal().device;
        for check in [finding(0.5, Some(1e-6)), finding(1e-6, None)] {
            ops::set_kernel("training-step", &device, true);
            let prepared = prepared(DeviceChoice::Auto, folder.path(), check).unwrap();
            assert_eq!(prepared.chosen.name, "Metal");
            assert!(says(&prepared.notices, "compute training-step is wrong on this machine's Metal"));
            assert!(!uses_kernel("training-step", &device));
        }
    }

    #[test]
    fn a_device_that_is_wrong_in_every_form_gives_way_to_the_cpu_or_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let wrong = finding(0.5, Some(0.5));
        let instead = prepared(DeviceChoice::Auto, folder.path(), wrong).unwrap();
        assert_eq!(instead.chosen.name, "CPU");
        assert_eq!(instead.chosen.reason, "Metal computes training-step wrongly on this machine");
        assert!(says(&instead.notices, "Galley computes on the CPU: Metal computes training-step wrongly"));
        let error = prepared(DeviceChoice::Metal, folder.path(), wrong).unwrap_err().to_string();
        assert!(error.contains("training-step wrongly") && error.contains("choose the device auto or cpu"), "{error}");
    }

    #[test]
    fn a_comparison_that_fails_is_tried_twice_and_meanwhile_the_cpu_computes() {
        let folder = tempfile::tempdir().unwrap();
        let failing = || {
            let ctx = JobContext::detached();
            let panicking = |_: &Chosen, _: &JobContext| panic!("no driver");
            let instead = compared(DeviceChoice::Auto, like_metal(), folder.path(), &ctx, panicking).unwrap();
            assert_eq!(instead.chosen.name, "CPU");
            instead.chosen.reason
        };
        assert!(failing().ends_with("failed (internal error: no driver)"));
        assert!(failing().ends_with("failed (internal error: no driver)"));
        assert_eq!(failing(), "the check of Metal ended early each time");
        let file = VerdictFile::new(folder.path(), &like_metal());
        let right = |_: &Chosen, _: &JobContext| Ok(vec![finding(1e-6, None)]);
        examine(&like_metal(), &file, &JobContext::detached(), right).unwrap();
        assert_eq!(file.read().begun, 0, "galley doctor tries again all the same");
    }

    #[test]
    fn a_canceled_comparison_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let ctx = JobContext::detached();
        let canceling = |_: &Chosen, ctx: &JobContext| {
            ctx.cancel();
            Err(Canceled.into())
        };
        let canceled = compared(DeviceChoice::Auto, like_metal(), folder.path(), &ctx, canceling).unwrap_err();
        assert!(canceled.is::<Canceled>());
        assert_eq!(VerdictFile::new(folder.path(), &like_metal()).read(), Known::default());
    }

    #[test]
    fn a_verdict_that_cannot_be_kept_still_counts() {
        let folder = tempfile::tempdir().unwrap();
        let no_folder = folder.path().join("file");
        std::fs::write(&no_folder, "").unwrap();
        let prepared = prepared(DeviceChoice::Auto, &no_folder, finding(1e-6, None)).unwrap();
        assert_eq!(prepared.chosen.name, "Metal");
        assert!(says(&prepared.notices, "The check of Metal runs again next time"));
    }
}
