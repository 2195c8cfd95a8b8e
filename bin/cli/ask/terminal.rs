//! The abilities of the terminal at the standard output.

use std::env;
use std::io::{self, IsTerminal};

/// Columns of a terminal that does not tell its width.
const WIDTH: usize = 80;

/// The look of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Warning,
    Bad,
}

/// A terminal, or a pipe or file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    /// Columns that a line may take; `None` for any number.
    pub(crate) width: Option<usize>,
    has_colours: bool,
}

impl Terminal {
    /// Examines the standard output of this process.
    pub(crate) fn of_stdout() -> Self {
        if !io::stdout().is_terminal() {
            return Self::PIPE;
        }
        let columns = env::var("COLUMNS").ok().and_then(|it| it.parse().ok());
        let is_set = |name| env::var_os(name).is_some_and(|it| !it.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|it| it == "dumb");
        Self {
            width: Some(columns.or_else(columns_of_stdout).unwrap_or(WIDTH)),
            has_colours: !is_set("NO_COLOR") && !is_dumb,
        }
    }

    /// Returns a terminal without colours.
    #[cfg(test)]
    pub(crate) const fn of_width(width: Option<usize>) -> Self {
        Self {
            width,
            has_colours: false,
        }
    }

    /// Something that is no terminal.
    pub(crate) const PIPE: Self = Self {
        width: None,
        has_colours: false,
    };

    /// Returns what goes before and after a text to give it a style.
    pub(crate) const fn marks(self, style: Style) -> (&'static str, &'static str) {
        if !self.has_colours {
            return ("", "");
        }
        match style {
            Style::Plain => ("", ""),
            Style::Bold => ("\x1b[1m", "\x1b[0m"),
            Style::Dim => ("\x1b[2m", "\x1b[0m"),
            Style::Good => ("\x1b[32m", "\x1b[0m"),
            Style::Warning => ("\x1b[33m", "\x1b[0m"),
            Style::Bad => ("\x1b[31m", "\x1b[0m"),
        }
    }
}

#[allow(unsafe_code, reason = "no dependency wraps TIOCGWINSZ")]
fn columns_of_stdout() -> Option<usize> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the pointer is to a valid winsize, for the length of the call.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    let columns = usize::from(size.ws_col);
    (result == 0 && columns > 0).then_some(columns)
}
