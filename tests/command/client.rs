//! A client and a server as processes: the order in which they start, change and end.

use std::time::{Duration, Instant};

use crate::folder::Folder;
use crate::process::{PATIENCE, Process, metalbond};
use crate::support::eventually;

/// Destinations that two clients announce.
const DESTINATIONS: usize = 3000;

/// The announcements of a client in VNI 7, as a line of a configuration file.
fn announcements(hop: u8) -> String {
    let route = |number: usize| {
        let [_, _, high, low] = u32::try_from(number).unwrap().to_be_bytes();
        format!("\"7#10.0.{high}.{low}/32#2001:db8::{hop}\"")
    };
    let routes: Vec<String> = (0..DESTINATIONS).map(route).collect();
    format!("announce = [{}]\n", routes.join(", "))
}

/// The lines about routes that a client has printed.
fn told(client: &Process) -> Vec<String> {
    let lines = client.stdout.so_far().into_iter();
    lines.filter(|it| it.contains(" VNI ")).collect()
}

/// What others announce for a client's own destinations is suppressed, from the first moment.
#[test]
fn routes_to_own_destinations_do_not_come_and_go_at_start_and_reload() {
    let (_server, address) = Process::server(&[]);
    let folder = Folder::new();
    let write = |name: &str, text: &str| {
        let path = folder.file(name);
        let text = format!("[client]\nserver = [\"{address}\"]\n{text}");
        std::fs::write(&path, text).unwrap();
        path
    };
    let start = |path: &str| {
        let client = Process::start(metalbond().args(["client", "--config", path]));
        client.stderr.expect("established");
        client
    };
    let mut first = announcements(1);
    first.truncate(first.len() - "]\n".len());
    // The last of its routes is one that is told.
    let first = write(
        "first",
        &format!("{first}, \"7#10.9.9.9/32#2001:db8::1\"]\n"),
    );
    let _first = start(&first);
    let subscribed = format!("subscribe = [7]\n{}", announcements(2));
    let only = "+ VNI 7 10.9.9.9/32 via 2001:db8::1";

    let second = start(&write("second", &subscribed));
    second.stderr.expect("VNI 7: table complete");
    second.stdout.expect(only);
    assert_eq!(told(&second), [only]);
    second.stop("TERM");

    let path = write("third", "subscribe = [8]\n");
    let third = start(&path);
    write("third", &subscribed);
    third.signal("HUP");
    third.stderr.expect("configuration reloaded");
    third.stderr.expect("VNI 7: table complete");
    third.stdout.expect(only);
    assert_eq!(told(&third), [only]);
    // Back again: the subscription goes first.
    write("third", "subscribe = [8]\n");
    third.signal("HUP");
    third.stdout.expect("- VNI 7 10.9.9.9/32");
    assert_eq!(told(&third).len(), 2);
    third.stop("TERM");
}

/// `timeout` sends its signal to the process and to its group.
#[test]
fn doubled_signal_counts_as_one() {
    let (mut server, address) = Process::server(&["--drain", "1"]);
    let client = Process::client(address, &["--subscribe", "1"]);
    server.signal("INT");
    server.signal("TERM");
    let status = server.wait();
    assert_eq!(status.code(), Some(0), "{}", server.stderr.all());
    client.stderr.expect("session ended");
    client.stop("TERM");
}

#[test]
fn second_signal_after_a_second_ends_the_process_at_once() {
    let (mut server, address) = Process::server(&["--drain", "600"]);
    let _clients = [(); 3].map(|()| Process::client(address, &["--subscribe", "1"]));
    server.signal("TERM");
    server.stderr.expect("ending: SIGTERM");
    let ending = Instant::now();
    let mut last = ending;
    let end = || {
        // Signals of the first second are ignored.
        if last.elapsed() > Duration::from_millis(100) {
            last = Instant::now();
            server.signal("TERM");
        }
        !server.is_running()
    };
    eventually("it ends", end);
    assert!(ending.elapsed() > Duration::from_millis(900));
    assert!(ending.elapsed() < PATIENCE);
    assert_eq!(server.wait().code(), Some(128 + 15));
}

#[test]
fn hangup_without_a_file_ends_nothing_and_says_so() {
    let words = "SIGHUP: there is no file to read again";
    let (server, address) = Process::server(&[]);
    let client = Process::client(address, &["--subscribe", "1"]);
    for process in [&server, &client] {
        process.signal("HUP");
        process.stderr.expect(words);
    }
    client.stop("TERM");
    server.stop("TERM");
}

/// As to Go MetalBond: the last value counts, and an empty address of HTTP is none.
#[test]
fn options_given_twice_have_the_last_value_and_a_warning() {
    let line = "server -l [::1]:0 --http [::1]:0 --http= -v --verbose=no";
    let server = Process::start(metalbond().args(line.split(' ')));
    let address = server.listens_on("INFO  listening on ");
    let log = server.stderr.so_far().join("\n") + "\n";
    for expected in [
        "WARN  option http: given twice; the last one counts\n",
        "WARN  option http: is empty; nothing is served over HTTP\n",
        "WARN  option verbose: given twice; the last one counts\n",
    ] {
        assert!(log.contains(expected), "{log}");
    }
    assert!(!log.contains("HTTP on") && !log.contains("DEBUG"), "{log}");

    let twice = ["--keepalive", "7", "--keepalive", "3", "--subscribe", "1"];
    let client = Process::client(address, &twice);
    let log = client.stderr.so_far().join("\n") + "\n";
    let expected = "WARN  option keepalive: given twice; the last one counts\n";
    assert!(log.contains(expected), "{log}");
    client.stop("TERM");
    server.stop("TERM");
}
