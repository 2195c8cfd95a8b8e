//! Packets through the overlay: hypervisors in network namespaces, a server between them.
//!
//! ```text
//!   hv1            hv2            hv3        overlay 10.0.0.x, fd00::x on `lo`
//!  2001:db8::1    2001:db8::2    2001:db8::3 underlay, `up0`
//!     +--------------+--------------+------- bridge in `core`, 2001:db8::ff, the server
//! ```
//!
//! Needs CAP_SYS_ADMIN and CAP_NET_ADMIN; says so and passes where it has not.
#![allow(clippy::print_stderr)] // It says which device it used.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::netns::{DEVICE, Namespaces, ip, make_device};
use crate::support::{self, PATIENCE, eventually};
use rustbond::kernel::{KernelConfig, KernelWriter};
use rustbond::{Destination, MetalBondClient, MetalBondServer, NextHop, ServerConfig, Vni};

const VNI: Vni = Vni(7);
const PORT: u16 = 7000;

fn underlay(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number)
}

/// The overlay addresses of a number.
fn overlay(number: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into());
    [Ipv4Addr::new(10, 0, 0, number).into(), v6.into()]
}

fn destination(address: IpAddr) -> Destination {
    match address {
        IpAddr::V4(address) => Destination::from_ipv4(address, 32),
        IpAddr::V6(address) => Destination::from_ipv6(address, 128),
    }
}

/// The namespaces and the links between them.
fn build() -> Option<Namespaces> {
    let namespaces = Namespaces::make(&["core", "hv1", "hv2", "hv3"])?;
    namespaces.enter("core", || {
        ip("link add br0 type bridge");
        ip(&format!("addr add {}/64 dev br0 nodad", underlay(0xff)));
        ip("link set br0 up");
    });
    for number in 1..=3 {
        let peer = namespaces.path(&format!("hv{number}"));
        namespaces.enter("core", || {
            let ends = format!("hv{number} type veth peer name up0");
            ip(&format!("link add {ends} netns {peer}"));
            ip(&format!("link set hv{number} master br0 up"));
        });
        namespaces.enter(&format!("hv{number}"), || {
            ip(&format!("addr add {}/64 dev up0 nodad", underlay(number)));
            ip("link set up0 up");
            make_device();
            // Packets for the overlay are looked up where the client writes.
            ip("-4 rule add to 10.0.0.0/24 lookup 100");
            ip("-6 rule add to fd00::/64 lookup 100");
            for file in ["ipv4/conf/all/rp_filter", "ipv4/conf/overlay-tun/rp_filter"] {
                // An answer may take another way than the question.
                std::fs::write(format!("/proc/sys/net/{file}"), "0").unwrap();
            }
            for family in ["ipv4", "ipv6"] {
                // Several flows between two hosts shall take several ways.
                let file = format!("/proc/sys/net/{family}/fib_multipath_hash_policy");
                std::fs::write(file, "1").unwrap();
            }
        });
    }
    Some(namespaces)
}

/// A client whose routes are installed.
fn install(writer: &KernelWriter, server: SocketAddr) -> MetalBondClient {
    let (min, max) = (Duration::from_millis(20), Duration::from_millis(50));
    let builder = MetalBondClient::builder().server(server.to_string());
    let client = writer.install(builder.retry(min, max)).unwrap();
    client.wait_all_established_timeout(PATIENCE).unwrap();
    client
}

/// A hypervisor: its client, its kernel writer, and who answers there.
struct Hypervisor {
    client: MetalBondClient,
    writer: KernelWriter,
    _echoes: [Echo; 2],
}

impl Hypervisor {
    /// Number `number`, with the overlay addresses of `overlay_number`.
    fn start(namespaces: &Namespaces, server: SocketAddr, number: u8, overlay_number: u8) -> Self {
        namespaces.enter(&format!("hv{number}"), || {
            for address in overlay(overlay_number) {
                let prefix = destination(address).prefix;
                let family = if address.is_ipv4() { "" } else { "nodad" };
                ip(&format!("addr add {prefix} dev lo {family}"));
            }
            let writer = KernelWriter::start(KernelConfig {
                vni_tables: BTreeMap::from([(VNI, 100)]),
                device: DEVICE.into(),
                ..KernelConfig::default()
            })
            .unwrap();
            let client = match number {
                // One of them wraps the writer in a handler, as programs may.
                3 => support::client(&[server], writer.clone()),
                _ => install(&writer, server),
            };
            client.subscribe(VNI).unwrap();
            let _echoes = overlay(overlay_number).map(|it| Echo::start(it, number));
            Self {
                client,
                writer,
                _echoes,
            }
        })
    }

    fn announce(&self, number: u8, overlay_number: u8) {
        let hop = NextHop::standard(underlay(number.into()));
        for address in overlay(overlay_number) {
            self.client
                .announce(VNI, destination(address), hop)
                .unwrap();
        }
    }

    fn withdraw(&self, number: u8, overlay_number: u8) {
        let hop = NextHop::standard(underlay(number.into()));
        for address in overlay(overlay_number) {
            self.client
                .withdraw(VNI, destination(address), hop)
                .unwrap();
        }
    }

    /// Waits until the kernel has so many destinations.
    fn wait_installed(&self, count: u64) {
        let installed = || {
            let stats = self.writer.stats();
            stats.in_sync && stats.installed == count
        };
        eventually(&format!("{count} destinations installed"), installed);
    }
}

/// Answers datagrams with the number of its hypervisor.
struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start(address: IpAddr, number: u8) -> Self {
        let socket = UdpSocket::bind((address, PORT)).unwrap();
        let pause = Duration::from_millis(20);
        socket.set_read_timeout(Some(pause)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            let mut buffer = [0; 64];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    // While there is no way back, who asks will ask again.
                    let _ = socket.send_to(&[number], from);
                }
            }
        };
        Self {
            stop,
            thread: Some(std::thread::spawn(run)),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Who answers a datagram from hypervisor 1 to an overlay address, from a fresh port.
fn ask(namespaces: &Namespaces, [from, to]: [IpAddr; 2]) -> Option<u8> {
    namespaces.enter("hv1", || {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        let patience = Duration::from_millis(100);
        socket.set_read_timeout(Some(patience)).unwrap();
        // Without a route, sending fails.
        socket.send_to(b"?", (to, PORT)).ok()?;
        let mut buffer = [0; 64];
        socket.recv_from(&mut buffer).ok()?;
        Some(buffer[0])
    })
}

#[test]
fn packets_follow_the_announced_routes() {
    let Some(namespaces) = build() else { return };
    let server = namespaces.enter("core", || {
        MetalBondServer::start("[::]:0", ServerConfig::default()).unwrap()
    });
    let at = SocketAddr::new(underlay(0xff).into(), server.local_addr().port());
    let families = [0, 1].map(|family| [overlay(1)[family], overlay(2)[family]]);
    let one = Hypervisor::start(&namespaces, at, 1, 1);
    let two = Hypervisor::start(&namespaces, at, 2, 2);
    for ways in families {
        assert_eq!(ask(&namespaces, ways), None, "nothing is announced");
    }

    one.announce(1, 1);
    two.announce(2, 2);
    one.wait_installed(2);
    two.wait_installed(2);
    for ways in families {
        let answered = || ask(&namespaces, ways) == Some(2);
        eventually("a packet crosses the tunnel and comes back", answered);
    }

    two.withdraw(2, 2);
    one.wait_installed(0);
    for ways in families {
        assert_eq!(ask(&namespaces, ways), None, "it was withdrawn");
    }

    // Two hypervisors have the destination.
    two.announce(2, 2);
    let three = Hypervisor::start(&namespaces, at, 3, 2);
    three.announce(3, 2);
    three.wait_installed(2);
    let of_two_hops = || {
        let shown = |family: &str| ip(&format!("{family} route show table 100"));
        let both = namespaces.enter("hv1", || [shown("-4"), shown("-6")]);
        both.iter().all(|it| it.matches("encap ip6").count() == 2)
    };
    eventually("both next hops are installed", of_two_hops);
    for ways in families {
        let mut answering = BTreeSet::new();
        eventually("flows reach both next hops", || {
            answering.extend(ask(&namespaces, ways));
            answering == BTreeSet::from([2, 3])
        });
    }

    // One of them is lost, cable and all; the server hears of it by the end of the session.
    two.client.shutdown().unwrap();
    namespaces.enter("core", || ip("link set hv2 down"));
    one.wait_installed(2);
    eventually("one next hop is left", || !of_two_hops());
    for ways in families {
        for _ in 0..32 {
            let answered = || ask(&namespaces, ways) == Some(3);
            eventually("every flow reaches the other", answered);
        }
    }
    drop((one, two, three));
    drop(server);
}
