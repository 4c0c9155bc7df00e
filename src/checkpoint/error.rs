//! What can be wrong with a checkpoint, said with the file's name and, where there is one, the remedy.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("failed to read checkpoint {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The content is no checkpoint at all.
    #[error("not a checkpoint: {content}: {}", .path.display())]
    Unrecognised { path: PathBuf, content: String },
    /// A sound file that holds something else than tensors Galley can read.
    #[error("{reason}: {}", .path.display())]
    Refused { path: PathBuf, reason: String },
    #[error("damaged checkpoint: {fault}: {}", .path.display())]
    Malformed { path: PathBuf, fault: String },
    #[error("no weight is called {name} in {}", .path.display())]
    Missing { path: PathBuf, name: String },
}

/// The same before the file's name is known to the code that found it.
#[derive(Debug)]
pub(super) enum Fault {
    Read(io::Error),
    Unrecognised(String),
    Refused(String),
    Malformed(String),
}

pub(super) fn malformed(fault: impl Into<String>) -> Fault {
    Fault::Malformed(fault.into())
}

pub(super) fn refused(reason: impl Into<String>) -> Fault {
    Fault::Refused(reason.into())
}

impl Fault {
    pub(super) fn at(self, path: &Path) -> CheckpointError {
        let path = path.to_owned();
        match self {
            Fault::Read(source) => CheckpointError::Read { path, source },
            Fault::Unrecognised(content) => CheckpointError::Unrecognised { path, content },
            Fault::Refused(reason) => CheckpointError::Refused { path, reason },
            Fault::Malformed(fault) => CheckpointError::Malformed { path, fault },
        }
    }

    /// The same fault with the tensor it was met in.
    pub(super) fn in_tensor(self, name: &str) -> Fault {
        match self {
            Fault::Refused(reason) => Fault::Refused(format!("tensor {name}: {reason}")),
            Fault::Malformed(fault) => Fault::Malformed(format!("tensor {name}: {fault}")),
            other => other,
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Read(error)
    }
}
