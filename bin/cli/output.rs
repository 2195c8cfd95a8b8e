//! Prints to the standard output, and errors to the standard error.

use std::fmt;
use std::io::{self, ErrorKind, Write};

use crate::cli::failure::Failure;
use crate::cli::logging;

/// Whether the standard output is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    There,
    Gone,
}

/// Prints a text and flushes it. Returns whether somebody reads; a closed pipe is no failure.
pub(crate) fn print(text: fmt::Arguments<'_>) -> Result<Reader, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_fmt(text).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failure::RunTime(format!(
            "cannot write to the standard output: {error}"
        ))),
    }
}

/// Prints a warning to the standard error, before the log is started.
pub(crate) fn warn(text: fmt::Arguments<'_>) {
    drop(writeln!(io::stderr(), "metalbond: {text}"));
}

/// Prints to the standard error why the command ends.
pub(crate) fn complain(failure: &Failure) {
    for line in failure.to_string().lines() {
        logging::say(&format!("metalbond: {line}"));
    }
}
