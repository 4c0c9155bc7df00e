//! SQLite: runs, predictions and known models, written as they are made. A process killed at any moment loses nothing
//! that [`Journal::record`] had returned from.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Transaction, TransactionBehavior, params};
use sha2::{Digest as _, Sha256};

use crate::images::transform::Transform;

/// The schema, one step per version; `user_version` counts the steps taken. Steps are only ever added.
const MIGRATIONS: [&str; 2] = [
    "
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
",
    "
    CREATE TABLE peaks (
        id INTEGER PRIMARY KEY, at INTEGER NOT NULL, network TEXT NOT NULL, mode TEXT NOT NULL, device TEXT NOT NULL,
        config TEXT NOT NULL, items TEXT NOT NULL, predicted INTEGER NOT NULL, heap INTEGER NOT NULL,
        footprint INTEGER, anyway INTEGER NOT NULL
    );
    CREATE INDEX peaks_by_kind ON peaks (network, mode, device, id);
",
];

/// Part of a classifier's key: raised when the same model, labels and transform would give other numbers than before.
const PIPELINE: u32 = 1;

/// How long to wait for another process that writes at this moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("failed to create the folder of the journal; set GALLEY_JOURNAL to a file that can be written: {}", .path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("the journal cannot be written; set GALLEY_JOURNAL to a file that can: {}", .path.display())]
    ReadOnly { path: PathBuf, source: rusqlite::Error },
    #[error("the journal is damaged; move it away and run again (its photos are then classified anew): {}", .path.display())]
    Damaged { path: PathBuf, source: rusqlite::Error },
    #[error("the journal was written by a newer Galley; update Galley, or set GALLEY_JOURNAL to another file: {}", .path.display())]
    Newer { path: PathBuf },
    #[error("the disk of the journal is full; free some space and run the same again: {}", .path.display())]
    Full { path: PathBuf, source: rusqlite::Error },
    #[error("another program keeps the journal locked; try again when it is done: {}", .path.display())]
    Busy { path: PathBuf, source: rusqlite::Error },
    #[error("the journal failed: {}", .path.display())]
    Database { path: PathBuf, source: rusqlite::Error },
    #[error("failed to read the model {}", .path.display())]
    Model { path: PathBuf, source: io::Error },
}

/// The journal's place: `GALLEY_JOURNAL`, or `journal.sqlite` in the user's data folder (the current folder on a
/// system that names none).
pub fn default_path() -> PathBuf {
    let in_data_folder = || {
        let folders = directories::ProjectDirs::from("", "", "Galley")?;
        Some(folders.data_dir().join("journal.sqlite"))
    };
    let named = std::env::var_os("GALLEY_JOURNAL").filter(|name| !name.is_empty()).map(PathBuf::from);
    named.or_else(in_data_folder).unwrap_or_else(|| "galley-journal.sqlite".into())
}

/// What tells one state of a photo from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhotoIdentity {
    /// Canonical, so that the same photo is found again from any folder.
    pub path: PathBuf,
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub modified: i64,
}

impl PhotoIdentity {
    /// `path` must be canonical.
    pub fn new(path: PathBuf, metadata: &Metadata) -> Self {
        Self { path, size: metadata.len(), modified: modified_nanos(metadata) }
    }
}

/// What the journal keeps of a photo.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    /// Class and probability, best first.
    Classes(Vec<(usize, f32)>),
    Skipped(String),
}

/// Jobs whose memory can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeakKind {
    /// As timm or torchvision call it.
    pub network: String,
    /// What was done: `train`, `classify`.
    pub mode: String,
    pub device: String,
}

/// What a job was predicted to take and took, in bytes beside what the process had before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peak {
    pub kind: PeakKind,
    /// The job's settings, for people.
    pub config: String,
    /// The prediction by what takes it.
    pub items: Vec<(String, u64)>,
    pub predicted: u64,
    /// At most on the heap.
    pub heap: u64,
    /// The highest footprint; none where the system does not tell.
    pub footprint: Option<u64>,
    /// It was predicted not to fit and ran all the same.
    pub anyway: bool,
    /// Seconds since 1970; set when it is written.
    pub at: i64,
}

impl Peak {
    /// What a prediction is held against: the footprint, or the heap where that is unknown.
    pub fn measured(&self) -> u64 {
        self.footprint.unwrap_or(self.heap)
    }
}

/// The state a run was left in. A run that was killed stays `Running`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    Running,
    Finished,
    Canceled,
    Failed,
}

impl RunState {
    fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Canceled => "canceled",
            Self::Failed => "failed",
        }
    }
}

/// An open journal. Several processes may use one file.
pub struct Journal {
    connection: Connection,
    path: PathBuf,
}

impl Journal {
    /// Opens or creates, and brings an older schema up to date.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(|source| JournalError::Folder { path: path.to_owned(), source })?;
        }
        let connection = Connection::open(path).map_err(|source| describe(source, path))?;
        let mut journal = Self { connection, path: path.to_owned() };
        journal.prepare().map_err(|source| describe(source, path))?;
        match journal.migrate().map_err(|source| describe(source, path))? {
            true => Ok(journal),
            false => Err(JournalError::Newer { path: path.to_owned() }),
        }
    }

    fn prepare(&self) -> rusqlite::Result<()> {
        self.connection.busy_timeout(BUSY_TIMEOUT)?;
        self.connection.pragma_update(None, "journal_mode", "WAL")?;
        // In WAL mode a commit has reached the operating system when it returns, so a killed process loses nothing.
        // NORMAL leaves out the sync per commit: only a power cut may take the last batches, and never the file.
        self.connection.pragma_update(None, "synchronous", "NORMAL")?;
        self.connection.pragma_update(None, "foreign_keys", true)
    }

    /// False when the file is of a newer version.
    fn migrate(&mut self) -> rusqlite::Result<bool> {
        // Immediate: of two processes that start together, the second waits and finds the work done.
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let steps = usize::try_from(version).ok().and_then(|version| MIGRATIONS.get(version..));
        let Some(steps) = steps else { return Ok(false) };
        for step in steps {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
        transaction.commit()?;
        Ok(true)
    }

    /// SHA-256 of a model's files, in order. A file of known size and modification time is not read again.
    pub fn model_sha256(&self, files: &[PathBuf]) -> Result<[u8; 32], JournalError> {
        let mut all = Sha256::new();
        for file in files {
            all.update(self.file_sha256(file)?);
        }
        Ok(all.finalize().into())
    }

    /// The same of one file alone.
    pub fn file_sha256(&self, file: &Path) -> Result<[u8; 32], JournalError> {
        let unreadable = |source| JournalError::Model { path: file.to_owned(), source };
        let canonical = fs::canonicalize(file).map_err(unreadable)?;
        let mut opened = File::open(&canonical).map_err(unreadable)?;
        let metadata = opened.metadata().map_err(unreadable)?;
        let (size, modified) = (metadata.len() as i64, modified_nanos(&metadata));
        let path = canonical.as_os_str().as_encoded_bytes();
        let known = self
            .connection
            .query_row(
                "SELECT sha256 FROM models WHERE path = ?1 AND size = ?2 AND modified = ?3",
                params![path, size, modified],
                |row| row.get(0),
            )
            .optional();
        if let Some(sha256) = known.map_err(|source| describe(source, &self.path))? {
            return Ok(sha256);
        }
        let mut hasher = Sha256::new();
        io::copy(&mut opened, &mut hasher).map_err(unreadable)?;
        let sha256: [u8; 32] = hasher.finalize().into();
        self.execute(
            "INSERT OR REPLACE INTO models (path, size, modified, sha256) VALUES (?1, ?2, ?3, ?4)",
            params![path, size, modified, sha256],
        )?;
        Ok(sha256)
    }

    /// The number under which predictions of this model, read as this network, with these labels and this transform
    /// are kept.
    pub fn classifier(
        &self,
        model_sha256: &[u8; 32],
        network: &str,
        labels: &[Arc<str>],
        transform: &Transform,
    ) -> Result<i64, JournalError> {
        let labels = serde_json::json!(labels.iter().map(|label| &**label).collect::<Vec<_>>()).to_string();
        let transform = serde_json::json!(transform).to_string();
        let mut key = Sha256::new();
        key.update(PIPELINE.to_le_bytes());
        key.update(model_sha256);
        for text in [network, &labels, &transform] {
            // The length keeps one text apart from the next.
            key.update((text.len() as u64).to_le_bytes());
            key.update(text);
        }
        let key: [u8; 32] = key.finalize().into();
        self.execute(
            "INSERT OR IGNORE INTO classifiers (key, model_sha256, labels, transform) VALUES (?1, ?2, ?3, ?4)",
            params![key, model_sha256, labels, transform],
        )?;
        let id = self.connection.query_row("SELECT id FROM classifiers WHERE key = ?1", [key], |row| row.get(0));
        id.map_err(|source| describe(source, &self.path))
    }

    /// Notes the start of a run and returns its number. `config` is kept as JSON for people to read.
    pub fn begin_run(&self, classifier: i64, config: &str) -> Result<i64, JournalError> {
        self.execute(
            "INSERT INTO runs (classifier, config, state, started) VALUES (?1, ?2, ?3, ?4)",
            params![classifier, config, RunState::Running.name(), now_seconds()],
        )?;
        Ok(self.connection.last_insert_rowid())
    }

    pub fn end_run(&self, run: i64, state: RunState) -> Result<(), JournalError> {
        self.execute(
            "UPDATE runs SET state = ?2, finished = ?3 WHERE id = ?1",
            params![run, state.name(), now_seconds()],
        )
    }

    /// What is known of this very state of a photo. Fewer than `classes` stored classes count as unknown.
    pub fn find(&self, classifier: i64, photo: &PhotoIdentity, classes: usize) -> Result<Option<Stored>, JournalError> {
        let failed = |source| describe(source, &self.path);
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT classes, reason FROM predictions
                 WHERE classifier = ?1 AND photo = ?2 AND size = ?3 AND modified = ?4",
            )
            .map_err(failed)?;
        let path = photo.path.as_os_str().as_encoded_bytes();
        let row = statement
            .query_row(params![classifier, path, photo.size as i64, photo.modified], |row| {
                Ok((row.get::<_, Option<String>>(0)?, row.get::<_, Option<String>>(1)?))
            })
            .optional();
        Ok(match row.map_err(failed)? {
            Some((_, Some(reason))) => Some(Stored::Skipped(reason)),
            // Text that does not parse was not written by Galley: the photo is classified anew.
            Some((Some(text), None)) => serde_json::from_str(&text)
                .ok()
                .filter(|stored: &Vec<(usize, f32)>| stored.len() >= classes)
                .map(Stored::Classes),
            _ => None,
        })
    }

    /// Writes a batch in one transaction: all of it or nothing.
    pub fn record(&mut self, run: i64, batch: &[(PhotoIdentity, Stored)]) -> Result<(), JournalError> {
        if batch.is_empty() {
            return Ok(());
        }
        let written = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(|transaction| write(transaction, run, batch));
        written.map_err(|source| describe(source, &self.path))
    }

    /// Notes what a job took.
    pub fn record_peak(&self, peak: &Peak) -> Result<(), JournalError> {
        let Peak { kind, config, items, predicted, heap, footprint, anyway, at: _ } = peak;
        self.execute(
            "INSERT INTO peaks (at, network, mode, device, config, items, predicted, heap, footprint, anyway)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                now_seconds(),
                kind.network,
                kind.mode,
                kind.device,
                config,
                serde_json::json!(items).to_string(),
                *predicted as i64,
                *heap as i64,
                footprint.map(|bytes| bytes as i64),
                anyway
            ],
        )
    }

    /// The last `most` jobs, of one kind or of all, newest first.
    pub fn peaks(&self, kind: Option<&PeakKind>, most: usize) -> Result<Vec<Peak>, JournalError> {
        let failed = |source| describe(source, &self.path);
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT network, mode, device, config, items, predicted, heap, footprint, anyway, at FROM peaks
                 WHERE ?1 IS NULL OR (network = ?1 AND mode = ?2 AND device = ?3) ORDER BY id DESC LIMIT ?4",
            )
            .map_err(failed)?;
        let name = |name: fn(&PeakKind) -> &str| kind.map(name);
        let of_kind =
            params![name(|kind| &kind.network), name(|kind| &kind.mode), name(|kind| &kind.device), most as i64];
        let peak = |row: &rusqlite::Row| {
            Ok(Peak {
                kind: PeakKind { network: row.get(0)?, mode: row.get(1)?, device: row.get(2)? },
                config: row.get(3)?,
                // Text that does not parse was not written by Galley.
                items: serde_json::from_str(&row.get::<_, String>(4)?).unwrap_or_default(),
                predicted: row.get::<_, i64>(5)? as u64,
                heap: row.get::<_, i64>(6)? as u64,
                footprint: row.get::<_, Option<i64>>(7)?.map(|bytes| bytes as u64),
                anyway: row.get(8)?,
                at: row.get(9)?,
            })
        };
        let peaks = statement.query_map(of_kind, peak).and_then(Iterator::collect);
        peaks.map_err(failed)
    }

    fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Result<(), JournalError> {
        self.connection.execute(sql, params).map(drop).map_err(|source| describe(source, &self.path))
    }
}

fn write(transaction: Transaction<'_>, run: i64, batch: &[(PhotoIdentity, Stored)]) -> rusqlite::Result<()> {
    {
        let mut insert = transaction.prepare_cached(
            "INSERT OR REPLACE INTO predictions (classifier, photo, size, modified, run, at, classes, reason)
             VALUES ((SELECT classifier FROM runs WHERE id = ?1), ?2, ?3, ?4, ?1, ?5, ?6, ?7)",
        )?;
        for (photo, stored) in batch {
            let (classes, reason) = match stored {
                Stored::Classes(classes) => (Some(serde_json::json!(classes).to_string()), None),
                Stored::Skipped(reason) => (None, Some(reason)),
            };
            let path = photo.path.as_os_str().as_encoded_bytes();
            insert.execute(params![run, path, photo.size as i64, photo.modified, now_seconds(), classes, reason])?;
        }
    }
    transaction.execute("UPDATE runs SET recorded = recorded + ?2 WHERE id = ?1", params![run, batch.len() as i64])?;
    transaction.commit()
}

fn describe(source: rusqlite::Error, path: &Path) -> JournalError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => JournalError::Damaged { path, source },
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            JournalError::ReadOnly { path, source }
        }
        Some(ErrorCode::DiskFull) => JournalError::Full { path, source },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => JournalError::Busy { path, source },
        _ => JournalError::Database { path, source },
    }
}

/// Nanoseconds since 1970, negative before; 0 where the file system keeps no time.
fn modified_nanos(metadata: &Metadata) -> i64 {
    let Ok(modified) = metadata.modified() else { return 0 };
    let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    modified.duration_since(UNIX_EPOCH).map_or_else(|before| -nanos(before.duration()), nanos)
}

fn now_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
