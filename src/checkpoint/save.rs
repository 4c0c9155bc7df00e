//! Writes a file so that its name holds either the old content or the whole new one, whatever happens in between.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Writes `path` through a temporary file beside it, synced and then renamed over it.
///
/// When `write` or the disk fails, the temporary file is removed and `path` is as it was.
pub fn save_atomically<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> Result<(), E>,
) -> Result<(), E> {
    Ok(Unnamed::write(path, write)?.name()?)
}

/// A whole file that lies beside the name it is meant for and does not have it yet. Dropped, it is removed.
#[derive(Debug)]
pub struct Unnamed {
    temporary: NamedTempFile,
    name: PathBuf,
}

impl Unnamed {
    /// Writes and syncs a temporary file in the folder of `path`.
    pub fn write<E: From<io::Error>>(
        path: &Path,
        write: impl FnOnce(&mut BufWriter<&File>) -> Result<(), E>,
    ) -> Result<Self, E> {
        // What a new file gets by default (less the umask); a temporary file would stay readable by its owner alone.
        let permissions = Permissions::from_mode(0o666);
        let temporary =
            tempfile::Builder::new().prefix(".galley-").permissions(permissions).tempfile_in(folder(path))?;
        let mut writer = BufWriter::new(temporary.as_file());
        write(&mut writer)?;
        writer.flush()?;
        drop(writer);
        temporary.as_file().sync_all()?;
        Ok(Self { temporary, name: path.to_owned() })
    }

    /// Where it lies meanwhile.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Gives it its name, in place of what had it before.
    pub fn name(self) -> io::Result<()> {
        self.temporary.persist(&self.name).map_err(|failed| failed.error)?;
        // The rename itself lasts through a power cut only once the folder is on disk.
        File::open(folder(&self.name))?.sync_all()
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_write_replaces_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.bin");
        std::fs::write(&path, "old").unwrap();
        save_atomically::<io::Error>(&path, |writer| writer.write_all(b"new")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_never_named_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.bin");
        let unnamed = Unnamed::write::<io::Error>(&path, |writer| writer.write_all(b"new")).unwrap();
        assert!(!path.exists());
        assert_eq!(std::fs::read(unnamed.path()).unwrap(), b"new");
        drop(unnamed);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.bin");
        std::fs::write(&path, "old").unwrap();
        let failed = save_atomically::<io::Error>(&path, |writer| {
            writer.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "disk full");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
