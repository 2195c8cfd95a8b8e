//! Options from a file: `--config FILE`, and `metalbond check FILE`.
//!
//! There is one definition of options, that of the command line. A key of the file is the long
//! name of an option, its value is parsed as if it had been given there, and what the command
//! line gives wins.

mod document;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command as Definition, CommandFactory};

pub(crate) use values::Values;

use crate::cli::args::{CheckArgs, Cli};
use crate::cli::failure::Failure;
use crate::cli::output::print;
use crate::cli::refusal::{self, Parsed};
use document::Document;

/// The option that names the file.
const OPTION: &str = "config";

/// An error at a place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    /// From 1 on; `None` for the file as a whole.
    line: Option<usize>,
    text: String,
}

/// A command line to which the options of a file were added.
pub(crate) struct Merged {
    pub(crate) args: Vec<OsString>,
    file: PathBuf,
    /// In which line the options stand that come from the file.
    lines: BTreeMap<String, usize>,
}

impl Merged {
    /// Says where in the file the option stands that a text begins with, if it came from there.
    pub(crate) fn locate(&self, text: &str) -> String {
        let place = || {
            let rest = text.strip_prefix("--")?;
            let name = rest.split([' ', ':']).next()?;
            let line = self.lines.get(name)?;
            Some(format!("{}:{line}: {rest}", self.file.display()))
        };
        place().unwrap_or_else(|| text.into())
    }
}

/// Adds to a command line what the file has that its `--config` names; `None` without one.
pub(crate) fn merge(args: &[OsString]) -> Result<Option<Merged>, Failure> {
    // What is wrong with the command line itself is found by the parser proper.
    let Ok(matches) = definition().try_get_matches_from(args) else {
        return Ok(None);
    };
    let Some((role, given)) = matches.subcommand() else {
        return Ok(None);
    };
    let is_role = roles().iter().any(|it| it == role);
    let Some(file) = is_role.then(|| given.get_one::<PathBuf>(OPTION)).flatten() else {
        return Ok(None);
    };
    let text = read(file)?;
    let document = Document::parse(&text, &definition()).map_err(|them| failure(file, &them))?;
    if !document.has(role) && !document.is_empty() {
        let missing = Problem {
            line: None,
            text: format!("has no [{role}]"),
        };
        return Err(failure(file, &[missing]));
    }
    Ok(Some(add(args, file, role, given, &document)))
}

/// Puts the options of the file behind the name of the role.
fn add(
    args: &[OsString],
    file: &Path,
    role: &str,
    given: &ArgMatches,
    document: &Document,
) -> Merged {
    let mut lines = BTreeMap::new();
    let mut added = Vec::new();
    for key in document.keys(role) {
        let is_given =
            given.value_source(key.id.as_str()) == Some(clap::parser::ValueSource::CommandLine);
        if !is_given {
            added.extend(key.args.iter().map(OsString::from));
            lines.insert(key.name.clone(), key.line);
        }
    }
    let mut args = args.to_vec();
    let at = args.iter().skip(1).position(|it| it == role);
    let at = at.map_or(args.len(), |at| at + 2);
    args.splice(at..at, added);
    Merged {
        args,
        file: file.into(),
        lines,
    }
}

/// `metalbond check FILE`: says what it configures, or every error.
pub(crate) fn check(args: &CheckArgs) -> Result<(), Failure> {
    let file = &args.file;
    let text = read(file)?;
    let document = Document::parse(&text, &definition()).map_err(|them| failure(file, &them))?;
    let mut configured = Vec::new();
    let mut refused = Vec::new();
    for role in roles() {
        if !document.has(&role) {
            continue;
        }
        let line = ["metalbond", &role, "--config"].map(OsString::from);
        let line = [&line[..], &[file.into()]].concat();
        match refusal::parse(line) {
            Parsed::Refused(failure) => refused.push(in_file(file, &role, &failure)),
            Parsed::Command(_) | Parsed::Text(_) => configured.push(role),
        }
    }
    if !refused.is_empty() {
        return Err(Failure::Argument(refused.join("\n")));
    }
    let what = match configured.is_empty() {
        true => "nothing".into(),
        false => configured.join(" and "),
    };
    print(format_args!("{}: OK, configures {what}\n", file.display())).map(|_| ())
}

/// What is wrong with a role as a whole, with the name of the file.
fn in_file(file: &Path, role: &str, failure: &Failure) -> String {
    let text = failure.to_string();
    match text.strip_prefix("--") {
        Some(text) => format!("{}: [{role}] {text}", file.display()),
        None => text,
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let name = file.display();
    let bytes = std::fs::read(file)
        .map_err(|error| Failure::RunTime(format!("cannot read {name}: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = Some(document::line_at(valid));
        let text = "is not valid UTF-8".into();
        failure(file, &[Problem { line, text }])
    })
}

fn failure(file: &Path, problems: &[Problem]) -> Failure {
    let name = file.display();
    let lines = problems.iter().map(|problem| match problem.line {
        Some(line) => format!("{name}:{line}: {}", problem.text),
        None => format!("{name}: {}", problem.text),
    });
    Failure::Argument(lines.collect::<Vec<_>>().join("\n"))
}

/// The command line, with nothing required: what is missing may stand in the file.
fn definition() -> Definition {
    let mut definition = Cli::command();
    for role in roles() {
        definition = definition.mut_subcommand(role, |it| it.mut_args(|arg| arg.required(false)));
    }
    definition
}

/// The commands that take a file.
fn roles() -> Vec<String> {
    let definition = Cli::command();
    let roles = definition.get_subcommands();
    let roles = roles.filter(|it| document::takes_file(it));
    roles.map(|it| it.get_name().to_owned()).collect()
}
