//! The commands that ask a running server or client.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use log::LevelFilter;
use rustbond::{Endpoint, IpNet, Vni};

use super::place::{self, Place};
use crate::cli::announcement::{Announcement, SYNTAX};
use crate::cli::endpoint::{self, Port};
use crate::cli::value::{self, Expected, decimal};

const OUTPUT: &str = "table, json or ndjson";
const LEVEL: &str = "off, error, warn, info, debug or trace";
const VNI: &str = "a VNI from 0 to 4294967295";
const PREFIX: &str = "a prefix or an address, as 10.0.1.0/24";
const KIND: &str = "std, nat, lb or a number";
const LIMIT: &str = "a number from 1";
const SECONDS: &str = "a number of seconds from 0 to 86400";
const COUNT: &str = "a number from 1 to 1000";
const TIMEOUT: &str = "a number of seconds from 1 to 300";
const HOST: &str =
    "a host, as [2001:db8::1]:4711, host:4711 (without a port, 4711) or unix:/run/metalbond/peers";
const SERVERS: &str = "at least two servers";

/// Returns what the value of an option or argument of these commands must be.
pub(crate) fn expectation(name: &str) -> Option<&'static str> {
    Some(match name.trim_end_matches("...") {
        "--at" => place::SYNTAX,
        "--output" => OUTPUT,
        "--vni" | "<VNI>" => VNI,
        "--prefix" | "--match" | "--within" => PREFIX,
        "--type" => KIND,
        "--limit" => LIMIT,
        "--peer" | "<NAME>" => "the name or the address of a peer",
        "--for" => SECONDS,
        "--count" => COUNT,
        "--timeout" => TIMEOUT,
        "<LEVEL>" => LEVEL,
        "<ROUTE>" => SYNTAX,
        "<HOST>" => HOST,
        "<SERVER>" => SERVERS,
        _ => return None,
    })
}

/// How something is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Columns for people, as wide as the terminal.
    #[default]
    Table,
    /// One JSON value.
    Json,
    /// A line of JSON for each item.
    Ndjson,
}

/// Where to ask, of a command that changes something.
#[derive(Args, Debug)]
pub(crate) struct At {
    /// Control socket to ask [default: the one in /run/metalbond].
    #[arg(long, value_name = "PATH")]
    pub(crate) at: Option<Place>,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    #[command(subcommand)]
    pub(crate) what: Show,
}

/// Where to ask, and how to print the answer.
#[derive(Args, Clone, Debug)]
pub(crate) struct ViewArgs {
    /// Control socket, or HOST:PORT of --http, to ask [default: the socket in /run/metalbond].
    #[arg(long, value_name = "PLACE")]
    pub(crate) at: Option<Place>,

    /// How to print: table, json or ndjson.
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "table"
    )]
    #[arg(hide_possible_values = true)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Show {
    /// Show what it is, how long it runs and what it has.
    Status(ViewArgs),
    /// Show sessions of a server, or servers of a client.
    Peers(PeersArgs),
    /// Show routes, by prefix or address, type and announcer.
    Routes(Box<RoutesArgs>),
    /// Show virtual networks with routes, subscribers and digest.
    Vnis(VnisArgs),
}

#[derive(Args, Debug)]
pub(crate) struct PeersArgs {
    /// Only this peer, or all from this address.
    #[arg(long, value_name = "NAME")]
    pub(crate) peer: Option<String>,

    #[command(flatten)]
    pub(crate) view: ViewArgs,
}

#[derive(Args, Debug)]
pub(crate) struct VnisArgs {
    /// Only this virtual network.
    #[arg(long, value_name = "VNI", value_parser = vni, allow_negative_numbers = true)]
    pub(crate) vni: Option<Vni>,

    #[command(flatten)]
    pub(crate) view: ViewArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RoutesArgs {
    /// Only this virtual network.
    #[arg(long, value_name = "VNI", value_parser = vni, allow_negative_numbers = true)]
    pub(crate) vni: Option<Vni>,

    /// Only this very prefix.
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    pub(crate) prefix: Option<String>,

    /// Only the longest prefix with this address in it, of each virtual network.
    #[arg(long = "match", value_name = "ADDR", value_parser = prefix, conflicts_with = "prefix")]
    pub(crate) matching: Option<String>,

    /// Only this prefix and those inside it.
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    #[arg(conflicts_with_all = ["prefix", "matching"])]
    pub(crate) within: Option<String>,

    /// Only what this peer announces, or those at this address.
    #[arg(long, value_name = "NAME")]
    pub(crate) peer: Option<String>,

    /// Only this type: std, nat, lb or a number.
    #[arg(long = "type", value_name = "TYPE", value_parser = kind, allow_negative_numbers = true)]
    pub(crate) kind: Option<String>,

    /// At most so many routes.
    #[arg(long, value_name = "N", value_parser = limit, allow_negative_numbers = true)]
    pub(crate) limit: Option<u64>,

    #[command(flatten)]
    pub(crate) view: ViewArgs,
}

#[derive(Args, Debug)]
pub(crate) struct MonitorArgs {
    /// First print the current routes.
    #[arg(long)]
    pub(crate) current: bool,

    /// Only this virtual network.
    #[arg(long, value_name = "VNI", value_parser = vni, allow_negative_numbers = true)]
    pub(crate) vni: Option<Vni>,

    /// Control socket to ask [default: the one in /run/metalbond].
    #[arg(long, value_name = "PATH")]
    pub(crate) at: Option<Place>,

    /// How to print: table (lines for people) or json [default: table on a terminal, else json].
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        hide_possible_values = true
    )]
    pub(crate) output: Option<Output>,
}

#[derive(Args, Debug)]
pub(crate) struct RouteChangeArgs {
    /// Routes: VNI#PREFIX#NEXTHOP[#STD|#LB|#NAT#FROM#TO].
    #[arg(value_name = "ROUTE", required = true, value_delimiter = ',')]
    pub(crate) routes: Vec<Announcement>,

    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Args, Debug)]
pub(crate) struct VniChangeArgs {
    /// Virtual networks.
    #[arg(value_name = "VNI", required = true, value_delimiter = ',', value_parser = vni)]
    pub(crate) vnis: Vec<Vni>,

    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Args, Debug)]
pub(crate) struct PeerArgs {
    #[command(subcommand)]
    pub(crate) change: PeerChange,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeerChange {
    /// Close the connection of a peer, or of all from an address; they may come back at once.
    Reset(PeerResetArgs),
    /// Send a peer what waits for it, close, and keep it out for a while.
    Drain(PeerDrainArgs),
}

#[derive(Args, Debug)]
pub(crate) struct PeerResetArgs {
    /// Name as `show peers` has it, or an address.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Args, Debug)]
pub(crate) struct PeerDrainArgs {
    /// Name as `show peers` has it, or an address.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// How long it is not taken back, or not dialled.
    #[arg(long = "for", value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) time: u64,

    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Args, Debug)]
pub(crate) struct LogLevelArgs {
    /// From which level on: off, error, warn, info, debug or trace.
    #[arg(value_name = "LEVEL", value_parser = level)]
    pub(crate) level: LevelFilter,

    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Args, Debug)]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    /// Control sockets, or HOST:PORT of --http; each is compared with the first.
    #[arg(value_name = "SERVER", required = true, num_args = 2..)]
    pub(crate) servers: Vec<Place>,

    /// Only this virtual network.
    #[arg(long, value_name = "VNI", value_parser = vni, allow_negative_numbers = true)]
    pub(crate) vni: Option<Vni>,

    /// How to print: table (lines for people), json or ndjson.
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "table"
    )]
    #[arg(hide_possible_values = true)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct ProbeArgs {
    /// Host or address; without a port it is 4711.
    #[arg(value_name = "HOST", value_parser = host)]
    pub(crate) host: Endpoint,

    /// Keepalives to be answered.
    #[arg(short, long, value_name = "N", default_value = "5", value_parser = count)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) count: u32,

    /// Seconds that connecting and each answer may take.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = timeout)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) timeout: Duration,

    /// How to print: table, json or ndjson.
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "table"
    )]
    #[arg(hide_possible_values = true)]
    pub(crate) output: Output,
}

fn vni(text: &str) -> Result<Vni, Expected> {
    value::wide_vni(text).ok_or(Expected(VNI))
}

/// Checks a prefix and returns it as it was given: host bits count.
fn prefix(text: &str) -> Result<String, Expected> {
    let is_one = text.parse::<IpNet>().is_ok() || text.parse::<std::net::IpAddr>().is_ok();
    is_one.then(|| text.into()).ok_or(Expected(PREFIX))
}

fn kind(text: &str) -> Result<String, Expected> {
    let is_name = ["std", "nat", "lb"].contains(&&*text.to_ascii_lowercase());
    let is_kind = is_name || text.parse::<i32>().is_ok();
    is_kind.then(|| text.into()).ok_or(Expected(KIND))
}

fn limit(text: &str) -> Result<u64, Expected> {
    let limit = decimal(text).filter(|it| *it > 0);
    limit.ok_or(Expected(LIMIT))
}

fn seconds(text: &str) -> Result<u64, Expected> {
    let seconds = decimal(text).filter(|it| *it <= 86_400);
    seconds.ok_or(Expected(SECONDS))
}

fn count(text: &str) -> Result<u32, Expected> {
    let count = decimal(text).filter(|it| (1..=1000).contains(it));
    count.ok_or(Expected(COUNT))
}

fn timeout(text: &str) -> Result<Duration, Expected> {
    let seconds = decimal(text).filter(|it| (1..=300).contains(it));
    seconds.map(Duration::from_secs).ok_or(Expected(TIMEOUT))
}

fn level(text: &str) -> Result<LevelFilter, Expected> {
    text.parse().map_err(|_| Expected(LEVEL))
}

fn host(text: &str) -> Result<Endpoint, Expected> {
    let endpoint = endpoint::parse(text, Port::Connect).and_then(|it| it.parse().ok());
    endpoint.ok_or(Expected(HOST))
}
