//! What a large table costs a client: `cargo bench --bench client -- [routes]`.
//!
//! The server, the announcer and the client under measurement are processes of their
//! own; what is printed is the resident memory of the last, before and after.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails by panicking"
)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustbond::{
    Destination, Event, MetalBondClient, MetalBondServer, NextHop, NoOpHandler, ServerConfig, Vni,
};

const VNI: Vni = Vni(100);
const LONG: Duration = Duration::from_secs(600);

/// Hypervisors that the routes are spread over.
const HYPERVISORS: u32 = 10_000;

/// What a route may cost.
const BYTES_PER_ROUTE: f64 = 200.0;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["role-server"] => serve(),
        ["role-announcer", address, routes] => announce(address, routes.parse().unwrap()),
        ["role-client", address, routes, family] => {
            measure(address, routes.parse().unwrap(), family)
        }
        _ => {
            let routes = words.iter().find_map(|it| it.parse().ok());
            run(routes.unwrap_or(1_000_000));
        }
    }
}

/// This program in another role; it lives until its standard input ends.
fn role(arguments: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

fn line(output: &mut BufReader<std::process::ChildStdout>) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line.trim().to_owned()
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    child.wait().unwrap();
}

fn run(routes: u32) {
    let (server, mut output) = role(&["role-server"]);
    let address = line(&mut output);
    let (announcer, mut output) = role(&["role-announcer", &address, &routes.to_string()]);
    println!(
        "{routes} routes behind {HYPERVISORS} hypervisors: {}",
        line(&mut output)
    );
    for way in ["handler", "channel", "watch"] {
        let (client, mut output) = role(&["role-client", &address, &routes.to_string(), way]);
        println!("{way:>8}: {}", line(&mut output));
        end(client);
    }
    end(announcer);
    end(server);
}

fn wait_for_the_end() {
    let result = std::io::stdin().read(&mut [0; 1]);
    assert!(result.is_ok());
}

fn serve() {
    let server = MetalBondServer::start("127.0.0.1:0", ServerConfig::default()).unwrap();
    println!("{}", server.local_addr());
    wait_for_the_end();
}

fn announce(address: &str, routes: u32) {
    let client = MetalBondClient::connect(&[address], NoOpHandler);
    let begin = Instant::now();
    for number in 0..routes {
        // Half of each family, as in a fabric with both.
        let destination = if number % 2 == 0 {
            Destination::from_ipv4((0x0a00_0000 + number).into(), 32)
        } else {
            let high = 0x2001_0db8_u128 << 96;
            Destination::from_ipv6((high + u128::from(number)).into(), 128)
        };
        let low = u128::from(number % HYPERVISORS);
        let hop = NextHop::standard(std::net::Ipv6Addr::from((0xfd00_u128 << 112) + low));
        client.announce(VNI, destination, hop).unwrap();
    }
    client.flush(LONG).unwrap();
    println!("announced in {:.2} s", begin.elapsed().as_secs_f64());
    wait_for_the_end();
}

/// Bytes, of a line of /proc/self/status.
fn memory(of: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(of)).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024.0
}

fn measure(address: &str, routes: u32, way: &str) {
    let builder = MetalBondClient::builder().server(address);
    let (client, events) = match way {
        "handler" => (builder.handler(NoOpHandler).unwrap(), None),
        _ => {
            let (client, events) = builder.events().unwrap();
            (client, Some(events))
        }
    };
    client.wait_established_timeout(LONG).unwrap();
    let before = memory("VmRSS");
    let begin = Instant::now();
    client.subscribe(VNI).unwrap();
    if let Some(events) = &events {
        let mut added = 0;
        while added < routes {
            added += u32::from(matches!(events.recv(), Ok(Event::RouteAdded(..))));
        }
    }
    client.wait_synced(VNI, LONG).unwrap();
    let took = begin.elapsed().as_secs_f64();
    let snapshot = (way == "watch").then(|| {
        let begin = Instant::now();
        let watcher = client.watch(rustbond::EventDetail::Routes).unwrap();
        let added = watcher
            .iter()
            .filter(|it| matches!(it, Event::RouteAdded(..)));
        assert_eq!(added.take(routes as usize).count(), routes as usize);
        format!(
            "; a watcher's snapshot {:.2} s",
            begin.elapsed().as_secs_f64()
        )
    });
    assert_eq!(client.route_count().unwrap(), routes as usize);
    let count = f64::from(routes);
    let of_route = |bytes: f64| (bytes - before) / count;
    let (now, peak) = (of_route(memory("VmRSS")), of_route(memory("VmHWM")));
    println!(
        "{:.0} routes/s; {now:.0} B a route, {peak:.0} B at the peak{}{}",
        count / took,
        snapshot.unwrap_or_default(),
        if peak > BYTES_PER_ROUTE {
            " TOO MUCH"
        } else {
            ""
        }
    );
    wait_for_the_end();
}
