//! Parses the command line. An error becomes one line that says what is wrong and what to do.

use std::error::Error;
use std::ffi::OsString;

use clap::ArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::cli::args::{self, Command, PROGRAM, Tool, expectation};
use crate::cli::config;
use crate::cli::failure::Failure;
use crate::cli::options::{FileKeys, Options, Role};

/// The result of parsing a command line.
pub(crate) enum Parsed {
    Command(Command),
    /// The help or the version, if the user asked for it.
    Text(String),
    /// An error that says what is wrong and what is allowed.
    Refused(Failure),
}

/// Parses a command line, with the name of the program first, and the file that it names.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Parsed {
    let args: Vec<OsString> = args.into_iter().collect();
    let matches = args::definition_to_parse().try_get_matches_from(&args);
    let matches = matches.or_else(|error| match error.kind() {
        // The help of the definition that is shown.
        ErrorKind::DisplayHelp => args::definition().try_get_matches_from(&args),
        _ => Err(error),
    });
    match matches {
        Ok(matches) => match command(&matches) {
            Ok(command) => Parsed::Command(command),
            Err(failure) => Parsed::Refused(failure),
        },
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Parsed::Text(error.to_string()),
            _ => Parsed::Refused(Failure::Argument(describe(&error, &Given::new(&args)))),
        },
    }
}

fn command(matches: &ArgMatches) -> Result<Command, Failure> {
    let named = matches.subcommand();
    match named.and_then(|(name, given)| Some((Role::of(name)?, given))) {
        Some((role, given)) => read(role, given),
        None => match Tool::of(matches) {
            Ok(tool) => Ok(Command::Tool(tool)),
            Err(error) => Err(Failure::Argument(error.to_string())),
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
    let options = Options::read(role, given, &keys).map_err(|mistake| {
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

/// The part of a command line that names a command.
struct Given {
    /// As the user writes it.
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

    /// Returns the command line that prints the help.
    fn help(&self) -> String {
        format!("{} --help", self.name)
    }

    /// Returns the names of the commands that can follow.
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

/// Describes an error of a command line in a line.
fn describe(error: &clap::Error, command: &Given) -> String {
    let argument = text_of(error, ContextKind::InvalidArg).unwrap_or_default();
    let name = without_values(&argument);
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
                format!("{name}: excludes {}", without_values(&prior))
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

/// Returns the name of an option without those of its values: `--http ADDR`,
/// `--verbose[=<verbose>]`.
fn without_values(argument: &str) -> &str {
    argument.split([' ', '[']).next().unwrap_or_default()
}

fn text_of(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    }
}

#[cfg(all(test, feature = "netlink", target_os = "linux"))]
mod tests {
    use super::*;

    /// As to Go MetalBond.
    #[test]
    fn vni_given_two_tables_has_the_last_one() {
        let line = "metalbond client --install-routes 1#100,2#100 --install-routes 1#200";
        let Parsed::Command(Command::Run(options)) = parse(line.split(' ').map(Into::into)) else {
            panic!("{line} is refused");
        };
        let mapped = options.client.install_routes.iter();
        let mapped: Vec<(u32, u32)> = mapped.map(|it| (it.vni.0, it.table)).collect();
        assert_eq!(mapped, [(2, 100), (1, 200)]);
        let warned = options.warnings.iter().map(ToString::to_string);
        let expected = "install-routes: VNI 1 is given twice; the last one counts";
        assert!(warned.into_iter().any(|it| it == expected));
    }
}
