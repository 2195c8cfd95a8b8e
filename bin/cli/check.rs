//! `metalbond check FILE`.

use std::ffi::OsString;
use std::path::Path;

use crate::cli::args::{CheckArgs, Command, PROGRAM};
use crate::cli::config;
use crate::cli::failure::Failure;
use crate::cli::options::Role;
use crate::cli::output::{self, print};
use crate::cli::refusal::{self, Parsed};

/// Prints what the file configures, with warnings on the standard error, or fails with every
/// error.
pub(crate) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let file = &args.file;
    let configured = config::configured(file)?;
    let (mut refused, mut warnings) = (Vec::new(), Vec::new());
    for role in &configured {
        let line = [PROGRAM, role.name(), "--config"].map(OsString::from);
        match refusal::parse(line.into_iter().chain([file.into()])) {
            Parsed::Refused(failure) => refused.push(in_file(file, *role, &failure.to_string())),
            Parsed::Command(Command::Run(options)) => {
                let texts = options.warnings.iter().map(|it| format!("--{it}"));
                warnings.extend(texts.map(|text| in_file(file, *role, &text)));
            }
            Parsed::Command(Command::Tool(_)) | Parsed::Text(_) => {}
        }
    }
    if !refused.is_empty() {
        return Err(Failure::Argument(refused.join("\n")));
    }
    for warning in warnings {
        output::warn(format_args!("{warning}"));
    }
    let names: Vec<&str> = configured.into_iter().map(Role::name).collect();
    let what = match names.is_empty() {
        true => "nothing".into(),
        false => names.join(" and "),
    };
    print(format_args!("{}: OK, configures {what}\n", file.display())).map(|_| ())
}

/// Puts the file's name before what is wrong with a command as a whole.
fn in_file(file: &Path, role: Role, text: &str) -> String {
    match text.strip_prefix("--") {
        Some(text) => format!("{}: [{}] {text}", file.display(), role.name()),
        None => text.into(),
    }
}
