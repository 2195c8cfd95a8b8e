//! The built command across a network: a server, an announcer and an installer, each in a
//! network namespace of its own, joined by veth pairs over a bridge.
//!
//! Needs iproute2, CAP_SYS_ADMIN and CAP_NET_ADMIN; says so and passes where they are not.
#![allow(clippy::print_stderr, reason = "who is skipped says so")]

use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{PATIENCE, Process, metalbond};

const DEVICE: &str = "overlay-tun";

const SERVER: &str = "fd00:4711::1";
const ANNOUNCER: &str = "fd00:4711::2";
const INSTALLER: &str = "fd00:4711::3";

const ANNOUNCED: &str = "100#10.0.1.0/24#fd00:4711::2,100#2001:db8:1::/48#fd00:4711::2";

/// What `ip` prints, or says is wrong.
fn ip(args: &str) -> Result<String, String> {
    let output = Command::new("ip").args(args.split_whitespace()).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    // A table without routes does not exist.
    if output.status.success() || stderr.contains("FIB table does not exist") {
        Ok(String::from_utf8_lossy(&output.stdout).into())
    } else {
        Err(format!("ip {args}: {}", stderr.trim()))
    }
}

/// The namespaces of a test; they and all that is in them go with it.
struct Network {
    prefix: String,
    names: Vec<String>,
}

impl Network {
    /// A bridge in a namespace of its own; `None` where that is not allowed.
    fn new(test: &str) -> Option<Self> {
        let mut network = Self {
            prefix: format!("metalbond-{}-{test}", std::process::id()),
            names: Vec::new(),
        };
        let wire = match network.add("wire") {
            Ok(wire) => wire,
            Err(error) => {
                eprintln!("SKIPPED: {test}: no network namespaces: {error}");
                return None;
            }
        };
        ip(&format!("-n {wire} link add bridge type bridge")).unwrap();
        ip(&format!("-n {wire} link set bridge up")).unwrap();
        Some(network)
    }

    fn add(&mut self, name: &str) -> Result<String, String> {
        let name = format!("{}-{name}", self.prefix);
        ip(&format!("netns add {name}"))?;
        self.names.push(name.clone());
        ip(&format!("-n {name} link set lo up"))?;
        Ok(name)
    }

    /// A namespace with an address on the bridge.
    fn host(&mut self, name: &str, address: &str) -> String {
        let host = self.add(name).unwrap();
        let wire = &self.names[0];
        for line in [
            format!("link add eth0 netns {host} type veth peer name {name} netns {wire}"),
            format!("-n {wire} link set {name} master bridge"),
            format!("-n {wire} link set {name} up"),
            // Duplicate address detection would take a second.
            format!("-n {host} address add {address}/64 dev eth0 nodad"),
            format!("-n {host} link set eth0 up"),
        ] {
            ip(&line).unwrap();
        }
        host
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(error) = ip(&format!("netns delete {name}")) {
                eprintln!("{error}");
            }
        }
    }
}

/// Makes the tunnel device: `ip6tnl` where the kernel has it, else `vxlan external`.
fn make_device(namespace: &str) {
    let ip6tnl = format!("-n {namespace} link add {DEVICE} type ip6tnl external");
    if ip(&ip6tnl).is_ok() {
        eprintln!("device: ip6tnl");
    } else {
        eprintln!("device: vxlan external (the kernel has no ip6tnl)");
        let kind = "vxlan external gpe dstport 4790 udp6zerocsumrx";
        ip(&format!("-n {namespace} link add {DEVICE} type {kind}")).unwrap();
    }
    ip(&format!("-n {namespace} link set {DEVICE} up")).unwrap();
}

/// Starts the command in a namespace.
fn start(namespace: &str, args: &str) -> Process {
    let built = metalbond();
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", namespace])
        .arg(built.get_program())
        .args(args.split(' '))
        .env_remove("RUST_LOG");
    Process::start(&mut command)
}

fn client(namespace: &str, args: &str) -> Process {
    let client = start(namespace, &format!("client -s [{SERVER}] {args}"));
    client.stderr.expect("established");
    client
}

/// The routes of table 100, IPv4 and IPv6, as `ip route` prints them.
fn table(namespace: &str) -> String {
    let v4 = ip(&format!("-n {namespace} -4 route show table 100")).unwrap();
    let v6 = ip(&format!("-n {namespace} -6 route show table 100")).unwrap();
    v4 + &v6
}

#[track_caller]
fn eventually(what: &str, mut state: impl FnMut() -> String, is_reached: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = state();
        if is_reached(&now) {
            return;
        }
        assert!(Instant::now() < deadline, "not reached: {what}; but\n{now}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a table has the announced routes and no other, each to the announcer.
fn is_installed(table: &str) -> bool {
    let has = |prefix: &str| {
        let line = table.lines().find(|line| line.starts_with(prefix));
        line.is_some_and(|line| {
            line.contains("encap ip6")
                && line.contains(&format!(" dst {ANNOUNCER} "))
                && line.contains(&format!(" dev {DEVICE} "))
        })
    };
    has("10.0.1.0/24 ") && has("2001:db8:1::/48 ") && table.lines().count() == 2
}

/// Three hosts; a server runs on one of them.
struct Hosts {
    server: Process,
    announcer: String,
    installer: String,
    /// The options of a client that installs routes.
    install: String,
    /// The namespaces go last.
    _network: Network,
}

fn hosts_with_a_server(name: &str) -> Option<Hosts> {
    let mut network = Network::new(name)?;
    let server = network.host("server", SERVER);
    let announcer = network.host("announcer", ANNOUNCER);
    let installer = network.host("installer", INSTALLER);
    make_device(&installer);
    let server = start(&server, "server --keepalive 1");
    server.stderr.expect("listening on [::]:4711");
    Some(Hosts {
        server,
        announcer,
        installer,
        install: format!("--subscribe 100 --install-routes 100#100 --tun {DEVICE}"),
        _network: network,
    })
}

#[test]
fn routes_reach_the_kernel_of_another_host_and_leave_it() {
    let Some(hosts) = hosts_with_a_server("install") else {
        return;
    };
    let (announcer_host, installer_host) = (&hosts.announcer, &hosts.installer);
    let install = hosts.install.as_str();
    let installer = client(installer_host, install);
    let announcer = client(announcer_host, &format!("-a {ANNOUNCED}"));
    let installed = || table(installer_host);
    eventually("both routes", installed, is_installed);
    eprintln!("{}", installed());
    announcer.stop("TERM");
    eventually("no route", installed, str::is_empty);

    // What is left at the end stays for the next process, unless it cleans up.
    let announcer = client(announcer_host, &format!("-a {ANNOUNCED}"));
    eventually("both routes again", installed, is_installed);
    installer.stop("INT");
    assert!(is_installed(&installed()));
    let installer = client(installer_host, &format!("{install} --cleanup"));
    installer.stderr.expect("VNI 100: table complete");
    assert!(is_installed(&installed()));
    installer.stop("TERM");
    assert_eq!(installed(), "");
    announcer.stop("TERM");
    hosts.server.stop("TERM");
}

#[test]
fn host_that_falls_silent_loses_its_routes() {
    let Some(hosts) = hosts_with_a_server("silent") else {
        return;
    };
    let (announcer_host, installer_host) = (&hosts.announcer, &hosts.installer);
    let install = hosts.install.as_str();
    let _installer = client(installer_host, install);
    let _announcer = client(announcer_host, &format!("-a {ANNOUNCED}"));
    let installed = || table(installer_host);
    eventually("both routes", installed, is_installed);
    // No FIN: the cable is out.
    ip(&format!("-n {announcer_host} link set eth0 down")).unwrap();
    eventually("no route", installed, str::is_empty);
    ip(&format!("-n {announcer_host} link set eth0 up")).unwrap();
    let address = format!("-n {announcer_host} address replace {ANNOUNCER}/64 dev eth0 nodad");
    ip(&address).unwrap();
    eventually("both routes again", installed, is_installed);
}

#[test]
fn hosts_reach_each_other_over_installed_routes() {
    let Some(mut network) = Network::new("talk") else {
        return;
    };
    let server_host = network.host("server", SERVER);
    let hosts = [
        (
            network.host("left", ANNOUNCER),
            ANNOUNCER,
            "10.0.2.1",
            "2001:db8:2::1",
        ),
        (
            network.host("right", INSTALLER),
            INSTALLER,
            "10.0.3.1",
            "2001:db8:3::1",
        ),
    ];
    let server = start(&server_host, "server");
    server.stderr.expect("listening on");
    let mut clients = Vec::new();
    for (host, underlay, v4, v6) in &hosts {
        make_device(host);
        for line in [
            format!("-n {host} address add {v4}/32 dev {DEVICE}"),
            format!("-n {host} address add {v6}/128 dev {DEVICE} nodad"),
            format!("-n {host} -4 rule add lookup 100 priority 100"),
            format!("-n {host} -6 rule add lookup 100 priority 100"),
        ] {
            ip(&line).unwrap();
        }
        let routes = format!("-a 100#{v4}/32#{underlay},100#{v6}/128#{underlay}");
        let install = format!("--subscribe 100 --install-routes 100#100 --tun {DEVICE}");
        clients.push(client(host, &format!("{install} {routes}")));
    }
    for (host, ..) in &hosts {
        let routes = || table(host);
        eventually("the other's routes", routes, |it| it.lines().count() == 2);
    }
    // The command itself is what talks through the tunnel.
    let ((left, ..), (right, _, v4, v6)) = (&hosts[0], &hosts[1]);
    let inner = start(right, "server --listen [::]:4712");
    inner.stderr.expect("listening on");
    for address in [format!("{v4}:4712"), format!("[{v6}]:4712")] {
        let through = start(left, &format!("client -s {address}"));
        through
            .stderr
            .expect(&format!("server {address}: established"));
        through.stop("TERM");
    }
}
