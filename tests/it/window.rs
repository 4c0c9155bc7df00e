//! The window, by what a person and a screen reader see: names, not pixels. Jobs are the real ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use egui::accesskit::Role;
use egui::{Key, Modifiers};
use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT, Queryable};
use galley::device::DeviceChoice;
use galley::export::{ExportTarget, Row, RowResult};
use galley::gui::{Action, App, Places, TrainAction};
use galley::jobs::classify::ModelSummary;
use galley::jobs::{self, doctor};
use galley::predict::Prediction;
use galley::settings::Settings;

pub struct Window<'a> {
    pub harness: Harness<'a, App>,
    pub folder: tempfile::TempDir,
}

#[derive(Debug)]
struct Dropped(PathBuf);

impl egui::DroppedFile for Dropped {
    fn path(&self) -> &Path {
        &self.0
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        std::fs::read(&self.0).map_err(|error| error.to_string())
    }
}

impl Window<'_> {
    pub fn open() -> Self {
        Self::with(egui::Theme::Light, |_| ())
    }

    pub fn with(theme: egui::Theme, prepare: impl FnOnce(&mut App) + 'static) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), theme, prepare)
    }

    pub fn in_folder(folder: tempfile::TempDir, theme: egui::Theme, prepare: impl FnOnce(&mut App) + 'static) -> Self {
        let places = Places {
            jobs: jobs::Places {
                journal: folder.path().join("journal.sqlite"),
                verdicts: folder.path().to_owned(),
                tiles: folder.path().join("tiles"),
                models: Default::default(),
                models_folder: folder.path().join("models"),
            },
            runs: folder.path().join("runs"),
            settings: Some(folder.path().join("settings.toml")),
        };
        let builder = Harness::builder().with_size([1280.0, 800.0]).with_theme(theme).with_step_dt(1.0 / 30.0);
        let harness = builder.build_eframe(move |cc| {
            let settings = places.settings.as_ref().map_or_else(Settings::default, |path| Settings::load(path).0);
            let mut app = App::new(&cc.egui_ctx, settings, places, Vec::new());
            prepare(&mut app);
            app
        });
        let mut window = Self { harness, folder };
        window.settle();
        window
    }

    /// Steps until nothing is under way any more.
    pub fn settle(&mut self) {
        self.step_until("settled", |window| window.harness.state().is_idle());
        self.harness.run_steps(3);
    }

    pub fn step_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let give_up = Instant::now() + Duration::from_secs(60);
        loop {
            self.harness.step();
            if done(self) {
                return;
            }
            assert!(Instant::now() < give_up, "never {what}: {:#?}", self.heard());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// All that a screen reader would say.
    fn heard(&self) -> Vec<String> {
        let said = self.harness.query_all_by(|node| node.label().is_some());
        said.filter_map(|node| node.accesskit_node().label()).collect()
    }

    pub fn says(&self, text: &str) -> bool {
        self.harness.query_all_by_label_contains(text).next().is_some()
    }

    pub fn click(&mut self, label: &str) {
        self.harness.get_by_role_and_label(Role::Button, label).click();
        self.settle();
    }

    pub fn press(&mut self, modifiers: Modifiers, key: Key) {
        self.harness.key_press_modifiers(modifiers, key);
        self.settle();
    }

    /// Presses a key while something goes on that never settles.
    pub fn press_only(&mut self, key: Key) {
        self.harness.key_press(key);
        self.harness.run_steps(2);
    }

    /// Asks as a page or a dialog would.
    pub fn request(&mut self, action: Action) {
        self.harness.state_mut().request(action);
        self.harness.step();
    }

    pub fn hover(&mut self, paths: &[&Path]) {
        let files = paths.iter().map(|path| egui::HoveredFile { path: Some(path.to_path_buf()), ..Default::default() });
        self.harness.input_mut().hovered_files = files.collect();
    }

    pub fn drop(&mut self, paths: &[&Path]) {
        self.harness.input_mut().hovered_files.clear();
        for path in paths {
            self.harness.input_mut().dropped_files.push(Arc::new(Dropped(path.to_path_buf())));
        }
        self.harness.step();
        self.harness.input_mut().dropped_files.clear();
    }
}

fn model() -> ModelSummary {
    let labels: Vec<Arc<str>> = ["pizza", "soup", "salad"].map(Into::into).to_vec();
    ModelSummary {
        name: "test".to_owned(),
        title: "Test".to_owned(),
        classes: labels.len(),
        parameters: 1000,
        bytes: 0,
        labels: labels.into(),
        labels_from: "the test".to_owned(),
        transform: Default::default(),
        transform_from: "the test".to_owned(),
    }
}

fn row(path: &str, class: usize, probability: f32) -> Row {
    let label = model().labels[class].clone();
    let predictions = vec![Prediction { index: class, label, probability }];
    Row { path: path.into(), result: RowResult::Ok { predictions, logits: None } }
}

fn skipped(path: &str, reason: &str) -> Row {
    Row { path: path.into(), result: RowResult::Skipped { reason: reason.to_owned() } }
}

fn few_rows() -> Vec<Row> {
    vec![
        row("/p/a.jpg", 0, 0.97),
        row("/p/b.jpg", 1, 0.41),
        skipped("/p/c.jpg", "the file is empty"),
        row("/p/d.jpg", 0, 0.62),
    ]
}

pub fn with_results<'a>() -> Window<'a> {
    Window::with(egui::Theme::Light, |app| app.show_results(model(), few_rows()))
}

#[test]
fn an_empty_window_says_what_to_do_and_every_control_has_a_name() {
    let mut window = Window::open();
    assert!(window.says("No photos yet"));
    assert!(window.says("Drop folders or photos anywhere on this window"));
    window.harness.check_accessibility();
    window.click("Models");
    assert!(window.says("Open checkpoint…"));
    assert!(window.says("Recognised by") && window.says("Bytes by kind"), "the starter model is inspected like a file");
    window.harness.check_accessibility();
}

#[test]
fn the_strip_names_every_figure_on_every_page() {
    let mut window = Window::open();
    for page in ["Models", "Classify", "Train", "Evaluate", "Memory"] {
        window.click(page);
        for figure in ["footprint", "peak", "heap live", "heap peak", "available"] {
            assert!(window.harness.query_all_by_label(figure).next().is_some(), "{figure} on {page}");
        }
    }
}

#[test]
fn operations_that_are_switched_off_are_named_on_every_page() {
    let folder = tempfile::tempdir().unwrap();
    doctor::diagnose(DeviceChoice::Cpu, folder.path()).unwrap();
    let file = folder.path().join("cpu.json");
    let mut verdict: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    // What has no kernel: nothing else in this process computes differently.
    verdict["verdict"]["composed"] = ["training-step"].as_slice().into();
    std::fs::write(&file, verdict.to_string()).unwrap();

    let mut window = Window::in_folder(folder, egui::Theme::Light, |_| ());
    for page in ["Models", "Classify", "Train", "Evaluate"] {
        window.click(page);
        assert!(window.says("Galley's fast way to compute training-step is wrong on this machine's CPU"));
    }
    window.harness.check_accessibility();
    assert!(!Window::open().says("fast way"));
}

#[test]
fn hovering_files_are_promised_what_will_happen() {
    let mut window = Window::open();
    let photos = window.folder.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    let notes = window.folder.path().join("notes.txt");
    std::fs::write(&notes, "hello").unwrap();
    let checkpoint = window.folder.path().join("model.safetensors");
    std::fs::write(&checkpoint, "").unwrap();
    let cases: [(&[&Path], &str); 3] = [
        (&[&photos], "Drop to classify 1 folder"),
        (&[&checkpoint], "Drop to open this checkpoint"),
        (&[&notes], "Galley cannot open this"),
    ];
    for (paths, promise) in cases {
        window.hover(paths);
        window.step_until(promise, |window| window.says(promise));
    }
    window.drop(&[&notes]);
    window.step_until("refused", |window| window.says("Galley cannot open notes.txt"));
}

#[test]
fn a_broken_checkpoint_says_what_is_wrong_and_what_to_do() {
    let mut window = Window::open();
    let checkpoint = window.folder.path().join("broken.pth");
    std::fs::write(&checkpoint, b"no").unwrap();
    window.drop(&[&checkpoint]);
    window.step_until("refused", |window| window.says("This checkpoint cannot be read"));
    window.settle();
    assert!(window.says("Open another checkpoint…"));
    assert!(window.harness.query_by_label("Use this model").is_none(), "a broken model cannot be used");
    window.harness.check_accessibility();
}

#[test]
fn results_are_filtered_by_class_and_text_and_a_click_shows_one_photo() {
    let mut window = with_results();
    assert!(window.says("4 photos"));
    assert!(window.says("a.jpg, pizza, 97 %"));
    assert!(window.says("c.jpg, skipped: the file is empty"));
    window.harness.check_accessibility();

    window.harness.get_by_role(Role::TextInput).focus();
    window.harness.step();
    window.harness.get_by_role(Role::TextInput).type_text("SOUP");
    window.settle();
    assert!(window.says("1 of 4 photos shown") && window.says("b.jpg, soup, 41 %"));
    assert!(!window.says("a.jpg, pizza, 97 %"));
    window.click("Clear filters");
    assert!(window.says("a.jpg, pizza, 97 %"));

    window.click("d.jpg, pizza, 62 %");
    assert!(window.says("/p/d.jpg"));
    window.harness.check_accessibility();
    window.click("Close photo");
    assert!(!window.says("/p/d.jpg"));
}

#[test]
fn the_threshold_marks_doubtful_photos_at_once() {
    let mut window = with_results();
    assert!(!window.says("unsure"));
    let slider = "Unsure below";
    window.harness.get_by_role_and_label(Role::Slider, slider).set_value_accesskit(0.5);
    window.settle();
    assert!(window.says("b.jpg, unsure (soup), 41 %"));
    assert!(window.says("d.jpg, pizza, 62 %"));
}

#[test]
fn arrows_walk_the_grid_and_enter_opens_a_photo() {
    let mut window = with_results();
    window.harness.get_by_label("a.jpg, pizza, 97 %").focus();
    window.settle();
    window.press(Modifiers::NONE, Key::ArrowRight);
    assert!(window.harness.get_by_label("b.jpg, soup, 41 %").is_focused());
    window.press(Modifiers::NONE, Key::End);
    assert!(window.harness.get_by_label("d.jpg, pizza, 62 %").is_focused());
    window.press(Modifiers::NONE, Key::Enter);
    assert!(window.says("/p/d.jpg"));
    window.press(Modifiers::NONE, Key::Home);
    assert!(window.says("/p/a.jpg"), "the large photo follows the keyboard");
}

#[test]
fn tab_reaches_every_control_of_both_pages() {
    let mut window = with_results();
    for page in ["Classify", "Models"] {
        window.click(page);
        let mut reached = std::collections::BTreeSet::new();
        for _ in 0..60 {
            window.harness.key_press(Key::Tab);
            window.harness.step();
            let focused = window.harness.query_by(|node| node.is_focused());
            reached.extend(focused.and_then(|node| node.accesskit_node().label()));
        }
        let expected: &[&str] = match page {
            "Classify" => {
                &["Models", "Export", "Confidence", "a.jpg, pizza, 97 %", "Batch size", "Predict everything anew"]
            }
            _ => &["Classify", "Open checkpoint…", "Starter, in use", "Interpolation", "Choose labels file…"],
        };
        for name in expected {
            assert!(reached.iter().any(|label| label.contains(name)), "{name} among {reached:?}");
        }
    }
}

#[test]
fn shortcuts_change_pages() {
    let mut window = Window::open();
    window.press(Modifiers::COMMAND, Key::Num1);
    assert!(window.says("Open checkpoint…"));
    window.press(Modifiers::COMMAND, Key::Num2);
    assert!(window.says("No photos yet"));
}

#[test]
fn dropped_photos_are_classified_filtered_exported_and_not_done_twice() {
    let mut window = Window::open();
    let photos = window.folder.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/photos/test");
    for dish in ["pizza", "soup", "salad"] {
        std::fs::copy(sample.join(dish).join("001.jpg"), photos.join(format!("{dish}.jpg"))).unwrap();
    }
    std::fs::write(photos.join("broken.jpg"), b"no picture").unwrap();

    window.drop(&[&photos]);
    window.step_until("classified", |window| window.says("3 photos classified · 1 skipped"));
    window.settle();
    assert!(window.says("broken.jpg, skipped: "));
    window.harness.check_accessibility();

    let table = window.folder.path().join("predictions.csv");
    window.harness.state_mut().request(Action::Export(ExportTarget::Csv(table.clone())));
    window.step_until("exported", |window| window.says("4 rows written to"));
    let text = std::fs::read_to_string(&table).unwrap();
    for photo in ["pizza.jpg", "soup.jpg", "salad.jpg", "broken.jpg"] {
        assert!(text.contains(photo), "{photo} in {text}");
    }

    window.click("Start");
    window.step_until("resumed", |window| window.says("already done before"));
}

#[test]
fn a_folder_without_photos_says_so() {
    let mut window = Window::open();
    let empty = window.folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    window.drop(&[&empty]);
    window.step_until("explained", |window| window.says("no photos found"));
    assert!(window.says("Choose other photos…"));
}

/// True when this machine can draw without a window; a rendering test that cannot says so, and fails in CI.
pub fn can_render() -> bool {
    let found = std::panic::catch_unwind(|| Harness::new_ui(|ui| drop(ui.label("probe"))).render())
        .is_ok_and(|drawn| drawn.is_ok());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "no Vulkan adapter: rendering tests must not skip in CI");
        eprintln!("skipped: no Vulkan adapter (Debian: mesa-vulkan-drivers)");
    }
    found
}

#[test]
fn the_pages_are_drawn_in_light_and_dark() {
    if !can_render() {
        return;
    }
    for (theme, name) in [(egui::Theme::Light, "light"), (egui::Theme::Dark, "dark")] {
        let mut window = Window::with(theme, |app| {
            app.show_results(model(), few_rows());
            let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/photos");
            app.request(Action::Train(TrainAction::SetPhotos(photos)));
        });
        let mut backgrounds = Vec::new();
        for page in ["Classify", "Models", "Train", "Evaluate"] {
            window.click(page);
            let picture = window.harness.render().unwrap();
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{page}-{name}.png"));
            picture.save(&path).unwrap();
            let mut colors = std::collections::HashMap::<[u8; 4], usize>::new();
            picture.pixels().for_each(|pixel| *colors.entry(pixel.0).or_default() += 1);
            assert!(colors.len() > 100, "{} colors in {}", colors.len(), path.display());
            backgrounds.extend(colors.into_iter().max_by_key(|(_, count)| *count).map(|(color, _)| color[0]));
        }
        let expected = if name == "light" { 200..=255 } else { 0..=60 };
        assert!(backgrounds.iter().all(|brightness| expected.contains(brightness)), "{backgrounds:?} in {name}");
    }
}
