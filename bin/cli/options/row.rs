//! What the table says of an option.

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
    /// What a value must be, after the word "expected"; of no use for a flag.
    pub(crate) expected: &'static str,
    /// The value if none is given. A text in `help` names a default that the library has.
    pub(crate) default: Option<&'static str>,
    pub(crate) presence: Presence,
    pub(crate) hyphen: Hyphen,
    pub(crate) change: Change,
    /// Parses a value and puts it into its field; called for each value of a list. A flag gets
    /// `true` or `false`.
    pub(crate) fill: fn(&mut Options, &str) -> Result<(), Wrong>,
}

/// How many values an option takes, and how help calls a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Flag,
    One(&'static str),
    /// Given with commas or by repeating the option; an array in a file.
    List(&'static str),
}

/// Whether an option must be given, on the command line or in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Optional,
    Required,
}

/// What a word with a hyphen in front is, where the command line may have a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hyphen {
    /// Another option.
    Option,
    /// A value if it is a number, so that `-1` is refused as such.
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

/// What is wrong with an option. The text begins with the option's name, without hyphens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) option: &'static str,
    /// The value that is wrong, if one is.
    pub(crate) value: Option<String>,
    pub(crate) problem: String,
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
        (self.fill)(&mut Options::blank(), value).map_err(|wrong| match wrong {
            Wrong::Value => Expected(self.expected).into(),
            Wrong::Announcement(invalid) => invalid.into(),
        })
    }

    /// Refuses a value as a file has it: a list may be one text with commas.
    pub(crate) fn check_text(&self, text: &str) -> Result<(), Mistake> {
        self.split(text).into_iter().try_for_each(|value| {
            let refused = |error: Box<dyn Error + Send + Sync>| Mistake {
                option: self.name,
                value: (!value.is_empty()).then(|| value.escape_debug().to_string()),
                problem: error.to_string(),
            };
            self.check(value).map_err(refused)
        })
    }

    /// The values that a text stands for.
    pub(crate) fn split<'a>(&self, text: &'a str) -> Vec<&'a str> {
        match self.value {
            Value::List(_) => text.split(',').collect(),
            Value::Flag | Value::One(_) => vec![text],
        }
    }
}
