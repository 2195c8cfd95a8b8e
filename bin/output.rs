//! What the command prints, and what it does when nobody reads that.

use std::fmt;
use std::io::{self, ErrorKind, Write};

/// Whether somebody reads the standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    There,
    Gone,
}

/// Prints a text; who does not read it does not want it.
pub(crate) fn print(text: &str) -> Reader {
    write(format_args!("{text}"))
}

/// Prints a line, at once.
pub(crate) fn print_line(line: fmt::Arguments<'_>) -> Reader {
    write(format_args!("{line}\n"))
}

fn write(text: fmt::Arguments<'_>) -> Reader {
    let mut stdout = io::stdout().lock();
    match stdout.write_fmt(text).and_then(|()| stdout.flush()) {
        Ok(()) => Reader::There,
        Err(error) => {
            if error.kind() != ErrorKind::BrokenPipe {
                log::warn!("cannot write to the standard output: {error}");
            }
            Reader::Gone
        }
    }
}

/// Says on the standard error why the command ends.
pub(crate) fn complain(line: &str) {
    // Where that is closed there is nobody to tell.
    drop(writeln!(io::stderr(), "metalbond: {line}"));
}
