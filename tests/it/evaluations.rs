//! Answers compared with true classes: the figures, and the page they are written as.

use std::fs;
use std::process::Command;

use galley::data::{DataOptions, Dataset, Split};
use galley::jobs::evaluate::{EvaluateConfig, evaluate};
use galley::predict::{Evaluation, ModelSource};
use galley::worker::JobContext;

use crate::runs::{Kitchen, write_picture};

#[test]
fn an_evaluation_agrees_with_the_run_that_made_the_model() {
    let kitchen = Kitchen::new(8);
    let (summary, _) = kitchen.train(&kitchen.begin(kitchen.config(), "run")).unwrap();
    let best = summary.finished.best.unwrap();
    // The validation photos alone, as a manifest.
    let options = DataOptions { validation_fraction: 0.25, ..DataOptions::default() };
    let dataset = Dataset::open(&kitchen.at("photos"), None, &options).unwrap();
    let rows = dataset
        .part(Split::Validation)
        .map(|photo| format!("{},{}\n", photo.path.display(), dataset.classes[photo.class]));
    fs::write(kitchen.at("validation.csv"), "path,label\n".to_owned() + &rows.collect::<String>()).unwrap();
    let config = EvaluateConfig {
        model: ModelSource::File(kitchen.at("run/best.safetensors")),
        data: kitchen.at("validation.csv"),
        ..EvaluateConfig::default()
    };
    let evaluated = evaluate(&config, &kitchen.places(), &JobContext::detached()).unwrap();
    // The run's own report is of the same weights and photos: the same numbers.
    let report = fs::read_to_string(summary.report.unwrap()).unwrap();
    let (top1, loss) = (evaluated.evaluation.top1, evaluated.evaluation.loss);
    for figure in [format!("<dd>{:.1} %</dd>", 100.0 * top1), format!("<dd>{loss:.4}</dd>"), "<dd>6</dd>".to_owned()] {
        assert!(report.contains(&figure), "{figure}");
    }
    for part in ["Learning rate", "cell-0-", "Accuracy by confidence", "validation-fraction"] {
        assert!(report.contains(part), "{part}");
    }
    let Evaluation { photos, top1, loss, classes, .. } = evaluated.evaluation;
    assert_eq!((photos, classes.len()), (6, 3));
    assert_eq!(top1, best.top1);
    // Training evaluates with batch norms unfolded: the same but for rounding.
    assert!((loss - best.loss).abs() < 1e-4 * best.loss, "{loss} and {}", best.loss);
    assert!(evaluated.unknown.is_empty() && evaluated.skipped.is_empty());
}

#[test]
fn an_evaluation_is_written_as_a_page_with_its_worst_photos() {
    let kitchen = Kitchen::new(0);
    // The starter model calls none of these what they are named.
    for (number, class) in ["burger", "pizza", "sushi"].into_iter().enumerate() {
        let path = kitchen.at(&format!("photos/{class}/<b>{class}&.png"));
        write_picture(&path, [40, 200, 255], number as u32);
    }
    fs::write(kitchen.at("photos/sushi/cut.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_galley"))
        .args(["evaluate", kitchen.at("photos").to_str().unwrap(), "--json", "--report"])
        .arg(kitchen.at("report.html"))
        .env("GALLEY_VERDICTS", kitchen.at("verdicts"))
        .env("GALLEY_JOURNAL", kitchen.at("journal.sqlite"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let evaluation = &summary["evaluation"];
    let page = fs::read_to_string(kitchen.at("report.html")).unwrap();
    let number = |name: &str| evaluation[name].as_f64().unwrap();
    assert!(page.contains(&format!("<dd>{:.1} %</dd>", 100.0 * number("top1"))));
    assert!(page.contains(&format!("<dd>{:.4}</dd>", number("loss"))));
    let wrong = evaluation["judged"].as_array().unwrap().iter().filter(|one| one["rank"] != 0).count();
    assert!(wrong > 0);
    assert_eq!(page.matches("data:image/jpeg;base64,").count(), wrong);
    for judged in evaluation["judged"].as_array().unwrap() {
        let (class, called) = (judged["class"].as_u64().unwrap(), judged["predicted"].as_u64().unwrap());
        assert!(page.contains(&format!("id=\"cell-{class}-{called}\"")), "{class} {called}");
    }
    assert!(page.contains("cut.png") && page.contains("&lt;b&gt;sushi&amp;.png") && !page.contains("<b>sushi"));
}

#[test]
fn classes_a_model_does_not_know_are_left_out_or_refused() {
    let kitchen = Kitchen::new(2);
    let config = EvaluateConfig { data: kitchen.at("photos"), ..EvaluateConfig::default() };
    let error = evaluate(&config, &kitchen.places(), &JobContext::detached()).unwrap_err().to_string();
    assert!(error.contains("beetroot") && error.contains("burger"), "{error}");
    write_picture(&kitchen.at("photos/Fried-Egg/1.png"), [250, 220, 60], 1);
    let evaluated = evaluate(&config, &kitchen.places(), &JobContext::detached()).unwrap();
    assert_eq!((evaluated.evaluation.photos, evaluated.unknown.values().sum::<usize>()), (1, 6));
}
