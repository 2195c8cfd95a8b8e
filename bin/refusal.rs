//! Parses the command line; what is wrong with it becomes one line.

use std::error::Error;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

use crate::args::{Cli, Command, expectation};
use crate::config::{self, Values};
use crate::failure::Failure;

/// What a command line amounts to.
#[allow(clippy::large_enum_variant, reason = "there is one, once")]
pub(crate) enum Parsed {
    Command(Command),
    /// Help or version, which was asked for.
    Text(String),
    /// What is wrong, and what is allowed.
    Refused(Failure),
}

/// Parses a command line, the name of the program first, and the file that it names.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Parsed {
    let args: Vec<OsString> = args.into_iter().collect();
    let merged = match config::merge(&args) {
        Ok(merged) => merged,
        Err(failure) => return Parsed::Refused(failure),
    };
    let refused = |line: String| {
        let located = merged.as_ref().map(|it| it.locate(&line));
        Parsed::Refused(Failure::Argument(located.unwrap_or(line)))
    };
    let all = merged.as_ref().map_or(&args, |it| &it.args);
    match parse_all(all) {
        Ok(command) => match command.check() {
            Ok(()) => Parsed::Command(command),
            Err(line) => refused(line),
        },
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Parsed::Text(error.to_string()),
            _ => refused(describe(&error, &help_of(&args))),
        },
    }
}

fn parse_all(args: &[OsString]) -> Result<Command, clap::Error> {
    let matches = Cli::command().try_get_matches_from(args)?;
    let values = Values::of(&matches);
    let mut command = Cli::from_arg_matches(&matches)?.command;
    command.keep(values);
    Ok(command)
}

/// How to ask for the options of the subcommand that was given.
fn help_of(args: &[OsString]) -> String {
    match args.get(1).and_then(|it| it.to_str()) {
        Some(name @ ("server" | "client" | "check" | "demo")) => format!("metalbond {name} --help"),
        _ => "metalbond --help".into(),
    }
}

/// What is wrong with a command line, in a line.
pub(crate) fn describe(error: &clap::Error, help: &str) -> String {
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
            format!("{given}: unknown command; expected server, client, check or demo")
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            format!("no command; expected server, client, check or demo; see {help}")
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
