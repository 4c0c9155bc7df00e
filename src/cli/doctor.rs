//! `galley doctor`: what was compared, how far off it was, and what that means, as text or one JSON object.

use std::process::ExitCode;

use super::arguments::DoctorArguments;
use super::print;
use crate::format::counted;
use crate::jobs::doctor::{Diagnosis, Finding, default_folder, diagnose};
use crate::worker::BoxError;

pub fn run(arguments: &DoctorArguments) -> ExitCode {
    let mut all_ok = true;
    let printed = print(diagnose(arguments.device.choice(), &default_folder()).and_then(|diagnosis| {
        all_ok = diagnosis.findings.iter().all(|finding| finding.ok);
        match arguments.json {
            true => Ok(serde_json::to_string(&diagnosis).map_err(BoxError::from)? + "\n"),
            false => Ok(describe(&diagnosis)),
        }
    }));
    if all_ok { printed } else { ExitCode::FAILURE }
}

fn describe(diagnosis: &Diagnosis) -> String {
    let Diagnosis { version, system, device, reason, threads, cpu_features, findings, .. } = diagnosis;
    let mut text = format!("Galley {version}, {system}\nDevice: {device} ({reason}); threads: {threads}\n");
    text += &format!("Vector instructions: {}\n\n", cpu_features.join(" "));
    text += &format!("{:<22}{:<10}{:>12}{:>12}\n", "operation", "pass", "error", "allowed");
    for Finding { op, pass, worst_error, tolerance, ok } in findings {
        let mark = if *ok { "" } else { "  FAILED" };
        text += &format!("{op:<22}{pass:<10}{worst_error:>12.1e}{tolerance:>12.1e}{mark}\n");
    }
    text + "\n" + &verdict(diagnosis) + "\n"
}

/// What the findings mean for the person at this machine, and which file tells other runs.
fn verdict(diagnosis: &Diagnosis) -> String {
    let Diagnosis { device, findings, flush_cost, composed, wrong, kept_in, not_kept, .. } = diagnosis;
    let failed = findings.iter().filter(|finding| !finding.ok).count();
    let compared = counted(findings.len() as u64, "comparison");
    let mut text = match failed {
        0 => format!("All right: {compared}, none beyond what is allowed. Galley's results can be trusted here"),
        failed => format!("{failed} of {compared} failed: please report this output"),
    };
    if !composed.is_empty() {
        text += &format!("\nFrom now on computed in a slower way, which is right: {}", composed.join(", "));
    }
    if !wrong.is_empty() {
        let effect = if *device == "CPU" { "do not trust results that need it" } else { "it is not used" };
        text += &format!("\nWrong on this {device} in every way, so {effect}: {}", wrong.join(", "));
    }
    if let Some(cost) = flush_cost {
        let percent = (100.0 * cost).max(0.0);
        text += &format!("\nGiving memory back at the usual intervals takes {percent:.1} % of the time of training");
    }
    match not_kept {
        None => text + &format!("\nKept in {kept_in}"),
        Some(reason) => text + &format!("\nNot kept for other runs: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnosis(errors: &[(&'static str, f32)]) -> Diagnosis {
        let finding = |&(op, worst_error): &(&'static str, f32)| Finding {
            op,
            pass: "forward",
            worst_error,
            tolerance: 1e-4,
            ok: worst_error <= 1e-4,
        };
        Diagnosis {
            version: "1",
            system: "linux".to_owned(),
            device: "Metal",
            reason: "chosen by you".to_owned(),
            threads: 1,
            cpu_features: Vec::new(),
            findings: errors.iter().map(finding).collect(),
            flush_cost: Some(0.004),
            composed: Vec::new(),
            wrong: Vec::new(),
            kept_in: "/cache/metal.json".to_owned(),
            not_kept: None,
        }
    }

    #[test]
    fn a_failure_is_named_and_says_what_it_means() {
        let mut failing = diagnosis(&[("conv", 2e-7), ("linear", f32::INFINITY), ("softmax", 1.0)]);
        failing.composed.push("linear".to_owned());
        failing.wrong.push("softmax".to_owned());
        let text = verdict(&failing);
        assert!(text.starts_with("2 of 3 comparisons failed"), "{text}");
        assert!(text.contains("slower way, which is right: linear"), "{text}");
        assert!(text.contains("not used: softmax"), "{text}");
        assert!(text.ends_with("Kept in /cache/metal.json"), "{text}");
    }

    #[test]
    fn without_a_failure_all_is_right_and_a_full_disk_is_said() {
        let mut right = diagnosis(&[("conv", 2e-7)]);
        right.not_kept = Some("no space".to_owned());
        let text = verdict(&right);
        assert!(text.starts_with("All right: 1 comparison,"), "{text}");
        assert!(text.contains("takes 0.4 % of the time of training"), "{text}");
        assert!(text.ends_with("Not kept for other runs: no space"), "{text}");
    }
}
