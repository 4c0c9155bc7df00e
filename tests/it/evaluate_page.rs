//! The Evaluate page, by what a person and a screen reader see: figures are those of the same job without a window.

use std::path::{Path, PathBuf};

use egui::accesskit::Role;
use egui_kittest::kittest::Queryable as _;
use galley::gui::{Action, EvaluateAction};
use galley::jobs::Places;
use galley::jobs::evaluate::{EvaluateConfig, evaluate};
use galley::predict::{Evaluation, Judged};
use galley::worker::JobContext;

use super::support::write_photo;
use super::window::Window;

fn test_photos() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/photos/test")
}

fn without_a_window(data: PathBuf, verdicts: &Path) -> Evaluation {
    let config = EvaluateConfig { data, batch_size: 8, ..EvaluateConfig::default() };
    let places =
        Places { verdicts: verdicts.to_owned(), journal: verdicts.join("evaluated.sqlite"), ..Places::default() };
    evaluate(&config, &places, &JobContext::detached()).unwrap().evaluation
}

fn open_page<'a>() -> Window<'a> {
    let mut window = Window::open();
    window.click("Evaluate");
    window
}

fn show_tab(window: &mut Window<'_>, name: &str) {
    window.harness.get_by_role_and_label(Role::Tab, name).click();
    window.settle();
}

fn spoken(evaluation: &Evaluation, judged: &Judged) -> String {
    let name = |class: usize| &evaluation.classes[class].name;
    let file = judged.path.file_name().unwrap().to_string_lossy();
    format!("{file}, {} called {}", name(judged.class), name(judged.predicted))
}

#[test]
fn a_click_on_a_number_of_the_matrix_shows_its_photos_and_one_of_them_large() {
    let mut window = open_page();
    assert!(window.says("How good is a model?"));
    window.harness.check_accessibility();
    let evaluation = without_a_window(test_photos(), window.folder.path());
    window.drop(&[&test_photos()]);
    window.step_until("judged", |window| window.says("calibration error"));
    window.settle();
    window.harness.check_accessibility();
    assert!(window.says(&format!("{:.1} %", 100.0 * evaluation.top1)) && window.says("96"));
    assert!(window.says("Click a number: its photos appear here"));

    let (class, called, photos) = evaluation.mistakes()[0];
    let name = |class: usize| evaluation.classes[class].name.clone();
    let photo = if photos == 1 { "photo" } else { "photos" };
    window.click(&format!("{} called {}: {photos} {photo}", name(class), name(called)));
    let of_cell = |one: &&Judged| (one.class, one.predicted) == (class, called);
    for judged in evaluation.judged.iter().filter(of_cell) {
        assert!(window.says(&spoken(&evaluation, judged)), "{}", judged.path.display());
    }
    let other = evaluation.judged.iter().find(|one| one.rank > 0 && !of_cell(one)).unwrap();
    assert!(!window.says(&spoken(&evaluation, other)));
    window.harness.check_accessibility();

    let shown = evaluation.judged.iter().find(of_cell).unwrap();
    window.click(&spoken(&evaluation, shown));
    assert!(window.says(&shown.path.display().to_string()) && window.says("Its label came"));
    window.press(egui::Modifiers::NONE, egui::Key::Escape);
    assert!(!window.says("Its label came") && window.says(&spoken(&evaluation, shown)));
}

#[test]
fn every_tab_shows_its_part_and_the_threshold_is_taken_to_the_classify_page() {
    let mut window = open_page();
    let evaluation = without_a_window(test_photos(), window.folder.path());
    window.request(Action::Evaluate(EvaluateAction::SetPhotos(test_photos())));
    window.settle();
    for (tab, text) in [
        ("Classes", "Sort by Precision".to_owned()),
        ("Likely labelled wrongly", spoken(&evaluation, &evaluation.judged[0])),
        ("Confidence", "When shall it answer?".to_owned()),
    ] {
        show_tab(&mut window, tab);
        assert!(window.says(&text), "{tab}");
        window.harness.check_accessibility();
    }
    let point = evaluation.threshold_for(0.98).unwrap();
    window.click("98 %");
    let answered =
        format!("{:.1} % answered, {:.1} % of them right", 100.0 * point.answered, 100.0 * point.accuracy.unwrap());
    assert!(window.says(&answered), "{answered}");
    window.click("Classify with this threshold");
    window.click("Classify");
    let slider = window.harness.get_by_role_and_label(Role::Slider, "Unsure below");
    let shown = egui_kittest::kittest::NodeT::accesskit_node(&slider).numeric_value().unwrap();
    assert!((shown - point.threshold).abs() < 1e-6, "{shown}");
}

#[test]
fn a_report_is_written_and_classes_the_model_does_not_know_are_named() {
    let mut window = open_page();
    let photos = window.folder.path().join("photos");
    write_photo(&photos.join("Fried Egg/1.png"), 1);
    write_photo(&photos.join("borscht/2.png"), 2);
    std::fs::write(photos.join("Fried Egg/cut.png"), b"no picture").unwrap();
    window.request(Action::Evaluate(EvaluateAction::SetPhotos(photos)));
    window.settle();
    assert!(window.says("1 photo left out, because the model does not know their class: borscht"));
    assert!(window.says("1 photo skipped, because they could not be read"));
    assert!(!window.says("Open report"));
    let report = window.folder.path().join("report.html");
    window.request(Action::Evaluate(EvaluateAction::SaveReport(report.clone())));
    window.settle();
    assert!(std::fs::read_to_string(report).unwrap().contains("fried_egg") && window.says("Open report"));

    let unknown = window.folder.path().join("unknown");
    write_photo(&unknown.join("borscht/1.png"), 3);
    window.request(Action::Evaluate(EvaluateAction::SetPhotos(unknown)));
    window.settle();
    assert!(window.says("This could not be evaluated") && window.says("the model knows none of these classes"));
}
