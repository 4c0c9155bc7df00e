//! `galley download` as people and scripts meet it: killed, interrupted, on a full disk, and by the environment.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use galley::jobs::download::catalog;
use serde_json::Value;

use super::server::{Reply, Server};
use super::{HALF, Kitchen, WHOLE, model};
use crate::support::{write_model, write_photo};

impl Kitchen {
    fn galley(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_galley"));
        command.current_dir(self.folder.path()).args(arguments).stdin(Stdio::null());
        command.env("GALLEY_JOURNAL", self.at("journal")).env("GALLEY_VERDICTS", self.at("verdicts"));
        command.env("GALLEY_MODELS", self.at("models"));
        command.env_remove("GALLEY_MODEL_URL").env_remove("GALLEY_MODEL_URL_QUANTIZED");
        command
    }

    /// A download that has come so far that some of it is on the disk.
    fn half_done(&self, address: &str) -> Child {
        let mut command = self.galley(&["download", address, "--to", "."]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while !fs::metadata(self.at(HALF[0])).is_ok_and(|part| part.len() > 0) {
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A server whose first answer slows down in the middle.
fn slow_server(file: &[u8]) -> Server {
    let file = file.to_vec();
    Server::new(move |request| {
        let reply = Reply::file(request, &file, "\"1\"");
        if request.number == 0 { reply.then_after(2_000_000, || ()) } else { reply }
    })
}

#[test]
fn a_killed_download_goes_on_where_it_was() {
    let (file, kitchen) = (model(20_000_000, 30), Kitchen::new());
    let server = slow_server(&file);
    let address = server.at("/food.safetensors");
    let mut child = kitchen.half_done(&address);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(kitchen.files(), HALF);
    let kept = fs::metadata(kitchen.at(HALF[0])).unwrap().len();
    let summary = json(&kitchen.galley(&["download", &address, "--to", ".", "--json"]).output().unwrap());
    kitchen.assert_holds("food.safetensors", &file);
    assert_eq!(kitchen.files(), WHOLE);
    assert_eq!(server.requests()[1].range_start(), Some(kept));
    assert_eq!(
        (summary["resumed"].as_u64(), summary["received"].as_u64()),
        (Some(kept), Some(file.len() as u64 - kept))
    );
}

#[test]
fn ctrl_c_stops_and_says_how_to_go_on() {
    let (file, kitchen) = (model(20_000_000, 31), Kitchen::new());
    let server = slow_server(&file);
    let child = kitchen.half_done(&server.at("/food.safetensors"));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(text(&output.stderr).contains("run the same command to go on"), "{}", text(&output.stderr));
    assert_eq!(kitchen.files(), HALF);
}

/// A disk of two megabytes, in a name space of its own: only possible where the system allows one.
#[test]
fn a_full_disk_is_said_so_and_keeps_what_came() {
    let (file, kitchen) = (model(6_000_000, 32), Kitchen::new());
    let server = Server::new(move |request| Reply::file(request, &file, "\"1\"").chunked());
    fs::create_dir(kitchen.at("disk")).unwrap();
    let script =
        r#"mount -t tmpfs -o size=2m tmpfs disk || exit 99; "$@"; code=$?; stat -c "%n %s" disk/*; exit $code"#;
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_galley")]);
    command.args(["download", &server.at("/food.safetensors"), "--to", "disk"]);
    let output = match command.current_dir(kitchen.folder.path()).output() {
        Ok(output) if output.status.code() != Some(99) && server.requests().len() == 1 => output,
        output => return eprintln!("skipped: this system lets nobody mount a small disk: {output:?}"),
    };
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the disk is full"), "{}", text(&output.stderr));
    let kept = text(&output.stdout);
    let kept = kept.lines().find_map(|line| line.strip_prefix("disk/food.safetensors.part ")).unwrap();
    assert!(kept.parse::<u64>().unwrap() > 1_000_000, "{kept}");
}

#[test]
fn the_environment_names_the_model_where_the_command_line_does_not() {
    let kitchen = Kitchen::new();
    write_model(&kitchen.at("own.safetensors"), 4, 1);
    write_photo(&kitchen.at("photos/0.png"), 1);
    let file = fs::read(kitchen.at("own.safetensors")).unwrap();
    let server = Server::new(move |request| match request.path.as_str() {
        "/food.safetensors" => Reply::file(request, &file, "\"1\""),
        _ => Reply::status(404),
    });
    let classify = |address: &str, more: &[&str]| {
        let mut command =
            kitchen.galley(&["classify", "--json", "--fresh", "--resize", "64", "--crop", "64", "photos"]);
        command.args(more).env("GALLEY_MODEL_URL", address).env("GALLEY_MODEL_URL_QUANTIZED", server.at("/food.gguf"));
        command.output().unwrap()
    };
    let expected = json(&classify("", &["--model", "own.safetensors"]));
    assert_eq!(server.requests().len(), 0, "a model that is named needs no other");
    let first = classify(&server.at("/food.safetensors"), &[]);
    assert_eq!(json(&first), expected);
    assert!(text(&first.stderr).contains("fewer bits cannot be had"), "{}", text(&first.stderr));
    let requests = server.requests().len();
    assert_eq!(json(&classify(&server.at("/food.safetensors"), &[])), expected);
    let again = server.requests().split_off(requests);
    assert!(again.iter().any(|request| request.header("if-none-match").is_some()), "{again:?}");
    assert!(Path::new(&kitchen.at("models/food.safetensors")).exists());
    let wrong = classify("food.safetensors", &[]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("GALLEY_MODEL_URL: "), "{}", text(&wrong.stderr));
}

#[test]
fn the_list_says_what_there_is_and_what_is_here() {
    let kitchen = Kitchen::new();
    let here = catalog()[0].path(&kitchen.at("models"));
    fs::create_dir_all(here.parent().unwrap()).unwrap();
    fs::write(&here, "weights").unwrap();
    let output = kitchen.galley(&["download", "--list", "--json"]).output().unwrap();
    let lines: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), catalog().len());
    assert_eq!(lines[0]["path"].as_str(), here.to_str());
    assert!(lines[1]["path"].is_null() && lines[1]["approximate_bytes"].is_u64());
    let table = text(&kitchen.galley(&["download", "--list"]).output().unwrap().stdout);
    assert_eq!(table.lines().count(), 1 + catalog().len());
    assert!(table.lines().nth(1).unwrap().ends_with("here"), "{table}");
    assert!(catalog().iter().all(|published| table.contains(&published.name) && table.contains(&published.licence)));
}

#[test]
fn wrong_words_are_told_before_anything_is_fetched() {
    let kitchen = Kitchen::new();
    let cases: [(&[&str], i32, &str); 4] = [
        (&["download"], 2, "required"),
        (&["download", "https://a.org/x.pth", "--sha256", "xyz"], 2, "64 hexadecimal digits"),
        (&["download", "resnet18.a1"], 1, "`galley download --list`"),
        (&["download", "s3://models/x.pth"], 1, "s3"),
    ];
    for (arguments, code, words) in cases {
        if cfg!(feature = "cloud") && arguments[1..].iter().any(|word| word.starts_with("s3:")) {
            continue;
        }
        let output = kitchen.galley(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
    assert_eq!(kitchen.files(), [""; 0]);
}
