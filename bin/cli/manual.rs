//! Manual pages, completions and configuration files, made from the definition of the command
//! line.

use std::fs::File;
use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

use crate::cli::args::{CompletionsArgs, ManArgs, PROGRAM, TemplateArgs, definition};
use crate::cli::failure::Failure;
use crate::cli::options::{self, Row, Value};
use crate::cli::output::print;

const SOURCE: &str = concat!("metalbond ", env!("CARGO_PKG_VERSION"));

/// Prints completions.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut visible(), PROGRAM, &mut text);
    let text = String::from_utf8_lossy(&text);
    print(format_args!("{text}")).map(|_| ())
}

/// Writes a page for the command and one for each of its subcommands.
pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    let mut command = visible();
    command.build();
    let written = std::fs::create_dir_all(&args.folder)
        .and_then(|()| write_pages(&args.folder, &command, PROGRAM));
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
    let role = args.role.name();
    let mut text = format!(
        "# Options of `metalbond {role}`, with their defaults; see metalbond-{role}(1).\n\
         # `metalbond check FILE` says what is wrong with a file.\n\n[{role}]\n"
    );
    text.extend(options::rows(args.role).map(entry));
    print(format_args!("{text}")).map(|_| ())
}

/// Returns an option as a key that is commented out, with its default or else what it takes.
fn entry(row: &Row) -> String {
    let value = match (row.default, row.value) {
        (_, Value::Flag) => "true".into(),
        (Some(default), _) => literal(default),
        (None, Value::One(name)) => format!("\"{name}\""),
        (None, Value::List(name)) => format!("[\"{name}\"]"),
    };
    format!("\n# {}\n#{} = {value}\n", row.help, row.name)
}

/// Returns a value as TOML writes it.
fn literal(text: &str) -> String {
    match text.parse::<i64>() {
        Ok(number) => number.to_string(),
        Err(_) => format!("\"{}\"", text.escape_debug()),
    }
}

/// Defines the commands that `--help` shows: without those for packagers.
fn visible() -> Command {
    let command = definition();
    let shown = command.get_subcommands().filter(|it| !it.is_hide_set());
    Command::new(PROGRAM)
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .about(command.get_about().cloned().unwrap_or_default())
        .subcommands(shown)
}
