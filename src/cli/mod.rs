//! The same jobs as commands: results on stdout, all else on stderr.
//!
//! Exit codes: 0 all done; 1 failed; 2 wrong usage; 3 done, and some photos were skipped; 130 stopped with Ctrl-C.

mod arguments;
mod bench;
mod classify;
mod compress_arguments;
mod doctor;
mod download;
mod evaluate;
mod find_lr;
mod inspect;
mod places;
mod plot;
mod progress;
mod prune;
mod quantize;
mod rows;
mod stream;
mod sweep;
mod train;
mod train_arguments;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use self::arguments::{Arguments, Command};
use crate::format::error_chain;
use crate::platform::{Activity, Kind};
use crate::worker::{BoxError, JobContext};

const DONE_WITH_SKIPS: u8 = 3;
const INTERRUPTED: u8 = 130;

/// What the program's arguments ask for.
pub enum Request {
    /// A command ran and ended with this code.
    Done(ExitCode),
    /// The window is asked for, with these folders, photos or checkpoints open.
    Window(Vec<PathBuf>),
}

/// Parses the program's arguments, and runs a command when they name one.
pub fn run() -> Request {
    let arguments = Arguments::parse();
    let kind = arguments.command.as_ref().and_then(kind_of);
    let _awake = kind.map(|kind| Activity::begin(kind.reason()));
    match arguments.command {
        Some(Command::Classify(arguments)) => Request::Done(classify::run(*arguments)),
        Some(Command::Inspect(arguments)) => Request::Done(inspect::run(&arguments)),
        Some(Command::FindLr(arguments)) => Request::Done(find_lr::run(*arguments)),
        Some(Command::Sweep(arguments)) => Request::Done(sweep::run(*arguments)),
        Some(Command::Evaluate(arguments)) => Request::Done(evaluate::run(*arguments)),
        Some(Command::Quantize(arguments)) => Request::Done(quantize::run(*arguments)),
        Some(Command::Bench(arguments)) => Request::Done(bench::run(*arguments)),
        Some(Command::Train(arguments)) => Request::Done(train::run(*arguments)),
        Some(Command::Prune(arguments)) => Request::Done(prune::run(*arguments)),
        Some(Command::Distill(arguments)) => Request::Done(train::run(arguments.train())),
        Some(Command::Doctor(arguments)) => Request::Done(doctor::run(&arguments)),
        Some(Command::Download(arguments)) => Request::Done(download::run(arguments)),
        None => window(arguments.paths),
    }
}

/// What a command works at, where the system must not sleep meanwhile.
fn kind_of(command: &Command) -> Option<Kind> {
    Some(match command {
        Command::Classify(arguments) if arguments.stdin => return None,
        Command::Classify(_) => Kind::Classifying,
        Command::Train(_) | Command::Distill(_) => Kind::Training,
        Command::FindLr(_) | Command::Sweep(_) | Command::Bench(_) => Kind::Trying,
        Command::Evaluate(_) => Kind::Evaluating,
        Command::Quantize(_) | Command::Prune(_) => Kind::Compressing,
        Command::Download(_) => Kind::Downloading,
        Command::Inspect(_) | Command::Doctor(_) => return None,
    })
}

fn window(paths: Vec<PathBuf>) -> Request {
    // A mistyped command looks like a path.
    if let Some(missing) = paths.iter().find(|path| !path.exists()) {
        usage(&format!("there is no command, file or folder of this name: {}", missing.display()));
    }
    Request::Window(paths)
}

/// Ends the program as clap does for wrong usage: with the message, a hint, and exit code 2.
fn usage(message: &str) -> ! {
    Arguments::command().error(clap::error::ErrorKind::InvalidValue, message).exit()
}

fn failed(error: &BoxError) -> ExitCode {
    say(&format!("error: {}", error_chain(&**error)));
    ExitCode::FAILURE
}

/// A file that was asked for and cannot be.
#[derive(Debug, thiserror::Error)]
#[error("failed to write {}", .path.display())]
struct CannotWrite {
    path: PathBuf,
    source: io::Error,
}

/// A command's result on stdout.
fn print(text: Result<String, BoxError>) -> ExitCode {
    match text.and_then(|text| write(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Text on stdout. A reader that has seen enough closes the pipe: no failure.
fn write(text: &str) -> Result<(), BoxError> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A line on stderr. With nobody to read it there is nobody to tell.
fn say(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// The first Ctrl-C (or a request to end) stops after the batch at hand; the second stops at once, which loses no more
/// than that batch.
fn stop_on_interrupt(ctx: &JobContext) -> Result<(), ctrlc::Error> {
    let ctx = ctx.clone();
    ctrlc::set_handler(move || {
        if ctx.is_canceled() {
            std::process::exit(INTERRUPTED.into());
        }
        ctx.cancel();
    })
}
