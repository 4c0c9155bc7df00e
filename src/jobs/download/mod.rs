//! Fetches models: streamed in constant memory, tried again by itself, resumed where it broke off, verified, and only
//! then given its name.

mod address;
mod catalog;
#[cfg(feature = "cloud")]
mod cloud;
mod error;
mod http;
mod named;
mod part;
mod source;
mod transfer;
mod verify;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::checkpoint::{Checkpoint, save_atomically};
use crate::format::error_chain;
use crate::worker::{self, BoxError, Canceled, Job, JobContext};

use address::Address;
use http::Http;
use part::{Origin, Part};
use source::{Answer, Ask, Reply, Source};
use transfer::Transfer;

pub use catalog::{Published, catalog};
pub use error::DownloadError;
pub use named::{MODEL_URL, default_folder, from_environment, named};
pub use verify::Checksum;

/// How long a download waits before it asks again or gives up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next byte of a connection.
    pub stall: Duration,
    /// Tries in a row without a new byte, the last of which gives up.
    pub tries: u32,
    /// Between the first two tries; doubled for each further one, up to `longest_wait`, and made a little shorter at
    /// random.
    pub first_wait: Duration,
    pub longest_wait: Duration,
    /// A server that asks for a longer wait is taken at its word: the download ends and says when to come back.
    pub longest_asked: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(15),
            stall: seconds(30),
            tries: 6,
            first_wait: seconds(1),
            longest_wait: seconds(60),
            longest_asked: seconds(600),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct DownloadConfig {
    pub address: String,
    /// Where the same model lies in fewer bits: tried first, and the plain one when that fails.
    pub quantized: Option<String>,
    /// Created if missing.
    pub folder: PathBuf,
    /// What the file is called there; after its address if `None`.
    pub name: Option<String>,
    /// Of the plain file, as far as it is known.
    pub checksum: Option<Checksum>,
    /// Put beside the plain file before it gets its name.
    pub companions: Vec<Companion>,
    pub patience: Patience,
}

/// A small file that says something about a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Companion {
    pub name: String,
    pub text: String,
}

impl DownloadConfig {
    pub fn new(address: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        Self {
            address: address.into(),
            quantized: None,
            folder: folder.into(),
            name: None,
            checksum: None,
            companions: Vec::new(),
            patience: Patience::default(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum DownloadEvent {
    /// What a person should know meanwhile.
    Notice(String),
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DownloadSummary {
    pub path: PathBuf,
    /// Without what may be secret.
    pub address: String,
    pub bytes: u64,
    pub sha256: String,
    /// Bytes that came through the network, those of failed tries included: none when the file was there already.
    pub received: u64,
    /// Bytes that an earlier download had left.
    pub resumed: u64,
}

pub type DownloadJob = Job<DownloadSummary, DownloadEvent>;

/// Starts [`download`] on a thread of its own.
pub fn start(config: DownloadConfig, wake: impl Fn() + Send + Sync + 'static) -> std::io::Result<DownloadJob> {
    Job::start("download", wake, move |ctx, events| {
        // A notice that nobody takes any more is none; the download itself asks whether it is canceled.
        download(&config, ctx, &mut |event| drop(events.send(event)))
    })
}

/// Fetches a model into the folder, or finds it there unchanged.
///
/// Canceled or failed, it leaves what came as `NAME.part`, and the next call for the same address goes on from there.
pub fn download(
    config: &DownloadConfig,
    ctx: &JobContext,
    tell: &mut dyn FnMut(DownloadEvent),
) -> Result<DownloadSummary, BoxError> {
    let plain = Address::parse(&config.address)?;
    if let Some(text) = &config.quantized {
        let quantized = DownloadConfig { patience: config.patience, ..DownloadConfig::new(text, &config.folder) };
        match Address::parse(text).map_err(BoxError::from).and_then(|address| fetch(&quantized, address, ctx, tell)) {
            Err(error) if !worker::is_canceled(&*error) => {
                let reason = error_chain(&*error);
                let text = format!("the model in fewer bits cannot be had ({reason}); fetching the plain one");
                tell(DownloadEvent::Notice(text));
            }
            fetched => return fetched,
        }
    }
    fetch(config, plain, ctx, tell)
}

fn fetch(
    config: &DownloadConfig,
    address: Address,
    ctx: &JobContext,
    tell: &mut dyn FnMut(DownloadEvent),
) -> Result<DownloadSummary, BoxError> {
    let target = config.folder.join(config.name.clone().unwrap_or_else(|| address.file_name()));
    let write = |source| DownloadError::Write { path: config.folder.clone(), source };
    std::fs::create_dir_all(&config.folder).map_err(write)?;
    let source = source(&address, &config.patience, ctx)?;
    let checksums = config.checksum.iter().cloned().chain(address.checksum_in_name()).collect();
    Fetch { config, address, target, checksums, source: &*source, ctx, tell }.run()
}

fn source(address: &Address, patience: &Patience, ctx: &JobContext) -> Result<Box<dyn Source>, DownloadError> {
    match address.url().scheme() {
        #[cfg(feature = "cloud")]
        "s3" | "gs" => Ok(Box::new(cloud::Cloud::new(address, patience, ctx)?)),
        _ => Ok(Box::new(Http::new(address.clone(), patience, ctx))),
    }
}

/// One address on its way to one file.
struct Fetch<'a> {
    config: &'a DownloadConfig,
    address: Address,
    target: PathBuf,
    checksums: Vec<Checksum>,
    source: &'a dyn Source,
    ctx: &'a JobContext,
    tell: &'a mut dyn FnMut(DownloadEvent),
}

impl Fetch<'_> {
    fn run(&mut self) -> Result<DownloadSummary, BoxError> {
        let mut first = None;
        if self.target.exists() {
            match self.look_at_present()? {
                Present::Same(summary) => return Ok(summary),
                Present::Changed(answer) => first = answer,
            }
        }
        let mut part = Part::open(&self.target, &self.address)?;
        let resumed = part.length();
        let mut received = self.transfer(&mut part, first)?;
        let mut sha256 = verify::sha256_of(&part.path(), self.ctx)?;
        if resumed > 0 && self.check(&sha256).is_err() {
            // What was kept may be damaged, or of another state of the file.
            self.notice("what was kept does not fit the rest; fetching all of it again");
            part.begin(Default::default(), None)?;
            received += self.transfer(&mut part, None)?;
            sha256 = verify::sha256_of(&part.path(), self.ctx)?;
        }
        if let Err(error) = self.check(&sha256).and_then(|()| self.check_model(&part)) {
            // Going on from it could never help.
            part.discard()?;
            return Err(error.into());
        }
        let bytes = part.length();
        self.write_companions()?;
        part.finish(sha256.clone())?;
        Ok(DownloadSummary { received, resumed, ..self.summary(bytes, sha256) })
    }

    /// Fetches what the part lacks. Returns the bytes that came.
    fn transfer(&mut self, part: &mut Part, first: Option<Answer>) -> Result<u64, BoxError> {
        let mut transfer = Transfer {
            source: self.source,
            address: self.address.shown(),
            part,
            patience: self.config.patience,
            ctx: self.ctx,
            tell: &mut *self.tell,
            checksum: None,
            received: 0,
            is_checked: !self.checksums.is_empty(),
        };
        transfer.run(first)?;
        let (received, checksum) = (transfer.received, transfer.checksum.take());
        self.checksums.extend(checksum);
        Ok(received)
    }

    fn write_companions(&self) -> Result<(), DownloadError> {
        self.config.companions.iter().try_for_each(|Companion { name, text }| {
            let path = self.config.folder.join(name);
            let saved = save_atomically::<std::io::Error>(&path, |writer| writer.write_all(text.as_bytes()));
            saved.map_err(|source| DownloadError::Write { path, source })
        })
    }

    /// A finished file of this name: the one asked for, one that has changed since, or somebody else's.
    fn look_at_present(&mut self) -> Result<Present, BoxError> {
        let known = Origin::read(&self.target).filter(|origin| origin.address_digest == self.address.digest());
        let Some((bytes, sha256, validators)) =
            known.and_then(|known| Some((known.bytes?, known.sha256?, known.validators)))
        else {
            return self.adopt();
        };
        if !self.checksums.is_empty() && self.check(&sha256).is_ok() {
            return Ok(Present::Same(self.summary(bytes, sha256)));
        }
        if part::path_of(&self.target).exists() {
            return Ok(Present::Changed(None));
        }
        match self.source.get(Ask::IfChanged(&validators)) {
            Ok(Reply::Body(answer)) if answer.from == 0 => {
                self.notice("the file at the server has changed; fetching the new one");
                return Ok(Present::Changed(Some(answer)));
            }
            Ok(Reply::Unchanged) => {}
            _ if self.ctx.is_canceled() => return Err(Canceled.into()),
            Ok(_) => self.notice("the server does not say whether the file has changed; the one here is used"),
            Err(fault) => {
                let reason = fault.reason();
                self.notice(&format!("cannot ask whether the file has changed ({reason}); the one here is used"));
            }
        }
        Ok(Present::Same(self.summary(bytes, sha256)))
    }

    /// A file that came by other ways is the one asked for only when its checksum says so.
    fn adopt(&self) -> Result<Present, BoxError> {
        if !self.checksums.is_empty() {
            let sha256 = verify::sha256_of(&self.target, self.ctx)?;
            if self.check(&sha256).is_ok() {
                let read = |source| DownloadError::Read { path: self.target.clone(), source };
                let bytes = std::fs::metadata(&self.target).map_err(read)?.len();
                return Ok(Present::Same(self.summary(bytes, sha256)));
            }
        }
        Err(DownloadError::Taken(self.target.clone()).into())
    }

    fn check(&self, sha256: &str) -> Result<(), DownloadError> {
        self.checksums.iter().try_for_each(|checksum| checksum.check(sha256, &self.address.shown()))
    }

    fn check_model(&self, part: &Part) -> Result<(), DownloadError> {
        let failed = |source| DownloadError::NoModel { address: self.address.shown(), source };
        Checkpoint::open_unfinished(&part.path()).map(drop).map_err(failed)
    }

    fn summary(&self, bytes: u64, sha256: String) -> DownloadSummary {
        let (path, address) = (self.target.clone(), self.address.shown());
        DownloadSummary { path, address, bytes, sha256, received: 0, resumed: 0 }
    }

    fn notice(&mut self, text: &str) {
        (self.tell)(DownloadEvent::Notice(text.to_owned()));
    }
}

/// What a file of the name turned out to be.
enum Present {
    Same(DownloadSummary),
    /// With the answer that brings the new one, unless some of that has come already.
    Changed(Option<Answer>),
}
