//! `galley bench` as scripts meet it: the real program, its JSON lines and its exit codes.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_galley"));
    command.args(["bench", "--rounds", "1", "--seconds", "0", "--threads", "2"]).args(arguments);
    command.env("GALLEY_VERDICTS", env!("CARGO_TARGET_TMPDIR")).stdin(Stdio::null()).output().unwrap()
}

fn rows(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn starter() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("resources/starter.safetensors").to_str().unwrap().to_owned()
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key} is no number: {row}"))
}

#[test]
fn there_is_a_json_line_per_batch_size() {
    let rows = rows(&bench(&["--json", "--model", &starter(), "--image", "64", "--batch", "1,3"]));
    assert_eq!(rows.iter().map(|row| row["batch"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3]);
    for row in &rows {
        assert_eq!((row["precision"].as_str(), row["device"].as_str()), (Some("f32"), Some("CPU")));
        assert_eq!((row["image"].as_u64(), row["threads"].as_u64()), (Some(64), Some(2)));
        assert!(row["network"].as_str().is_some_and(|network| !network.is_empty()));
        for key in ["images_per_second", "peak_bytes", "gflops_per_second"] {
            assert!(number(row, key) > 0.0, "{row}");
        }
        let blocks = row["blocks"].as_array().unwrap();
        let names: Vec<_> = blocks.iter().map(|block| block["name"].as_str().unwrap()).collect();
        assert_eq!((names[0], names[names.len() - 1]), ("stem", "head"));
        assert!(blocks.iter().all(|block| number(block, "milliseconds") > 0.0));
    }
    // A bigger batch is more work in every block.
    for (one, three) in rows[0]["blocks"].as_array().unwrap().iter().zip(rows[1]["blocks"].as_array().unwrap()) {
        let [one, three] = [one, three].map(|block| number(block, "gflops"));
        assert!((three - 3.0 * one).abs() < 1e-9, "{one} {three}");
    }
}

/// Multiplications with their additions of one image, in 10⁹, as torchvision's documentation of its weights gives them.
#[test]
fn counted_work_is_what_torchvision_publishes() {
    for (name, published) in [
        ("mobilenet_v3_small", 0.057),
        ("resnet18", 1.814),
        ("squeezenet1_1", 0.349),
        ("efficientnet_b0", 0.386),
        ("vit_b_16", 17.564),
        ("convnext_tiny", 4.456),
    ] {
        let rows = rows(&bench(&["--json", "--arch", name, "--image", "224", "--batch", "1"]));
        let counted: f64 = rows[0]["blocks"].as_array().unwrap().iter().map(|block| number(block, "gflops")).sum();
        assert!((counted / 2.0 - published).abs() < 0.002 * published + 0.001, "{name}: {} {published}", counted / 2.0);
    }
}

#[test]
fn people_get_a_line_per_configuration_and_one_per_block() {
    let output = bench(&["--model", &starter(), "--image", "64", "--batch", "1,2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("images/s") && text.contains("peak memory"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("    2  f32 ")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("stem ") && line.matches('(').count() == 2), "{text}");
}

#[test]
fn steps_of_training_are_measured_for_checkpoints_and_names() {
    let starter = starter();
    for network in [["--model", starter.as_str()], ["--arch", "resnet18"]] {
        let options = ["--json", "--train", "--image", "64", "--batch", "2"];
        let trained = rows(&bench(&[&network[..], &options].concat()));
        assert_eq!((trained.len(), trained[0]["work"].as_str()), (1, Some("training")));
        assert!(trained[0]["blocks"].as_array().unwrap().is_empty());
        let options = ["--json", "--image", "64", "--batch", "2"];
        let classified = rows(&bench(&[&network[..], &options].concat()));
        assert_eq!(classified[0]["work"], "inference");
        let gflops = |row: &Value| number(row, "gflops_per_second") / number(row, "images_per_second");
        let times = gflops(&trained[0]) / gflops(&classified[0]);
        // The starter's gates are one kernel of inference, which nobody counts.
        assert!(times > 2.999 && times < 3.5, "{times} times the arithmetic");
        // Every activation is kept for backward, and every weight has a gradient.
        assert!(number(&trained[0], "peak_bytes") > number(&classified[0], "peak_bytes"));
    }
    let text =
        String::from_utf8(bench(&["--train", "--model", &starter, "--image", "64", "--batch", "1"]).stdout).unwrap();
    assert!(text.starts_with("training ") && text.contains("ms/step"), "{text}");
}

#[test]
fn fewer_bits_take_less_memory() {
    let arguments = ["--arch", "resnet18", "--image", "32", "--batch", "1", "--precision", "f32,int8,int4", "--json"];
    let peaks: Vec<f64> = rows(&bench(&arguments)).iter().map(|row| number(&row["memory"], "heap_bytes")).collect();
    assert_eq!(peaks.len(), 3);
    // A whole tensor in f32 is there while its bits are made: 9.4 MB beside 11.8 and 7.4 MB.
    assert!(peaks[1] < 0.5 * peaks[0] && peaks[2] < 0.9 * peaks[1], "{peaks:?}");
}

/// The ranges are found outside of the process that measures, whose memory has no network in f32.
#[test]
fn a_calibrated_network_is_measured_like_one_that_is_not() {
    let arguments = ["--arch", "resnet50", "--image", "32", "--batch", "1", "--precision", "int8", "--json"];
    let of = |more: &[&str]| rows(&bench(&[&arguments, more].concat())).remove(0);
    let [plain, calibrated] = [of(&[]), of(&["--calibrated"])];
    let [before, after] = [&plain, &calibrated].map(|row| number(&row["memory"], "heap_bytes"));
    assert!(number(&calibrated, "images_per_second") > 0.0);
    assert!(after < 1.02 * before, "{before} {after}");
    assert_eq!(bench(&["--calibrated", "--model", &starter()]).status.code(), Some(2));
}

#[test]
fn what_cannot_be_measured_is_said() {
    for (arguments, reason) in
        [(["--arch", "resnet-50"], "resnet50"), (["--model", "no-such-file.pth"], "no-such-file.pth")]
    {
        let output = bench(&arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(reason), "{stderr}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(bench(&["--batch", "0"]).status.code(), Some(2));
}

/// Heap peaks are foreseen: never much too low, for then memory runs out, and not much too high. Each is a process of its own.
#[test]
fn peaks_are_predicted() {
    let check = |arguments: &[&str]| {
        for row in rows(&bench(&[&["--json", "--device", "cpu"], arguments].concat())) {
            let memory = &row["memory"];
            let items = ["weights", "gradients", "optimizer", "activations", "workspace", "photos", "features"];
            let predicted: f64 = items.iter().map(|item| number(&memory["plan"], item)).sum();
            let ratio = predicted / number(memory, "heap_bytes");
            assert!((0.95..1.1).contains(&ratio), "{arguments:?}: {ratio} in {row}");
        }
    };
    let named = |name: &'static str, side: &'static str, rest: &[&'static str]| {
        check(&[&["--arch", name, "--image", side], rest].concat());
    };
    for name in ["convnext_atto", "convnextv2_atto", "mobilenetv3_small_100", "resnet18", "squeezenet1_1"] {
        named(name, "96", &["--train", "--batch", "8"]);
        named(name, "96", &["--train", "--batch", "8", "--recompute"]);
        named(name, "160", &["--batch", "1,9", "--precision", "f32,int8"]);
    }
    for rest in [&["--train", "--batch", "2"][..], &["--train", "--batch", "2", "--recompute"], &["--batch", "1,4"]] {
        named("vit_tiny_patch16_224", "224", rest);
    }
    named("convnext_atto", "96", &["--train", "--batch", "12", "--micro-batch", "4"]);
    named("mobilenetv3_small_100", "96", &["--train", "--batch", "8", "--micro-batch", "4", "--recompute"]);
}
