//! Opens a photo without ever waiting on what is none: folders, pipes and devices are refused, and so are files over
//! the limit.

use std::fs::{File, OpenOptions};
use std::path::Path;

use super::{ImageError, Limits};

/// An open regular file and its length in bytes.
pub fn open(path: &Path, limits: &Limits) -> Result<(File, u64), ImageError> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Opening a pipe for reading would wait for a writer.
        options.custom_flags(libc::O_NONBLOCK);
    }
    let file = options.open(path).map_err(ImageError::Read)?;
    let metadata = file.metadata().map_err(ImageError::Read)?;
    if metadata.is_dir() {
        return Err(ImageError::NotAFile("a folder"));
    }
    if !metadata.is_file() {
        return Err(ImageError::NotAFile("a pipe or a device"));
    }
    let bytes = metadata.len();
    if bytes > limits.max_file_bytes {
        return Err(ImageError::TooManyBytes { bytes, limit: limits.max_file_bytes });
    }
    Ok((file, bytes))
}
