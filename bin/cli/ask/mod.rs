//! The commands that ask a running server or client, or change it.
//!
//! They speak HTTP with its control socket, or with `--http` where nothing is to be changed.

pub(crate) mod args;
mod change;
mod diff;
mod http;
mod items;
mod monitor;
mod place;
mod probe;
mod show;
mod table;
mod terminal;
mod units;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use crate::cli::failure::Failure;

pub(crate) use change::{announce, log, peer, reload, subscribe, unsubscribe, withdraw};
pub(crate) use diff::diff;
pub(crate) use monitor::monitor;
pub(crate) use probe::probe;
pub(crate) use show::show;

/// Why a command ends before it has printed everything.
#[derive(Debug)]
enum Stop {
    /// Nobody reads the rest of the output. That is no failure.
    NobodyReads,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Stop {
    /// Returns the reason for an error of writing to the standard output.
    fn of_output(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::Failed(Failure::RunTime(format!(
                "cannot write to the standard output: {error}"
            ))),
        }
    }
}

/// Returns the result of a command that prints.
fn ended(result: Result<(), Stop>) -> Result<(), Failure> {
    match result {
        Ok(()) | Err(Stop::NobodyReads) => Ok(()),
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

/// The standard output, written in large pieces.
struct Printer(io::BufWriter<io::StdoutLock<'static>>);

impl Printer {
    fn new() -> Self {
        Self(io::BufWriter::with_capacity(64 * 1024, io::stdout().lock()))
    }

    fn print(&mut self, text: impl AsRef<[u8]>) -> Result<(), Stop> {
        let written = self.0.write_all(text.as_ref());
        written.map_err(|error| Stop::of_output(&error))
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.0.flush().map_err(|error| Stop::of_output(&error))
    }
}

/// The exit code of a comparison that found differences.
pub(crate) const DIFFERENT: ExitCode = ExitCode::FAILURE;
