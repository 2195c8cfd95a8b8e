//! The failures that end the command early.

use std::fmt;
use std::process::ExitCode;

use rustbond::Error;

/// Why the command ends early, by the exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments or the configuration are wrong: 2.
    Argument(String),
    /// Something failed at run time: 1.
    RunTime(String),
}

impl Failure {
    /// Returns the failure of an address that an option gave.
    pub(crate) fn of_address(option: &str, address: &str, error: Error) -> Self {
        match error {
            Error::Io { .. } => Self::RunTime(format!("{option} {address}: {error}")),
            error => error.into(),
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Argument(_) => ExitCode::from(2),
            Self::RunTime(_) => ExitCode::FAILURE,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidConfig(text) => Self::Argument(text),
            error => Self::RunTime(error.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument(text) | Self::RunTime(text) => f.write_str(text),
        }
    }
}
