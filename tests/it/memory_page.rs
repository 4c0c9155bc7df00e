//! The Memory page: what the window says of the memory is what is there.

use std::path::Path;

use egui::accesskit::Role;
use egui_kittest::kittest::{NodeT as _, Queryable as _};
use galley::gui::Action;
use galley::journal::{Journal, Peak, PeakKind};
use galley::memory::{self, heap};

use super::support::{alone, write_model, write_photo};
use super::window::{Window, can_render};

fn noted(mode: &str, predicted: u64, measured: u64, anyway: bool) -> Peak {
    Peak {
        kind: PeakKind { network: "convnext_tiny".to_owned(), mode: mode.to_owned(), device: "CPU".to_owned() },
        config: "{}".to_owned(),
        items: vec![("weights".to_owned(), predicted / 4), ("activations".to_owned(), predicted / 4 * 3)],
        predicted,
        heap: measured / 2,
        footprint: Some(measured),
        anyway,
        at: 0,
    }
}

/// A window whose journal knows of these jobs.
fn window_with<'a>(theme: egui::Theme, peaks: &[Peak]) -> Window<'a> {
    let folder = tempfile::tempdir().unwrap();
    if !peaks.is_empty() {
        let journal = Journal::open(&folder.path().join("journal.sqlite")).unwrap();
        peaks.iter().for_each(|peak| journal.record_peak(peak).unwrap());
    }
    let mut window = Window::in_folder(folder, theme, |_| ());
    window.click("Memory");
    window
}

/// Classifies a photo, with this checkpoint or the starter model, and shows the page again.
fn classify_one(window: &mut Window<'_>, checkpoint: Option<&Path>) {
    let photo = window.folder.path().join("photo.png");
    write_photo(&photo, 1);
    let paths: Vec<&Path> = checkpoint.into_iter().chain([photo.as_path()]).collect();
    window.drop(&paths);
    window.settle();
    assert!(window.says("1 photo classified"));
    window.click("Memory");
}

/// The whole text of what begins so.
fn text(window: &Window<'_>, begin: &str) -> String {
    let found = window.harness.query_all_by_label_contains(begin).next();
    let found = found.unwrap_or_else(|| panic!("nothing says {begin:?}"));
    let node = found.accesskit_node();
    node.label().or_else(|| node.value()).unwrap()
}

/// The bytes after `before` in a text: `12.3 MB` is 12,300,000.
fn bytes_after(text: &str, before: &str) -> u64 {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("{before:?} in {text:?}")).1;
    let mut words = rest.trim_start().split(' ');
    let (number, unit) = (words.next().unwrap(), words.next().unwrap_or_default());
    let unit = unit.trim_end_matches([':', '.', ',']);
    galley::format::parse_bytes(&format!("{number} {unit}")).unwrap()
}

#[test]
fn an_empty_page_says_what_will_be_there_and_no_figure_is_made_up() {
    let mut window = window_with(egui::Theme::Light, &[]);
    for sentence in ["No model is loaded", "No job was noted yet", "Galley's footprint: ", "Memory pressure:"] {
        assert!(window.says(sentence), "{sentence}");
    }
    if cfg!(target_os = "linux") {
        assert!(!window.says("GPU in use"), "a processor has no memory of its own");
    }
    assert!(!window.folder.path().join("journal.sqlite").exists(), "looking makes no journal");
    window.harness.check_accessibility();
    window.press(egui::Modifiers::COMMAND, egui::Key::Num1);
    window.press(egui::Modifiers::COMMAND, egui::Key::Num6);
    assert!(window.says("The last two minutes"));
}

#[test]
fn jobs_in_the_journal_are_told_with_both_figures_and_what_is_learned_from_them() {
    let peaks = [
        noted("train", 200_000_000, 210_000_000, false),
        noted("train", 400_000_000, 420_000_000, false),
        noted("train", 300_000_000, 315_000_000, true),
        noted("classify", 80_000_000, 100_000_000, false),
    ];
    let window = window_with(egui::Theme::Light, &peaks);
    assert!(window.says("ConvNeXt Tiny, training, CPU: predictions are 5 % low, ± 2 %, from 3 jobs"));
    assert!(window.says("ConvNeXt Tiny, classifying, CPU: too few to judge by, 1 job"));
    assert!(window.says("ConvNeXt Tiny, training, CPU: 300 MB predicted, 315 MB measured, ran anyway"));
    assert!(window.says("ConvNeXt Tiny, classifying, CPU: 80.0 MB predicted, 100 MB measured"));
    assert!(window.says("Predicted: weights 50.0 MB · activations 150 MB"));
    window.harness.check_accessibility();
}

#[test]
fn a_job_that_ends_in_sight_is_noted_at_once_and_its_model_is_listed() {
    let mut window = Window::open();
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/photos/test");
    window.drop(&[&photos]);
    window.step_until("begun", |window| window.says("Cancel"));
    window.harness.get_by_role_and_label(Role::Button, "Memory").click();
    window.settle();
    assert!(window.says("classifying, CPU: too few to judge by, 1 job"));
    assert!(window.says("Loaded · ") && window.says("Starter"));
    window.click("Pin: keep it loaded");
    assert!(window.says("Pinned · "));
    window.click("Unload");
    assert!(window.says("No model is loaded"));
}

#[test]
fn what_a_job_is_expected_to_take_is_shown_as_long_as_it_goes_on() {
    let mut window = Window::open();
    let photos = window.folder.path().join("photos");
    (0..300).for_each(|seed| write_photo(&photos.join(format!("{seed}.png")), seed));
    window.drop(&[&photos]);
    window.step_until("begun", |window| window.says("Cancel"));
    window.harness.get_by_role_and_label(Role::Button, "Memory").click();
    window.step_until("predicted", |window| window.says("Workspace: ") && window.says("(predicted)"));
    assert!(window.says("Photos: ") && !window.says("Weights: "), "the weights lie on the shelf");
    window.step_until("loaded", |window| window.says("in use"));
    let reset = window.harness.get_by_role_and_label(Role::Button, "Reset heap peak");
    assert!(reset.accesskit_node().is_disabled(), "the job's own peak is being measured");
    window.request(Action::Cancel);
    window.settle();
    assert!(!window.says("(predicted)"));
    let reset = window.harness.get_by_role_and_label(Role::Button, "Reset heap peak");
    assert!(!reset.accesskit_node().is_disabled());
}

#[test]
fn a_journal_that_cannot_be_read_says_so_and_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.sqlite");
    std::fs::write(&journal, "not a journal, and long enough to be looked at as one").unwrap();
    let mut window = Window::in_folder(folder, egui::Theme::Light, |_| ());
    window.click("Memory");
    assert!(window.says("the journal is damaged"));
    std::fs::remove_file(&journal).unwrap();
    window.harness.get_by_role_and_label(Role::Button, "Read again").click_accesskit();
    window.settle();
    assert!(window.says("No job was noted yet"));
}

#[test]
fn a_flush_gives_idle_models_back_and_says_how_much_that_was() {
    alone("memory_page::a_flush_gives_idle_models_back_and_says_how_much_that_was", || {
        // As the program does: else what a thread has freed may stay with the allocator.
        heap::tune();
        // Larger than all that comes and goes beside it.
        const CLASSES: usize = 10_000;
        let mut window = Window::open();
        let checkpoint = window.folder.path().join("large.safetensors");
        write_model(&checkpoint, CLASSES, 1);
        classify_one(&mut window, Some(&checkpoint));
        let models = bytes_after(&text(&window, "Loaded models: "), "Loaded models: ");
        assert!(models > 4 * 512 * CLASSES as u64, "{models}");
        window.click("Flush caches");
        assert!(window.says("the footprint was "));
        assert!(window.says("large.safetensors"), "nobody asked for models to go");

        window.harness.get_by_role_and_label(Role::CheckBox, "And unload idle models").click();
        window.settle();
        let before = memory::read().footprint.unwrap();
        window.click("Flush caches");
        let after = memory::read().footprint.unwrap();
        assert!(window.says("No model is loaded") && window.says("1 model unloaded"));
        let said = text(&window, "Gave back ");
        let returned = bytes_after(&said, "Gave back ");
        // What the window draws meanwhile is in between, and takes a little.
        let measured = before - after;
        assert!(returned > models / 10 * 7 && measured > models / 10 * 7, "{said}, measured {measured} of {models}");
        assert!(returned.abs_diff(measured) < models / 10, "{said}, measured {measured} of {models}");
    });
}

#[test]
fn a_reset_lowers_the_peak_of_the_heap_and_nothing_else() {
    alone("memory_page::a_reset_lowers_the_peak_of_the_heap_and_nothing_else", || {
        const BLOCK: u64 = 400_000_000;
        let mut window = window_with(egui::Theme::Light, &[]);
        drop(std::hint::black_box(vec![1u8; BLOCK as usize]));
        assert!(heap::peak() >= BLOCK);
        let of_process = memory::read().peak.unwrap();
        window.click("Reset heap peak");
        assert!(heap::peak() < BLOCK, "{}", heap::peak());
        let shown = bytes_after(&text(&window, "Peak of the heap: "), "Peak of the heap: ");
        assert!(shown < BLOCK, "the window shows {shown}");
        assert!(memory::read().peak.unwrap() >= of_process, "the system's own figure stays");
    });
}

#[test]
fn a_point_of_the_plot_tells_its_job() {
    let mut window = window_with(egui::Theme::Light, &[noted("train", 200_000_000, 200_000_000, true)]);
    window.harness.get_by_label("Measured").scroll_to_me();
    window.settle();
    let told = "ConvNeXt Tiny, training, CPU: 200 MB predicted, 200 MB measured, ran anyway";
    assert_eq!(window.harness.query_all_by_label(told).count(), 1, "in the list");
    let above = window.harness.get_by_label("Measured").rect();
    let below = window.harness.get_by_label_contains("Predicted. On").rect();
    // The only point lies in the middle, beside and above the names of the axes.
    let middle = egui::pos2(above.left() + 176.0, (above.bottom() + below.top()) / 2.0 - 8.0);
    for (x, y) in (-6..=6).flat_map(|x| (-2..=2).map(move |y| (x, y))) {
        window.harness.hover_at(middle + egui::vec2(4.0 * x as f32, 4.0 * y as f32));
        window.harness.run_steps(2);
        if window.harness.query_all_by_label(told).count() == 2 {
            return;
        }
    }
    panic!("nothing was told");
}

fn drawn(window: &mut Window<'_>, name: &str) {
    let picture = window.harness.render().unwrap();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
    picture.save(&path).unwrap();
    let colors: std::collections::HashSet<[u8; 4]> = picture.pixels().map(|pixel| pixel.0).collect();
    assert!(colors.len() > 100, "{} colors in {}", colors.len(), path.display());
}

#[test]
fn the_page_is_drawn_in_light_and_dark() {
    if !can_render() {
        return;
    }
    let peaks: Vec<Peak> = (1..=12)
        .map(|job| noted(if job % 8 == 0 { "classify" } else { "train" }, job * 70_000_000, job * 74_000_000, job == 7))
        .collect();
    for (theme, name) in [(egui::Theme::Light, "light"), (egui::Theme::Dark, "dark")] {
        let mut window = window_with(theme, &peaks);
        classify_one(&mut window, None);
        drawn(&mut window, &format!("Memory-{name}"));
        window.harness.get_by_label("The last jobs").scroll_to_me();
        window.settle();
        drawn(&mut window, &format!("Memory-below-{name}"));
    }
}
