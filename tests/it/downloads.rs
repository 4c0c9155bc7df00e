//! Downloads from a server that behaves as servers do: it cuts connections, stalls, lies about lengths, changes its
//! file, leads elsewhere, asks for patience, and answers with pages.

mod command;
mod memory;
pub mod server;

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use galley::checkpoint::Checkpoint;
use galley::format::error_chain;
use galley::images::transform::Resize;
use galley::jobs::brought::Brought;
use galley::jobs::download::{
    Checksum, DownloadConfig, DownloadEvent, DownloadSummary, Patience, catalog, download, start,
};
use galley::jobs::inspect::inspect;
use galley::worker::{JobContext, Outcome};
use sha2::{Digest as _, Sha256};

use super::support::write_model;
use server::{Reply, Request, Server};

/// As a person's, only quick.
const QUICK: Patience = Patience {
    connect: Duration::from_secs(5),
    stall: Duration::from_millis(300),
    tries: 4,
    first_wait: Duration::from_millis(4),
    longest_wait: Duration::from_millis(20),
    longest_asked: Duration::from_secs(5),
};

/// A safetensors file of one tensor of `length` bytes, which follow from the seed.
fn model(length: usize, seed: u8) -> Vec<u8> {
    let table = format!(r#"{{"w":{{"dtype":"U8","shape":[{length}],"data_offsets":[0,{length}]}}}}"#);
    let mut file = (table.len() as u64).to_le_bytes().to_vec();
    file.extend(table.bytes());
    file.extend((0..length).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ seed));
    file
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder for models, and what was said on the way.
struct Kitchen {
    folder: tempfile::TempDir,
    said: Vec<String>,
}

impl Kitchen {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), said: Vec::new() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, address: &str) -> DownloadConfig {
        DownloadConfig { patience: QUICK, ..DownloadConfig::new(address, self.folder.path()) }
    }

    fn download(&mut self, config: &DownloadConfig) -> Result<DownloadSummary, String> {
        self.download_in(config, &JobContext::detached())
    }

    fn download_in(&mut self, config: &DownloadConfig, ctx: &JobContext) -> Result<DownloadSummary, String> {
        let said = &mut self.said;
        let mut tell = |DownloadEvent::Notice(text)| said.push(text);
        download(config, ctx, &mut tell).map_err(|error| error_chain(&*error))
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn assert_holds(&self, name: &str, bytes: &[u8]) {
        assert!(fs::read(self.at(name)).unwrap() == bytes, "{name} holds other bytes");
    }

    /// What an interrupted download leaves.
    fn leave_part(&self, address: &str, bytes: &[u8], etag: &str, total: usize) {
        let record = serde_json::json!({"address": address, "address_digest": "", "etag": etag, "bytes": total});
        fs::write(self.at("food.safetensors.part"), bytes).unwrap();
        fs::write(self.at("food.safetensors.part.json"), record.to_string()).unwrap();
    }
}

const WHOLE: [&str; 2] = ["food.safetensors", "food.safetensors.source.json"];
const HALF: [&str; 2] = ["food.safetensors.part", "food.safetensors.part.json"];

#[test]
fn a_model_arrives_whole_and_is_not_fetched_again_while_it_stays_the_same() {
    let (file, mut kitchen) = (model(500_000, 1), Kitchen::new());
    let server = Server::new({
        let file = file.clone();
        move |request| Reply::file(request, &file, "\"1\"")
    });
    let config = kitchen.config(&server.at("/models/food.safetensors"));
    let summary = kitchen.download(&config).unwrap();
    kitchen.assert_holds("food.safetensors", &file);
    assert_eq!(kitchen.files(), WHOLE);
    assert_eq!((summary.bytes, summary.received), (file.len() as u64, file.len() as u64));
    assert_eq!((summary.sha256.as_str(), &summary.path), (sha256(&file).as_str(), &kitchen.at("food.safetensors")));
    let again = kitchen.download(&config).unwrap();
    assert_eq!(again, DownloadSummary { received: 0, ..summary });
    assert_eq!(server.requests()[1].header("if-none-match"), Some("\"1\""));
    assert_eq!(kitchen.said, [""; 0]);
    // With a checksum the server need not be asked.
    let known = DownloadConfig { checksum: Some(Checksum::parse(&sha256(&file)).unwrap()), ..config };
    kitchen.download(&known).unwrap();
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let (file, mut kitchen) = (model(1_000_000, 2), Kitchen::new());
    let server = Server::new({
        let file = file.clone();
        move |request| Reply::file(request, &file, "\"1\"").cut_after(300_000)
    });
    let summary = kitchen.download(&kitchen.config(&server.at("/food.safetensors"))).unwrap();
    kitchen.assert_holds("food.safetensors", &file);
    assert_eq!(summary.received, file.len() as u64, "no byte came twice");
    let requests = server.requests();
    let starts: Vec<_> = requests.iter().map(Request::range_start).collect();
    assert_eq!(starts, [None, Some(300_000), Some(600_000), Some(900_000)]);
    assert!(requests[1..].iter().all(|request| request.header("if-range") == Some("\"1\"")));
    assert_eq!(kitchen.said.len(), 3, "{:?}", kitchen.said);
}

#[test]
fn a_silent_server_is_given_up_and_asked_again() {
    let (file, mut kitchen) = (model(400_000, 3), Kitchen::new());
    let server = Server::new({
        let file = file.clone();
        move |request| {
            let reply = Reply::file(request, &file, "\"1\"");
            if request.number < 2 { reply.stall_after(150_000) } else { reply }
        }
    });
    let summary = kitchen.download(&kitchen.config(&server.at("/food.safetensors"))).unwrap();
    kitchen.assert_holds("food.safetensors", &file);
    assert_eq!((summary.received, server.requests().len()), (file.len() as u64, 3));
}

#[test]
fn less_than_was_promised_is_kept_and_never_given_its_name() {
    let (file, mut kitchen) = (model(100_000, 4), Kitchen::new());
    let server = Server::new({
        let file = file.clone();
        move |request| Reply::file(request, &file, "\"1\"").claiming(file.len() + 1000)
    });
    let error = kitchen.download(&kitchen.config(&server.at("/food.safetensors"))).unwrap_err();
    assert!(error.contains("gave up after 4 tries") && error.contains("is kept"), "{error}");
    assert_eq!(kitchen.files(), HALF);
    kitchen.assert_holds("food.safetensors.part", &file);
}

#[test]
fn more_than_was_promised_is_a_damaged_model() {
    let (file, mut kitchen) = (model(100_000, 5), Kitchen::new());
    let server = Server::new(move |request| Reply::file(request, &file, "\"1\"").claiming(file.len() - 1000));
    let error = kitchen.download(&kitchen.config(&server.at("/food.safetensors"))).unwrap_err();
    assert!(error.contains("no model that Galley can open") && error.contains("damaged"), "{error}");
    assert_eq!(kitchen.files(), [""; 0]);
}

#[test]
fn a_file_that_changes_midway_is_fetched_from_its_beginning() {
    let (old, new) = (model(600_000, 6), model(500_000, 7));
    for honours_if_range in [true, false] {
        let mut kitchen = Kitchen::new();
        let server = Server::new({
            let (old, new) = (old.clone(), new.clone());
            move |request| match request.number {
                0 => Reply::file(request, &old, "\"old\"").cut_after(200_000),
                _ if honours_if_range => Reply::file(request, &new, "\"new\""),
                _ => Reply::file(&request.without("if-range"), &new, "\"new\""),
            }
        });
        kitchen.download(&kitchen.config(&server.at("/food.safetensors"))).unwrap();
        kitchen.assert_holds("food.safetensors", &new);
        assert_eq!(server.requests()[1].header("if-range"), Some("\"old\""));
        assert!(kitchen.said.iter().any(|said| said.contains("from its beginning") || said.contains("another one")));
    }
}

#[test]
fn a_changed_file_replaces_the_one_that_is_there() {
    let (old, new, mut kitchen) = (model(60_000, 8), model(50_000, 9), Kitchen::new());
    let server = Server::new({
        let (old, new) = (old.clone(), new.clone());
        move |request| match request.number {
            0 => Reply::file(request, &old, "\"old\""),
            1 => Reply::file(request, &new, "\"new\"").cut_after(20_000),
            2 => Reply::status(404),
            _ => Reply::file(request, &new, "\"new\""),
        }
    });
    let config = kitchen.config(&server.at("/food.safetensors"));
    kitchen.download(&config).unwrap();
    kitchen.download(&config).unwrap_err();
    assert_eq!(
        fs::read(kitchen.at("food.safetensors")).unwrap(),
        old,
        "the old model stays until the new one is whole"
    );
    kitchen.download(&config).unwrap();
    kitchen.assert_holds("food.safetensors", &new);
    assert_eq!(kitchen.files(), WHOLE);
}

#[test]
fn a_part_of_a_file_without_validators_is_not_trusted() {
    let (file, mut kitchen) = (model(100_000, 10), Kitchen::new());
    let server = Server::new({
        let file = file.clone();
        move |request| {
            let reply = Reply::file(&request.without("range"), &file, "");
            if request.number == 0 { reply.cut_after(40_000) } else { reply }
        }
    });
    kitchen.download(&kitchen.config(&server.at("/food.safetensors"))).unwrap();
    kitchen.assert_holds("food.safetensors", &file);
    assert_eq!(server.requests()[1].range_start(), None);
}

#[test]
fn a_server_that_always_begins_anew_is_given_up() {
    let (file, mut kitchen) = (model(100_000, 11), Kitchen::new());
    let server = Server::new(move |request| Reply::file(&request.without("range"), &file, "\"1\"").cut_after(40_000));
    let error = kitchen.download(&kitchen.config(&server.at("/food.safetensors"))).unwrap_err();
    assert!(error.contains("gave up after 4 tries"), "{error}");
    assert_eq!((server.requests().len(), kitchen.files()), (4, HALF.map(str::to_owned).to_vec()));
}

#[test]
fn a_part_that_is_longer_than_the_file_is_dropped() {
    let (file, mut kitchen) = (model(100_000, 12), Kitchen::new());
    let server = Server::new({
        let file = file.clone();
        move |request| Reply::file(request, &file, "\"1\"")
    });
    let address = server.at("/food.safetensors");
    kitchen.leave_part(&address, &[1; 200_000], "\"1\"", 300_000);
    let summary = kitchen.download(&kitchen.config(&address)).unwrap();
    kitchen.assert_holds("food.safetensors", &file);
    assert_eq!((summary.resumed, server.requests()[0].range_start()), (200_000, Some(200_000)));
}

#[test]
fn redirects_are_followed_so_far() {
    let (file, mut kitchen) = (model(50_000, 13), Kitchen::new());
    let server = Server::new({
        let file = file.clone();
        move |request| match request.path.as_str() {
            "/food.safetensors" => Reply::status(302).header("Location", "../elsewhere?signed=1"),
            "/elsewhere?signed=1" => Reply::file(request, &file, "\"1\"").cut_after(20_000),
            _ => Reply::status(307).header("Location", &request.path),
        }
    });
    kitchen.download(&kitchen.config(&server.at("/food.safetensors"))).unwrap();
    kitchen.assert_holds("food.safetensors", &file);
    let error = kitchen.download(&kitchen.config(&server.at("/round.gguf"))).unwrap_err();
    assert!(error.contains("leads on more than 10 times"), "{error}");
    assert_eq!(server.requests().iter().filter(|request| request.path == "/round.gguf").count(), 11);
}

#[test]
fn a_busy_server_is_given_the_time_it_asks_for() {
    let (file, mut kitchen) = (model(50_000, 14), Kitchen::new());
    let server = Server::new({
        let file = file.clone();
        move |request| match request.number {
            0 => Reply::status(503),
            1 => Reply::status(429).header("Retry-After", "1"),
            _ => Reply::file(request, &file, "\"1\""),
        }
    });
    let before = Instant::now();
    kitchen.download(&kitchen.config(&server.at("/food.safetensors"))).unwrap();
    assert!(before.elapsed() >= Duration::from_secs(1));
    assert_eq!(kitchen.said.len(), 2, "{:?}", kitchen.said);
    let busy = Server::new(|_| Reply::status(429).header("Retry-After", "7200"));
    let error = kitchen.download(&kitchen.config(&busy.at("/other.safetensors"))).unwrap_err();
    assert!(error.contains("asks to wait 2 h 0 min"), "{error}");
    assert_eq!(busy.requests().len(), 1);
}

#[test]
fn refusals_are_told_at_once() {
    let mut kitchen = Kitchen::new();
    for (status, words) in [(404, "no file at this address"), (401, "asks for a login"), (403, "agreement")] {
        let server = Server::new(move |_| Reply::status(status));
        let error = kitchen.download(&kitchen.config(&server.at("/food.safetensors"))).unwrap_err();
        assert!(error.contains(words) && error.contains(&status.to_string()), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn a_wrong_checksum_deletes_the_file_and_the_first_digits_are_enough() {
    let (file, mut kitchen) = (model(50_000, 15), Kitchen::new());
    let server = Server::new({
        let file = file.clone();
        move |request| Reply::file(request, &file, "\"1\"")
    });
    let config = kitchen.config(&server.at("/food.safetensors"));
    let with = |digits: &str| DownloadConfig { checksum: Some(Checksum::parse(digits).unwrap()), ..config.clone() };
    let error = kitchen.download(&with(&"0".repeat(64))).unwrap_err();
    assert!(error.contains(&sha256(&file)) && error.contains(&"0".repeat(64)), "{error}");
    assert_eq!(kitchen.files(), [""; 0]);
    kitchen.download(&with(&sha256(&file)[..8])).unwrap();
    assert_eq!(kitchen.files(), WHOLE);
}

#[test]
fn a_damaged_part_is_found_out_by_the_checksum_and_fetched_anew() {
    let (file, mut kitchen) = (model(100_000, 16), Kitchen::new());
    let server = Server::new({
        let file = file.clone();
        move |request| Reply::file(request, &file, "\"1\"")
    });
    let address = server.at("/food.safetensors");
    kitchen.leave_part(&address, &[0; 40_000], "\"1\"", file.len());
    let checksum = Some(Checksum::parse(&sha256(&file)).unwrap());
    kitchen.download(&DownloadConfig { checksum, ..kitchen.config(&address) }).unwrap();
    kitchen.assert_holds("food.safetensors", &file);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_web_page_is_called_one_and_costs_no_part() {
    let (file, mut kitchen) = (model(100_000, 17), Kitchen::new());
    let page = "<!DOCTYPE html><html><head><title>Sign in to continue</title></head></html>";
    let server = Server::new(move |_| Reply::page(page));
    for name in ["food.safetensors", "food.gguf", "food.pth"] {
        let error = kitchen.download(&kitchen.config(&server.at(&format!("/{name}")))).unwrap_err();
        assert!(error.contains("web page") && error.contains("Sign in to continue"), "{error}");
        assert!(!kitchen.at(name).exists());
    }
    kitchen.leave_part(&server.at("/food.safetensors"), &file[..40_000], "\"1\"", file.len());
    kitchen.download(&kitchen.config(&server.at("/food.safetensors"))).unwrap_err();
    kitchen.assert_holds("food.safetensors.part", &file[..40_000]);
}

#[test]
fn what_is_no_model_is_not_kept() {
    let mut kitchen = Kitchen::new();
    let server = Server::new(|_| Reply::page(r#"{"error": "over quota"}"#));
    let error = kitchen.download(&kitchen.config(&server.at("/food.gguf"))).unwrap_err();
    assert!(error.contains("no model that Galley can open"), "{error}");
    assert_eq!(kitchen.files(), [""; 0]);
    let packed = Server::new(|_| Reply::page("x").header("Content-Encoding", "gzip"));
    let error = kitchen.download(&kitchen.config(&packed.at("/food.gguf"))).unwrap_err();
    assert!(error.contains("packs the file as gzip"), "{error}");
}

#[test]
fn a_body_without_a_length_arrives_too() {
    let (file, mut kitchen) = (model(300_000, 18), Kitchen::new());
    let server = Server::new({
        let file = file.clone();
        move |request| Reply::file(request, &file, "\"1\"").chunked()
    });
    kitchen.download(&kitchen.config(&server.at("/food.safetensors"))).unwrap();
    kitchen.assert_holds("food.safetensors", &file);
}

#[test]
fn the_model_in_fewer_bits_comes_first_and_the_plain_one_when_it_cannot_be_had() {
    let (plain, small) = (model(90_000, 19), model(30_000, 20));
    let server = Server::new({
        let (plain, small) = (plain.clone(), small.clone());
        move |request| match request.path.as_str() {
            "/food.safetensors" => Reply::file(request, &plain, "\"1\""),
            "/small.safetensors" => Reply::file(request, &small, "\"2\""),
            _ => Reply::status(404),
        }
    });
    let mut kitchen = Kitchen::new();
    let quantized = |kitchen: &Kitchen, name| DownloadConfig {
        quantized: Some(server.at(name)),
        ..kitchen.config(&server.at("/food.safetensors"))
    };
    let summary = kitchen.download(&quantized(&kitchen, "/small.safetensors")).unwrap();
    assert!(fs::read(summary.path).unwrap() == small);
    assert!(!kitchen.at("food.safetensors").exists() && kitchen.said.is_empty());
    let summary = kitchen.download(&quantized(&kitchen, "/none.gguf")).unwrap();
    assert!(fs::read(summary.path).unwrap() == plain);
    assert!(
        kitchen.said[0].contains("fewer bits cannot be had") && kitchen.said[0].contains("404"),
        "{:?}",
        kitchen.said
    );
}

#[test]
fn a_canceled_download_goes_on_later_and_its_part_is_no_model() {
    let (file, mut kitchen) = (model(500_000, 21), Kitchen::new());
    let ctx = JobContext::detached();
    let server = Server::new({
        let (file, ctx) = (file.clone(), ctx.clone());
        move |request| {
            let (file, ctx) = (file.clone(), ctx.clone());
            // Canceled by the time the second half would come.
            let reply = Reply::file(request, &file, "\"1\"");
            if request.number == 0 { reply.then_after(250_000, move || ctx.cancel()) } else { reply }
        }
    });
    let config = kitchen.config(&server.at("/food.safetensors"));
    let error = kitchen.download_in(&config, &ctx).unwrap_err();
    assert_eq!(error, "canceled");
    assert_eq!(kitchen.files(), HALF);
    let part = kitchen.at("food.safetensors.part");
    let error = Checkpoint::open(&part).unwrap_err().to_string();
    assert!(error.contains("unfinished download"), "{error}");
    assert_eq!(Brought::sort([part.clone()]).unknown, [part]);
    let summary = kitchen.download(&config).unwrap();
    kitchen.assert_holds("food.safetensors", &file);
    assert!(summary.resumed > 0 && summary.resumed + summary.received == file.len() as u64, "{summary:?}");
    assert_eq!(kitchen.files(), WHOLE);
}

#[test]
fn a_stalled_download_ends_as_soon_as_it_is_canceled() {
    let (file, kitchen) = (model(500_000, 22), Kitchen::new());
    let server = Server::new(move |request| Reply::file(request, &file, "\"1\"").stall_after(100_000));
    let mut config = kitchen.config(&server.at("/food.safetensors"));
    config.patience.stall = Duration::from_secs(600);
    let mut job = start(config, || ()).unwrap();
    while server.requests().is_empty() {
        std::thread::yield_now();
    }
    job.context().cancel();
    // Would take ten minutes otherwise.
    while !job.is_done() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(matches!(job.take_outcome(), Some(Outcome::Canceled)));
}

#[test]
fn a_paused_download_lets_its_connection_go_and_goes_on() {
    let (file, kitchen) = (model(500_000, 23), Kitchen::new());
    let paused: &'static Mutex<Option<JobContext>> = Box::leak(Box::default());
    let server = Server::new({
        let file = file.clone();
        move |request| {
            let reply = Reply::file(request, &file, "\"1\"");
            let pause = || paused.lock().unwrap().as_ref().unwrap().set_paused(true);
            if request.number == 0 { reply.then_after(250_000, pause) } else { reply }
        }
    });
    let mut locked = paused.lock().unwrap();
    let mut job = start(kitchen.config(&server.at("/food.safetensors")), || ()).unwrap();
    *locked = Some(job.context().clone());
    drop(locked);
    while !(job.context().is_paused()
        && kitchen.at("food.safetensors.part").metadata().is_ok_and(|part| part.len() > 0))
    {
        std::thread::yield_now();
    }
    assert!(!job.is_done() && server.requests().len() == 1);
    job.context().set_paused(false);
    while !job.is_done() {
        std::thread::yield_now();
    }
    let Some(Outcome::Finished(summary)) = job.take_outcome() else { panic!("not finished") };
    assert!(fs::read(summary.path).unwrap() == file);
    assert_eq!((summary.received, server.requests().len()), (file.len() as u64, 2));
    assert_eq!(job.poll(), None, "a pause is no failure");
}

#[test]
fn a_file_that_came_otherwise_is_never_overwritten() {
    let (file, mut kitchen) = (model(50_000, 24), Kitchen::new());
    let server = Server::new({
        let file = file.clone();
        move |request| Reply::file(request, &file, "\"1\"")
    });
    fs::write(kitchen.at("food.safetensors"), "a model of one's own").unwrap();
    let config = kitchen.config(&server.at("/food.safetensors"));
    for has_part in [false, true] {
        if has_part {
            kitchen.leave_part(&config.address, &file[..20_000], "\"1\"", file.len());
        }
        let error = kitchen.download(&config).unwrap_err();
        assert!(error.contains("did not come from this address"), "{error}");
    }
    kitchen.assert_holds("food.safetensors", b"a model of one's own");
    // It is the one asked for when its checksum says so.
    fs::write(kitchen.at("food.safetensors"), &file).unwrap();
    let checksum = Some(Checksum::parse(&sha256(&file)).unwrap());
    assert_eq!(kitchen.download(&DownloadConfig { checksum, ..config }).unwrap().received, 0);
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn without_the_server_the_model_that_is_there_is_used() {
    let (file, mut kitchen) = (model(50_000, 25), Kitchen::new());
    let server = Server::new(move |request| Reply::file(request, &file, "\"1\""));
    let config = kitchen.config(&server.at("/food.safetensors"));
    kitchen.download(&config).unwrap();
    drop(server);
    assert_eq!(kitchen.download(&config).unwrap().received, 0);
    assert!(kitchen.said[0].contains("the one here is used"), "{:?}", kitchen.said);
}

#[test]
fn what_cannot_fit_on_the_disk_is_not_begun() {
    let (file, mut kitchen) = (model(50_000, 26), Kitchen::new());
    let server = Server::new(move |request| Reply::file(request, &file, "\"1\"").claiming(1 << 60));
    let error = kitchen.download(&kitchen.config(&server.at("/food.safetensors"))).unwrap_err();
    assert!(error.contains("not enough space: 1.15 EB"), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn published_weights_come_with_their_labels_and_their_input() {
    let mut kitchen = Kitchen::new();
    write_model(&kitchen.at("served"), 1000, 5);
    let file = fs::read(kitchen.at("served")).unwrap();
    let server = Server::new(move |request| Reply::file(request, &file, "\"1\""));
    let published = catalog().iter().find(|published| published.name == "squeezenet1_1.tv_in1k").unwrap();
    let config = published.download_to(&kitchen.at("models"));
    assert_eq!(config.checksum.as_ref().map(Checksum::digits), Some("b8a52dc0"));
    let config = DownloadConfig { address: server.at("/served"), checksum: None, patience: QUICK, ..config };
    let summary = kitchen.download(&config).unwrap();
    assert_eq!(summary.path, published.path(&kitchen.at("models")));
    let read = inspect(&summary.path).unwrap();
    assert_eq!(read.notices, [""; 0]);
    assert_eq!(
        (read.labels.len(), read.labels[0].as_str(), read.labels[999].as_str()),
        (1000, "tench", "toilet tissue")
    );
    let transform = read.transform.unwrap();
    assert_eq!((transform.resize, transform.crop), (Resize::ShortSide(256), Some(224)));
    assert!(read.transform_from.unwrap().contains("config.json"));
}
