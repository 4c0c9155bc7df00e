//! Arguments → window or command → exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use galley::cli::Request;

fn main() -> ExitCode {
    galley::memory::heap::tune();
    match galley::cli::run() {
        Request::Done(code) => code,
        Request::Window(paths) => window(paths),
    }
}

fn window(paths: Vec<PathBuf>) -> ExitCode {
    match open_window(paths) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!(
                "Galley cannot open its window ({reason}); try `galley classify sample-data/photos` in the terminal"
            );
            ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "window")]
fn open_window(paths: Vec<PathBuf>) -> Result<(), String> {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if cfg!(target_os = "linux") && !set("DISPLAY") && !set("WAYLAND_DISPLAY") {
        return Err("there is no display: neither DISPLAY nor WAYLAND_DISPLAY is set".to_owned());
    }
    galley::gui::run(paths)
}

#[cfg(not(feature = "window"))]
fn open_window(_paths: Vec<PathBuf>) -> Result<(), String> {
    Err("it was built without one".to_owned())
}
