//! The table of options: one row for each option of `metalbond server` and `metalbond client`.
//!
//! To add an option, add a row here and the field that it fills in [`super::Options`]. The command
//! line, the file, the template, the reload, the manual page and the completions follow.
//!
//! Rows stand in the order of the help.

use super::parse::{
    announcement, count, device, drain, encap_source, flag, format, group, host, http, keepalive,
    kernel_form, kind, level, listen, mapping, pacing, positive, positive_seconds, protocol, push,
    rate, seconds, set, subscription, workers,
};
use super::row::{Change, Hyphen, Role, Row, Value, Wrong};
use crate::cli::announcement::SYNTAX;
use crate::cli::endpoint::{self, Port};
use crate::cli::socket::Choice;
use crate::cli::tables::id_range;
use crate::cli::value::{bytes, decimal};

const SECONDS: &str = "a number of seconds from 1 to 4294967295";
const SECONDS_OR_NONE: &str = "a number of seconds from 0 to 4294967295";
const COUNT: &str = "a number from 1 to 4294967295";
const BYTES: &str = "a number of bytes, with K, M or G for powers of 1024";
const SOCKET: &str = "a path for a socket, or off";

/// The columns of most options of both commands; a row names the others.
const BOTH: Row = Row {
    name: "",
    short: None,
    alias: None,
    former: None,
    roles: &Role::ALL,
    heading: None,
    help: "",
    value: Value::Flag,
    expected: "",
    default: None,
    hyphen: Hyphen::Option,
    change: Change::Restart,
    fill: |_, _| Err(Wrong::Value),
};

const SERVER: Row = Row {
    roles: &[Role::Server],
    ..BOTH
};

const CLIENT: Row = Row {
    roles: &[Role::Client],
    ..BOTH
};

const LOG: Row = Row {
    heading: Some("Log"),
    change: Change::LogLevel,
    ..BOTH
};

const LEGACY: Row = Row {
    heading: Some("Legacy peers"),
    change: Change::Live,
    ..BOTH
};

/// The costs in the help are those at worst.
const LIMIT: Row = Row {
    heading: Some("Limits"),
    value: Value::One("N"),
    expected: COUNT,
    hyphen: Hyphen::Number,
    change: Change::Live,
    ..SERVER
};

/// The costs in the help are those at worst.
const CLIENT_LIMIT: Row = Row {
    roles: &[Role::Client],
    ..LIMIT
};

/// The options of all commands that take a configuration file.
pub(super) static ROWS: &[Row] = &[
    Row {
        name: "listen",
        short: Some('l'),
        help: "Where to listen, unless the service manager passes sockets; [::] is both families, \
               unix:/PATH is a Unix socket",
        value: Value::List("ADDR"),
        expected: "an address to listen on, as [::]:4711, 127.0.0.1:4711 or unix:/run/metalbond/peers",
        default: Some("[::]:4711"),
        fill: |it, text| push(&mut it.server.listen, listen(text)),
        ..SERVER
    },
    Row {
        name: "unix-group",
        help: "Group whose users may connect to Unix sockets; its name or number [default: that \
               of the process]",
        value: Value::One("GROUP"),
        expected: "the name or number of a group",
        hyphen: Hyphen::Number,
        fill: |it, text| set(&mut it.server.unix_group, group(text)),
        ..SERVER
    },
    Row {
        name: "keepalive",
        help: "Seconds between keepalives; a client that asks for less gets less",
        value: Value::One("SECONDS"),
        expected: SECONDS_OR_NONE,
        default: Some("5"),
        hyphen: Hyphen::Number,
        change: Change::Live,
        fill: |it, text| {
            let seconds = keepalive(it, text);
            set(&mut it.server.config.keepalive_interval, seconds)
        },
        ..SERVER
    },
    Row {
        name: "workers",
        help: "Threads that serve sessions [default: one for each core]",
        value: Value::One("N"),
        expected: "a number of threads from 1 to 256",
        hyphen: Hyphen::Number,
        fill: |it, text| set(&mut it.server.config.workers, workers(text)),
        ..SERVER
    },
    Row {
        name: "server",
        short: Some('s'),
        help: "Servers; without a port it is 4711; unix:/PATH is a Unix socket",
        value: Value::List("ADDR"),
        expected: "a server, as [2001:db8::1]:4711, host:4711 (without a port, 4711) or \
                   unix:/run/metalbond/peers",
        change: Change::Live,
        fill: |it, text| push(&mut it.client.servers, endpoint::parse(text, Port::Connect)),
        ..CLIENT
    },
    Row {
        name: "subscribe",
        alias: Some("vni"),
        help: "Virtual networks whose routes are wanted (-v is --verbose, not a VNI)",
        value: Value::List("VNI"),
        expected: "a VNI from 0 to 4294967295",
        hyphen: Hyphen::Number,
        change: Change::Live,
        fill: |it, text| {
            let vni = subscription(it, text);
            push(&mut it.client.subscribe, vni)
        },
        ..CLIENT
    },
    Row {
        name: "announce",
        short: Some('a'),
        help: "Routes to announce: VNI#PREFIX#NEXTHOP[#STD|#LB|#NAT#FROM#TO], or with @ before \
               NEXTHOP",
        value: Value::List("ROUTE"),
        expected: SYNTAX,
        hyphen: Hyphen::Value,
        change: Change::Live,
        fill: |it, text| {
            let announcement = announcement(it, text).map_err(Wrong::Announcement)?;
            push(&mut it.client.announce, Some(announcement))
        },
        ..CLIENT
    },
    Row {
        name: "keepalive",
        help: "Seconds between keepalives; a server may ask for less",
        value: Value::One("SECONDS"),
        expected: SECONDS_OR_NONE,
        default: Some("5"),
        hyphen: Hyphen::Number,
        change: Change::Live,
        fill: |it, text| {
            let seconds = keepalive(it, text);
            set(&mut it.client.config.keepalive_interval, seconds)
        },
        ..CLIENT
    },
    Row {
        name: "stale-time",
        former: Some("hold"),
        help: "Seconds for which routes of a lost server stay at most",
        value: Value::One("SECONDS"),
        expected: SECONDS_OR_NONE,
        default: Some("300"),
        hyphen: Hyphen::Number,
        change: Change::Live,
        fill: |it, text| set(&mut it.client.config.stale_time, seconds(text)),
        ..CLIENT
    },
    Row {
        name: "settle-time",
        help: "Seconds after its start for which a server does not vouch for what is missing: \
               nothing is removed for it",
        value: Value::One("SECONDS"),
        expected: SECONDS_OR_NONE,
        default: Some("15"),
        hyphen: Hyphen::Number,
        change: Change::Live,
        fill: |it, text| set(&mut it.client.config.settle_time, seconds(text)),
        ..CLIENT
    },
    Row {
        name: "install-routes",
        help: "Virtual networks whose routes go into a kernel table, if --subscribe has them too; \
               table 0 is the main table (needs CAP_NET_ADMIN)",
        value: Value::List("VNI#TABLE[#metric=N][#dev=DEVICE]"),
        expected: "VNI#TABLE[#metric=N][#dev=DEVICE], a VNI from 0 to 16777215 and a table from 0 to 4294967295, its \
                   name or that of a VRF device",
        hyphen: Hyphen::Number,
        change: Change::LiveIfInstalling,
        fill: |it, text| {
            let mapping = mapping(it, text);
            push(&mut it.client.install_routes, mapping)
        },
        ..CLIENT
    },
    Row {
        name: "tun",
        help: "Tunnel device of installed routes",
        value: Value::One("DEVICE"),
        expected: "a device name of 1 to 15 bytes without spaces and slashes",
        default: Some("ip6tnl0"),
        fill: |it, text| set(&mut it.client.tun, device(text)),
        ..CLIENT
    },
    Row {
        name: "kernel-form",
        help: "How installed routes name their next hops: by nexthop objects where the kernel has \
               them, or inline, each route its own (IPv6 routes then have one next hop)",
        value: Value::One("FORM"),
        expected: "nexthop or inline",
        default: Some("nexthop"),
        fill: |it, text| set(&mut it.client.kernel_form, kernel_form(text)),
        ..CLIENT
    },
    Row {
        name: "track-nexthops",
        help: "Leave next hops out of groups while this host has no route to them",
        fill: |it, text| set(&mut it.client.track_nexthops, flag(text)),
        ..CLIENT
    },
    Row {
        name: "encap-source",
        help: "Underlay address that encapsulated packets leave from [default: the system's choice]",
        value: Value::One("ADDRESS"),
        expected: "an IPv6 address of this host",
        fill: |it, text| set(&mut it.client.encap_source, encap_source(text).map(Some)),
        ..CLIENT
    },
    Row {
        name: "ipv4-only",
        help: "Install no IPv6 routes",
        change: Change::LiveIfInstalling,
        fill: |it, text| set(&mut it.client.ipv4_only, flag(text)),
        ..CLIENT
    },
    Row {
        name: "rt-proto",
        help: "Protocol number that marks installed routes",
        value: Value::One("N"),
        expected: "a route protocol from 5 to 255",
        default: Some("254"),
        hyphen: Hyphen::Number,
        fill: |it, text| set(&mut it.client.rt_proto, protocol(text)),
        ..CLIENT
    },
    Row {
        name: "nexthop-ids",
        help: "Numbers of the nexthop objects of installed routes, for two clients side by side \
               [default: 1296171008-1312948223]",
        value: Value::One("FROM-TO"),
        expected: "FROM-TO, nexthop numbers from 1 to 4294967294, at least 65536 of them",
        fill: |it, text| set(&mut it.client.nexthop_ids, id_range(text).map(Some)),
        ..CLIENT
    },
    Row {
        name: "metric",
        help: "Metric of installed routes [default: the kernel's]",
        value: Value::One("N"),
        expected: "a metric from 0 to 4294967295",
        hyphen: Hyphen::Number,
        fill: |it, text| set(&mut it.client.metric, decimal::<u32>(text)),
        ..CLIENT
    },
    Row {
        name: "exclude-route-type",
        help: "Types of routes that are not installed: std, nat or lb",
        value: Value::List("TYPE"),
        expected: "std, nat or lb",
        change: Change::LiveIfInstalling,
        fill: |it, text| push(&mut it.client.excluded_types, kind(text)),
        ..CLIENT
    },
    Row {
        name: "cleanup",
        help: "Remove installed routes at the end",
        change: Change::LiveIfInstalling,
        fill: |it, text| set(&mut it.client.cleanup, flag(text)),
        ..CLIENT
    },
    Row {
        name: "http",
        help: "Serve the page, the API and metrics over HTTP: /, \
               /api/v1/{status,peers,vnis,routes}, /metrics, /healthz, /readyz, /routes.json, \
               /routes.yaml",
        value: Value::One("ADDR"),
        expected: "an address and a port to listen on, as [::1]:8080 or :8080",
        fill: |it, text| {
            let address = http(it, text);
            set(&mut it.common.http, address)
        },
        ..BOTH
    },
    Row {
        name: "http-host",
        help: "Host names, besides addresses, localhost and this machine's name, that the HTTP \
               server answers to; on loopback all others are refused",
        value: Value::List("NAME"),
        expected: "a host name, as routes.example",
        fill: |it, text| push(&mut it.common.http_hosts, host(text)),
        ..BOTH
    },
    Row {
        name: "control",
        help: "Unix socket to look at it and to change it, or off [default: \
               /run/metalbond/server.sock, if its folder is there]",
        value: Value::One("PATH"),
        expected: SOCKET,
        fill: |it, text| set(&mut it.common.control, Choice::parse(text)),
        ..SERVER
    },
    Row {
        name: "control",
        help: "Unix socket to look at it and to change it, or off [default: \
               /run/metalbond/client.sock, if its folder is there]",
        value: Value::One("PATH"),
        expected: SOCKET,
        fill: |it, text| set(&mut it.common.control, Choice::parse(text)),
        ..CLIENT
    },
    Row {
        name: "drain",
        help: "Seconds over which sessions are closed at the end, one after the other",
        value: Value::One("SECONDS"),
        expected: "a number of seconds from 0 to 86400",
        default: Some("0"),
        hyphen: Hyphen::Number,
        change: Change::Live,
        fill: |it, text| set(&mut it.server.drain, drain(text)),
        ..SERVER
    },
    Row {
        name: "verbose",
        short: Some('v'),
        help: "Log more, as --log-level debug; the environment variable RUST_LOG says what in \
               detail",
        fill: |it, text| set(&mut it.common.verbose, flag(text)),
        ..LOG
    },
    Row {
        name: "log-level",
        help: "Least important events that are logged: error, warn, info, debug, trace or off \
               [default: info]",
        value: Value::One("LEVEL"),
        expected: "off, error, warn, info, debug or trace",
        fill: |it, text| set(&mut it.common.log_level, level(text)),
        ..LOG
    },
    Row {
        name: "log-format",
        help: "Lines for people or a JSON object each: text or json",
        value: Value::One("FORMAT"),
        expected: "text or json",
        default: Some("text"),
        change: Change::LogFormat,
        fill: |it, text| set(&mut it.common.log_format, format(text)),
        ..LOG
    },
    Row {
        name: "max-sessions",
        help: "Connections at once; 4 KiB each and what the kernel takes [default: 32768]",
        fill: |it, text| set(&mut it.server.config.max_sessions, count(text)),
        ..LIMIT
    },
    Row {
        name: "max-sessions-per-address",
        help: "Connections at once from one IPv4 address or IPv6 /64 [default: 8192]",
        fill: |it, text| set(&mut it.server.config.max_sessions_per_address, count(text)),
        ..LIMIT
    },
    Row {
        name: "max-accepts-per-second",
        help: "Connections accepted in a second; more wait, addresses take turns [default: 5000]",
        fill: |it, text| set(&mut it.server.config.max_accepts_per_second, positive(text)),
        ..LIMIT
    },
    Row {
        name: "max-routes",
        help: "Routes announced by all peers; 130 B each [default: 16000000]",
        fill: |it, text| set(&mut it.server.config.max_routes, count(text)),
        ..LIMIT
    },
    Row {
        name: "max-routes",
        help: "Routes received; 100 B each, and what the kernel takes; what servers tell beyond \
               that is refused and counted [default: 4000000]",
        fill: |it, text| set(&mut it.client.config.max_routes, count(text)),
        ..CLIENT_LIMIT
    },
    Row {
        name: "max-vnis",
        help: "Virtual networks subscribed to [default: 65536]",
        fill: |it, text| set(&mut it.client.config.max_vnis, count(text)),
        ..CLIENT_LIMIT
    },
    Row {
        name: "max-routes-per-peer",
        help: "Routes announced by one peer, at each worker [default: 2000000]",
        fill: |it, text| set(&mut it.server.config.max_routes_per_peer, count(text)),
        ..LIMIT
    },
    Row {
        name: "max-subscriptions-per-peer",
        help: "VNIs that one peer subscribes to; 60 B each [default: 16384]",
        fill: |it, text| {
            set(
                &mut it.server.config.max_subscriptions_per_peer,
                count(text),
            )
        },
        ..LIMIT
    },
    Row {
        name: "max-vnis",
        help: "VNIs that have routes, at each worker; 400 B each [default: 1000000]",
        fill: |it, text| set(&mut it.server.config.max_vnis, count(text)),
        ..LIMIT
    },
    Row {
        name: "max-vnis-per-peer",
        help: "VNIs that one peer announces in, at each worker [default: 65536]",
        fill: |it, text| set(&mut it.server.config.max_vnis_per_peer, count(text)),
        ..LIMIT
    },
    Row {
        name: "memory-limit",
        help: "Bytes of tables, queues and sessions, at least 16M; nearly there, nothing new is \
               admitted, beyond it who holds most is closed [default: half of what the process \
               may have]",
        value: Value::One("BYTES"),
        expected: BYTES,
        fill: |it, text| set(&mut it.server.config.memory_limit, bytes(text)),
        ..LIMIT
    },
    Row {
        name: "handshake-timeout",
        help: "Seconds that a handshake may take [default: 10]",
        value: Value::One("SECONDS"),
        expected: SECONDS,
        fill: |it, text| {
            set(
                &mut it.server.config.handshake_timeout,
                positive_seconds(text),
            )
        },
        ..LIMIT
    },
    Row {
        name: "queue-soft-limit",
        help: "Changes that wait for a stalled peer until they are coalesced by route [default: \
               256K]",
        value: Value::One("BYTES"),
        expected: BYTES,
        fill: |it, text| set(&mut it.server.config.queue_soft_limit, bytes(text)),
        ..LIMIT
    },
    Row {
        name: "queue-hard-limit",
        help: "Changes that wait for a peer until its session is closed, at least 8M [default: 64M]",
        value: Value::One("BYTES"),
        expected: BYTES,
        fill: |it, text| set(&mut it.server.config.queue_hard_limit, bytes(text)),
        ..LIMIT
    },
    Row {
        name: "legacy-pacing",
        help: "Spare peers that lose a connection at a cut frame or a full buffer, as Go's do: \
               auto or off",
        value: Value::One("MODE"),
        expected: "auto or off",
        default: Some("auto"),
        fill: |it, text| {
            set(&mut it.server.config.legacy_pacing, pacing(text))?;
            set(&mut it.client.config.legacy_pacing, pacing(text))
        },
        ..LEGACY
    },
    Row {
        name: "legacy-rate",
        help: "Bytes per second to such a peer at most",
        value: Value::One("BYTES"),
        expected: "a number of bytes from 4096 to 4294967295, with K, M or G for powers of 1024",
        default: Some("8M"),
        hyphen: Hyphen::Number,
        fill: |it, text| {
            set(&mut it.server.config.legacy_rate, rate(text))?;
            set(&mut it.client.config.legacy_rate, rate(text))
        },
        ..LEGACY
    },
];
