//! Parses the command line; what is wrong with it becomes one line.

use std::error::Error;
use std::ffi::OsString;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::args::{Cli, Command, expectation};

/// What a command line amounts to.
pub(crate) enum Parsed {
    Command(Command),
    /// Help or version, which was asked for.
    Text(String),
    /// What is wrong, and what is allowed.
    Refused(String),
}

/// Parses a command line, the name of the program first.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Parsed {
    let args: Vec<OsString> = args.into_iter().collect();
    let error = match Cli::try_parse_from(&args) {
        Ok(cli) => {
            return match cli.command.check() {
                Ok(()) => Parsed::Command(cli.command),
                Err(line) => Parsed::Refused(line),
            };
        }
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Parsed::Text(error.to_string()),
        _ => Parsed::Refused(describe(&error, &help_of(&args))),
    }
}

/// How to ask for the options of the subcommand that was given.
fn help_of(args: &[OsString]) -> String {
    match args.get(1).and_then(|it| it.to_str()) {
        Some(name @ ("server" | "client" | "demo")) => format!("metalbond {name} --help"),
        _ => "metalbond --help".into(),
    }
}

fn describe(error: &clap::Error, help: &str) -> String {
    let argument = text_of(error, ContextKind::InvalidArg).unwrap_or_default();
    // Without the names of its values.
    let name = argument.split(' ').next().unwrap_or_default();
    let value = text_of(error, ContextKind::InvalidValue).filter(|it| !it.is_empty());
    let given = match &value {
        Some(value) => format!("{name} {}", value.escape_debug()),
        None => name.into(),
    };
    match error.kind() {
        ErrorKind::ValueValidation => match error.source() {
            Some(source) => format!("{given}: {source}"),
            None => format!("{given}: expected {}", expectation(name)),
        },
        ErrorKind::InvalidValue => format!("{given}: expected {}", expectation(name)),
        ErrorKind::MissingRequiredArgument => {
            format!("{name}: is required; expected {}", expectation(name))
        }
        ErrorKind::ArgumentConflict => format!("{name}: given twice"),
        ErrorKind::TooManyValues => format!("{given}: takes no value"),
        ErrorKind::UnknownArgument => {
            let hint = match text_of(error, ContextKind::SuggestedArg) {
                Some(other) => format!("did you mean {other}?"),
                None => format!("see {help}"),
            };
            let given = argument.escape_debug();
            format!("{given}: unknown argument; {hint}")
        }
        ErrorKind::InvalidSubcommand => {
            let given = text_of(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            let given = given.escape_debug();
            format!("{given}: unknown command; expected server, client or demo")
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            format!("no command; expected server, client or demo; see {help}")
        }
        ErrorKind::InvalidUtf8 => "an argument is not valid UTF-8".into(),
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.strip_prefix("error: ").unwrap_or(line).into()
        }
    }
}

fn text_of(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    }
}
