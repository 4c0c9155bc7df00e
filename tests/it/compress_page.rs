//! The Compress page, and the way out when a model does not fit.

use std::path::{Path, PathBuf};

use egui::accesskit::Role;
use egui_kittest::kittest::Queryable;
use galley::gui::{Action, CompressAction};
use galley::predict::{ModelSource, STARTER};

use super::window::Window;

fn test_photos() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/photos/test")
}

/// A copy of the starter model in use, in a folder of its own.
fn with_model<'a>(settings: &str) -> (Window<'a>, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("settings.toml"), settings).unwrap();
    let model = folder.path().join("dishes.safetensors");
    std::fs::write(&model, STARTER).unwrap();
    let mut window = Window::in_folder(folder, egui::Theme::Light, |_| ());
    window.request(Action::OpenCheckpoint(model.clone()));
    window.settle();
    window.request(Action::UseModel(ModelSource::File(model.clone())));
    window.settle();
    (window, model)
}

#[test]
fn smaller_models_are_made_compared_and_used() {
    let (mut window, model) = with_model("");
    window.click("Compress");
    assert!(window.says("No smaller models of this one yet"));
    window.harness.check_accessibility();
    // The loss is measured on photos, so without them there is nothing to keep to.
    window.harness.get_by_role_and_label(Role::RadioButton, "Keep to a loss").click();
    window.settle();
    assert!(window.says("Choose photos first"));
    window.harness.get_by_role_and_label(Role::RadioButton, "8 bits").click();
    window.settle();
    window.drop(&[&test_photos()]);
    window.settle();
    window.click("Make it smaller");
    window.step_until("made", |window| window.says("dishes-8bit.gguf"));
    window.settle();
    window.harness.check_accessibility();
    let small = model.with_file_name("dishes-8bit.gguf");
    let size = |path: &Path| path.metadata().unwrap().len();
    // The starter is stored in 16 bits.
    assert!(3 * size(&small) < 2 * size(&model));
    assert!(window.says("Photos judged right, by size") && window.says("original"));
    window.click("Use it");
    assert!(window.says("Model: dishes-8bit.gguf"));
    // Found again by its report, for the model that it was made from.
    assert!(window.says("No smaller models of this one yet"));
    window.request(Action::UseModel(ModelSource::File(model)));
    window.step_until("found again", |window| window.says("Photos judged right, by size"));
}

#[test]
fn a_result_that_loses_too_much_is_saved_only_when_asked_again() {
    let (mut window, model) = with_model("");
    // A network that answers at random changes some answer in 4 bits.
    super::support::write_model(&model, 1000, 3);
    let photos = window.folder.path().join("photos");
    for seed in 0..40 {
        super::support::write_photo(&photos.join(format!("{seed}.png")), seed);
    }
    window.click("Compress");
    window.request(Action::Compress(CompressAction::SetPhotos(Some(photos))));
    window.harness.get_by_role_and_label(Role::RadioButton, "4 bits").click();
    window.settle();
    window.click("Make it smaller");
    window.step_until("refused", |window| window.says("get another answer"));
    let small = model.with_file_name("dishes-q4_0.gguf");
    assert!(!small.exists());
    window.click("Save it all the same");
    window.step_until("saved", |window| window.says("dishes-q4_0.gguf"));
    assert!(small.exists());
}

#[test]
fn a_model_that_does_not_fit_is_quantized_with_one_click_and_classifies() {
    // The starter takes 6 MB as f32 and 2 MB in 8 bits.
    let (mut window, model) = with_model("[memory]\nlargest-model = \"3 MB\"\n");
    window.drop(&[&test_photos().join("sushi")]);
    window.step_until("refused", |window| window.says("Nothing could be classified"));
    // Rows of buttons are centered a frame after they appear.
    window.settle();
    assert!(window.says("does not fit") && window.says("Raise the limit"));
    window.harness.check_accessibility();
    window.click("Quantize it to 8 bits");
    window.step_until("classified", |window| window.says("classified"));
    assert!(model.with_file_name("dishes-8bit.gguf").exists());
    assert!(window.says("Model: dishes-8bit.gguf"));
}
