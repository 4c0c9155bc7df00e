//! Which batch size and which learning rate: what is tried before a run.

use std::fs;
use std::process::Command;

use galley::data::Augment;
use galley::train::{Record, TrainConfig};

use crate::runs::Kitchen;

#[test]
fn a_sweep_tries_every_batch_size_in_a_process_of_its_own() {
    let kitchen = Kitchen::new(8);
    let output = Command::new(env!("CARGO_BIN_EXE_galley"))
        .args(["sweep", "--data", kitchen.at("photos").to_str().unwrap(), "--batch-sizes", "2,6", "--steps", "2"])
        .args(["--image-size", "32", "--json", "--report"])
        .arg(kitchen.at("sweep.html"))
        .env("GALLEY_TILES", kitchen.at("tiles"))
        .env("GALLEY_VERDICTS", kitchen.at("verdicts"))
        .env("GALLEY_JOURNAL", kitchen.at("journal.sqlite"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.iter().map(|row| row["batch_size"].as_u64()).collect::<Vec<_>>(), [Some(2), Some(6)]);
    for row in &rows {
        assert_eq!(row["fits"], true, "{row}");
        assert!(row["photos_per_second"].as_f64().unwrap() > 0.0);
        let (peak, predicted) = (row["peak_bytes"].as_u64().unwrap(), row["predicted_bytes"].as_u64().unwrap());
        // Weights, gradients and two moments of 1.5 million parameters are most of what so small photos take.
        assert!(predicted > 4 * 4 * 1_500_000, "{row}");
        assert!((0.4..1.6).contains(&(predicted as f64 / peak as f64)), "{row}");
        let page = fs::read_to_string(kitchen.at("sweep.html")).unwrap();
        assert!(page.contains(&format!("<td>{}</td>", galley::format::bytes(peak))), "{row}");
    }
}

#[test]
fn a_search_for_the_rate_finds_one_that_learns_and_leaves_nothing_behind() {
    let kitchen = Kitchen::new(16);
    // The losses of large batches whose photos do not change are told from noise in few steps.
    let alike = TrainConfig { batch_size: 12, augment: Augment::NONE, label_smoothing: 0.0, ..kitchen.config() };
    let output = Command::new(env!("CARGO_BIN_EXE_galley"))
        .args(["find-lr", "--data", kitchen.at("photos").to_str().unwrap(), "--image-size", "32", "--batch-size", "12"])
        .args("--flip 0 --random-crop false --label-smoothing 0 --steps 60 --json --report".split(' '))
        .arg(kitchen.at("rates.html"))
        .env("GALLEY_TILES", kitchen.at("tiles"))
        .env("GALLEY_VERDICTS", kitchen.at("verdicts"))
        .env("GALLEY_JOURNAL", kitchen.at("journal.sqlite"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (end, points) = lines.split_last().unwrap();
    assert_eq!((end["kind"].as_str(), end["steps"].as_u64()), (Some("end"), Some(points.len() as u64)));
    let number = |point: &serde_json::Value, name: &str| point[name].as_f64().unwrap();
    assert_eq!(number(&points[0], "lr"), 1e-7);
    assert!(points.windows(2).all(|pair| number(&pair[0], "lr") < number(&pair[1], "lr")));
    let suggested = number(end, "suggested");
    assert!(points.iter().any(|point| number(point, "lr") == suggested));
    let page = fs::read_to_string(kitchen.at("rates.html")).unwrap();
    assert!(page.contains(&format!("suggested: {suggested:.1e}")));
    // With that rate a run gets better.
    let config = TrainConfig { lr: suggested, epochs: 6, ..alike };
    kitchen.train(&kitchen.begin(config, "run")).unwrap();
    let losses: Vec<f64> = kitchen
        .metrics("run")
        .iter()
        .filter_map(|record| match record {
            Record::Epoch(epoch) => Some(epoch.train_loss),
            Record::Step(_) | Record::Guard(_) => None,
        })
        .collect();
    assert!(losses[5] < 0.9 * losses[0], "{losses:?}");
}

#[test]
fn a_sweep_of_nothing_says_what_is_missing() {
    let sweep = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_galley")).arg("sweep").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(sweep(&[]).contains("--data"));
    assert!(sweep(&["--data", "no-such-folder"]).contains("no-such-folder"));
}
