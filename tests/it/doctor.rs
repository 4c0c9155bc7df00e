//! `galley doctor` as people and scripts meet it.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn doctor(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_galley"));
    command.arg("doctor").args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn every_operation_is_compared_forward_and_backward() {
    let output = doctor(&["--json", "--device", "cpu"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let diagnosis: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(diagnosis["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(diagnosis["device"], "CPU");
    assert!(diagnosis["threads"].as_u64().unwrap() > 0);
    let findings = diagnosis["findings"].as_array().unwrap();
    for op in ["linear", "conv", "depthwise", "layer-norm", "attention", "mlp"] {
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
    assert!(text.trim_end().lines().last().unwrap().starts_with("All right: "), "{text}");
}

#[cfg(not(target_os = "macos"))]
#[test]
fn a_device_that_is_not_there_is_an_error() {
    let output = doctor(&["--device", "metal"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no Metal device"));
}
