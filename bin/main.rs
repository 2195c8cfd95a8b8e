//! The `metalbond` command: route reflector, client and demonstration.
//!
//! Arguments are parsed first ([`args`]), then the command acts. It ends with 0 when it was
//! told to end, 1 when something failed at run time, 2 when the arguments are wrong.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command prints; the library does not"
)]

mod announcement;
mod args;
mod client;
mod config;
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
mod refusal;
mod reload;
mod server;
mod service;
mod signals;

use std::process::ExitCode;

use args::Command;
use refusal::Parsed;
use service::Environment;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let environment = Environment::take();
    let result = match refusal::parse(std::env::args_os()) {
        Parsed::Command(Command::Server(args)) => server::run(&args, environment),
        Parsed::Command(Command::Client(args)) => client::run(&args, environment),
        Parsed::Command(Command::Check(args)) => config::check(&args),
        Parsed::Command(Command::Demo(args)) => demo::run(&args),
        Parsed::Command(Command::Completions(args)) => manual::completions(&args),
        Parsed::Command(Command::Man(args)) => manual::man(&args),
        Parsed::Command(Command::Template(args)) => manual::template(&args),
        Parsed::Text(text) => output::print(format_args!("{text}")).map(|_| ()),
        Parsed::Refused(failure) => Err(failure),
    };
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure);
            failure.exit_code()
        }
    };
    logging::finish();
    code
}
