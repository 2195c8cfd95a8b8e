//! The columns of the table of options.

use std::error::Error;
use std::fmt;

use super::Options;
use crate::cli::announcement::Invalid;
use crate::cli::value::Expected;

/// A command that has these options: it runs until a signal, and takes a configuration file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    #[default]
    Server,
    Client,
}

impl Role {
    pub(crate) const ALL: [Self; 2] = [Self::Server, Self::Client];

    /// The name of the command, and of its section in a file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }

    /// The role of a name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// An option: `--NAME` on the command line, `NAME` in a configuration file.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    /// Another long name, on the command line only.
    pub(crate) alias: Option<&'static str>,
    /// The commands that have the option.
    pub(crate) roles: &'static [Role],
    /// The heading in the help; `None` for the first part of it.
    pub(crate) heading: Option<&'static str>,
    pub(crate) help: &'static str,
    pub(crate) value: Value,
    /// The text after "expected" in errors; empty for a flag.
    pub(crate) expected: &'static str,
    /// The value if none is given. A text in `help` names a default that the library has.
    pub(crate) default: Option<&'static str>,
    pub(crate) hyphen: Hyphen,
    pub(crate) change: Change,
    /// Parses a value and puts it into its field; called for each value of a list. A flag gets
    /// `true` or `false`.
    pub(crate) fill: fn(&mut Options, &str) -> Result<(), Wrong>,
}

/// The number of values that an option takes, and the name of a value in the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Flag,
    One(&'static str),
    /// Given with commas or by repeating the option; an array in a file.
    List(&'static str),
}

/// The meaning of a word that begins with a hyphen and follows the option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hyphen {
    /// Another option.
    Option,
    /// A value if it is a number, so that the error for `-1` says what is expected.
    Number,
    /// A value.
    Value,
}

/// When a change in the file takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// At a reload.
    Live,
    /// At a reload of a client that installs routes; after a restart of another.
    LiveIfInstalling,
    /// At a reload, which sets the level of the log.
    LogLevel,
    /// At a reload, which sets the format of the log.
    LogFormat,
    /// After a restart.
    Restart,
}

/// Why a value is refused.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wrong {
    /// It is not what the row expects.
    Value,
    /// It is no announcement; the error names the part that is wrong.
    Announcement(Invalid),
}

/// An error or a warning about an option. The text begins with the option's name, without hyphens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) option: &'static str,
    /// The value that is wrong, if one is.
    value: Option<String>,
    problem: String,
}

impl Mistake {
    pub(super) fn new(option: &'static str, value: Option<&str>, problem: &str) -> Self {
        Self {
            option,
            value: value.map(str::to_owned),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            option,
            value,
            problem,
        } = self;
        match value {
            Some(value) => write!(f, "{option} {value}: {problem}"),
            None => write!(f, "{option}: {problem}"),
        }
    }
}

impl Row {
    /// Refuses a value that the option cannot have.
    pub(crate) fn check(&self, value: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
        if self.is_skipped(value) {
            return Ok(());
        }
        (self.fill)(&mut Options::blank(), value).map_err(|wrong| match wrong {
            Wrong::Value => self.expected().into(),
            Wrong::Announcement(invalid) => invalid.into(),
        })
    }

    /// Refuses a text of a file that the option cannot have; a list may be one text with commas.
    pub(crate) fn check_text(&self, text: &str) -> Result<(), Mistake> {
        self.split(text).into_iter().try_for_each(|value| {
            self.check(value).map_err(|error| {
                let shown = value.escape_debug().to_string();
                let shown = Some(&*shown).filter(|it| !it.is_empty());
                Mistake::new(self.name, shown, &error.to_string())
            })
        })
    }

    /// Returns whether a value is an empty entry of a list.
    pub(super) fn is_skipped(&self, value: &str) -> bool {
        matches!(self.value, Value::List(_)) && value.is_empty()
    }

    /// Returns the values that a text of a file stands for.
    pub(crate) fn split<'a>(&self, text: &'a str) -> Vec<&'a str> {
        match self.value {
            Value::List(_) => text.split(',').collect(),
            Value::Flag | Value::One(_) => vec![text],
        }
    }

    /// Returns the error of a value that was not understood.
    pub(super) fn mistake(&self, value: &str) -> Mistake {
        Mistake::new(self.name, Some(value), &self.expected().to_string())
    }

    pub(crate) fn expected(&self) -> Expected {
        Expected(self.expected)
    }
}
