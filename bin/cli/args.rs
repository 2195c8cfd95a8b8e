//! What the command can be told.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use rustbond::{NextHopType, Vni};

use crate::cli::announcement::{Announcement, SYNTAX, parse_decimal, parse_vni};
#[cfg(feature = "http")]
use crate::cli::ask::args::{
    DiffArgs, LogLevelArgs, MonitorArgs, PeerArgs, ProbeArgs, ReloadArgs, RouteChangeArgs,
    ShowArgs, VniChangeArgs,
};
use crate::cli::config::Values;
use crate::cli::control;
use crate::cli::endpoint::{self, Port};
use crate::cli::limits::{self, Limits};
use crate::cli::logging::{self, LogArgs};
use crate::cli::manual::{self, CompletionsArgs, ManArgs, TemplateArgs};
use crate::cli::pacing::{self, PacingArgs};

const KEEPALIVE: &str = "a number of seconds from 1 to 4294967295";
const HOLD: &str = "a number of seconds from 0 to 4294967295";
const DRAIN: &str = "a number of seconds from 0 to 86400";
const WORKERS: &str = "a number of threads from 1 to 256";
const LISTEN: &str = "an address to listen on, as [::]:4711 or 127.0.0.1:4711";
const HTTP: &str = "an address and a port to listen on, as [::1]:8080 or :8080";
const SERVER: &str = "a server, as [2001:db8::1]:4711 or host:4711 (without a port, 4711)";
const VNI: &str = "a VNI from 0 to 16777215";
const INSTALL: &str = "VNI#TABLE, a VNI from 0 to 16777215 and a table from 1 to 4294967295";
const TUN: &str = "a device name of 1 to 15 bytes without spaces and slashes";
const PROTOCOL: &str = "a route protocol from 5 to 255";
const METRIC: &str = "a metric from 0 to 4294967295";
const KIND: &str = "std, nat or lb";
const CONFIG: &str = "the name of a file";

/// What the value of an option must be.
pub(crate) fn expectation(option: &str) -> &'static str {
    #[cfg(feature = "http")]
    if let Some(expectation) = crate::cli::ask::args::expectation(option) {
        return expectation;
    }
    match option {
        "--control" => control::SYNTAX,
        "--keepalive" => KEEPALIVE,
        "--hold" => HOLD,
        "--workers" => WORKERS,
        "--listen" => LISTEN,
        "--http" => HTTP,
        "--server" => SERVER,
        "--subscribe" => VNI,
        "--announce" => SYNTAX,
        "--install-routes" => INSTALL,
        "--tun" => TUN,
        "--rt-proto" => PROTOCOL,
        "--metric" => METRIC,
        "--exclude-route-type" => KIND,
        "--handshake-timeout" => limits::SECONDS,
        "--queue-soft-limit" | "--queue-hard-limit" => limits::BYTES,
        "--legacy-pacing" => pacing::MODE,
        "--legacy-rate" => pacing::RATE,
        "--drain" => DRAIN,
        "<SHELL>" => manual::SHELL,
        "<FOLDER>" => manual::FOLDER,
        "<ROLE>" => manual::ROLE,
        "--log-level" => logging::LEVEL,
        "--log-format" => logging::FORMAT,
        "--config" | "<FILE>" => CONFIG,
        _ if option.starts_with("--max-") => limits::COUNT,
        _ => "a value",
    }
}

/// MetalBond route reflector for overlay networks.
#[derive(Debug, Parser)]
#[command(
    name = "metalbond",
    version,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve: tell every subscriber of a virtual network what the others announce.
    Server(ServerArgs),
    /// Subscribe to virtual networks, announce routes, install routes into the kernel.
    #[command(after_help = "\
Lists are given with commas or by repeating the option. Without --install-routes, each change of
a route is printed as a line, with + or - before it. Both SIGINT and SIGTERM end the client; a
second one at once.")]
    Client(ClientArgs),
    /// Show what a running server or client is, has and does.
    #[cfg(feature = "http")]
    Show(ShowArgs),
    /// Tell what happens at a running server or client, a line for each event.
    #[cfg(feature = "http")]
    Monitor(MonitorArgs),
    /// Have a running server or client announce routes, a server in its own name.
    #[cfg(feature = "http")]
    Announce(RouteChangeArgs),
    /// Have a running server or client withdraw routes that it announces itself.
    #[cfg(feature = "http")]
    Withdraw(RouteChangeArgs),
    /// Have a running client subscribe to virtual networks.
    #[cfg(feature = "http")]
    Subscribe(VniChangeArgs),
    /// Have a running client unsubscribe from virtual networks.
    #[cfg(feature = "http")]
    Unsubscribe(VniChangeArgs),
    /// Close connections of a running server or client.
    #[cfg(feature = "http")]
    Peer(PeerArgs),
    /// Change from which level on a running server or client logs.
    #[cfg(feature = "http")]
    Log(LogLevelArgs),
    /// Have a running server or client read its configuration again.
    #[cfg(feature = "http")]
    Reload(ReloadArgs),
    /// Compare the tables of running servers: 0 if they agree, 1 if not, 2 if one cannot be asked.
    #[cfg(feature = "http")]
    Diff(DiffArgs),
    /// Shake hands with a peer, and say what it is and how fast it answers.
    #[cfg(feature = "http")]
    Probe(ProbeArgs),
    /// Say what is wrong with a configuration file, or that nothing is.
    Check(CheckArgs),
    /// Show servers and clients at work, in this process on the loopback interface.
    Demo(DemoArgs),
    /// Print what completes commands and options in a shell.
    #[command(hide = true)]
    Completions(CompletionsArgs),
    /// Write the manual pages.
    #[command(hide = true)]
    Man(ManArgs),
    /// Print a configuration file with all options, commented out.
    #[command(hide = true)]
    Template(TemplateArgs),
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArgs {
    /// Where to listen, unless the service manager passes a socket; [::] is both families.
    #[arg(short, long, value_name = "ADDR", default_value = "[::]:4711", value_parser = to_listen)]
    pub(crate) listen: String,

    /// Seconds between keepalives; a client that asks for less gets less.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = keepalive)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) keepalive: u32,

    /// Threads that serve sessions [default: one for each core].
    #[arg(long, value_name = "N", value_parser = workers, allow_negative_numbers = true)]
    pub(crate) workers: Option<NonZeroUsize>,

    /// Serve the page, the API and metrics over HTTP: /, /api/v1/{status,peers,vnis,routes},
    /// /metrics, /healthz, /readyz, /routes.json, /routes.yaml.
    #[arg(long, value_name = "ADDR", value_parser = to_listen_given)]
    pub(crate) http: Option<String>,

    /// Unix socket to look at it and to change it, or off [default: /run/metalbond/server.sock, if
    /// its folder is there].
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<control::Choice>,

    /// Seconds over which sessions are closed at the end, one after the other.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = drain)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) drain: u32,

    #[command(flatten)]
    pub(crate) config: ConfigArg,

    #[command(flatten)]
    pub(crate) log: LogArgs,

    #[command(flatten)]
    pub(crate) limits: Limits,

    #[command(flatten)]
    pub(crate) pacing: PacingArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ClientArgs {
    /// Servers; without a port it is 4711.
    #[arg(
        short,
        long,
        value_name = "ADDR",
        required = true,
        value_delimiter = ','
    )]
    #[arg(value_parser = to_connect)]
    pub(crate) server: Vec<String>,

    /// Virtual networks whose routes are wanted (-v is --verbose, not a VNI).
    #[arg(long, alias = "vni", value_name = "VNI", value_delimiter = ',', value_parser = vni)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) subscribe: Vec<Vni>,

    /// Routes to announce: VNI#PREFIX#NEXTHOP[#STD|#LB|#NAT#FROM#TO], or with @ before NEXTHOP.
    #[arg(short, long, value_name = "ROUTE", value_delimiter = ',')]
    #[arg(allow_hyphen_values = true)]
    pub(crate) announce: Vec<Announcement>,

    /// Seconds between keepalives; a server may ask for less.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = keepalive)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) keepalive: u32,

    /// Seconds for which routes stay when the last server is lost.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = hold)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) hold: u32,

    /// Virtual networks whose routes are wanted in a kernel table (needs CAP_NET_ADMIN).
    #[arg(long, value_name = "VNI#TABLE", value_delimiter = ',', value_parser = mapping)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) install_routes: Vec<Mapping>,

    /// Tunnel device of installed routes.
    #[arg(long, value_name = "DEVICE", default_value = "ip6tnl0", value_parser = device)]
    pub(crate) tun: String,

    /// Install no IPv6 routes.
    #[arg(long)]
    pub(crate) ipv4_only: bool,

    /// Protocol number that marks installed routes.
    #[arg(long, value_name = "N", default_value = "254", value_parser = protocol)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) rt_proto: u8,

    /// Metric of installed routes [default: the kernel's].
    #[arg(long, value_name = "N", value_parser = metric, allow_negative_numbers = true)]
    pub(crate) metric: Option<u32>,

    /// Types of routes that are not installed: std, nat or lb.
    #[arg(long, value_name = "TYPE", value_delimiter = ',', value_parser = kind)]
    pub(crate) exclude_route_type: Vec<NextHopType>,

    /// Remove installed routes at the end.
    #[arg(long)]
    pub(crate) cleanup: bool,

    /// Serve the page, the API and metrics over HTTP: /, /api/v1/{status,peers,vnis,routes},
    /// /metrics, /healthz, /readyz, /routes.json, /routes.yaml.
    #[arg(long, value_name = "ADDR", value_parser = to_listen_given)]
    pub(crate) http: Option<String>,

    /// Unix socket to look at it and to change it, or off [default: /run/metalbond/client.sock, if
    /// its folder is there].
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<control::Choice>,

    #[command(flatten)]
    pub(crate) config: ConfigArg,

    #[command(flatten)]
    pub(crate) log: LogArgs,

    #[command(flatten)]
    pub(crate) pacing: PacingArgs,
}

/// Where more options stand.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConfigArg {
    /// TOML file with options as keys, in [server] and [client]; those given here win. It is
    /// read again at SIGHUP.
    #[arg(id = "config", long = "config", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// All options as they were given.
    #[arg(skip)]
    pub(crate) values: Values,
}

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// The TOML file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Keep servers and clients running until a signal, for others to connect.
    #[arg(long)]
    pub(crate) stay: bool,

    /// Log what servers and clients do.
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// A VNI and the kernel table of its routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) vni: Vni,
    pub(crate) table: u32,
}

/// What should have stood in the place of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected(pub(crate) &'static str);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl std::error::Error for Expected {}

impl Command {
    /// Keeps what was given, to find out later what has changed.
    pub(crate) fn keep(&mut self, values: Values) {
        match self {
            Self::Server(args) => args.config.values = values,
            Self::Client(args) => args.config.values = values,
            _ => {}
        }
    }

    /// Refuses what is wrong between values; the text names them.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (http, control) = match self {
            Self::Server(args) => {
                args.limits.check()?;
                (&args.http, &args.control)
            }
            Self::Client(args) => {
                args.check()?;
                (&args.http, &args.control)
            }
            _ => return Ok(()),
        };
        if cfg!(feature = "http") {
            return Ok(());
        }
        let lacks = "this metalbond was built without HTTP";
        match (http, control) {
            (Some(address), _) => Err(format!("--http {address}: {lacks}")),
            (None, Some(control::Choice::At(path))) => {
                Err(format!("--control {}: {lacks}", path.display()))
            }
            (None, None | Some(control::Choice::Off)) => Ok(()),
        }
    }
}

impl ClientArgs {
    fn check(&self) -> Result<(), String> {
        if let Some(server) = first_repeated(&self.server) {
            return Err(format!("--server {server}: given twice"));
        }
        let settings = self.settings().check(&self.server);
        settings.map_err(|error| format!("--server: {error}"))?;
        let announced = self.announce.iter().map(|it| (it.vni, it.route));
        if let Some((vni, route)) = first_repeated(announced) {
            return Err(format!("--announce: VNI {vni} {route} is given twice"));
        }
        let mapped = self.install_routes.iter().map(|it| it.vni);
        if let Some(vni) = first_repeated(mapped) {
            return Err(format!("--install-routes: VNI {vni} is given twice"));
        }
        if !self.install_routes.is_empty() && !crate::cli::kernel::IS_AVAILABLE {
            return Err("--install-routes: this metalbond was built without kernel routes".into());
        }
        Ok(())
    }
}

fn first_repeated<T: Ord + Copy>(items: impl IntoIterator<Item = T>) -> Option<T> {
    let mut seen = BTreeSet::new();
    items.into_iter().find(|item| !seen.insert(*item))
}

fn to_listen(text: &str) -> Result<String, Expected> {
    endpoint::parse(text, Port::Listen).ok_or(Expected(LISTEN))
}

fn to_listen_given(text: &str) -> Result<String, Expected> {
    endpoint::parse(text, Port::ListenGiven).ok_or(Expected(HTTP))
}

fn to_connect(text: &str) -> Result<String, Expected> {
    endpoint::parse(text, Port::Connect).ok_or(Expected(SERVER))
}

fn keepalive(text: &str) -> Result<u32, Expected> {
    let seconds = parse_decimal(text).filter(|it| *it != 0);
    seconds.ok_or(Expected(KEEPALIVE))
}

fn hold(text: &str) -> Result<u32, Expected> {
    parse_decimal(text).ok_or(Expected(HOLD))
}

fn drain(text: &str) -> Result<u32, Expected> {
    let seconds = parse_decimal(text).filter(|it| *it <= 86_400);
    seconds.ok_or(Expected(DRAIN))
}

fn workers(text: &str) -> Result<NonZeroUsize, Expected> {
    let workers = parse_decimal(text).filter(|it: &NonZeroUsize| it.get() <= 256);
    workers.ok_or(Expected(WORKERS))
}

fn vni(text: &str) -> Result<Vni, Expected> {
    parse_vni(text).ok_or(Expected(VNI))
}

fn mapping(text: &str) -> Result<Mapping, Expected> {
    let parse = || {
        let (vni, table) = text.split_once('#')?;
        let table = parse_decimal(table).filter(|it| *it != 0)?;
        let vni = parse_vni(vni)?;
        Some(Mapping { vni, table })
    };
    parse().ok_or(Expected(INSTALL))
}

fn device(text: &str) -> Result<String, Expected> {
    let is_bad = |it: char| it == '/' || it.is_whitespace() || it.is_control();
    let is_name = (1..=15).contains(&text.len()) && !text.contains(is_bad);
    is_name.then(|| text.into()).ok_or(Expected(TUN))
}

fn protocol(text: &str) -> Result<u8, Expected> {
    let protocol = parse_decimal(text).filter(|it| *it >= 5);
    protocol.ok_or(Expected(PROTOCOL))
}

fn metric(text: &str) -> Result<u32, Expected> {
    parse_decimal(text).ok_or(Expected(METRIC))
}

fn kind(text: &str) -> Result<NextHopType, Expected> {
    match text.to_ascii_lowercase().as_str() {
        "std" => Ok(NextHopType::Standard),
        "nat" => Ok(NextHopType::Nat),
        "lb" => Ok(NextHopType::LoadBalancerTarget),
        _ => Err(Expected(KIND)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn what_can_change_live_are_options() {
        let definition = Cli::command();
        let of = |role: &str, names: &[&str]| {
            let role = definition.find_subcommand(role).unwrap();
            for name in names.iter().chain(&crate::cli::reload::LOG) {
                let mut options = role.get_arguments();
                assert!(options.any(|it| it.get_long() == Some(name)), "{name}");
            }
        };
        of("server", &crate::cli::server::LIVE);
        of("client", &crate::cli::client::LIVE);
    }

    #[test]
    fn the_definition_is_sound_and_every_option_says_what_it_expects() {
        Cli::command().debug_assert();
        let mut commands: Vec<clap::Command> = Cli::command().get_subcommands().cloned().collect();
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().cloned());
            let takes_value = |it: &&clap::Arg| it.get_action().takes_values();
            for argument in command.get_arguments().filter(takes_value) {
                let name = match argument.get_long() {
                    Some(name) => format!("--{name}"),
                    None => format!("<{}>", argument.get_value_names().unwrap()[0]),
                };
                assert_ne!(expectation(&name), "a value", "{name}");
            }
        }
    }
}
