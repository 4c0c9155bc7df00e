//! Exports: what is written can be read back, appears whole or not at all, and never touches an original.

use std::fs;
use std::path::{Path, PathBuf};

use galley::export::{ExportError, ExportOptions, ExportTarget, Exporter, Row, RowResult, SORTED_MARK, json_line};
use galley::jobs;
use galley::predict::Prediction;
use galley::worker::JobContext;

const OPTIONS: ExportOptions = ExportOptions { top_k: 2, threshold: 0.5 };

fn ok(path: impl Into<PathBuf>, classes: &[(usize, &str, f32)]) -> Row {
    let prediction = |(index, label, probability): &(usize, &str, f32)| Prediction {
        index: *index,
        label: (*label).into(),
        probability: *probability,
    };
    let predictions = classes.iter().map(prediction).collect();
    Row { path: path.into(), result: RowResult::Ok { predictions, logits: None } }
}

fn skipped(path: &str, reason: &str) -> Row {
    Row { path: path.into(), result: RowResult::Skipped { reason: reason.to_owned() } }
}

fn export(rows: Vec<Row>, target: ExportTarget) -> galley::export::ExportSummary {
    jobs::export::export(rows, &target, OPTIONS, &JobContext::detached()).unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            found.push(entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
        }
    }
    found
}

#[test]
fn csv_keeps_awkward_names_and_marks_unsure_photos() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/rows.csv");
    let awkward = "a, \"b\"\nc.jpg";
    let rows = vec![
        ok(awkward, &[(1, "soup, cold", 0.75), (0, "taco", 0.25)]),
        ok("b.jpg", &[(0, "taco", 0.4), (1, "soup, cold", 0.35)]),
        skipped("c.jpg", "the file is cut short"),
    ];
    export(rows, ExportTarget::Csv(path.clone()));
    let mut reader = csv::Reader::from_path(&path).unwrap();
    let header = "path,status,label,label_1,probability_1,label_2,probability_2,reason";
    assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>().join(","), header);
    let records: Vec<Vec<String>> = reader.deserialize().collect::<Result<_, _>>().unwrap();
    assert_eq!(records[0], [awkward, "ok", "soup, cold", "soup, cold", "0.75", "taco", "0.25", ""]);
    assert_eq!(records[1][2..4], ["unsure", "taco"]);
    assert_eq!(records[2], ["c.jpg", "skipped", "", "", "", "", "", "the file is cut short"]);
    assert_eq!(files(folder.path()), ["new/rows.csv"], "no temporary file is left");
}

#[test]
fn json_lines_have_every_key_and_survive_any_name() {
    let sure = ExportOptions { threshold: 0.0, ..OPTIONS };
    let line = json_line(&ok("a\n\"b\".jpg", &[(3, "taco", 0.5)]), &sure);
    let expected = r#"{"path":"a\n\"b\".jpg","status":"ok","predictions":[{"index":3,"label":"taco","probability":0.5}],"reason":null}"#;
    assert_eq!(line, expected);
    let line = json_line(&skipped("a.jpg", "empty"), &sure);
    assert_eq!(line, r#"{"path":"a.jpg","status":"skipped","predictions":[],"reason":"empty"}"#);
    let line = json_line(&ok("a.jpg", &[(3, "taco", 0.4)]), &OPTIONS);
    assert!(line.contains(r#""label":"unsure","predictions""#), "{line}");
}

#[cfg(unix)]
#[test]
fn names_that_are_not_utf8_can_be_recovered() {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = b"caf\xe9.jpg";
    let path = Path::new(std::ffi::OsStr::from_bytes(bytes));
    let line: serde_json::Value = serde_json::from_str(&json_line(&ok(path, &[]), &OPTIONS)).unwrap();
    assert_eq!(line["path"], "caf\u{fffd}.jpg");
    assert_eq!(line["path_bytes"], "636166e92e6a7067");

    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("rows.csv");
    export(vec![ok(path, &[])], ExportTarget::Csv(csv.clone()));
    let written = fs::read(csv).unwrap();
    assert!(written.windows(bytes.len()).any(|window| window == bytes));
}

#[test]
fn sorted_copies_never_overwrite_and_sorting_again_adds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, content) in [("a/1.jpg", "one"), ("b/1.jpg", "two"), ("c/1.jpg", "one"), ("d.jpg", "four")] {
        fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        fs::write(at(name), content).unwrap();
    }
    let rows = || {
        vec![
            ok(at("a/1.jpg"), &[(0, "soup/stew", 0.9)]),
            ok(at("b/1.jpg"), &[(0, "soup/stew", 0.9)]),
            ok(at("c/1.jpg"), &[(0, "soup/stew", 0.9)]),
            ok(at("d.jpg"), &[(1, "..", 0.3)]),
            ok(at("gone.jpg"), &[(1, "..", 0.9)]),
            skipped("e.jpg", "empty"),
        ]
    };
    let before = files(folder.path());
    let sorted = at("sorted");
    let summary = export(rows(), ExportTarget::SortedFolders(sorted.clone()));
    assert_eq!((summary.copied, summary.missing, summary.rows), (3, 1, 6));
    let expected = [SORTED_MARK, "soup_stew/1 (2).jpg", "soup_stew/1.jpg", "unsure/d.jpg"];
    assert_eq!(files(&sorted), expected);
    assert_eq!(fs::read_to_string(sorted.join("soup_stew/1 (2).jpg")).unwrap(), "two");

    let again = export(rows(), ExportTarget::SortedFolders(sorted.clone()));
    assert_eq!((again.copied, files(&sorted)), (0, expected.map(str::to_owned).to_vec()));
    fs::remove_dir_all(&sorted).unwrap();
    assert_eq!(files(folder.path()), before, "originals stay");
}

#[test]
fn what_is_not_a_place_for_an_export_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine.jpg"), "photo").unwrap();
    let create = |target| Exporter::create(&target, OPTIONS).err().expect("refused");
    let error = create(ExportTarget::SortedFolders(folder.path().to_owned()));
    assert!(matches!(error, ExportError::NotEmpty(_)), "{error:?}");
    let error = create(ExportTarget::Csv(folder.path().to_owned()));
    assert!(matches!(error, ExportError::NotAFile(_)), "{error:?}");
    assert_eq!(files(folder.path()), ["mine.jpg"]);
}

#[test]
fn a_canceled_export_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    fs::write(&path, "old").unwrap();
    let ctx = JobContext::detached();
    ctx.cancel();
    let canceled = jobs::export::export(vec![ok("a.jpg", &[])], &ExportTarget::JsonLines(path.clone()), OPTIONS, &ctx);
    assert!(canceled.is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(files(folder.path()), ["rows.jsonl"]);
}
