//! Hosts on a bridge, each a network namespace of its own; the bridge can lose what it should
//! carry.

use std::process::Command;

use crate::netns::{Namespaces, ip};
use crate::process::{Process, metalbond};

/// The namespace of the bridge.
const WIRE: &str = "wire";

pub(crate) struct Stage {
    test: &'static str,
    spaces: Namespaces,
    hosts: Vec<&'static str>,
}

impl Stage {
    /// Makes hosts with these names, of at most 15 bytes; `None`, and says so, where that is
    /// not allowed.
    pub(crate) fn new(test: &'static str, hosts: &[&'static str]) -> Option<Self> {
        let all: Vec<String> = [WIRE]
            .iter()
            .chain(hosts)
            .map(|host| format!("{test}-{host}"))
            .collect();
        let names: Vec<&str> = all.iter().map(String::as_str).collect();
        let stage = Self {
            test,
            spaces: Namespaces::make(&names)?,
            hosts: hosts.to_vec(),
        };
        let has_filter = stage.on(WIRE, || {
            ip("link add bridge type bridge mcast_snooping 0");
            ip("link set bridge up");
            try_nft("add table bridge fault")?;
            try_nft("add chain bridge fault forward { type filter hook forward priority 0 ; }")
        });
        if let Err(error) = has_filter {
            eprintln!("SKIPPED: {test}: no filter on a bridge: {error}");
            return None;
        }
        for host in hosts {
            stage.plug_in(host);
        }
        Some(stage)
    }

    fn plug_in(&self, host: &str) {
        let its_space = self.spaces.path(&self.full(host));
        self.on(WIRE, || {
            ip(&format!(
                "link add {host} type veth peer name eth0 netns {its_space}"
            ));
            ip(&format!("link set {host} master bridge"));
            ip(&format!("link set {host} up"));
        });
        let address = self.address(host);
        self.on(host, || {
            // Duplicate address detection would take a second.
            ip(&format!("address add {address}/64 dev eth0 nodad"));
            ip("link set eth0 up");
        });
    }

    fn full(&self, host: &str) -> String {
        format!("{}-{host}", self.test)
    }

    pub(crate) fn address(&self, host: &str) -> String {
        let at = self.hosts.iter().position(|it| *it == host).unwrap();
        format!("fd00:4711::{}", at + 1)
    }

    /// Where a server on this host listens.
    pub(crate) fn endpoint(&self, host: &str) -> String {
        format!("[{}]:4711", self.address(host))
    }

    /// Runs `call` on a host; threads, sockets and processes made there stay there.
    pub(crate) fn on<T: Send>(&self, host: &str, call: impl FnOnce() -> T + Send) -> T {
        self.spaces.enter(&self.full(host), call)
    }

    /// Starts the command on a host.
    pub(crate) fn start(&self, host: &str, args: &str) -> Process {
        self.on(host, || Process::start(metalbond().args(args.split(' '))))
    }

    /// `metalbond server` on a host, once it listens.
    pub(crate) fn server(&self, host: &str) -> Process {
        let server = self.start(host, "server --keepalive 1");
        server.stderr.expect("listening on");
        server
    }

    /// The bridge takes everything from a host and passes none of it on.
    pub(crate) fn lose_from(&self, host: &str) {
        self.on(WIRE, || {
            nft(&format!(
                "add rule bridge fault forward iifname {host} drop"
            ));
        });
    }

    /// The bridge passes nothing on to a host.
    pub(crate) fn lose_to(&self, host: &str) {
        self.on(WIRE, || {
            nft(&format!(
                "add rule bridge fault forward oifname {host} drop"
            ));
        });
    }

    /// Nothing is lost any more.
    pub(crate) fn lose_nothing(&self) {
        self.on(WIRE, || nft("flush chain bridge fault forward"));
    }

    /// The host's cable: `up` or `down`.
    pub(crate) fn cable(&self, host: &str, state: &str) {
        self.on(WIRE, || ip(&format!("link set {host} {state}")));
    }
}

fn nft(command: &str) {
    try_nft(command).unwrap_or_else(|error| panic!("nft {command}: {error}"));
}

fn try_nft(command: &str) -> Result<(), String> {
    let output = Command::new("nft").args(command.split(' ')).output();
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into()),
    }
}
