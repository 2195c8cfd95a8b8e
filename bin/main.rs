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
mod refusal;
mod reload;
mod server;
mod service;
mod signals;

use std::process::ExitCode;

use args::Command;
use failure::Failure;
use refusal::Parsed;
use service::Environment;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let environment = Environment::take();
    let result = match refusal::parse(std::env::args_os()) {
        Parsed::Command(command) => run(command, environment),
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

fn run(command: Command, environment: Environment) -> Result<ExitCode, Failure> {
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
