//! Manual pages and completions, made from the definition of the command line.

use std::io::ErrorKind;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::{Cli, Expected};
use crate::failure::Failure;
use crate::output::print;

pub(crate) const SHELL: &str = "bash, zsh or fish";
pub(crate) const FOLDER: &str = "a folder";

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell that is to read them: bash, zsh or fish.
    #[arg(value_name = "SHELL", value_parser = shell)]
    shell: Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The folder to write them to.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

fn shell(text: &str) -> Result<Shell, Expected> {
    match text {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        _ => Err(Expected(SHELL)),
    }
}

/// Prints completions.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut visible(), "metalbond", &mut text);
    let text = String::from_utf8_lossy(&text);
    print(format_args!("{text}")).map(|_| ())
}

/// Writes a page for the command and one for each of its subcommands.
pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    let generated = std::fs::create_dir_all(&args.folder)
        .and_then(|()| clap_mangen::generate_to(visible(), &args.folder));
    generated.map_err(|error| {
        let folder = args.folder.display();
        match error.kind() {
            ErrorKind::AlreadyExists => Failure::RunTime(format!("{folder}: not a folder")),
            _ => Failure::RunTime(format!("{folder}: {error}")),
        }
    })
}

/// What is in `--help`: packagers' commands are not for everybody.
fn visible() -> clap::Command {
    let command = Cli::command();
    let shown = command.get_subcommands().filter(|it| !it.is_hide_set());
    clap::Command::new("metalbond")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .about(command.get_about().cloned().unwrap_or_default())
        .after_help(command.get_after_help().cloned().unwrap_or_default())
        .args(command.get_arguments())
        .subcommands(shown)
}
