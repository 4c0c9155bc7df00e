//! `galley doctor`: what was compared, how far off it was, and what that means, as text or one JSON object.

use std::process::ExitCode;

use super::arguments::DoctorArguments;
use super::print;
use crate::format::counted;
use crate::jobs::doctor::{Diagnosis, Finding, diagnose};
use crate::worker::BoxError;

pub fn run(arguments: &DoctorArguments) -> ExitCode {
    let mut all_ok = true;
    let printed = print(diagnose(arguments.device.choice()).and_then(|diagnosis| {
        all_ok = diagnosis.findings.iter().all(|finding| finding.ok);
        match arguments.json {
            true => Ok(serde_json::to_string(&diagnosis).map_err(BoxError::from)? + "\n"),
            false => Ok(describe(&diagnosis)),
        }
    }));
    if all_ok { printed } else { ExitCode::FAILURE }
}

fn describe(diagnosis: &Diagnosis) -> String {
    let Diagnosis { version, system, device, reason, threads, cpu_features, findings } = diagnosis;
    let mut text = format!("Galley {version}, {system}\nDevice: {device} ({reason}); threads: {threads}\n");
    text += &format!("Vector instructions: {}\n\n", cpu_features.join(" "));
    text += &format!("{:<22}{:<10}{:>12}{:>12}\n", "operation", "pass", "error", "allowed");
    for Finding { op, pass, worst_error, tolerance, ok } in findings {
        let mark = if *ok { "" } else { "  FAILED" };
        text += &format!("{op:<22}{pass:<10}{worst_error:>12.1e}{tolerance:>12.1e}{mark}\n");
    }
    text + "\n" + &verdict(findings) + "\n"
}

/// What the findings mean for the person at this machine.
fn verdict(findings: &[Finding]) -> String {
    let failed: Vec<String> = findings
        .iter()
        .filter(|finding| !finding.ok)
        .map(|finding| format!("{} {}", finding.op, finding.pass))
        .collect();
    let compared = counted(findings.len() as u64, "comparison");
    match failed.as_slice() {
        [] => format!("All right: {compared}, none beyond what is allowed. Galley's results can be trusted here"),
        failed => format!(
            "{} of {compared} failed ({}). Galley can compute these operations in a slower way on this device, and its \
             fast way must be mended: please report this output",
            failed.len(),
            failed.join(", "),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_named_and_says_what_it_means() {
        let finding = |op, worst_error, ok| Finding { op, pass: "forward", worst_error, tolerance: 1e-4, ok };
        let text = verdict(&[finding("conv", 2e-7, true), finding("linear", f32::INFINITY, false)]);
        assert!(text.starts_with("1 of 2 comparisons failed (linear forward)"), "{text}");
        let text = verdict(&[finding("conv", 2e-7, true)]);
        assert!(text.starts_with("All right: 1 comparison,"), "{text}");
    }
}
