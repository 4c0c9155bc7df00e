//! What a frame of the window costs with 100,000 rows: scrolling, filtering, sorting and the strip, without drawing. Then how
//! long a frame of the Train page takes by the clock while a run has every core.
//!
//! `cargo bench --bench window` prints the median, the 99th percentile and the worst of the thread's CPU time per frame, and of
//! the time by the clock while training.

use std::sync::Arc;
use std::time::{Duration, Instant};

use egui::{Event, Key, Modifiers, MouseWheelSource, MouseWheelUnit, Pos2, RawInput, Rect, TouchPhase, pos2, vec2};
use galley::export::{Row, RowResult};
use galley::gui::{Action, App, Places, TrainAction};
use galley::jobs::classify::ModelSummary;
use galley::predict::Prediction;
use galley::settings::Settings;

const ROWS: usize = 100_000;
const CLASSES: usize = 1000;
const FRAMES: usize = 2000;
const WINDOW: [f32; 2] = [1280.0, 800.0];

/// Frames of the window while a run goes on, and the time between two of them.
const FRAMES_OF_RUN: usize = 1200;
const FRAME: Duration = Duration::from_micros(16_667);

fn main() {
    rows_of_photos();
    beside_a_run();
}

fn rows_of_photos() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ctx = egui::Context::default();
    let jobs = galley::jobs::Places {
        journal: folder.path().join("journal.sqlite"),
        verdicts: folder.path().to_owned(),
        tiles: folder.path().join("tiles"),
        models: Default::default(),
        models_folder: folder.path().join("models"),
    };
    let places = Places { jobs, runs: "/nonexistent/runs".into(), settings: None };
    let mut app = App::new(&ctx, Settings::default(), places, Vec::new());
    let heap_before = galley::memory::read().footprint;
    let labels = labels();
    app.show_results(model(&labels), rows(&labels));
    let heap_after = galley::memory::read().footprint;
    if let Some((before, after)) = heap_before.zip(heap_after) {
        println!("{ROWS} rows take {} of footprint", galley::format::bytes(after.saturating_sub(before)));
    }
    settle(&ctx, &mut app);
    let mut typed = 0;
    let mut costs = Vec::with_capacity(FRAMES);
    for frame in 0..FRAMES {
        costs.push(cost(&ctx, &mut app, input(frame)));
        typed += usize::from(ctx.memory(|memory| memory.focused().is_some()));
    }
    assert!(typed > FRAMES / 50, "the clicks of this benchmark miss the text filter");
    costs.sort();
    let at = |share: f64| costs[((costs.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("{FRAMES} frames with {ROWS} rows, CPU per frame:");
    println!("p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", at(0.5), at(0.99), at(1.0));
}

/// The sample photos, the starter model and the settings of a new window, at 60 frames a second.
fn beside_a_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ctx = egui::Context::default();
    let jobs = galley::jobs::Places {
        journal: folder.path().join("journal.sqlite"),
        verdicts: folder.path().to_owned(),
        tiles: folder.path().join("tiles"),
        models: Default::default(),
        models_folder: folder.path().join("models"),
    };
    let places = Places { jobs, runs: folder.path().join("runs"), settings: None };
    let mut app = App::new(&ctx, Settings::default(), places, Vec::new());
    let photos = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sample-data/photos");
    app.request(Action::Train(TrainAction::SetPhotos(photos)));
    settle(&ctx, &mut app);
    app.request(Action::Train(TrainAction::Start));
    let mut times = Vec::with_capacity(FRAMES_OF_RUN);
    let mut frames = 0;
    while frames < FRAMES_OF_RUN && (frames < 60 || !app.is_idle()) {
        let started = Instant::now();
        cost(&ctx, &mut app, raw_input(vec![wheel(if frames % 120 < 60 { -40.0 } else { 40.0 })]));
        let taken = started.elapsed();
        // The run reads its photos first.
        if frames >= 60 {
            times.push(taken);
        }
        frames += 1;
        std::thread::sleep(FRAME.saturating_sub(taken));
    }
    app.request(Action::Train(TrainAction::Stop));
    settle(&ctx, &mut app);
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("{} frames while a run trains, by the clock:", times.len());
    println!("p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", at(0.5), at(0.99), at(1.0));
}

/// Draws until the first order of the rows is there.
fn settle(ctx: &egui::Context, app: &mut App) {
    while !app.is_idle() {
        cost(ctx, app, raw_input(Vec::new()));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// CPU time of this thread for one frame: the layout of every widget, and its triangles.
fn cost(ctx: &egui::Context, app: &mut App, input: RawInput) -> Duration {
    let start = thread_time();
    app.tick(ctx);
    let mut output = ctx.run_ui(input, |ui| app.draw(ui));
    output.textures_delta.clear();
    let shapes = ctx.tessellate(output.shapes, output.pixels_per_point);
    std::hint::black_box(shapes);
    thread_time() - start
}

fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer, and the clock exists on Linux and macOS.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A person at work: the wheel turns nearly always, text is typed and deleted, the sort is reversed.
fn input(frame: usize) -> RawInput {
    let mut events = vec![Event::PointerMoved(pos2(500.0, 500.0))];
    match frame % 200 {
        180 => events.extend(click(FILTER)),
        181..=184 => events.push(Event::Text("7".to_owned())),
        190..=193 => events.push(key(Key::Backspace)),
        195 => events.extend(click(REVERSE)),
        _ => events.push(wheel(if (frame / 400).is_multiple_of(2) { -900.0 } else { 700.0 })),
    }
    raw_input(events)
}

/// Where the text filter and the sort direction are in a window of this size.
const FILTER: Pos2 = pos2(320.0, 114.0);
const REVERSE: Pos2 = pos2(855.0, 114.0);

fn raw_input(events: Vec<Event>) -> RawInput {
    let screen = Rect::from_min_size(Pos2::ZERO, vec2(WINDOW[0], WINDOW[1]));
    RawInput { screen_rect: Some(screen), events, ..RawInput::default() }
}

fn wheel(delta: f32) -> Event {
    let (unit, delta) = (MouseWheelUnit::Point, vec2(0.0, delta));
    Event::MouseWheel {
        unit,
        delta,
        phase: TouchPhase::Move,
        source: MouseWheelSource::Wheel,
        modifiers: Modifiers::NONE,
    }
}

fn key(key: Key) -> Event {
    Event::Key { key, physical_key: None, pressed: true, repeat: false, modifiers: Modifiers::NONE }
}

fn click(pos: Pos2) -> [Event; 3] {
    let button = |pressed| Event::PointerButton {
        pos,
        button: egui::PointerButton::Primary,
        pressed,
        modifiers: Modifiers::NONE,
    };
    [Event::PointerMoved(pos), button(true), button(false)]
}

fn labels() -> Vec<Arc<str>> {
    (0..CLASSES).map(|class| format!("dish number {class}").into()).collect()
}

fn model(labels: &[Arc<str>]) -> ModelSummary {
    ModelSummary {
        name: "benchmark".to_owned(),
        title: "Benchmark".to_owned(),
        classes: CLASSES,
        parameters: 1000,
        bytes: 0,
        labels: labels.into(),
        labels_from: "the benchmark".to_owned(),
        transform: Default::default(),
        transform_from: "the benchmark".to_owned(),
    }
}

/// Rows with long paths and five predictions each; every fiftieth photo is skipped. The photos do not exist: each
/// thumbnail ends in a reason, which costs the window as much as a picture, less the upload.
fn rows(labels: &[Arc<str>]) -> Vec<Row> {
    let row = |i: usize| {
        let path = format!("/photos/of/a/long/journey/day-{:03}/IMG_{i:06}.jpg", i / 500).into();
        let skipped = RowResult::Skipped { reason: "the file ends in the middle of the picture".to_owned() };
        let result =
            if i.is_multiple_of(50) { skipped } else { RowResult::Ok { predictions: top(i, labels), logits: None } };
        Row { path, result }
    };
    (0..ROWS).map(row).collect()
}

fn top(i: usize, labels: &[Arc<str>]) -> Vec<Prediction> {
    let best = 0.2 + (i * 7919 % 800) as f32 / 1000.0;
    let prediction = |rank: usize| {
        let index = (i * 31 + rank * 17) % labels.len();
        Prediction { index, label: labels[index].clone(), probability: best / (1 << (rank * 2)) as f32 }
    };
    (0..5).map(prediction).collect()
}
