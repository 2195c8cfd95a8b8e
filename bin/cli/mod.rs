//! The `metalbond` command as a library: arguments, configuration, output, signals.
//!
//! [`refusal::parse`] reads arguments and the configuration file first, then the command acts. It
//! ends with 0 when it was told to end, 1 when something failed at run time, 2 when the arguments
//! are wrong. The code here knows what the library `rustbond` makes public, and nothing else.
//!
//! This is one module and no crate of its own. A package has one library, which is `rustbond`. A
//! second package for the command would need `rustbond` and be needed by the binary of the same
//! package, a circle that Cargo refuses; the binary would have to move to that package, and with
//! it `cargo install --path .`, the tests that start the binary and the Debian package. As a
//! library of `rustbond` itself the command could name private items. So `bin/main.rs` declares
//! this module, and a fuzz target includes it with one `#[path]`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command prints; the library does not"
)]

mod announcement;
mod args;
#[cfg(feature = "http")]
mod ask;
mod check;
mod client;
mod config;
mod control;
mod demo;
mod descriptors;
mod endpoint;
mod failure;
mod groups;
mod http;
mod kernel;
mod logging;
mod manual;
mod options;
mod output;
pub(crate) mod refusal;
mod reload;
mod rt_tables;
mod server;
mod service;
mod signals;
mod socket;
mod tables;
mod value;

use std::ffi::OsString;
use std::process::ExitCode;

use self::args::{Command, Tool};
use self::failure::Failure;
use self::options::Role;
use self::refusal::Parsed;
use self::service::Environment;

/// Runs the command that `args` ask for, the program's name first. Returns its exit code.
pub(crate) fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let environment = Environment::take();
    let result = match refusal::parse(args) {
        Parsed::Command(command) => act(command, environment),
        Parsed::Text(text) => output::print(format_args!("{text}")).map(|_| ExitCode::SUCCESS),
        Parsed::Refused(failure) => Err(failure),
    };
    let code = match result {
        Ok(code) => code,
        Err(failure) => {
            output::complain(&failure);
            failure.exit_code()
        }
    };
    logging::finish();
    code
}

fn act(command: Command, environment: Environment) -> Result<ExitCode, Failure> {
    match command {
        Command::Run(options) => match options.role {
            Role::Server => server::run(&options, environment),
            Role::Client => client::run(&options, environment),
        },
        Command::Tool(tool) => return work(tool),
    }
    .map(|()| ExitCode::SUCCESS)
}

fn work(tool: Tool) -> Result<ExitCode, Failure> {
    match tool {
        Tool::Kernel(args) => tables::run(&args),
        Tool::Check(args) => check::run(&args),
        Tool::Completions(args) => manual::completions(&args),
        Tool::Man(args) => manual::man(&args),
        Tool::Template(args) => manual::template(&args),
        Tool::Demo(args) => demo::run(&args),
        #[cfg(feature = "http")]
        Tool::Show(args) => ask::show(&args),
        #[cfg(feature = "http")]
        Tool::Monitor(args) => ask::monitor(&args),
        #[cfg(feature = "http")]
        Tool::Announce(args) => ask::announce(&args),
        #[cfg(feature = "http")]
        Tool::Withdraw(args) => ask::withdraw(&args),
        #[cfg(feature = "http")]
        Tool::Subscribe(args) => ask::subscribe(&args),
        #[cfg(feature = "http")]
        Tool::Unsubscribe(args) => ask::unsubscribe(&args),
        #[cfg(feature = "http")]
        Tool::Peer(args) => ask::peer(&args),
        #[cfg(feature = "http")]
        Tool::Log(args) => ask::log(&args),
        #[cfg(feature = "http")]
        Tool::Reload(args) => ask::reload(&args),
        #[cfg(feature = "http")]
        Tool::Diff(args) => return ask::diff(&args),
        #[cfg(feature = "http")]
        Tool::Probe(args) => ask::probe(&args),
    }
    .map(|()| ExitCode::SUCCESS)
}
