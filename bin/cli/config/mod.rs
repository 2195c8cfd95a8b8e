//! The options of a configuration file, `--config FILE`.
//!
//! A key is the long name of an option. Its value is parsed as on the command line, by the same
//! row of the table of options. The command line wins.

mod document;

use std::path::Path;

use self::document::Document;
use super::failure::Failure;
use super::options::{FileKeys, Role};

/// An error at a place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    /// Counted from 1; `None` for the file as a whole.
    line: Option<usize>,
    text: String,
}

/// Reads the options that a file gives to a command.
///
/// # Errors
///
/// The file cannot be read, something is wrong in it, or it is for another command only.
pub(crate) fn keys(file: &Path, role: Role) -> Result<FileKeys, Failure> {
    let mut document = read(file)?;
    let is_empty = document.roles.is_empty();
    match document.roles.remove(role.name()) {
        Some(keys) => Ok(keys),
        None if is_empty => Ok(FileKeys::new()),
        None => {
            let missing = Problem {
                line: None,
                text: format!("has no [{}]", role.name()),
            };
            Err(failure(file, &[missing]))
        }
    }
}

/// Reads a file and returns the commands that it configures.
///
/// # Errors
///
/// The file cannot be read, or something is wrong in it.
pub(crate) fn configured(file: &Path) -> Result<Vec<Role>, Failure> {
    let document = read(file)?;
    let is_configured = |it: &Role| document.roles.contains_key(it.name());
    Ok(Role::ALL.into_iter().filter(is_configured).collect())
}

fn read(file: &Path) -> Result<Document, Failure> {
    let name = file.display();
    let bytes = std::fs::read(file)
        .map_err(|error| Failure::RunTime(format!("cannot read {name}: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = Some(document::line_at(valid));
        let text = "is not valid UTF-8".into();
        failure(file, &[Problem { line, text }])
    })?;
    Document::parse(&text).map_err(|problems| failure(file, &problems))
}

fn failure(file: &Path, problems: &[Problem]) -> Failure {
    let name = file.display();
    let lines = problems.iter().map(|problem| match problem.line {
        Some(line) => format!("{name}:{line}: {}", problem.text),
        None => format!("{name}: {}", problem.text),
    });
    Failure::Argument(lines.collect::<Vec<_>>().join("\n"))
}
