//! `galley doctor` as people and scripts meet it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn galley(verdicts: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_galley"));
    command.env("GALLEY_VERDICTS", verdicts).env("GALLEY_JOURNAL", verdicts.join("journal.sqlite"));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn doctor(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    galley(folder.path(), &[&["doctor"], arguments].concat())
}

#[test]
fn every_operation_is_compared_forward_and_backward() {
    let output = doctor(&["--json", "--device", "cpu"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let diagnosis: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(diagnosis["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(diagnosis["device"], "CPU");
    assert!(diagnosis["threads"].as_u64().unwrap() > 0);
    assert!(diagnosis["flush_cost"].is_number(), "steps of training were taken");
    let findings = diagnosis["findings"].as_array().unwrap();
    for op in ["linear", "conv", "depthwise", "layer-norm", "attention", "mlp", "training-step"] {
        for pass in ["forward", "backward"] {
            let found = findings.iter().find(|finding| finding["op"] == op && finding["pass"] == pass);
            let found = found.unwrap_or_else(|| panic!("{op} {pass} was not compared"));
            assert_eq!(found["ok"], true, "{found}");
            assert!(found["worst_error"].as_f64() <= found["tolerance"].as_f64(), "{found}");
        }
    }
}

#[test]
fn people_get_a_table_and_a_sentence() {
    let output = doctor(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with("Galley ") && text.contains("Device: "), "{text}");
    assert!(text.contains("\nAll right: ") && text.contains("\nGiving memory back"), "{text}");
    let kept = text.lines().last().unwrap();
    assert!(kept.starts_with("Kept in ") && kept.ends_with(".json"), "{text}");
}

#[test]
fn what_failed_is_computed_in_a_slower_way_until_doctor_runs_again() {
    let folder = tempfile::tempdir().unwrap();
    let photo = "sample-data/photos/test/pizza/001.jpg";
    let classify = || {
        let output = galley(folder.path(), &["classify", "--device", "cpu", "--fresh", "--json", "--logits", photo]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let row: Value = serde_json::from_slice(&output.stdout).unwrap();
        let logits = row["logits"].as_array().unwrap().iter().map(|logit| logit.as_f64().unwrap());
        (logits.collect::<Vec<_>>(), String::from_utf8(output.stderr).unwrap())
    };
    let (before, said) = classify();
    assert!(!said.contains("slower"), "{said}");

    assert!(galley(folder.path(), &["doctor", "--device", "cpu"]).status.success());
    let file = folder.path().join("cpu.json");
    let mut verdict: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let operations = ["activation", "packed", "linear", "conv", "depthwise", "layer-norm", "mlp"];
    verdict["verdict"]["composed"] = operations.as_slice().into();
    std::fs::write(&file, verdict.to_string()).unwrap();
    let (composed, said) = classify();
    assert!(said.contains("note: Galley's fast way to compute activation, conv, "), "{said}");
    assert_ne!(composed, before, "other sums have other last digits");
    let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-3;
    assert!(composed.iter().zip(&before).all(near), "{composed:?} {before:?}");

    assert!(galley(folder.path(), &["doctor", "--device", "cpu"]).status.success());
    let (after, said) = classify();
    assert_eq!(after, before);
    assert!(!said.contains("slower"), "{said}");
}

#[cfg(not(target_os = "macos"))]
#[test]
fn a_device_that_is_not_there_is_an_error() {
    let output = doctor(&["--device", "metal"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no Metal device"));
}
