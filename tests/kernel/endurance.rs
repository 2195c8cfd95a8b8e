//! Fifty kills of one of two servers, seen from the kernel: no route that the other
//! server has is ever touched.
//!
//! Needs CAP_SYS_ADMIN and CAP_NET_ADMIN; says so and passes where it has not.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::netns::{DEVICE, Monitor, in_namespace, ip, make_device};
use crate::support::{PATIENCE, client, eventually, hop, v4};
use rustbond::kernel::{KernelConfig, KernelWriter};
use rustbond::{MetalBondClient, NoOpHandler, Vni};

const VNI: Vni = Vni(100);
const TABLE: u32 = 100;
/// Routes that are announced all the time, `10.0.0.0` to `10.0.39.15`.
const STABLE: u32 = 10_000;
/// Where those begin that come and go, `10.1.0.0`.
const CHURNING: u32 = 0x1_0000;

/// `metalbond server`, to be killed.
struct Server {
    address: SocketAddr,
    child: Child,
}

impl Server {
    fn start(address: SocketAddr) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_metalbond"))
            .args(["server", "--listen", &address.to_string()])
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .spawn();
        eventually("the server listens", || TcpStream::connect(address).is_ok());
        Self {
            address,
            child: child.unwrap(),
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that was killed already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Announces a route and withdraws the one from two rounds ago.
fn churn(announcer: &MetalBondClient, round: u32) {
    announcer
        .announce(VNI, v4(CHURNING + round), hop(9))
        .unwrap();
    if let Some(old) = round.checked_sub(2) {
        announcer.withdraw(VNI, v4(CHURNING + old), hop(9)).unwrap();
    }
}

fn installed() -> usize {
    ip(&format!("-4 route show table {TABLE}")).lines().count()
}

#[test]
fn fifty_server_kills_remove_no_kernel_route() {
    in_namespace("endurance", || {
        make_device();
        let addresses = [4711, 4712].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut servers = addresses.map(Server::start);
        let writer = KernelWriter::start(KernelConfig {
            vni_tables: BTreeMap::from([(VNI, TABLE)]),
            device: DEVICE.into(),
            ..KernelConfig::default()
        })
        .unwrap();
        let announcer = client(&addresses, NoOpHandler);
        let installer = client(&addresses, writer.clone());
        installer.subscribe(VNI).unwrap();
        for number in 0..STABLE {
            announcer.announce(VNI, v4(number), hop(1)).unwrap();
        }
        eventually("all are in the kernel", || installed() == STABLE as usize);
        let monitor = Monitor::start();
        let mut random = fastrand::Rng::with_seed(50);
        for round in 0..50 {
            let victim = &mut servers[random.usize(..2)];
            churn(&announcer, 2 * round);
            victim.kill();
            // Told to the one that lives now, to the other when it is back.
            churn(&announcer, 2 * round + 1);
            *victim = Server::start(victim.address);
            announcer.wait_all_established_timeout(PATIENCE).unwrap();
            installer.wait_all_established_timeout(PATIENCE).unwrap();
            announcer.flush(PATIENCE).unwrap();
            // The next victim may be the other one: what it had must have come from this.
            let newest = v4(CHURNING + 2 * round + 1);
            eventually("both servers have told all", || {
                let has_both = |destination, next_hop| {
                    let told = installer
                        .get_route_servers(VNI, &destination, &next_hop)
                        .unwrap();
                    told.is_some_and(|it| it.len() == 2)
                };
                // The stable ones are announced, and told, in order.
                has_both(newest, hop(9)) && has_both(v4(STABLE - 1), hop(1))
            });
        }
        eventually("the kernel has all", || installed() == STABLE as usize + 2);
        let seen = monitor.stop();
        let touched: Vec<&str> = seen.lines().filter(|line| line.contains("10.0.")).collect();
        assert_eq!(touched, Vec::<&str>::new());
        assert!(seen.contains("10.1."), "what came and went was seen");
        installer.shutdown().unwrap();
    });
}
