//! `metalbond demo`: servers and clients at work in one process.
//!
//! Nothing sleeps: each step waits until its clients see the expected routes, and the demonstration
//! fails if they do not.

mod board;
mod client;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use rustbond::{ClientState, Error, MetalBondServer, Route, ServerConfig, Vni};

use self::client::Client;
use crate::cli::announcement::Announcement;
use crate::cli::args::DemoArgs;
use crate::cli::failure::Failure;
use crate::cli::output::{Reader, print};
use crate::cli::{logging, signals};

/// How long a step may take; far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(20);

const RED: Vni = Vni(100);
const BLUE: Vni = Vni(200);

/// The routes of alpha: one destination of each family.
const ALPHA: [&str; 2] = [
    "100#10.0.1.0/24#2001:db8::a",
    "100#2001:db8:1::/48#2001:db8::a",
];
/// The routes of beta: another network, and half of the ports of a public address.
const BETA: [&str; 2] = [
    "100#10.0.2.0/24#2001:db8::b",
    "100#192.0.2.1/32#2001:db8::b#NAT#1024#32767",
];
/// The routes of gamma: the other half, a load-balancer target, another virtual network.
const GAMMA: [&str; 3] = [
    "100#192.0.2.1/32#2001:db8::c#NAT#32768#65535",
    "100#192.0.2.2/32#2001:db8::c#LB",
    "200#10.0.1.0/24#2001:db8::c",
];
/// The route that beta announces after a server has stopped.
const LATE: &str = "100#10.0.20.0/24#2001:db8::b";

/// Why the demonstration ends before its last step.
enum Stop {
    /// Nobody reads the output. That is no failure.
    NobodyReads,
    Failed(Failure),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Shows all steps; stays until a signal with `--stay`.
pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    let level = if args.verbose {
        log::LevelFilter::Debug
    } else {
        log::LevelFilter::Error
    };
    logging::start(level, logging::Format::Text);
    let ended = Demo::start().and_then(|mut demo| {
        demo.show()?;
        if args.stay { demo.stay() } else { Ok(()) }
    });
    match ended {
        Ok(()) | Err(Stop::NobodyReads) => Ok(()),
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

struct Demo {
    step: usize,
    /// Stops and starts again; the second server stays.
    first: Option<MetalBondServer>,
    _second: MetalBondServer,
    addresses: [SocketAddr; 2],
    alpha: Client,
    beta: Client,
    /// Leaves during the demonstration.
    gamma: Client,
}

impl Demo {
    fn start() -> Result<Self, Stop> {
        say(format_args!(
            "Two MetalBond servers and three hypervisors, in this process."
        ))?;
        let first = MetalBondServer::start("127.0.0.1:0", config())?;
        // Without IPv6 on the loopback interface, both use IPv4.
        let second = MetalBondServer::start("[::1]:0", config())
            .or_else(|_| MetalBondServer::start("127.0.0.1:0", config()))?;
        let addresses = [first.local_addr(), second.local_addr()];
        Ok(Self {
            step: 0,
            first: Some(first),
            _second: second,
            addresses,
            alpha: Client::start("alpha", addresses, &[RED])?,
            beta: Client::start("beta", addresses, &[RED])?,
            gamma: Client::start("gamma", addresses, &[RED, BLUE])?,
        })
    }

    fn show(&mut self) -> Result<(), Stop> {
        self.connect()?;
        self.announce()?;
        self.withdraw()?;
        self.leave()?;
        self.fail_over()?;
        self.come_back()?;
        say(format_args!("\nDone: every client saw what it should."))
    }

    fn connect(&mut self) -> Result<(), Stop> {
        self.tell(
            "Each connects to both servers and subscribes to virtual network (VNI) 100,\n   \
             gamma to 200 too.",
        )?;
        let [first, second] = self.addresses;
        say(format_args!("   server 1: {first}, server 2: {second}"))?;
        for client in self.present() {
            client.wait("both servers and their tables", |seen| {
                seen.servers.len() == 2 && seen.synced.contains(&RED)
            })?;
        }
        self.show_tables()
    }

    fn announce(&mut self) -> Result<(), Stop> {
        self.tell(
            "Each announces what runs on it. The servers tell the others, and nobody hears\n   \
             of its own routes, or of a VNI that it did not subscribe to.",
        )?;
        self.alpha.announce(&ALPHA)?;
        self.beta.announce(&BETA)?;
        self.gamma.announce(&GAMMA)?;
        self.alpha.expect(&[&BETA, &GAMMA[..2]])?;
        self.beta.expect(&[&ALPHA, &GAMMA[..2]])?;
        self.gamma.expect(&[&ALPHA, &BETA])?;
        self.show_tables()
    }

    fn withdraw(&mut self) -> Result<(), Stop> {
        self.tell("Alpha withdraws its IPv6 prefix.")?;
        let (vni, route) = route(ALPHA[1]);
        let alpha = &self.alpha.client;
        alpha.withdraw(vni, route.destination, route.next_hop)?;
        self.beta.expect(&[&ALPHA[..1], &GAMMA[..2]])?;
        self.gamma.expect(&[&ALPHA[..1], &BETA])?;
        self.show_tables()
    }

    fn leave(&mut self) -> Result<(), Stop> {
        self.tell("Gamma leaves. What it announced goes with it.")?;
        self.gamma.client.shutdown()?;
        self.alpha.expect(&[&BETA])?;
        self.beta.expect(&[&ALPHA[..1]])?;
        self.show_tables()
    }

    fn fail_over(&mut self) -> Result<(), Stop> {
        self.tell(
            "Server 1 stops. No route is lost, and what beta announces next, 10.0.20.0/24,\n   \
             comes by server 2.",
        )?;
        self.expect_two_servers()?;
        let before = self.removals();
        drop(self.first.take());
        for client in self.present() {
            client.wait("the loss of server 1", |seen| seen.servers.len() == 1)?;
        }
        self.beta.announce(&[LATE])?;
        self.alpha.expect(&[&BETA, &[LATE]])?;
        self.beta.expect(&[&ALPHA[..1]])?;
        self.expect_no_loss(before)?;
        self.show_tables()
    }

    fn come_back(&mut self) -> Result<(), Stop> {
        self.tell(
            "Server 1 comes back, empty. The clients tell it everything, and see no change.",
        )?;
        let before = self.removals();
        self.first = Some(MetalBondServer::start(self.addresses[0], config())?);
        self.expect_two_servers()?;
        self.expect_no_loss(before)?;
        self.show_tables()
    }

    /// Keeps everything running until a signal, and prints each change.
    fn stay(&self) -> Result<(), Stop> {
        let (_ender, ending) = signals::catch().map_err(Stop::Failed)?;
        let [first, second] = self.addresses;
        say(format_args!(
            "\nEverything stays until Ctrl-C. Connect another client:\n   \
             metalbond client --server {first},{second} --subscribe 100 \
             --announce 100#10.0.9.0/24#2001:db8::9\n\
             What alpha and beta see of it:"
        ))?;
        for client in self.present() {
            client.board.echo(client.name);
        }
        ending.wait().map_err(Stop::Failed)
    }

    /// Prints the number and the description of the next step.
    fn tell(&mut self, sentence: &str) -> Result<(), Stop> {
        self.step += 1;
        say(format_args!("\n{}. {sentence}", self.step))
    }

    fn show_tables(&self) -> Result<(), Stop> {
        say(format_args!(
            "   {:<7} {:<5} {:<17} VIA",
            "CLIENT", "VNI", "SEES"
        ))?;
        for client in self.present() {
            let routes = client.board.routes();
            if routes.is_empty() {
                say(format_args!("   {:<7} {:<5} nothing", client.name, "-"))?;
            }
            let mut name = client.name;
            for (
                vni,
                Route {
                    destination,
                    next_hop,
                },
            ) in routes
            {
                let (vni, destination) = (vni.to_string(), destination.to_string());
                say(format_args!(
                    "   {name:<7} {vni:<5} {destination:<17} {next_hop}"
                ))?;
                name = "";
            }
        }
        Ok(())
    }

    /// Returns the clients that have not left.
    fn present(&self) -> impl Iterator<Item = &Client> {
        let all = [&self.alpha, &self.beta, &self.gamma];
        let is_present = |it: &&Client| it.client.state() != ClientState::Closed;
        all.into_iter().filter(is_present)
    }

    /// Waits until every client knows every route from both servers.
    fn expect_two_servers(&self) -> Result<(), Stop> {
        for client in self.present() {
            client.wait("both servers", |seen| seen.servers.len() == 2)?;
            for (vni, route) in client.board.routes() {
                client.expect_two_servers_of(vni, route)?;
            }
        }
        Ok(())
    }

    /// Returns how many routes all clients have removed so far.
    fn removals(&self) -> usize {
        self.present().map(|it| it.board.removals()).sum()
    }

    fn expect_no_loss(&self, before: usize) -> Result<(), Stop> {
        if self.removals() == before {
            Ok(())
        } else {
            Err(failed("a client lost a route".into()))
        }
    }
}

fn config() -> ServerConfig {
    ServerConfig {
        keepalive_interval: 1,
        ..ServerConfig::default()
    }
}

/// Parses a route of the demonstration.
fn route(text: &str) -> (Vni, Route) {
    let announcement: Announcement = text.parse().expect("the routes above are announcements");
    (announcement.vni, announcement.route)
}

fn failed(text: String) -> Stop {
    Stop::Failed(Failure::RunTime(format!("demo: {text}")))
}

fn say(line: fmt::Arguments<'_>) -> Result<(), Stop> {
    match print(format_args!("{line}\n")).map_err(Stop::Failed)? {
        Reader::There => Ok(()),
        Reader::Gone => Err(Stop::NobodyReads),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_announcements() {
        let all = ALPHA.iter().chain(&BETA).chain(&GAMMA).chain([&LATE]);
        let routes: Vec<(Vni, Route)> = all.map(|it| route(it)).collect();
        assert_eq!(routes.len(), 8);
    }
}
