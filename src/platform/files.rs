//! Files shown by other programs: the file manager, the browser, Quick Look.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What showing a file where it lies is called.
pub const REVEAL: &str = if cfg!(target_os = "macos") { "Reveal in Finder" } else { "Show in its folder" };

/// Whether the system can show a photo large over the window, by the space bar.
pub const CAN_PREVIEW: bool = cfg!(target_os = "macos");

/// A program of the system that did not do what it is for.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    #[error("{program} does not start; it lies in {path}")]
    Start { program: &'static str, path: String, source: std::io::Error },
    #[error("{program} ended with {status}; it lies in {path}")]
    Ended { program: &'static str, status: std::process::ExitStatus, path: String },
}

/// Shows a folder in the system's file manager, or a page in its browser. Waits for the program that passes it on.
pub fn open(path: &Path) -> Result<(), ShowError> {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let lies_in = path.display().to_string();
    match Command::new(program).arg(path).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(ShowError::Ended { program, status, path: lies_in }),
        Err(source) => Err(ShowError::Start { program, path: lies_in, source }),
    }
}

/// Shows a file selected in the system's file manager; false where the system has no way to, and its folder has to do.
/// On the window's thread.
pub fn reveal(path: &Path) -> bool {
    super::system::reveal(path)
}

/// The folder to show in place of a file that cannot be shown selected.
pub fn folder_of(path: &Path) -> &Path {
    if path.is_dir() { path } else { path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(path) }
}

/// A photo shown large by another program. It goes when this does.
#[derive(Debug, Default)]
pub struct Preview {
    shown: Option<Child>,
}

impl Preview {
    /// Shows the photo, or takes away what is shown. Asking for another photo replaces the one that is shown.
    pub fn toggle(&mut self, path: &Path) -> Result<(), ShowError> {
        // The panel of Quick Look without its application; it prints as it goes.
        let mut program = Command::new("qlmanage");
        program.arg("-p").arg(path);
        self.toggle_with("qlmanage", program, path)
    }

    fn toggle_with(&mut self, name: &'static str, mut program: Command, path: &Path) -> Result<(), ShowError> {
        if self.close() {
            return Ok(());
        }
        let started = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let error = |source| ShowError::Start { program: name, path: path.display().to_string(), source };
        self.shown = Some(started.map_err(error)?);
        Ok(())
    }

    /// Takes away what is shown; false when a person has closed it already, or nothing was shown.
    pub fn close(&mut self) -> bool {
        let Some(mut child) = self.shown.take() else { return false };
        let was_open = matches!(child.try_wait(), Ok(None));
        if was_open {
            // It may end by itself in this moment: then there is nothing to end, and waiting returns at once.
            let _ = child.kill();
            let _ = child.wait();
        }
        was_open
    }
}

impl Drop for Preview {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn program(seconds: &str) -> Command {
        let mut program = Command::new("sleep");
        program.arg(seconds);
        program
    }

    #[test]
    fn a_second_press_takes_the_preview_away_and_a_third_shows_it_again() {
        let (mut preview, photo) = (Preview::default(), Path::new("a.jpg"));
        preview.toggle_with("sleep", program("600"), photo).unwrap();
        assert!(preview.shown.is_some());
        preview.toggle_with("sleep", program("600"), photo).unwrap();
        assert!(preview.shown.is_none());
        preview.toggle_with("sleep", program("0"), photo).unwrap();
        // A person closes it: the next press shows it, and does not take away what is gone.
        preview.shown.as_mut().unwrap().wait().unwrap();
        preview.toggle_with("sleep", program("600"), photo).unwrap();
        assert!(preview.shown.is_some());
    }

    #[test]
    fn a_program_that_is_missing_is_named_with_where_the_file_lies() {
        let missing = Command::new("galley-has-no-such-program");
        let error = Preview::default().toggle_with("no program", missing, Path::new("/p/a.jpg")).unwrap_err();
        assert_eq!(error.to_string(), "no program does not start; it lies in /p/a.jpg");
    }

    #[test]
    fn the_folder_of_a_file_is_shown_and_a_folder_itself() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(folder_of(&folder.path().join("a.jpg")), folder.path());
        assert_eq!(folder_of(folder.path()), folder.path());
        assert_eq!(folder_of(Path::new("a.jpg")), Path::new("a.jpg"));
    }
}
