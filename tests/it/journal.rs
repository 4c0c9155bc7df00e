//! The journal: what it remembers, what it forgets, and what it says about files it cannot use.

use std::path::{Path, PathBuf};
use std::slice::from_ref;
use std::sync::Arc;

use galley::images::transform::Transform;
use galley::journal::{Journal, JournalError, Peak, PeakKind, PhotoIdentity, RunState, Stored};

fn photo(path: &str, size: u64, modified: i64) -> PhotoIdentity {
    PhotoIdentity { path: path.into(), size, modified }
}

fn labels(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn open_error(path: &Path) -> JournalError {
    match Journal::open(path) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

#[test]
fn a_photo_is_known_only_in_the_state_it_was_classified_in() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&folder.path().join("new/journal.sqlite")).unwrap();
    let transform = Transform::default();
    let classifier = journal.classifier(&[1; 32], "resnet18", &labels(&["a", "b"]), &transform).unwrap();
    let run = journal.begin_run(classifier, "{}").unwrap();
    let known = Stored::Classes(vec![(1, 0.700_000_05), (0, 0.3)]);
    let skipped = Stored::Skipped("the file is cut short".to_owned());
    let batch = [(photo("/a.jpg", 10, 5), known.clone()), (photo("/b.jpg", 3, -7), skipped.clone())];
    journal.record(run, &batch).unwrap();

    let find = |journal: &Journal, photo, classes| journal.find(classifier, &photo, classes).unwrap();
    assert_eq!(find(&journal, photo("/a.jpg", 10, 5), 2), Some(known));
    assert_eq!(find(&journal, photo("/b.jpg", 3, -7), 2), Some(skipped));
    assert_eq!(find(&journal, photo("/a.jpg", 11, 5), 2), None, "another size");
    assert_eq!(find(&journal, photo("/a.jpg", 10, 6), 2), None, "another time");
    assert_eq!(find(&journal, photo("/c.jpg", 10, 5), 2), None, "another path");
    assert_eq!(find(&journal, photo("/a.jpg", 10, 5), 3), None, "more classes than were kept");
}

#[test]
fn another_model_network_label_or_transform_is_another_classifier() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("journal.sqlite")).unwrap();
    let transform = Transform::default();
    let cropped = Transform { crop: Some(200), ..transform };
    let number = |model, network, names: &[&str], transform| {
        journal.classifier(&[model; 32], network, &labels(names), transform).unwrap()
    };
    let numbers = [
        number(1, "efficientnet_b0", &["a", "b"], &transform),
        number(2, "efficientnet_b0", &["a", "b"], &transform),
        number(1, "tf_efficientnet_b0", &["a", "b"], &transform),
        number(1, "efficientnet_b0", &["b", "a"], &transform),
        number(1, "efficientnet_b0", &["a", "b"], &cropped),
    ];
    let different: std::collections::BTreeSet<i64> = numbers.into_iter().collect();
    assert_eq!(different.len(), 5);
    assert_eq!(number(1, "efficientnet_b0", &["a", "b"], &transform), numbers[0]);
}

#[test]
fn a_model_is_hashed_again_only_when_it_changed() {
    let folder = tempfile::tempdir().unwrap();
    let journal_path = folder.path().join("journal.sqlite");
    let journal = Journal::open(&journal_path).unwrap();
    let model = folder.path().join("model.pth");
    std::fs::write(&model, "weights").unwrap();
    let first = journal.model_sha256(from_ref(&model)).unwrap();

    // The cache is believed: an entry changed by hand comes back.
    let database = rusqlite::Connection::open(&journal_path).unwrap();
    database.execute("UPDATE models SET sha256 = ?1", [[7_u8; 32]]).unwrap();
    let cached = journal.model_sha256(from_ref(&model)).unwrap();
    assert_ne!(cached, first);

    std::fs::write(&model, "other weights").unwrap();
    let changed = journal.model_sha256(from_ref(&model)).unwrap();
    assert!(changed != first && changed != cached);
    let missing = journal.model_sha256(&[folder.path().join("gone.pth")]).unwrap_err().to_string();
    assert!(missing.ends_with("gone.pth"), "{missing}");
}

#[test]
fn runs_are_counted_and_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    let mut journal = Journal::open(&path).unwrap();
    let classifier = journal.classifier(&[1; 32], "resnet18", &labels(&["a"]), &Transform::default()).unwrap();
    let run = journal.begin_run(classifier, r#"{"top_k":1}"#).unwrap();
    for name in ["/a.jpg", "/b.jpg"] {
        journal.record(run, &[(photo(name, 1, 1), Stored::Classes(vec![(0, 1.0)]))]).unwrap();
    }
    journal.end_run(run, RunState::Canceled).unwrap();
    let database = rusqlite::Connection::open(&path).unwrap();
    let row = database.query_row("SELECT state, recorded, finished IS NOT NULL, config FROM runs", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, bool>(2)?, row.get::<_, String>(3)?))
    });
    assert_eq!(row.unwrap(), ("canceled".to_owned(), 2, true, r#"{"top_k":1}"#.to_owned()));
}

#[test]
fn two_processes_may_write_one_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    let write = |name: &'static str| {
        let mut journal = Journal::open(&path).unwrap();
        let classifier = journal.classifier(&[1; 32], "resnet18", &labels(&["a"]), &Transform::default()).unwrap();
        let run = journal.begin_run(classifier, "{}").unwrap();
        for number in 0..100 {
            let identity = photo(&format!("/{name}/{number}.jpg"), 1, 1);
            journal.record(run, &[(identity, Stored::Classes(vec![(0, 1.0)]))]).unwrap();
        }
    };
    std::thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            scope.spawn(move || write(name));
        }
    });
    let database = rusqlite::Connection::open(&path).unwrap();
    let rows: i64 = database.query_row("SELECT count(*) FROM predictions", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 300);
}

#[test]
fn a_journal_that_cannot_be_used_is_named_with_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };

    std::fs::write(path("text.sqlite"), "this is no database, however long it may be ".repeat(100)).unwrap();
    let error = open_error(&path("text.sqlite"));
    assert!(matches!(error, JournalError::Damaged { .. }), "{error:?}");

    drop(Journal::open(&path("newer.sqlite")).unwrap());
    rusqlite::Connection::open(path("newer.sqlite")).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = open_error(&path("newer.sqlite"));
    assert!(matches!(error, JournalError::Newer { .. }), "{error:?}");

    std::fs::create_dir(path("folder.sqlite")).unwrap();
    let error = open_error(&path("folder.sqlite"));
    assert!(matches!(error, JournalError::ReadOnly { .. }), "{error:?}");

    std::fs::write(path("file"), "").unwrap();
    let error = open_error(&path("file/journal.sqlite"));
    assert!(matches!(error, JournalError::Folder { .. }), "{error:?}");
    assert!(error.to_string().contains("GALLEY_JOURNAL"), "{error}");
}

#[test]
fn a_journal_damaged_in_the_middle_is_an_error_and_not_a_wrong_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    let mut journal = Journal::open(&path).unwrap();
    let classifier = journal.classifier(&[1; 32], "resnet18", &labels(&["a"]), &Transform::default()).unwrap();
    let run = journal.begin_run(classifier, "{}").unwrap();
    let batch: Vec<_> = (0..2000)
        .map(|number| (photo(&format!("/photos/{number:05}.jpg"), 1, 1), Stored::Classes(vec![(0, 1.0)])))
        .collect();
    journal.record(run, &batch).unwrap();
    drop(journal);

    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[8192..end].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let found = Journal::open(&path).and_then(|journal| journal.find(classifier, &batch[1000].0, 1));
    assert!(matches!(found, Err(JournalError::Damaged { .. })), "{found:?}");
}

/// As the first version of Galley made it.
const FIRST_SCHEMA: &str = "
    CREATE TABLE models (
        path BLOB PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL, sha256 BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE classifiers (
        id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, model_sha256 BLOB NOT NULL, labels TEXT NOT NULL,
        transform TEXT NOT NULL
    );
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY, classifier INTEGER NOT NULL REFERENCES classifiers, config TEXT NOT NULL,
        state TEXT NOT NULL, started INTEGER NOT NULL, finished INTEGER, recorded INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE predictions (
        classifier INTEGER NOT NULL REFERENCES classifiers, photo BLOB NOT NULL, size INTEGER NOT NULL,
        modified INTEGER NOT NULL, run INTEGER NOT NULL REFERENCES runs, at INTEGER NOT NULL,
        classes TEXT, reason TEXT, PRIMARY KEY (classifier, photo)
    ) WITHOUT ROWID;
    INSERT INTO classifiers VALUES (1, x'01', x'02', '[]', '{}');
    INSERT INTO runs VALUES (1, 1, '{}', 'finished', 5, 6, 1);
    INSERT INTO predictions VALUES (1, CAST('/a.jpg' AS BLOB), 10, 5, 1, 6, '[[3,0.5]]', NULL);
    PRAGMA user_version = 1;
";

fn peak(network: &str, predicted: u64, footprint: Option<u64>) -> Peak {
    Peak {
        kind: PeakKind { network: network.to_owned(), mode: "train".to_owned(), device: "CPU".to_owned() },
        config: r#"{"batch-size":8}"#.to_owned(),
        items: vec![("weights".to_owned(), predicted - 1), ("step".to_owned(), 1)],
        predicted,
        heap: 90,
        footprint,
        anyway: predicted > 1000,
        at: 0,
    }
}

#[test]
fn a_journal_of_before_peaks_were_kept_opens_and_takes_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.sqlite");
    rusqlite::Connection::open(&path).unwrap().execute_batch(FIRST_SCHEMA).unwrap();
    let journal = Journal::open(&path).unwrap();
    assert_eq!(journal.find(1, &photo("/a.jpg", 10, 5), 1).unwrap(), Some(Stored::Classes(vec![(3, 0.5)])));
    assert_eq!(journal.peaks(None, 9).unwrap(), []);
    let peaks =
        [peak("convnext_atto", 100, Some(110)), peak("resnet18", 2000, None), peak("convnext_atto", 200, Some(230))];
    peaks.iter().for_each(|peak| journal.record_peak(peak).unwrap());
    drop(journal);
    let journal = Journal::open(&path).unwrap();
    let timeless = |peaks: Vec<Peak>| -> Vec<Peak> {
        assert!(peaks.iter().all(|peak| peak.at > 1_700_000_000));
        peaks.into_iter().map(|peak| Peak { at: 0, ..peak }).collect()
    };
    let [first, other, last] = peaks;
    assert_eq!(timeless(journal.peaks(None, 2).unwrap()), [last.clone(), other.clone()]);
    assert_eq!(timeless(journal.peaks(Some(&first.kind), 9).unwrap()), [last, first]);
    assert_eq!((other.measured(), other.anyway), (90, true), "of an unknown footprint the heap is what is known");
}
