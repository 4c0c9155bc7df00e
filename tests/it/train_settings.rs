//! The settings of the Train page: what they say of memory and of the learning rate, and that they are kept.

use egui::accesskit::Role;
use egui_kittest::kittest::{NodeT as _, Queryable as _};
use galley::jobs::train::forecast;
use galley::memory;
use galley::train::{RatePoint, RatesTried, TrainConfig};
use galley::worker::JobContext;

use super::train_page::{drop_photos, open_page, set_slider};
use super::window::Window;

/// The bytes of `Peak about 1.24 GB of …`.
fn predicted(window: &Window<'_>) -> f64 {
    let node = window.harness.get_by_label_contains("Peak about");
    let shown = node.accesskit_node().value().unwrap();
    let mut words = shown.split_whitespace().skip(2);
    let (number, unit) = (words.next().unwrap().parse::<f64>().unwrap(), words.next().unwrap());
    let power = ["kB", "MB", "GB"].iter().position(|known| *known == unit.trim_end_matches(',')).unwrap() + 1;
    number * 1000_f64.powi(power as i32)
}

fn shown(window: &Window<'_>, name: &str) -> f64 {
    window.harness.get_by_role_and_label(Role::Slider, name).accesskit_node().numeric_value().unwrap()
}

#[test]
fn what_a_run_will_take_follows_the_sliders() {
    let mut window = open_page();
    drop_photos(&mut window);
    window.step_until("measured", |window| window.says("Peak about"));
    set_slider(&mut window, "Batch size", 8.0);
    let small = predicted(&window);
    set_slider(&mut window, "Batch size", 256.0);
    let large = predicted(&window);
    // It may lie below what the window shows.
    window.harness.get_by_role_and_label(Role::Button, "Always").click_accesskit();
    window.settle();
    let twice = predicted(&window);
    assert!(small < twice && twice < large, "{small} {twice} {large}");
    // What the same job says without a window, of three classes.
    let forecast = forecast(&TrainConfig::default(), Some(3), &JobContext::detached()).unwrap();
    let of = |batch_size| {
        let config = TrainConfig { batch_size, ..TrainConfig::default() };
        forecast.plan(&config, 20, u64::MAX).bytes() as f64
    };
    let (seen, expected) = (large - small, of(256) - of(8));
    assert!((seen / expected - 1.0).abs() < 0.25, "{seen} {expected}");
}

#[test]
fn what_does_not_fit_is_said_before_it_begins_and_made_to_fit() {
    let mut window = open_page();
    window.step_until("measured", |window| window.says("Peak about"));
    let Some(budget) = memory::Allowance::default().budget(&memory::read(), None) else { return };
    // Else a run would compute as few at once as fit.
    window.harness.get_by_label("Photos computed at once").click_accesskit();
    window.settle();
    set_slider(&mut window, "Photos computed at once", 256.0);
    window.harness.get_by_label("Image size").click_accesskit();
    window.settle();
    set_slider(&mut window, "Image size", 1024.0);
    set_slider(&mut window, "Batch size", 256.0);
    window.harness.get_by_role_and_label(Role::Button, "Never").click_accesskit();
    if predicted(&window) < budget.bytes as f64 {
        eprintln!("skipped: everything fits into the memory of this machine");
        return;
    }
    assert!(window.says("This will not fit"));
    window.harness.check_accessibility();
    window.click("Make it fit");
    assert!(!window.says("This will not fit"));
}

#[test]
fn settings_survive_a_restart() {
    let mut window = open_page();
    set_slider(&mut window, "Batch size", 48.0);
    set_slider(&mut window, "Learning rate", 0.002);
    window.click("Classifier");
    window.settle();
    let Window { harness, folder } = window;
    drop(harness);
    let mut window = Window::in_folder(folder, egui::Theme::Light, |_| ());
    window.click("Train");
    assert_eq!(shown(&window, "Batch size"), 48.0);
    assert!((shown(&window, "Learning rate") - 0.002).abs() < 1e-9);
    assert!(window.says("Choose photos first"), "photos are not remembered");
}

#[test]
fn a_rate_that_was_found_is_drawn_and_taken_over() {
    let point = |step: i32| RatePoint { lr: 10_f64.powi(step - 7), loss: f64::from((step - 5).pow(2)) + 1.0 };
    let points: Vec<RatePoint> = (0..8).map(point).collect();
    let smoothed = points.iter().map(|point| point.loss).collect();
    let tried = RatesTried { points, smoothed, suggested: Some(0.00316), blew_up: false };
    let mut window = Window::with(egui::Theme::Light, move |app| app.show_rates(tried));
    window.harness.check_accessibility();
    window.click("Use 3.2e-3");
    assert!((shown(&window, "Learning rate") - 0.0032).abs() < 1e-9);
    window.click("Close the search");
    assert!(!window.says("Use 3.2e-3") && window.says("Find a rate"));
}

#[test]
fn a_rate_is_looked_for_on_a_copy_and_no_run_begins() {
    let mut window = open_page();
    drop_photos(&mut window);
    set_slider(&mut window, "Batch size", 8.0);
    window.step_until("measured", |window| window.says("Peak about"));
    window.harness.get_by_role_and_label(Role::Button, "Find a rate").click();
    window.harness.step();
    window.step_until("looking", |window| window.says("A learning rate is being looked for"));
    window.settle();
    assert!(window.says("Look again"));
    assert!(!window.folder.path().join("runs").exists());
}
