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
mod client;
mod config;
mod control;
mod demo;
mod descriptors;
mod endpoint;
mod failure;
mod http;
mod kernel;
mod limits;
mod logging;
mod manual;
mod output;
mod pacing;
pub(crate) mod refusal;
mod reload;
mod server;
mod service;
mod signals;

use std::ffi::OsString;
use std::process::ExitCode;

use self::args::Command;
use self::failure::Failure;
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
        Command::Server(args) => server::run(&args, environment),
        Command::Client(args) => client::run(&args, environment),
        Command::Check(args) => config::check(&args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
        Command::Template(args) => manual::template(&args),
        Command::Demo(args) => demo::run(&args),
        #[cfg(feature = "http")]
        Command::Show(args) => ask::show(&args),
        #[cfg(feature = "http")]
        Command::Monitor(args) => ask::monitor(&args),
        #[cfg(feature = "http")]
        Command::Announce(args) => ask::announce(&args),
        #[cfg(feature = "http")]
        Command::Withdraw(args) => ask::withdraw(&args),
        #[cfg(feature = "http")]
        Command::Subscribe(args) => ask::subscribe(&args),
        #[cfg(feature = "http")]
        Command::Unsubscribe(args) => ask::unsubscribe(&args),
        #[cfg(feature = "http")]
        Command::Peer(args) => ask::peer(&args),
        #[cfg(feature = "http")]
        Command::Log(args) => ask::log(&args),
        #[cfg(feature = "http")]
        Command::Reload(args) => ask::reload(&args),
        #[cfg(feature = "http")]
        Command::Diff(args) => return ask::diff(&args),
        #[cfg(feature = "http")]
        Command::Probe(args) => ask::probe(&args),
    }
    .map(|()| ExitCode::SUCCESS)
}
