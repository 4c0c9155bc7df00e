//! `galley classify --stdin`: the real program, line by line.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::support::{write_model, write_photo};

struct Kitchen {
    folder: tempfile::TempDir,
}

/// A program that answers.
struct Running {
    child: Child,
    lines: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Kitchen {
    fn new(photos: u32) -> Self {
        let kitchen = Self { folder: tempfile::tempdir().unwrap() };
        write_model(&kitchen.at("model.safetensors"), 4, 1);
        (0..photos).for_each(|number| write_photo(&kitchen.at(&format!("photos/{number}.png")), number));
        kitchen
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_galley"));
        command.current_dir(self.folder.path());
        command.args(["classify", "--model", "model.safetensors", "--resize", "64", "--crop", "64"]).args(arguments);
        command.env("GALLEY_JOURNAL", self.at("journal.sqlite")).env("GALLEY_VERDICTS", self.at("verdicts"));
        command.env("GALLEY_SETTINGS", self.at("settings.toml"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Running {
        let arguments = [&["--stdin"][..], arguments].concat();
        let mut child = self.command(&arguments).envs(variables.iter().copied()).spawn().unwrap();
        let (lines, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Running { child, lines, answers }
    }
}

impl Running {
    fn send(&mut self, line: &str) {
        let lines = self.lines.as_mut().unwrap();
        lines.write_all(line.as_bytes()).and_then(|()| lines.write_all(b"\n")).and_then(|()| lines.flush()).unwrap();
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// Ends the lines: what is still answered, the exit code, and what was said besides.
    fn end(mut self) -> (Vec<Value>, i32, String) {
        drop(self.lines.take());
        let answers = self.answers.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
        let output = self.child.wait_with_output().unwrap();
        (answers, output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn each_line_is_answered_at_once_in_order_and_as_a_run_would() {
    let kitchen = Kitchen::new(12);
    let mut running = kitchen.start(&["--top-k", "2"], &[]);
    let ready = running.answer();
    assert_eq!((&ready["ready"], &ready["status"]), (&json!(true), &json!("ready")));
    assert_eq!((&ready["model"], ready["labels"].as_array().unwrap().len()), (&json!("squeezenet1_1"), 4));
    // Each waits for its answer before the next is sent: no batch may hold one back.
    let alone: Vec<Value> = (0..2)
        .map(|number| {
            running.send(&format!("photos/{number}.png"));
            running.answer()
        })
        .collect();
    (2..12).for_each(|number| running.send(&format!("photos/{number}.png")));
    let (rest, code, said) = running.end();
    assert_eq!(code, 0, "{said}");
    assert!(!kitchen.at("journal.sqlite").exists());
    let answers = [alone, rest].concat();

    let run = kitchen.command(&["--json", "--top-k", "2", "photos"]).output().unwrap();
    let rows: Vec<Value> =
        String::from_utf8(run.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 12);
    for (number, answer) in answers.iter().enumerate() {
        let row = rows.iter().find(|row| row["path"] == answer["path"]).unwrap();
        assert_eq!(answer["path"], format!("photos/{number}.png"));
        assert_eq!(answer["predictions"][0]["index"], row["predictions"][0]["index"]);
        let probability = |row: &Value| row["predictions"][0]["probability"].as_f64().unwrap();
        assert!((probability(answer) - probability(row)).abs() < 1e-5);
        assert_eq!(answer["predictions"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn what_a_line_holds_comes_back_and_a_bad_one_stops_nothing() {
    let kitchen = Kitchen::new(2);
    fs::write(kitchen.at("photos/torn.jpg"), b"\xFF\xD8\xFF").unwrap();
    let mut running = kitchen.start(&[], &[]);
    running.answer();
    let fields = json!({ "status": "mine", "deep": { "list": [1, null, "x"] }, "n": 1.5 });
    let mut line = json!({ "id": { "part": 3 }, "path": "photos/0.png" });
    line.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    for line in [
        line.to_string().as_str(),
        "{\"path\": ",
        r#"{"id": "no path", "x": 1}"#,
        "",
        "photos/missing.png",
        r#"{"id": 9, "path": "photos/torn.jpg"}"#,
        "photos/1.png\r",
    ] {
        running.send(line);
    }
    let (answers, code, said) = running.end();
    assert_eq!((answers.len(), code), (6, 3), "{said}");
    assert!(said.contains("2 photos classified, 2 skipped, 2 lines not understood"), "{said}");
    let status: Vec<&str> = answers.iter().map(|answer| answer["status"].as_str().unwrap()).collect();
    assert_eq!(status, ["ok", "error", "error", "skipped", "skipped", "ok"]);
    assert_eq!((&answers[0]["id"], &answers[0]["fields"]), (&json!({ "part": 3 }), &fields));
    assert_eq!(answers[1]["line"], 2);
    assert_eq!((&answers[2]["id"], &answers[2]["fields"]), (&json!("no path"), &json!({ "x": 1 })));
    assert_eq!(answers[4]["id"], 9);
    assert!(answers.iter().skip(3).all(|answer| answer["path"].is_string() && answer.get("fields").is_none()));
    assert!(!answers[3]["reason"].as_str().unwrap().is_empty());
    assert_eq!(answers[5]["path"], "photos/1.png");
}

#[test]
fn a_model_unloaded_while_idle_is_read_again_and_answers_the_same() {
    let kitchen = Kitchen::new(1);
    let mut running = kitchen.start(&[], &[("GALLEY_IDLE_TIME", "0")]);
    running.answer();
    let mut ask = || {
        running.send("photos/0.png");
        running.answer()
    };
    assert_eq!(ask(), ask());
    // Another model under the same name must not answer for the first.
    write_model(&kitchen.at("model.safetensors"), 5, 2);
    running.send("photos/0.png");
    let (answers, code, said) = running.end();
    assert_eq!((answers.len(), code), (0, 1));
    assert!(said.contains("changed while Galley was answering"), "{said}");
}

#[test]
fn what_stands_in_the_way_is_said_before_the_first_line() {
    let kitchen = Kitchen::new(1);
    for (variables, reason) in [
        (&[("GALLEY_LARGEST_MODEL", "1MB")][..], "does not fit"),
        (&[("GALLEY_LARGEST_MODEL", "big")], "GALLEY_LARGEST_MODEL cannot be used: this must be a size such as 400MB"),
        (&[("GALLEY_MEMORY_LIMIT", "1MB")], "GALLEY_MEMORY_LIMIT cannot be used: this must be at least 50 MB"),
        (&[("GALLEY_LOAD_TIMEOUT", "soon")], "GALLEY_LOAD_TIMEOUT cannot be used"),
    ] {
        let (answers, code, said) = kitchen.start(&[], variables).end();
        assert_eq!((answers.len(), code), (0, 1), "{said}");
        assert!(said.contains(reason), "{reason} in {said}");
    }
    // A flag wins over the environment, and a light model takes the place of what does not fit.
    let mut running = kitchen.start(&["--largest-model", "10MB"], &[("GALLEY_LARGEST_MODEL", "1MB")]);
    assert_eq!(running.answer()["model"], "squeezenet1_1");
    assert_eq!(running.end().1, 0);
    // 9 MB, and the starter model takes 6.
    write_model(&kitchen.at("model.safetensors"), 3000, 1);
    fs::write(kitchen.at("light.safetensors"), galley::predict::STARTER).unwrap();
    let variables = [("GALLEY_LARGEST_MODEL", "7MB"), ("GALLEY_LIGHT_MODEL", "light.safetensors")];
    let mut running = kitchen.start(&[], &variables);
    assert_ne!(running.answer()["model"], "squeezenet1_1");
    let (_, code, said) = running.end();
    assert!(code == 0 && said.contains("light.safetensors is used instead"), "{said}");
}

#[test]
fn a_reader_that_has_gone_ends_the_program() {
    let kitchen = Kitchen::new(1);
    let mut running = kitchen.start(&[], &[]);
    running.answer();
    let Running { mut child, lines, answers } = running;
    drop(answers);
    let mut lines = lines.unwrap();
    // The pipe may take some before the program has noticed.
    while lines.write_all(b"photos/0.png\n").is_ok() {
        if child.try_wait().unwrap().is_some() {
            break;
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_stream_above_its_limit_computes_fewer_at_once_and_answers_all_lines() {
    let kitchen = Kitchen::new(12);
    let limit = ["--memory-limit", "20MB", "--anyway", "--batch-size", "64"];
    let mut running = kitchen.start(&limit, &[]);
    running.answer();
    (0..600).for_each(|number| running.send(&format!("photos/{}.png", number % 12)));
    let (answers, code, said) = running.end();
    assert_eq!((answers.len(), code), (600, 0), "{said}");
    assert!(answers.iter().all(|answer| answer["status"] == "ok"), "{said}");
    for (index, answer) in answers.iter().enumerate().skip(12) {
        assert_eq!(answer["path"], format!("photos/{}.png", index % 12));
        let best = |answer: &Value| answer["predictions"][0]["index"].clone();
        assert_eq!(best(answer), best(&answers[index % 12]));
    }
    assert!(said.contains("at once, because"), "{said}");
}
