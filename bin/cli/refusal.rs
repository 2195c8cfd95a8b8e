//! Parses the command line; what is wrong with it becomes one line.

use std::error::Error;
use std::ffi::OsString;

use clap::ArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::cli::args::{self, Command, PROGRAM, Tool, expectation};
use crate::cli::config;
use crate::cli::failure::Failure;
use crate::cli::options::{FileKeys, Mistake, Options, Role};

/// What a command line amounts to.
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
    let matches = args::definition_beside_a_file().try_get_matches_from(&args);
    // The errors and the help of the full definition are those to show.
    let matches = matches.or_else(|_| args::definition().try_get_matches_from(&args));
    let command = matches.and_then(|it| match it.subcommand() {
        Some((name, given)) => match Role::of(name) {
            Some(role) => Ok(read(role, given)),
            None => Tool::of(&it).map(|tool| Ok(Command::Tool(tool))),
        },
        None => Tool::of(&it).map(|tool| Ok(Command::Tool(tool))),
    });
    match command {
        Ok(Ok(command)) => Parsed::Command(command),
        Ok(Err(failure)) => Parsed::Refused(failure),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Parsed::Text(error.to_string()),
            _ => Parsed::Refused(Failure::Argument(describe(&error, &Given::new(&args)))),
        },
    }
}

/// Reads the options of a server or client, and those of the file that it was given.
fn read(role: Role, given: &ArgMatches) -> Result<Command, Failure> {
    let file = Options::file(given);
    let keys = match file {
        Some(file) => config::keys(file, role)?,
        None => FileKeys::new(),
    };
    let options = Options::read(role, given, &keys).map_err(|mistake: Mistake| {
        let key = keys
            .get(mistake.option)
            .filter(|_| !Options::is_given(given, mistake.option));
        Failure::Argument(match (file, key) {
            (Some(file), Some(key)) => format!("{}:{}: {mistake}", file.display(), key.line),
            _ => format!("--{mistake}"),
        })
    })?;
    Ok(Command::Run(Box::new(options)))
}

/// The command that was given, as far as it is one.
struct Given {
    /// As it is written.
    name: String,
    command: clap::Command,
}

impl Given {
    fn new(args: &[OsString]) -> Self {
        let mut given = Self {
            name: PROGRAM.into(),
            command: args::definition(),
        };
        for name in args.iter().skip(1).map_while(|it| it.to_str()) {
            let Some(command) = given.command.find_subcommand(name) else {
                break;
            };
            given.command = command.clone();
            given.name = format!("{} {name}", given.name);
        }
        given
    }

    /// How to ask for what can be given further.
    fn help(&self) -> String {
        format!("{} --help", self.name)
    }

    /// The names of what can follow.
    fn commands(&self) -> String {
        let shown = self
            .command
            .get_subcommands()
            .filter(|it| !it.is_hide_set());
        let names: Vec<&str> = shown.map(clap::Command::get_name).collect();
        match names.split_last() {
            Some((last, [])) => (*last).into(),
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => "nothing".into(),
        }
    }
}

/// What is wrong with a command line, in a line.
fn describe(error: &clap::Error, command: &Given) -> String {
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
        ErrorKind::ArgumentConflict => match text_of(error, ContextKind::PriorArg) {
            Some(prior) if !prior.starts_with(name) => {
                let prior = prior.split(' ').next().unwrap_or_default();
                format!("{name}: excludes {prior}")
            }
            _ => format!("{name}: given twice"),
        },
        ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
            format!("{name}: expected {}", expectation(name))
        }
        ErrorKind::TooManyValues => format!("{given}: takes no value"),
        ErrorKind::UnknownArgument => {
            let hint = match text_of(error, ContextKind::SuggestedArg) {
                Some(other) => format!("did you mean {other}?"),
                None => format!("see {}", command.help()),
            };
            let given = argument.escape_debug();
            format!("{given}: unknown argument; {hint}")
        }
        ErrorKind::InvalidSubcommand => {
            let given = text_of(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            let given = given.escape_debug();
            format!("{given}: unknown command; expected {}", command.commands())
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let (expected, help) = (command.commands(), command.help());
            format!("no command; expected {expected}; see {help}")
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
