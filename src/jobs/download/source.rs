//! What a download asks of a server, whichever kind it is, and what may come back.

use std::io::{self, Read};

use super::error::Fault;
use super::part::Validators;
use super::verify::Checksum;

/// Which bytes are wanted.
#[derive(Debug, Clone, Copy)]
pub enum Ask<'a> {
    All,
    /// All, unless the file is still this one.
    IfChanged(&'a Validators),
    /// Those from here on if the file is still this one, and all if it is not.
    From(u64, &'a Validators),
}

pub enum Reply {
    Body(Answer),
    /// The file is still the one asked about.
    Unchanged,
    /// The file has no byte where the answer was to begin.
    Beyond {
        /// The length of the file, where the server tells it.
        total: Option<u64>,
    },
}

/// Bytes that arrive.
pub struct Answer {
    /// Where in the file they begin.
    pub from: u64,
    /// The length of the whole file, where the server tells it.
    pub total: Option<u64>,
    pub validators: Validators,
    /// What the server publishes as the file's SHA-256.
    pub checksum: Option<Checksum>,
    pub body: Box<dyn Read>,
}

/// A server, and the file at it.
pub trait Source {
    fn get(&self, ask: Ask) -> Result<Reply, Fault>;

    /// What becomes of an error in the middle of a body.
    fn broken(&self, error: &io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::TimedOut => Fault::passing("the server fell silent"),
            _ => Fault::passing(format!("the connection broke ({error})")),
        }
    }
}
