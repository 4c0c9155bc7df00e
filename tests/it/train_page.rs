//! The Train page, by what a person and a screen reader see. The jobs are the real ones, with few and small photos.

use std::path::{Path, PathBuf};

use egui::accesskit::Role;
use egui_kittest::kittest::{NodeT as _, Queryable as _};
use galley::jobs::sweep::SweepRow;
use galley::train::{Record, read_metrics, read_record};

use super::support::write_photo;
use super::window::Window;

/// Six photos of each of three classes, a damaged one, and one that lies in two classes.
pub fn write_photos(root: &Path) -> PathBuf {
    let photos = root.join("meals");
    for (class, first) in [("pizza", 0), ("salad", 100), ("soup", 200)] {
        (0..6).for_each(|number| write_photo(&photos.join(class).join(format!("{number}.png")), first + number));
    }
    std::fs::write(photos.join("pizza/damaged.png"), b"no picture").unwrap();
    std::fs::copy(photos.join("soup/3.png"), photos.join("salad/copy.png")).unwrap();
    photos
}

pub fn open_page<'a>() -> Window<'a> {
    let mut window = Window::open();
    window.click("Train");
    window
}

pub fn set_slider(window: &mut Window<'_>, name: &str, value: f64) {
    window.harness.get_by_role_and_label(Role::Slider, name).set_value_accesskit(value);
    window.harness.run_steps(2);
}

/// Drops photos and waits until they are looked at.
pub fn drop_photos(window: &mut Window<'_>) {
    let photos = write_photos(window.folder.path());
    window.drop(&[&photos]);
    window.step_until("looked at", |window| window.says("cannot be read and is left out"));
    window.settle();
}

pub fn press_start(window: &mut Window<'_>) {
    window.harness.get_by_role_and_label(Role::Button, "Start training").click();
    window.harness.step();
}

#[test]
fn an_empty_page_says_what_to_do_and_every_control_has_a_name() {
    let mut window = open_page();
    assert!(window.says("Teach a model your own classes") && window.says("Choose photos first"));
    window.harness.get_by_label("More").click();
    window.settle();
    window.harness.check_accessibility();
    for tab in ["Preview", "Batch sizes", "Run", "History"] {
        window.harness.get_by_role_and_label(Role::Tab, tab).click();
        window.settle();
        window.harness.check_accessibility();
    }
    assert!(window.says("No runs yet"));
}

#[test]
fn hovering_folders_are_promised_to_be_trained_on() {
    let mut window = open_page();
    let photos = write_photos(window.folder.path());
    window.hover(&[&photos]);
    window.step_until("promised", |window| window.says("Drop to train on these photos"));
    window.hover(&[&photos.join("pizza"), &photos.join("soup")]);
    window.step_until("refused", |window| window.says("Galley cannot train on this"));
}

#[test]
fn a_folder_that_holds_no_classes_says_what_is_missing() {
    let mut window = open_page();
    let photos = write_photos(window.folder.path());
    window.drop(&[&photos.join("soup")]);
    window.step_until("refused", |window| window.says("These photos cannot be trained on"));
    assert!(window.says("put the photos of each class into a folder of its own"));
}

#[test]
fn presets_and_sliders_change_the_same_settings() {
    let mut window = open_page();
    window.click("Ultra-safe");
    let shown = |window: &Window<'_>, name: &str| {
        window.harness.get_by_role_and_label(Role::Slider, name).accesskit_node().numeric_value()
    };
    assert_eq!(shown(&window, "Batch size"), Some(4.0));
    set_slider(&mut window, "Batch size", 200.0);
    assert_eq!(shown(&window, "Batch size"), Some(200.0));
    window.click("Full");
    assert_eq!((shown(&window, "Batch size"), shown(&window, "Epochs")), (Some(24.0), Some(50.0)));
}

#[test]
fn dropped_photos_are_looked_at_trained_on_and_the_model_classifies() {
    let mut window = open_page();
    drop_photos(&mut window);
    for class in ["pizza", "salad", "soup"] {
        assert!(window.says(class), "{class}");
    }
    assert!(window.says("20 photos of 3 classes"));
    assert!(window.says("1 photo cannot be read and is left out"));
    assert!(window.says("1 group of photos the same file") && window.says("1 in different classes"));
    window.harness.check_accessibility();

    window.harness.get_by_role_and_label(Role::Tab, "Preview").click();
    window.settle();
    assert!(window.says("As it is") && window.says("Epoch 5"));
    window.harness.check_accessibility();

    set_slider(&mut window, "Epochs", 2.0);
    set_slider(&mut window, "Batch size", 8.0);
    press_start(&mut window);
    window.step_until("finished", |window| window.says("Finished 2 epochs"));
    window.settle();
    window.harness.check_accessibility();
    assert!(window.says("right in validation") && window.says("Learning rate"));

    let run = window.folder.path().join("runs/meals-1");
    let config = read_record(&run).unwrap().config;
    assert_eq!((config.epochs, config.batch_size), (2, 8));

    window.click("Evaluate this model");
    assert!(window.says("Best weights of meals-1 on its validation photos") && window.says("Open report"));
    let best = read_metrics(&run).unwrap().into_iter().rev().find_map(|record| match record {
        Record::Epoch(epoch) if epoch.best => epoch.top1,
        _ => None,
    });
    assert!(window.says(&format!("{:.1} %", 100.0 * best.unwrap())));
    window.click("Train");
    window.click("Use this model");
    assert!(window.says("Model: meals-1/best.safetensors"));
    assert!(std::fs::exists(run.join("best.safetensors")).unwrap());
}

#[test]
fn a_run_that_is_closed_upon_is_in_the_next_windows_history_and_continues() {
    const EPOCHS: u64 = 4;
    let mut window = open_page();
    drop_photos(&mut window);
    set_slider(&mut window, "Epochs", EPOCHS as f64);
    press_start(&mut window);
    window.step_until("trained for an epoch", |window| window.says("right in training"));
    super::desktop::close(&mut window);
    window.step_until("asking", |window| window.says("Training goes on"));
    window.harness.get_by_role_and_label(Role::Button, "Stop and quit").click();
    window.step_until("saving", |window| window.says("Saving the run…"));
    window.settle();
    let run = window.folder.path().join("runs/meals-1");
    assert!(run.join("last.safetensors").exists());

    let Window { harness, folder } = window;
    drop(harness);
    let mut window = Window::in_folder(folder, egui::Theme::Light, |_| ());
    window.click("Train");
    window.harness.get_by_role_and_label(Role::Tab, "History").click();
    window.settle();
    assert!(window.says("meals-1"));
    window.harness.check_accessibility();
    window.harness.get_by_role_and_label(Role::Button, "Continue").click();
    window.step_until("finished", |window| window.says("Finished 4 epochs"));
    window.settle();
    let epochs = read_metrics(&run).unwrap();
    let epochs: Vec<u64> = epochs
        .iter()
        .filter_map(|record| if let Record::Epoch(epoch) = record { Some(epoch.epoch) } else { None })
        .collect();
    assert_eq!(epochs, (0..EPOCHS).collect::<Vec<_>>());
}

#[test]
fn a_paused_run_goes_on_where_it_was() {
    let mut window = open_page();
    drop_photos(&mut window);
    set_slider(&mut window, "Epochs", 3.0);
    press_start(&mut window);
    window.step_until("training", |window| window.says("Epoch 1 of 3"));
    window.harness.get_by_role_and_label(Role::Button, "Pause").click();
    window.step_until("paused", |window| window.says("the device is free meanwhile"));
    window.harness.get_by_role_and_label(Role::Button, "Continue").click();
    window.step_until("finished", |window| window.says("Finished 3 epochs"));
}

#[test]
fn batch_sizes_that_were_tried_are_a_table_from_which_one_is_chosen() {
    let row = |batch_size: usize, fits: bool| SweepRow {
        batch_size,
        fits,
        seconds_per_epoch: fits.then_some(90.0),
        photos_per_second: fits.then_some(batch_size as f64 / 2.0),
        predicted_bytes: fits.then_some(1_000_000 * batch_size as u64),
        peak_bytes: fits.then_some(2_000_000 * batch_size as u64),
        recomputed_blocks: fits.then_some(3),
        problem: (!fits).then(|| "its process ended early".to_owned()),
    };
    let rows = vec![row(8, true), row(64, true), row(256, false)];
    let mut window = Window::with(egui::Theme::Light, move |app| app.show_sweep(rows));
    assert!(window.says("Batches of 256: its process ended early"));
    assert!(window.says("1 min 30 s") && window.says("128 MB"));
    window.harness.check_accessibility();
    window.click("Train with batches of 64");
    assert!(window.says("chosen"));
    assert!(window.harness.query_by_label("Train with batches of 64").is_none());
}
