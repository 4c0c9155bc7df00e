//! What can keep a model from arriving, said with the next step.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::checkpoint::CheckpointError;
use crate::format::{bytes, duration, error_chain};
use crate::worker::{BoxError, Canceled};

#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("this is neither an address (https://…) nor a name of `galley download --list`: {0}")]
    NoAddress(String),
    #[error("this Galley was built without {0}:// addresses; build it with `cargo build --release --features cloud`")]
    NotBuilt(String),
    #[error("a SHA-256 is 64 hexadecimal digits, or its first 8 or more: {0}")]
    NoChecksum(String),
    #[error("the server {}: {address}", status_words(*.status))]
    Refused { status: u16, address: String },
    #[error("the server answered with a web page instead of a model{}. Open the address in a browser: it may ask for a login or a click first: {address}", title_words(.title))]
    WebPage { title: Option<String>, address: String },
    #[error("the server packs the file as {encoding}, which Galley did not ask for: {address}")]
    Packed { encoding: String, address: String },
    #[error("the address leads on to one that is not encrypted, and Galley does not follow it there: {0}")]
    Downgrade(String),
    #[error("the address leads on more than {0} times without arriving at a file: {1}")]
    Redirects(u32, String),
    #[error("the address leads on to something that is no address: {0}")]
    BadRedirect(String),
    #[error("failed to reach {address}")]
    Unreachable { address: String, source: BoxError },
    #[error(
        "gave up after {tries} tries without progress: {reason}. What came so far ({}) is kept: start the same download \
         again and it goes on from there", bytes(*.kept)
    )]
    GaveUp { tries: u32, reason: String, kept: u64 },
    #[error("{reason}, and the server asks to wait {} before the next try. Start the same download again then", duration(*.wait))]
    Later { reason: String, wait: Duration },
    #[error("not enough space: {} are still to come and {} are free on the disk of {}", bytes(*.needed), bytes(*.free), .folder.display())]
    NoSpace { needed: u64, free: u64, folder: PathBuf },
    #[error("the disk is full. What came so far ({}) is kept: free some space and start the same download again: {}", bytes(*.kept), .path.display())]
    DiskFull { kept: u64, path: PathBuf },
    #[error("failed to write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("failed to read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("another download to this file is under way: {}", .0.display())]
    Busy(PathBuf),
    #[error("there is a file of this name already, which did not come from this address: {}. Move it away, or choose another folder with --to", .0.display())]
    Taken(PathBuf),
    #[error(
        "the file that came is not the one expected: its SHA-256 is {found}, and {from} says {expected}. It was deleted; try again, and if it happens again the file at this address is another one: {address}"
    )]
    WrongChecksum { found: String, expected: String, from: &'static str, address: String },
    #[error("what came from {address} is no model that Galley can open, and was deleted")]
    NoModel { address: String, source: CheckpointError },
    #[cfg(feature = "cloud")]
    #[error("the store of {0} cannot be used: {1}")]
    Cloud(String, String),
}

/// Why one try ended: what may pass by itself is tried again.
#[derive(Debug)]
pub enum Fault {
    Passing {
        reason: String,
        /// How long the server asks to wait.
        wait: Option<Duration>,
    },
    Lasting(BoxError),
}

impl Fault {
    pub fn passing(reason: impl Into<String>) -> Self {
        Self::Passing { reason: reason.into(), wait: None }
    }

    pub fn reason(&self) -> String {
        match self {
            Self::Passing { reason, .. } => reason.clone(),
            Self::Lasting(error) => error_chain(&**error),
        }
    }
}

impl From<DownloadError> for Fault {
    fn from(error: DownloadError) -> Self {
        Self::Lasting(error.into())
    }
}

impl From<Canceled> for Fault {
    fn from(canceled: Canceled) -> Self {
        Self::Lasting(canceled.into())
    }
}

/// A status as a person would say it, with what to do about it.
fn status_words(status: u16) -> String {
    let words = match status {
        401 => "asks for a login",
        403 => "does not give this file to everyone; it may ask for a login or an agreement first",
        404 | 410 => "has no file at this address; look for a typing error",
        _ => "refused",
    };
    format!("{words} (HTTP {status})")
}

fn title_words(title: &Option<String>) -> String {
    title.as_ref().map_or_else(String::new, |title| format!(" (\"{title}\")"))
}
