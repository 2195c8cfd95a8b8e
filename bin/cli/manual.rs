//! Manual pages, completions and configuration files, made from the definition of the command
//! line.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::args::{Cli, Expected};
use crate::cli::failure::Failure;
use crate::cli::output::print;

pub(crate) const SHELL: &str = "bash, zsh or fish";
pub(crate) const FOLDER: &str = "a folder";
pub(crate) const ROLE: &str = "server or client";

const SOURCE: &str = concat!("metalbond ", env!("CARGO_PKG_VERSION"));

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

#[derive(Args, Debug)]
pub(crate) struct TemplateArgs {
    /// What it configures: server or client.
    #[arg(value_name = "ROLE", value_parser = role)]
    role: String,
}

fn shell(text: &str) -> Result<Shell, Expected> {
    match text {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        _ => Err(Expected(SHELL)),
    }
}

fn role(text: &str) -> Result<String, Expected> {
    match text {
        "server" | "client" => Ok(text.into()),
        _ => Err(Expected(ROLE)),
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
    let mut command = visible();
    command.build();
    let written = std::fs::create_dir_all(&args.folder)
        .and_then(|()| write_pages(&args.folder, &command, "metalbond"));
    written.map_err(|error| {
        let folder = args.folder.display();
        Failure::RunTime(format!("cannot write to {folder}: {error}"))
    })
}

fn write_pages(folder: &Path, command: &Command, name: &str) -> io::Result<()> {
    let page = Man::new(command.clone())
        .title(name.to_uppercase())
        .source(SOURCE)
        .manual("MetalBond");
    page.render(&mut File::create(folder.join(format!("{name}.1")))?)?;
    for subcommand in command.get_subcommands() {
        let name = format!("{name}-{}", subcommand.get_name());
        write_pages(folder, subcommand, &name)?;
    }
    Ok(())
}

/// Prints a configuration file that has every option, commented out.
pub(crate) fn template(args: &TemplateArgs) -> Result<(), Failure> {
    let role = &args.role;
    let command = Cli::command();
    let options = command.find_subcommand(role).into_iter();
    let options = options.flat_map(Command::get_arguments).filter(is_key);
    let mut text = format!(
        "# Options of `metalbond {role}`, with their defaults; see metalbond-{role}(1).\n\
         # `metalbond check FILE` says what is wrong with a file.\n\n[{role}]\n"
    );
    for option in options {
        text.push_str(&entry(option));
    }
    print(format_args!("{text}")).map(|_| ())
}

/// Whether an option may stand in a file.
fn is_key(option: &&Arg) -> bool {
    let is_value = matches!(
        option.get_action(),
        ArgAction::Set | ArgAction::Append | ArgAction::SetTrue
    );
    is_value && option.get_long().is_some_and(|it| it != "config") && !option.is_hide_set()
}

/// An option as a key that is commented out; one without a default shows what it takes.
fn entry(option: &Arg) -> String {
    let name = option.get_long().unwrap_or_default();
    let help = option.get_help().map(ToString::to_string);
    let default = option.get_default_values().first();
    let kind = option.get_value_names().and_then(|it| it.first());
    let value = match (default, kind) {
        _ if !option.get_action().takes_values() => "true".into(),
        (Some(default), _) => literal(&default.to_string_lossy()),
        (None, Some(kind)) if matches!(option.get_action(), ArgAction::Append) => {
            format!("[\"{kind}\"]")
        }
        (None, Some(kind)) => format!("\"{kind}\""),
        (None, None) => String::new(),
    };
    let help = help.unwrap_or_default().replace('\n', "\n# ");
    format!("\n# {help}\n#{name} = {value}\n")
}

/// A value as TOML writes it.
fn literal(text: &str) -> String {
    match text.parse::<i64>() {
        Ok(number) => number.to_string(),
        Err(_) => format!("\"{}\"", text.escape_debug()),
    }
}

/// What is in `--help`: packagers' commands are not for everybody.
fn visible() -> Command {
    let command = Cli::command();
    let shown = command.get_subcommands().filter(|it| !it.is_hide_set());
    Command::new("metalbond")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .about(command.get_about().cloned().unwrap_or_default())
        .after_help(command.get_after_help().cloned().unwrap_or_default())
        .args(command.get_arguments())
        .subcommands(shown)
}
