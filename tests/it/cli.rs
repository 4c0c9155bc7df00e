//! The command line as people and scripts meet it: the real program, its output and its exit codes.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{write_model, write_photo};

/// A folder of its own with a model, photos and a journal.
struct Kitchen {
    folder: tempfile::TempDir,
}

impl Kitchen {
    fn new() -> Self {
        let kitchen = Self { folder: tempfile::tempdir().unwrap() };
        write_model(&kitchen.at("model.safetensors"), 4, 1);
        kitchen
    }

    fn with_photos(count: u32) -> Self {
        let kitchen = Self::new();
        for number in 0..count {
            write_photo(&kitchen.at(&format!("photos/{number:04}.png")), number);
        }
        kitchen
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program, run in the kitchen with a journal of its own.
    fn galley(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_galley"));
        command.current_dir(self.folder.path()).args(arguments);
        command.env("GALLEY_JOURNAL", self.at("journal.sqlite")).env("GALLEY_VERDICTS", self.at("verdicts"));
        command.stdin(Stdio::null());
        command
    }

    /// `classify` with the model at a size that is quickly computed.
    fn classify(&self, arguments: &[&str]) -> Command {
        let mut command = self.galley(&["classify", "--model", "model.safetensors", "--resize", "64", "--crop", "64"]);
        command.args(arguments);
        command
    }

    fn journal<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        let database = rusqlite::Connection::open(self.at("journal.sqlite")).unwrap();
        database.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every line of stdout as JSON: nothing else may be there.
fn rows(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
}

fn paths(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["path"].as_str().unwrap()).collect()
}

fn assert_same_rows(a: &[Value], b: &[Value]) {
    assert_eq!(paths(a), paths(b));
    for (a, b) in a.iter().zip(b) {
        let classes = |row: &Value| -> Vec<(u64, f64)> {
            let best = row["predictions"].as_array().unwrap().iter();
            best.map(|best| (best["index"].as_u64().unwrap(), best["probability"].as_f64().unwrap())).collect()
        };
        for ((class, probability), (other_class, other_probability)) in classes(a).into_iter().zip(classes(b)) {
            assert_eq!(class, other_class, "{a} {b}");
            assert!((probability - other_probability).abs() < 1e-5, "{a} {b}");
        }
    }
}

#[test]
fn json_rows_come_in_order_alone_on_stdout() {
    let kitchen = Kitchen::with_photos(11);
    write_photo(&kitchen.at("photos/deep/er/0.jpg"), 7);
    write_photo(&kitchen.at("photos/.hidden/0.jpg"), 7);
    fs::write(kitchen.at("photos/._0001.png"), "left by another system").unwrap();
    fs::write(kitchen.at("photos/notes.txt"), "no photo").unwrap();
    let output = kitchen.classify(&["--json", "--top-k", "2", "photos"]).output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let rows = rows(&output);
    let mut expected: Vec<String> = (0..11).map(|number| format!("photos/{number:04}.png")).collect();
    expected.push("photos/deep/er/0.jpg".to_owned());
    assert_eq!(paths(&rows), expected);
    for row in &rows {
        let keys: Vec<_> = row.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["path", "status", "predictions", "reason"]);
        assert_eq!((row["status"].as_str(), row["reason"].is_null()), (Some("ok"), true));
        let best = row["predictions"].as_array().unwrap();
        assert_eq!(best.len(), 2);
        assert!(best[0]["probability"].as_f64() >= best[1]["probability"].as_f64());
        assert_eq!(best[0]["label"], format!("class {}", best[0]["index"]));
    }
    let one_thread = kitchen.classify(&["--json", "--top-k", "2", "--fresh", "--threads", "1", "photos"]).output();
    assert_same_rows(&rows, &self::rows(&one_thread.unwrap()));
}

#[test]
fn people_get_one_line_per_photo() {
    let kitchen = Kitchen::with_photos(2);
    write_photo(&kitchen.at("photos/new\nline.png"), 3);
    let output = kitchen.classify(&["photos"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.lines().all(|line| line.contains(" %  class ") && line.contains("photos/")), "{text}");
    assert!(text.contains(r"new\nline.png"), "{text}");
}

#[test]
fn a_second_run_repeats_every_row_without_classifying() {
    let kitchen = Kitchen::with_photos(10);
    fs::write(kitchen.at("photos/empty.jpg"), "").unwrap();
    let first = kitchen.classify(&["--json", "photos"]).output().unwrap();
    let second = kitchen.classify(&["--json", "photos"]).output().unwrap();
    assert_eq!(first.stdout, second.stdout);
    assert!(stderr(&second).contains("11 of them known"), "{}", stderr(&second));
    assert_eq!(kitchen.journal::<i64>("SELECT recorded FROM runs ORDER BY id DESC"), 0);

    // By another way to the same photos, the journal knows them too.
    let elsewhere = kitchen.classify(&["--json", "photos/../photos/0003.png"]).output().unwrap();
    assert!(stderr(&elsewhere).contains("1 of them known"), "{}", stderr(&elsewhere));
}

#[test]
fn only_what_changed_is_classified_anew() {
    let kitchen = Kitchen::with_photos(6);
    let recorded = |arguments: &[&str]| {
        let output = kitchen.classify(arguments).arg("photos").output().unwrap();
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        kitchen.journal::<i64>("SELECT recorded FROM runs ORDER BY id DESC")
    };
    assert_eq!(recorded(&["--top-k", "2"]), 6);
    assert_eq!(recorded(&["--top-k", "2"]), 0);
    assert_eq!(recorded(&["--top-k", "1"]), 0, "fewer classes than are known");
    assert_eq!(recorded(&["--top-k", "3"]), 6, "more classes than are known");
    assert_eq!(recorded(&["--top-k", "9"]), 6, "all there are");
    assert_eq!(recorded(&["--top-k", "9"]), 0);

    write_photo(&kitchen.at("photos/0002.png"), 99);
    assert_eq!(recorded(&[]), 1, "a changed photo");
    let photo = fs::File::open(kitchen.at("photos/0003.png")).unwrap();
    photo.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(recorded(&[]), 1, "a touched photo");

    assert_eq!(recorded(&["--fresh"]), 6);
    assert_eq!(recorded(&["--logits"]), 6);
    assert_eq!(recorded(&["--mean", "0,0,0"]), 6, "another transform");
    fs::write(kitchen.at("names.txt"), "a\nb\nc\nd\n").unwrap();
    assert_eq!(recorded(&["--labels", "names.txt"]), 6, "other labels");
    write_model(&kitchen.at("model.safetensors"), 4, 2);
    assert_eq!(recorded(&[]), 6, "another model under the same name");
}

#[test]
fn logits_are_those_of_the_probabilities() {
    let kitchen = Kitchen::with_photos(3);
    let output = kitchen.classify(&["--json", "--logits", "photos"]).output().unwrap();
    for row in rows(&output) {
        let logits: Vec<f64> = row["logits"].as_array().unwrap().iter().map(|logit| logit.as_f64().unwrap()).collect();
        assert_eq!(logits.len(), 4);
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        for best in row["predictions"].as_array().unwrap() {
            let expected = logits[best["index"].as_u64().unwrap() as usize].exp() / sum;
            assert!((best["probability"].as_f64().unwrap() - expected).abs() < 1e-6, "{row}");
        }
    }
}

#[test]
fn unreadable_photos_become_rows_and_the_exit_code_says_so() {
    let kitchen = Kitchen::with_photos(3);
    write_photo(&kitchen.at("photos/good.jpg"), 5);
    let whole = fs::read(kitchen.at("photos/good.jpg")).unwrap();
    fs::write(kitchen.at("photos/cut.jpg"), &whole[..whole.len() / 2]).unwrap();
    fs::write(kitchen.at("photos/empty.png"), "").unwrap();
    fs::write(kitchen.at("photos/text.jpg"), "no photo at all").unwrap();
    fs::create_dir(kitchen.at("photos/folder.jpg")).unwrap();
    fs::write(kitchen.at("letter.txt"), "named itself, so it is tried").unwrap();
    let output = kitchen.classify(&["--json", "photos", "letter.txt"]).output().unwrap();
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    let rows = rows(&output);
    let skipped: Vec<Value> = rows.iter().filter(|row| row["status"] == "skipped").cloned().collect();
    assert_eq!(paths(&skipped), ["photos/cut.jpg", "photos/empty.png", "photos/text.jpg", "letter.txt"]);
    assert!(skipped.iter().all(|row| row["reason"].as_str().is_some_and(|reason| !reason.is_empty())));
    assert_eq!(rows.len(), 8);
    assert!(stderr(&output).contains("4 skipped"), "{}", stderr(&output));
}

#[cfg(unix)]
#[test]
fn links_loops_and_pipes_neither_hang_nor_repeat() {
    use std::os::unix::fs::symlink;
    let kitchen = Kitchen::with_photos(3);
    symlink(kitchen.at("photos"), kitchen.at("photos/loop")).unwrap();
    symlink(kitchen.at("photos/0001.png"), kitchen.at("photos/again.png")).unwrap();
    symlink(kitchen.at("nowhere"), kitchen.at("photos/dangling.png")).unwrap();
    symlink(kitchen.at("nowhere"), kitchen.at("photos/dangling.txt")).unwrap();
    let pipe = std::ffi::CString::new(kitchen.at("photos/pipe.png").to_str().unwrap()).unwrap();
    // SAFETY: the path is a valid C string for the length of the call.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    let output = kitchen.classify(&["--json", "photos", "photos/0002.png", "photos"]).output().unwrap();
    let rows = rows(&output);
    let expected =
        ["0000.png", "0001.png", "0002.png", "dangling.png", "pipe.png"].map(|name| format!("photos/{name}"));
    assert_eq!(paths(&rows), expected, "{}", stderr(&output));
    assert_eq!((code(&output), &rows[3]["status"], &rows[4]["status"]), (3, &"skipped".into(), &"skipped".into()));
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_utf8_are_classified_and_recoverable() {
    use std::os::unix::ffi::OsStrExt as _;
    let kitchen = Kitchen::with_photos(1);
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9, \"two\"\n.png");
    fs::rename(kitchen.at("photos/0000.png"), kitchen.at("photos").join(name)).unwrap();
    let run = || kitchen.classify(&["--json", "--out", "rows.csv", "photos"]).output().unwrap();
    let (first, second) = (run(), run());
    assert_eq!((code(&first), &first.stdout), (0, &second.stdout), "{}", stderr(&first));
    let hex: String = b"photos/caf\xe9, \"two\"\n.png".iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(rows(&first)[0]["path_bytes"], hex);
    let mut csv = csv::Reader::from_path(kitchen.at("rows.csv")).unwrap();
    let record = csv.byte_records().next().unwrap().unwrap();
    assert_eq!(&record[0], b"photos/caf\xe9, \"two\"\n.png");
}

#[test]
fn files_hold_every_row_also_on_a_second_run() {
    let kitchen = Kitchen::with_photos(5);
    for _ in 0..2 {
        let arguments = ["--json", "--threshold", "0.99", "--out", "rows.jsonl", "photos"];
        let output = kitchen.classify(&arguments).output().unwrap();
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(fs::read(kitchen.at("rows.jsonl")).unwrap(), output.stdout);
        assert!(rows(&output).iter().all(|row| row["label"] == "unsure"));
    }
}

#[test]
fn copies_sorted_into_the_scanned_folder_are_not_classified_again() {
    let kitchen = Kitchen::with_photos(5);
    for run in 0..3 {
        let output = kitchen.classify(&["--json", "--sort-into", "photos/sorted", "photos"]).output().unwrap();
        assert_eq!((code(&output), rows(&output).len()), (0, 5), "run {run}: {}", stderr(&output));
    }
    let copies = walkdir::WalkDir::new(kitchen.at("photos/sorted")).into_iter();
    let copies = copies.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|name| name == "png"));
    assert_eq!(copies.count(), 5);
    let into_originals = kitchen.classify(&["--sort-into", "photos", "photos"]).output().unwrap();
    assert_eq!(code(&into_originals), 1);
    assert!(stderr(&into_originals).contains("empty folder"), "{}", stderr(&into_originals));
}

#[test]
fn wrong_words_are_usage_errors() {
    let kitchen = Kitchen::with_photos(1);
    for arguments in [
        &["classify"][..],
        &["classify", "--batch-size", "0", "photos"],
        &["classify", "--top-k", "0", "photos"],
        &["classify", "--std", "0.2,0,0.2", "photos"],
        &["classify", "--mean", "0.5,0.5", "photos"],
        &["classify", "--resize", "256x", "photos"],
        &["classify", "--crop", "0", "photos"],
        &["classify", "--threshold", "1.5", "photos"],
        &["classify", "--interpolation", "nearest", "photos"],
        &["classify", "--device", "cuda", "photos"],
        &["classify", "--out", "rows.xls", "photos"],
        &["inspect"],
        &["clasify", "photos"],
    ] {
        let output = kitchen.galley(arguments).output().unwrap();
        assert_eq!((code(&output), output.stdout.len()), (2, 0), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).starts_with("error: "), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let kitchen = Kitchen::with_photos(1);
    fs::create_dir(kitchen.at("bare")).unwrap();
    fs::write(kitchen.at("three.txt"), "a\nb\nc\n").unwrap();
    let base = ["classify", "--model", "model.safetensors"];
    for (arguments, says) in [
        (&["photoz"][..], "no file or folder"),
        (&["bare"], "no photos found"),
        (&["--labels", "three.txt", "photos"], "4 classes"),
        (&["--labels", "gone.txt", "photos"], "gone.txt"),
        (&["--model", "gone.pth", "photos"], "gone.pth"),
        (&["--model", "three.txt", "photos"], "three.txt"),
        (&["--device", "metal", "photos"], "cpu"),
    ] {
        let chosen = if arguments[0] == "--model" { &base[..1] } else { &base[..] };
        let output = kitchen.galley(chosen).args(arguments).output().unwrap();
        assert_eq!((code(&output), output.stdout.len()), (1, 0), "{arguments:?}: {}", stderr(&output));
        let last = stderr(&output).lines().last().unwrap_or_default().to_owned();
        assert!(last.starts_with("error: ") && last.contains(says), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_run_quietly() {
    let kitchen = Kitchen::with_photos(60);
    let mut command = kitchen.classify(&["--json", "--batch-size", "2", "photos"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    assert!(!said.contains("error") && !said.contains("panic"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_display_the_window_names_the_command() {
    let kitchen = Kitchen::new();
    let output = kitchen.galley(&[]).env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY").output().unwrap();
    assert_eq!((code(&output), output.stdout.len()), (1, 0));
    let said = stderr(&output);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("galley classify sample-data/photos"), "{said}");
}

#[test]
fn inspect_tells_people_and_programs_the_same() {
    let kitchen = Kitchen::new();
    fs::write(kitchen.at("labels.txt"), "soup\nstew\ntaco\nrice\n").unwrap();
    let text = kitchen.galley(&["inspect", "model.safetensors"]).output().unwrap();
    let json = kitchen.galley(&["inspect", "--json", "model.safetensors"]).output().unwrap();
    assert_eq!((code(&text), code(&json)), (0, 0), "{}", stderr(&text));
    let inspection = &rows(&json)[0];
    assert_eq!(inspection["container"], "safetensors");
    assert_eq!(inspection["architecture"], "squeezenet1_1");
    assert_eq!(inspection["classes"], 4);
    assert_eq!(inspection["parameters"], 724_548); // torchvision squeezenet1_1(num_classes=4)
    assert_eq!(inspection["labels"], serde_json::json!(["soup", "stew", "taco", "rice"]));
    let text = String::from_utf8(text.stdout).unwrap();
    for part in ["squeezenet1_1", "724,548", "soup, stew, taco, rice", "labels.txt beside the checkpoint", "2.90 MB"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    fs::write(kitchen.at("broken.pth"), "no checkpoint").unwrap();
    let broken = kitchen.galley(&["inspect", "broken.pth"]).output().unwrap();
    assert_eq!((code(&broken), broken.stdout.len()), (1, 0));
    assert!(stderr(&broken).contains("broken.pth"));
}

/// Runs until `lines` rows are read, and kills in the middle of whatever goes on then.
fn kill_after(kitchen: &Kitchen, arguments: &[&str], lines: usize, signal: i32) -> std::process::ExitStatus {
    let mut command = kitchen.classify(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..lines {
        stdout.next().unwrap().unwrap();
    }
    let id = i32::try_from(child.id()).unwrap();
    // SAFETY: kill(2) touches no memory, and the child is not yet waited for, so the id is still its own.
    assert_eq!(unsafe { libc::kill(id, signal) }, 0);
    // The reader stays until the end: a closed pipe would be another way to stop.
    stdout.for_each(drop);
    child.wait().unwrap()
}

#[test]
fn killed_at_any_moment_no_photo_is_lost_or_classified_twice() {
    const PHOTOS: u32 = 240;
    let kitchen = Kitchen::with_photos(PHOTOS);
    let arguments = ["--json", "--batch-size", "4", "photos"];
    let calm = Kitchen { folder: tempfile::tempdir().unwrap() };
    let expected = kitchen.classify(&arguments).env("GALLEY_JOURNAL", calm.at("journal.sqlite")).output().unwrap();

    for lines in [0, 1, 30, 31, 77, 140] {
        kill_after(&kitchen, &arguments, lines, libc::SIGKILL);
    }
    let last = kitchen.classify(&arguments).output().unwrap();
    assert_eq!(code(&last), 0, "{}", stderr(&last));
    let (rows, expected) = (rows(&last), rows(&expected));
    assert_eq!(rows.len(), PHOTOS as usize);
    assert_same_rows(&rows, &expected);
    let photos = i64::from(PHOTOS);
    assert_eq!(kitchen.journal::<i64>("SELECT sum(recorded) FROM runs"), photos, "each photo once over all runs");
    assert_eq!(kitchen.journal::<i64>("SELECT count(*) FROM predictions"), photos);
    let killed: i64 = kitchen.journal("SELECT count(*) FROM runs WHERE state = 'running' AND recorded > 0");
    assert!(killed >= 3, "only {killed} runs were killed in their middle");
}

#[test]
fn interrupted_politely_the_run_says_how_to_go_on() {
    let kitchen = Kitchen::with_photos(120);
    let arguments = ["--json", "--batch-size", "2", "photos"];
    let status = kill_after(&kitchen, &arguments, 10, libc::SIGINT);
    assert_eq!(status.code(), Some(130));
    assert_eq!(kitchen.journal::<String>("SELECT state FROM runs"), "canceled");
    let output = kitchen.classify(&arguments).output().unwrap();
    assert_eq!((code(&output), rows(&output).len()), (0, 120));
    assert_eq!(kitchen.journal::<i64>("SELECT sum(recorded) FROM runs"), 120);
}

#[test]
fn a_stopped_run_leaves_no_half_written_file() {
    let kitchen = Kitchen::with_photos(120);
    let arguments = ["--json", "--batch-size", "2", "--out", "rows.csv", "photos"];
    kill_after(&kitchen, &arguments, 10, libc::SIGINT);
    assert!(!kitchen.at("rows.csv").exists());
    let left = fs::read_dir(kitchen.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with(".galley-")));
}
