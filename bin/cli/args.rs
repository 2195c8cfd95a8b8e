//! The command line: all commands, and the arguments of those that have no configuration file.

use std::path::PathBuf;

use clap::{Args, Command as Definition, FromArgMatches, Subcommand};
use clap_complete::Shell;

#[cfg(feature = "http")]
use crate::cli::ask::args::{
    DiffArgs, LogLevelArgs, MonitorArgs, PeerArgs, ProbeArgs, ReloadArgs, RouteChangeArgs,
    ShowArgs, VniChangeArgs,
};
use crate::cli::options::{self, Options, Role};
use crate::cli::tables::{self, KernelArgs};
use crate::cli::value::Expected;

/// The name of the program.
pub(crate) const PROGRAM: &str = "metalbond";

const SHELL: &str = "bash, zsh or fish";
const FOLDER: &str = "a folder";
const ROLE: &str = "server or client";
const FILE: &str = "the name of a file";

/// A parsed command line.
#[derive(Debug)]
pub(crate) enum Command {
    /// Run a server or client until a signal.
    Run(Box<Options>),
    Tool(Tool),
}

/// A command that has no configuration file.
#[derive(Debug, Subcommand)]
pub(crate) enum Tool {
    /// Show what a running server or client is, has and does.
    #[cfg(feature = "http")]
    Show(ShowArgs),
    /// Tell what happens at a running server or client, a line for each event.
    #[cfg(feature = "http")]
    Monitor(MonitorArgs),
    /// Have a running server or client announce routes, a server in its own name.
    #[cfg(feature = "http")]
    Announce(RouteChangeArgs),
    /// Have a running server or client withdraw routes that it announces itself.
    #[cfg(feature = "http")]
    Withdraw(RouteChangeArgs),
    /// Have a running client subscribe to virtual networks.
    #[cfg(feature = "http")]
    Subscribe(VniChangeArgs),
    /// Have a running client unsubscribe from virtual networks.
    #[cfg(feature = "http")]
    Unsubscribe(VniChangeArgs),
    /// Close connections of a running server or client.
    #[cfg(feature = "http")]
    Peer(PeerArgs),
    /// Change from which level on a running server or client logs.
    #[cfg(feature = "http")]
    Log(LogLevelArgs),
    /// Have a running server or client read its configuration again.
    #[cfg(feature = "http")]
    Reload(ReloadArgs),
    /// Compare the tables of running servers: 0 if they agree, 1 if not, 2 if one cannot be asked.
    #[cfg(feature = "http")]
    Diff(DiffArgs),
    /// Shake hands with a peer, and say what it is and how fast it answers.
    #[cfg(feature = "http")]
    Probe(ProbeArgs),
    /// Show or remove kernel routes of a client that does not run.
    Kernel(KernelArgs),
    /// Say what is wrong with a configuration file, or that nothing is.
    Check(CheckArgs),
    /// Show servers and clients at work, in this process on the loopback interface.
    Demo(DemoArgs),
    /// Print what completes commands and options in a shell.
    #[command(hide = true)]
    Completions(CompletionsArgs),
    /// Write the manual pages.
    #[command(hide = true)]
    Man(ManArgs),
    /// Print a configuration file with all options, commented out.
    #[command(hide = true)]
    Template(TemplateArgs),
}

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// The TOML file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Keep servers and clients running until a signal, for others to connect.
    #[arg(long)]
    pub(crate) stay: bool,

    /// Log what servers and clients do.
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell that is to read them: bash, zsh or fish.
    #[arg(value_name = "SHELL", value_parser = shell)]
    pub(crate) shell: Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The folder to write them to.
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct TemplateArgs {
    /// What it configures: server or client.
    #[arg(value_name = "ROLE", value_parser = role)]
    pub(crate) role: Role,
}

fn shell(text: &str) -> Result<Shell, Expected> {
    match text {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        _ => Err(Expected(SHELL)),
    }
}

fn role(text: &str) -> Result<Role, Expected> {
    Role::of(text).ok_or(Expected(ROLE))
}

/// Defines the whole command line.
pub(crate) fn definition() -> Definition {
    let roles = Role::ALL.map(options::command);
    let definition = Definition::new(PROGRAM)
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .max_term_width(100)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(roles);
    // After the tools, whose doc comment would take its place.
    Tool::augment_subcommands(definition).about("MetalBond route reflector for overlay networks")
}

/// Defines the command line as it is parsed: it takes more than the help says.
pub(crate) fn definition_to_parse() -> Definition {
    Role::ALL.into_iter().fold(definition(), |all, role| {
        all.mut_subcommand(role.name(), options::as_go_takes_it)
    })
}

impl Tool {
    /// Returns the command of a command line that names no server or client.
    pub(crate) fn of(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches(matches)
    }
}

/// Returns what a value must be. `argument` is `--NAME` or `<NAME>`.
pub(crate) fn expectation(argument: &str) -> &'static str {
    let row = argument.strip_prefix("--").and_then(options::expectation);
    if let Some(expectation) = row {
        return expectation;
    }
    #[cfg(feature = "http")]
    if let Some(expectation) = crate::cli::ask::args::expectation(argument) {
        return expectation;
    }
    if let Some(expectation) = tables::expectation(argument) {
        return expectation;
    }
    match argument {
        "<SHELL>" => SHELL,
        "<FOLDER>" => FOLDER,
        "<ROLE>" => ROLE,
        "--config" | "<FILE>" => FILE,
        _ => "a value",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_sound_and_every_argument_says_what_it_expects() {
        definition().debug_assert();
        let mut commands: Vec<Definition> = definition().get_subcommands().cloned().collect();
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().cloned());
            let takes_value = |it: &&clap::Arg| it.get_action().takes_values();
            for argument in command.get_arguments().filter(takes_value) {
                let name = match argument.get_long() {
                    Some(name) => format!("--{name}"),
                    None => format!("<{}>", argument.get_value_names().unwrap()[0]),
                };
                assert_ne!(expectation(&name), "a value", "{name}");
            }
        }
    }
}
