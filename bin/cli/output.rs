//! What the command prints, and what it does when nobody reads that.

use std::fmt;
use std::io::{self, ErrorKind, Write};

use crate::cli::failure::Failure;
use crate::cli::logging;

/// Whether somebody reads the standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    There,
    Gone,
}

/// Prints a text, at once; who does not read it does not want it, and that is no failure.
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

/// Says on the standard error what is wrong, before there is a log.
pub(crate) fn warn(text: fmt::Arguments<'_>) {
    drop(writeln!(io::stderr(), "metalbond: {text}"));
}

/// Says on the standard error why the command ends.
pub(crate) fn complain(failure: &Failure) {
    for line in failure.to_string().lines() {
        logging::say(&format!("metalbond: {line}"));
    }
}
