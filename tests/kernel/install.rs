//! The command with `--install-routes`: killed, started again, ended.
//!
//! Needs CAP_SYS_ADMIN and CAP_NET_ADMIN; says so and passes where it has not.

use std::net::{Ipv6Addr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::netns::{DEVICE, Monitor, in_namespace, ip, make_device};
use crate::support::{PATIENCE, eventually, hop, v4};
use rustbond::{ClientConfig, Destination, MetalBondClient, NextHop, NoOpHandler, Vni};

const VNI: Vni = Vni(100);
/// Each namespace has its own ports.
const SERVER: &str = "127.0.0.1:4711";
/// Destinations of each family.
const COUNT: u32 = 1000;

/// A `metalbond`; killed when dropped.
struct Running(Child);

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_metalbond"))
            .args(arguments)
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn server() -> Self {
        let server = Self::start(&["server", "--listen", SERVER]);
        eventually("the server listens", || TcpStream::connect(SERVER).is_ok());
        server
    }

    fn client(more: &[&str]) -> Self {
        let always = ["client", "--server", SERVER, "--subscribe", "100"];
        let install = ["--install-routes", "100#100", "--tun", DEVICE];
        Self::start(&[&always[..], &install, more].concat())
    }

    /// Sends a signal, and waits for the end.
    #[allow(unsafe_code)] // kill(2) has no wrapper in the dependencies.
    fn end(mut self, signal: libc::c_int) -> ExitStatus {
        let pid = libc::pid_t::try_from(self.0.id()).unwrap();
        // SAFETY: no memory is involved; the child was not waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        let mut status = None;
        eventually("the process ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that is gone already is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn v6(number: u32) -> Destination {
    let address = Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(number) << 64);
    Destination::from_ipv6(address, 64)
}

fn next_hop(number: u32) -> NextHop {
    hop(u16::try_from(number % 16 + 1).unwrap())
}

/// A hypervisor with `COUNT` destinations of each family, every third with two next hops.
fn announcer() -> MetalBondClient {
    let client = MetalBondClient::start(&[SERVER], NoOpHandler, ClientConfig::default()).unwrap();
    client.wait_established_timeout(PATIENCE).unwrap();
    for number in 0..COUNT {
        for destination in [v4(number), v6(number)] {
            client.announce(VNI, destination, next_hop(number)).unwrap();
            if number % 3 == 0 {
                let second = next_hop(number + 1);
                client.announce(VNI, destination, second).unwrap();
            }
        }
    }
    client
}

/// A destination that is announced when a client has had its table.
const LATER: &str = "10.99.0.0/24";

fn later() -> Destination {
    Destination::new(LATER.parse().unwrap())
}

fn is_later_installed() -> bool {
    ip(&format!("-4 route show {LATER} table 100")).contains("nhid")
}

fn installed() -> String {
    ["-4", "-6"]
        .map(|family| ip(&format!("-d {family} route show table 100 proto 254")))
        .concat()
}

fn wait_installed(routes: u32) {
    eventually(&format!("{routes} routes in the kernel"), || {
        let text = installed();
        let count = text.lines().filter(|it| it.starts_with("unicast")).count();
        // Every third has one more next hop, on a line of its own.
        let hops = text.matches("encap ip6").count();
        count == routes as usize && hops >= (2 * (COUNT + COUNT.div_ceil(3))) as usize
    });
}

#[test]
fn restarted_client_adopts_its_routes_and_writes_nothing() {
    in_namespace("killed", || {
        make_device();
        let _server = Running::server();
        let announcer = announcer();
        let client = Running::client(&[]);
        wait_installed(2 * COUNT);
        let before = (installed(), ip("-d nexthop"));
        assert!(!client.end(libc::SIGKILL).success());
        assert_eq!((installed(), ip("-d nexthop")), before);

        let monitor = Monitor::start();
        let client = Running::client(&[]);
        // What comes after the table is installed after it: by then all is in sync.
        announcer.announce(VNI, later(), hop(1)).unwrap();
        eventually("the later route is installed", is_later_installed);
        announcer.withdraw(VNI, later(), hop(1)).unwrap();
        eventually("it is gone again", || !is_later_installed());
        drop(client);
        let seen = monitor.stop();
        let others: Vec<&str> = seen.lines().filter(|line| !line.contains(LATER)).collect();
        assert_eq!(others, Vec::<&str>::new());
        assert_eq!((installed(), ip("-d nexthop")), before);

        // What was withdrawn while no client was there goes with the first table.
        announcer.withdraw(VNI, v4(1), next_hop(1)).unwrap();
        let _client = Running::client(&[]);
        wait_installed(2 * COUNT - 1);
    });
}

#[test]
fn routes_stay_at_the_end_unless_cleanup_is_asked() {
    in_namespace("ends", || {
        make_device();
        let _server = Running::server();
        let announcer = announcer();
        for signal in [libc::SIGTERM, libc::SIGINT] {
            let client = Running::client(&[]);
            wait_installed(2 * COUNT);
            let before = (installed(), ip("-d nexthop"));
            assert!(client.end(signal).success());
            assert_eq!((installed(), ip("-d nexthop")), before);
            // Installed by one process, removed by the next.
            let client = Running::client(&["--cleanup"]);
            announcer.announce(VNI, later(), hop(1)).unwrap();
            eventually("the next one is at work", is_later_installed);
            assert!(client.end(signal).success());
            announcer.withdraw(VNI, later(), hop(1)).unwrap();
            assert_eq!(
                (installed(), ip("-d nexthop")),
                (String::new(), String::new())
            );
        }
    });
}

/// The packaged unit of Go MetalBond starts so, and waits: nothing comes into the main table.
#[test]
fn mapped_vni_without_subscription_installs_nothing_and_what_was_left_goes() {
    in_namespace("mapped", || {
        make_device();
        let _server = Running::server();
        let announcer = announcer();
        let client = Running::client(&[]);
        wait_installed(2 * COUNT);
        assert!(client.end(libc::SIGTERM).success());
        let install = ["--install-routes", "100#100", "--tun", DEVICE];
        let mapped = [&["client", "--server", SERVER][..], &install].concat();
        let client = Running::start(&mapped);
        eventually("what was left goes", || installed().is_empty());
        assert!(client.end(libc::SIGTERM).success());

        // Table 0 is the main table.
        let main = [
            "--install-routes",
            "100#0",
            "--tun",
            DEVICE,
            "--subscribe=100",
        ];
        let _client = Running::start(&[&["client", "--server", SERVER][..], &main].concat());
        announcer.announce(VNI, later(), hop(1)).unwrap();
        eventually("the main table has it", || {
            ip(&format!("-4 route show {LATER} table main")).contains("nhid")
        });
        assert_eq!(installed(), "");
    });
}

#[test]
fn routes_outlive_their_server_for_the_stale_time() {
    in_namespace("hold", || {
        make_device();
        let server = Running::server();
        let announcer = announcer();
        let patient = Running::client(&[]);
        wait_installed(2 * COUNT);
        let before = installed();
        // Another one would write other routes, with another protocol.
        let hasty = Running::client(&["--hold", "0", "--rt-proto", "99", "--metric", "7"]);
        let of_the_hasty = || ip("-4 route show table 100 proto 99").lines().count();
        // An IPv4 route with two hops has a line for each.
        eventually("both are installed", || of_the_hasty() >= COUNT as usize);
        drop(server);
        eventually("one removes its routes at once", || of_the_hasty() == 0);
        assert_eq!(installed(), before);
        // The announcer is lost as well: when the server is back, its table is empty.
        announcer.shutdown().unwrap();
        let _server = Running::server();
        let gone = || installed().is_empty();
        eventually("what the server does not have any more goes", gone);
        drop((patient, hasty));
    });
}
