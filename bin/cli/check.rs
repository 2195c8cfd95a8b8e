//! `metalbond check FILE`.

use std::ffi::OsString;
use std::path::Path;

use crate::cli::args::{CheckArgs, PROGRAM};
use crate::cli::config;
use crate::cli::failure::Failure;
use crate::cli::options::Role;
use crate::cli::output::print;
use crate::cli::refusal::{self, Parsed};

/// Prints what the file configures, or fails with every error.
pub(crate) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let file = &args.file;
    let configured = config::configured(file)?;
    let refused = configured.iter().filter_map(|role| {
        let line = [PROGRAM, role.name(), "--config"].map(OsString::from);
        match refusal::parse(line.into_iter().chain([file.into()])) {
            Parsed::Refused(failure) => Some(in_file(file, *role, &failure)),
            Parsed::Command(_) | Parsed::Text(_) => None,
        }
    });
    let refused: Vec<String> = refused.collect();
    if !refused.is_empty() {
        return Err(Failure::Argument(refused.join("\n")));
    }
    let names: Vec<&str> = configured.into_iter().map(Role::name).collect();
    let what = match names.is_empty() {
        true => "nothing".into(),
        false => names.join(" and "),
    };
    print(format_args!("{}: OK, configures {what}\n", file.display())).map(|_| ())
}

/// Puts the file's name before what is wrong with a command as a whole.
fn in_file(file: &Path, role: Role, failure: &Failure) -> String {
    let text = failure.to_string();
    match text.strip_prefix("--") {
        Some(text) => format!("{}: [{}] {text}", file.display(), role.name()),
        None => text,
    }
}
