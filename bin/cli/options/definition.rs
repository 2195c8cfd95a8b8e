//! The command line of a server or client, as clap has it.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::row::{Hyphen, Role, Row, Value};
use super::rows;
use crate::cli::value::{Expected, switch};

/// The option that names the configuration file. It has no row: it cannot stand in the file.
pub(crate) const FILE: &str = "config";

/// Defines a command with all its options.
pub(crate) fn command(role: Role) -> Command {
    let command = match role {
        Role::Server => Command::new(role.name())
            .about("Serve: tell every subscriber of a virtual network what the others announce"),
        Role::Client => Command::new(role.name())
            .about("Subscribe to virtual networks, announce routes, install routes into the kernel")
            .after_help(
                "Lists are given with commas or by repeating the option. Without \
                 --install-routes, each change of\na route is printed as a line, with + or - \
                 before it. Both SIGINT and SIGTERM end the client; a\nsecond one, more than a second later, at \
                 once.",
            ),
    };
    let (headed, first): (Vec<&Row>, Vec<&Row>) = rows(role).partition(|it| it.heading.is_some());
    let command = command.args(first.into_iter().map(argument)).arg(file());
    command.args(headed.into_iter().map(argument))
}

fn file() -> Arg {
    Arg::new(FILE)
        .long(FILE)
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help(
            "TOML file with options as keys, in [server] and [client]; those given here win. It \
             is read again at SIGHUP",
        )
}

/// Defines an option; its id is its name.
fn argument(row: &'static Row) -> Arg {
    let argument = Arg::new(row.name)
        .long(row.name)
        .short(row.short)
        .aliases(row.alias.into_iter().chain(row.former))
        .help(row.help)
        .help_heading(row.heading)
        .default_value(row.default);
    let parse = move |text: &str| row.check(text).map(|()| text.to_owned());
    let argument = match row.value {
        Value::Flag => return argument.action(ArgAction::SetTrue),
        Value::One(name) => argument.action(ArgAction::Set).value_name(name),
        Value::List(name) => argument
            .action(ArgAction::Append)
            .value_name(name)
            .value_delimiter(','),
    };
    let argument = match row.hyphen {
        Hyphen::Option => argument,
        Hyphen::Number => argument.allow_negative_numbers(true),
        Hyphen::Value => argument.allow_hyphen_values(true),
    };
    argument.value_parser(parse)
}

/// Changes the definition of a command into one that takes what Go MetalBond's does: switches may
/// have a value, as `--verbose=false`, and an option may be given more than once. Help and
/// completions do not show that.
pub(crate) fn as_go_takes_it(command: Command) -> Command {
    command.mut_args(|argument| match argument.get_action() {
        ArgAction::Set if argument.get_id() != FILE => argument.action(ArgAction::Append),
        ArgAction::SetTrue => argument
            .action(ArgAction::Append)
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .value_parser(|text: &str| switch(text).ok_or(Expected("true or false"))),
        _ => argument,
    })
}

/// Returns the values that the command line, or a default, gives to an option. Of one that is no
/// list, the last counts.
pub(super) fn values(matches: &ArgMatches, row: &Row) -> Vec<String> {
    match row.value {
        Value::Flag => {
            let values = matches.get_many::<bool>(row.name);
            values.into_iter().flatten().map(bool::to_string).collect()
        }
        Value::One(_) | Value::List(_) => {
            let values = matches.get_many::<String>(row.name);
            values.into_iter().flatten().cloned().collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_sound_and_every_option_says_what_it_expects() {
        for role in Role::ALL {
            command(role).debug_assert();
            for row in rows(role) {
                let takes_value = row.value != Value::Flag;
                assert_ne!(row.expected.is_empty(), takes_value, "{}", row.name);
                assert!(!row.help.is_empty(), "{}", row.name);
                assert_ne!(row.name, FILE);
            }
        }
    }
}
