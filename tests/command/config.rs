//! Options from a file: what is wrong with it, who wins, what changes at SIGHUP.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::process::{Process, metalbond, run};
use crate::support::{self, Raw, subscribe, update};

/// A file that is gone with this.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("metalbond-{}-{name}.toml", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        // Never half a file, whenever it is read.
        let new = self.0.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &self.0).unwrap();
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

#[track_caller]
fn assert_check(text: &str, expected: &[&str]) {
    let file = File::new(&format!("check-{}", expected.len()), text);
    let (code, stdout, stderr) = run(&["check", file.name()]);
    let expected: String = expected
        .iter()
        .map(|line| format!("metalbond: {}{line}\n", file.name()))
        .collect();
    assert_eq!((stderr, stdout, code), (expected, String::new(), 2));
}

#[test]
fn wrong_values_are_named_with_line_and_key() {
    let seconds = "expected a number of seconds from 1 to 4294967295";
    let or_none = "expected a number of seconds from 0 to 4294967295";
    let vni = "expected a VNI from 0 to 4294967295";
    let text = r#"
        [server]
        keepalive = "x"
        handshake-timeout = 1.5
        max-sesions = 5
        workers = [1, 2]
        verbose = "yes"
        subscribe = 7
        config = "x"

        [client]
        server = ["::1", "a b"]
        subscribe = [
          4294967296,
          true, 5, "x"]
        vni = 5
        hold = "0x10"
        announce = "1#10.0.0.0#::1"

        [sever]
        x = 1
    "#;
    let expected = [
        format!(":3: keepalive x: {or_none}"),
        format!(":4: handshake-timeout: {seconds}"),
        ":5: max-sesions: unknown key; did you mean max-sessions?".into(),
        ":6: workers: expected a number of threads from 1 to 256".into(),
        ":7: verbose: expected true or false".into(),
        ":8: subscribe: unknown key; belongs into [client]".into(),
        ":9: config: unknown key; see metalbond server --help".into(),
        ":12: server a b: expected a server, as [2001:db8::1]:4711, host:4711 (without a port, \
         4711) or unix:/run/metalbond/peers"
            .into(),
        format!(":14: subscribe 4294967296: {vni}"),
        format!(":15: subscribe: {vni}"),
        format!(":15: subscribe x: {vni}"),
        ":16: vni: unknown key; did you mean subscribe?".into(),
        format!(":17: stale-time 0x10: {or_none}"),
        ":18: announce 1#10.0.0.0#::1: a prefix is an IPv4 or IPv6 address with a length, as \
         10.0.1.0/24; expected VNI#PREFIX#NEXTHOP[#STD|#LB|#NAT#FROM#TO]"
            .into(),
        ":20: sever: unknown key; did you mean [server]?".into(),
    ];
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    assert_check(text, &expected);
}

#[test]
fn check_warns_of_what_is_taken_and_more_likely_a_mistake() {
    let text = "[client]\nkeepalive = 0\nsubscribe = 1\ninstall-routes = [\"1#0\", \"2#7\"]\n";
    let file = File::new("warned", text);
    let (code, stdout, stderr) = run(&["check", file.name()]);
    let name = file.name();
    assert_eq!(
        (code, stdout),
        (0, format!("{name}: OK, configures client\n"))
    );
    let warnings = [
        "keepalive 0: is taken as the default, 5",
        "install-routes 1#0: table 0 is taken as the main table, 254, which has the host's own \
         routes",
        "server: none is given; nothing is received or announced",
        "install-routes: nothing is installed for what --subscribe does not have: VNI 2",
    ];
    let expected = warnings.map(|it| format!("metalbond: {name}: [client] {it}\n"));
    assert_eq!(stderr, expected.concat());
}

#[test]
fn syntax_errors_are_named_with_their_place() {
    assert_check(
        "[client]\nserver = [\"a\", \"b\", \"a:4711\"]\n",
        &[":2: server a:4711: given twice"],
    );
    assert_check(
        "[server]\nqueue-soft-limit = \"2M\"\nqueue-hard-limit = 0x100000\n[client]\nhold = 1\n",
        &[":2: queue-soft-limit: is above queue-hard-limit"],
    );
    #[cfg(all(feature = "netlink", target_os = "linux"))]
    assert_check(
        "[client]\ninstall-routes = [\"1#100\", \"2#100\", \"1#200\"]\n",
        &[":2: install-routes: VNI 1 is given twice"],
    );
    assert_check(
        "keepalive = 5\nx = 1\nserver = 7\n",
        &[
            ":1: keepalive: unknown key; belongs into [server] or [client]",
            ":2: x: unknown key; expected [server] or [client]",
            ":3: server: expected a table, [server]",
        ],
    );
    let file = File::new("syntax", "[server]\nlisten =\nkeepalive = = 3\nx = \"a\n");
    let (code, _, stderr) = run(&["check", file.name()]);
    assert_eq!((code, stderr.lines().count()), (2, 3), "{stderr}");
    for (line, number) in stderr.lines().zip(2..) {
        let place = format!("metalbond: {}:{number}: ", file.name());
        assert!(line.starts_with(&place), "{line}");
    }
    fs::write(&file.0, b"[server]\n\nlisten = \"\xff\"\n").unwrap();
    let (code, _, stderr) = run(&["check", file.name()]);
    let expected = format!("metalbond: {}:3: is not valid UTF-8\n", file.name());
    assert_eq!((code, stderr), (2, expected));
}

#[test]
fn valid_file_is_summarised_by_check() {
    let all = [
        ("", "nothing"),
        ("[server]\n", "server"),
        ("[client]\nserver = \"host\"\n", "client"),
        (
            "[client]\nserver = \"a,b\"\nsubscribe = [1, \"2,3\"]\nverbose = false\n\
             announce = []\n[server]\nmax-routes = 1_000\nlog-format = \"json\"\n",
            "client and server",
        ),
    ];
    for (at, (text, what)) in all.into_iter().enumerate() {
        let file = File::new(&format!("good-{at}"), text);
        let (code, stdout, stderr) = run(&["check", file.name()]);
        let mut words: Vec<&str> = what.split(" and ").collect();
        words.sort_by_key(|it| *it != "server");
        let expected = format!("{}: OK, configures {}\n", file.name(), words.join(" and "));
        assert_eq!((stdout, stderr, code), (expected, String::new(), 0));
    }
}

#[test]
fn file_of_the_other_command_is_refused() {
    let absent = "/nonexistent/metalbond.toml";
    for line in [&["check", absent][..], &["server", "--config", absent]] {
        let (code, _, stderr) = run(line);
        let expected =
            format!("metalbond: cannot read {absent}: No such file or directory (os error 2)\n");
        assert_eq!((code, stderr), (1, expected), "{line:?}");
    }
    let file = File::new("other", "[client]\nserver = \"host\"\nsubscribe = \"x\"\n");
    let (code, _, stderr) = run(&["server", "--config", file.name()]);
    let expected = format!(
        "metalbond: {}:3: subscribe x: expected a VNI from 0 to 4294967295\n",
        file.name()
    );
    assert_eq!((code, stderr), (2, expected));
    file.write("[client]\nserver = \"host\"\n");
    let (code, _, stderr) = run(&["server", "--config", file.name()]);
    let expected = format!("metalbond: {}: has no [server]\n", file.name());
    assert_eq!((code, stderr), (2, expected));
}

/// Starts a server with a file, and waits until it listens.
fn server(file: &File, more: &[&str]) -> (Process, SocketAddr) {
    let args = [&["server", "--config", file.name()], more].concat();
    let server = Process::start(metalbond().args(args));
    let address = server.listens_on("listening on ");
    (server, address)
}

/// Starts a client with a file, and waits until it is established.
fn client(file: &File, more: &[&str]) -> Process {
    let args = [&["client", "--config", file.name()], more].concat();
    let client = Process::start(metalbond().args(args));
    client.stderr.expect("established");
    client
}

#[test]
fn command_line_overrides_the_file() {
    let file = File::new("wins", "[server]\nlisten = \"127.0.0.1:0\"\nworkers = 3\n");
    let (first, _) = server(&file, &[]);
    first.stderr.expect("with 3 workers");
    let (second, address) = server(&file, &["--workers", "2"]);
    second.stderr.expect("with 2 workers");
    let text = "[client]\nserver = \"127.0.0.1:1\"\nsubscribe = [1, 2]\n\
         announce = [\"1#10.0.1.0/24#::1\", \"2#10.0.2.0/24#::1\"]\n";
    let file = File::new("wins-client", text);
    let address = address.to_string();
    // A list takes the place of the other list.
    let line = ["-s", &address, "-a", "1#10.1.0.0/16#::1"];
    let announcer = client(&file, &line);
    let reader = Process::client(address.parse().unwrap(), &["--subscribe", "1,2"]);
    reader.stdout.expect("+ VNI 1 10.1.0.0/16 via ::1");
    reader.stop("TERM");
    announcer.stop("TERM");
    let reader = Process::client(address.parse().unwrap(), &["--subscribe", "2"]);
    reader.stderr.expect("VNI 2: table complete");
    let lines = reader.stdout.clone();
    reader.stop("TERM");
    assert_eq!(lines.all(), "");
    second.stop("TERM");
    first.stop("TERM");
}

#[test]
fn reloaded_server_takes_new_limits_and_drops_no_session() {
    let base = "[server]\nlisten = \"127.0.0.1:0\"\nmax-sessions = 100\n";
    let file = File::new("server", base);
    let (server, address) = server(&file, &["--workers", "2"]);
    let mut old = Raw::established(address);

    // A mistake, and nothing is changed.
    file.write(&format!("{base}max-routes = 0\n"));
    server.signal("HUP");
    server.stderr.expect(&format!(
        "configuration not reloaded: {}:4: max-routes 0: expected a number",
        file.name()
    ));

    file.write(
        "[server]\nlisten = \"127.0.0.1:1\"\nmax-sessions = 1\nmax-subscriptions-per-peer = 1\n\
         keepalive = 3\nworkers = 7\n",
    );
    server.signal("HUP");
    server.stderr.expect(
        "configuration reloaded, applied: keepalive, max-sessions, max-subscriptions-per-peer",
    );
    server
        .stderr
        .expect("key listen changed; takes effect after a restart");
    // One more is too many, and the one that is there has its new limit.
    assert!(Raw::connect(address).closed_by_server());
    server
        .stderr
        .expect("refused, 1 connections are open, 1 and");
    old.send(&subscribe(1));
    old.send(&subscribe(2));
    old.barrier();
    server
        .stderr
        .expect("limit reached, 1 routes or subscriptions refused so far");

    // The interval is that of new sessions; a limit that is gone is the default again.
    file.write("[server]\nlisten = \"127.0.0.1:1\"\nkeepalive = 3\n");
    server.signal("HUP");
    server
        .stderr
        .expect("applied: max-sessions, max-subscriptions-per-peer");
    let mut new = Raw::connect(address);
    new.send(&support::HELLO);
    assert_eq!(new.frame()[5], 3, "the interval in the server's HELLO");
    old.send(&subscribe(2));
    assert_eq!(old.barrier(), Vec::<Vec<u8>>::new());

    server.signal("HUP");
    server
        .stderr
        .expect("configuration reloaded, nothing to apply");
    let lines = server.stderr.clone();
    server.stop("TERM");
    let lines = lines.all();
    let before_the_end = lines.split("ending: SIGTERM").next().unwrap();
    assert!(!before_the_end.contains("session ended"), "{lines}");
    // Given on the command line: the file's is of no account.
    assert!(!lines.contains("key workers"), "{lines}");
}

/// There is room for a VNI once another one is left.
#[test]
fn reload_at_the_limit_of_vnis_exchanges_one_for_another() {
    let empty = File::new("limit-server", "[server]\nlisten = \"127.0.0.1:0\"\n");
    let (server, at) = server(&empty, &["--log-level", "debug"]);
    let text = |subscribe: &str| {
        format!("[client]\nserver = [\"{at}\"]\nsubscribe = [{subscribe}]\nmax-vnis = 2\n")
    };
    let file = File::new("limit-client", &text("1, 2"));
    let client = client(&file, &[]);
    server.stderr.expect("VNI 2: subscribed");
    file.write(&text("1, 3"));
    client.signal("HUP");
    client
        .stderr
        .expect("configuration reloaded, applied: subscribe");
    server.stderr.expect("VNI 3: subscribed");
    client.stop("TERM");
    server.stop("TERM");
}

#[test]
fn reloaded_client_follows_its_file_and_keeps_its_sessions() {
    let empty = File::new("client-servers", "[server]\nlisten = \"127.0.0.1:0\"\n");
    let (first, one) = server(&empty, &["--log-level", "debug"]);
    let (second, two) = server(&empty, &[]);
    let text = |servers: &str, subscribe: &str, announce: &str, more: &str| {
        format!(
            "[client]\nserver = [{servers}]\nsubscribe = [{subscribe}]\nannounce = [{announce}]\n\
             {more}\n"
        )
    };
    let (a, b) = (
        r#""1#10.0.1.0/24#2001:db8::1""#,
        r#""1#10.0.2.0/24#2001:db8::1""#,
    );
    let file = File::new("client", &text(&format!("\"{one}\""), "5", a, ""));
    let client = client(&file, &[]);
    let mut at_one = Raw::established(one);
    at_one.send(&subscribe(1));
    assert_eq!(at_one.frame()[3], 5, "the announced route");

    // One more server, another subscription, another route in place of the first.
    let servers = format!("\"{one}\", \"{two}\"");
    file.write(&text(
        &servers,
        "5, 6",
        b,
        "http = \"127.0.0.1:0\"\nhold = 7",
    ));
    client.signal("HUP");
    client
        .stderr
        .expect("configuration reloaded, applied: announce, server, stale-time, subscribe");
    client
        .stderr
        .expect("key http changed; takes effect after a restart");
    client.stderr.expect(&format!("server {two}: established"));
    first.stderr.expect("VNI 6: subscribed");
    let (added, removed) = (at_one.frame(), at_one.frame());
    assert!(added.windows(4).any(|it| it == [10, 0, 2, 0]), "{added:?}");
    assert!(
        removed.windows(4).any(|it| it == [10, 0, 1, 0]),
        "{removed:?}"
    );
    let mut at_two = Raw::established(two);
    at_two.send(&subscribe(1));
    // It may have been told of the route before, which is replaced.
    while !at_two.frame().windows(4).any(|it| it == [10, 0, 2, 0]) {}
    at_two.send(&update(0, 6, 1, 9));
    client.stdout.expect("+ VNI 6 10.0.0.1/32 via 2001:db8::9");

    // The first server goes, and a subscription with its routes.
    file.write(&text(&format!("\"{two}\""), "5", b, ""));
    client.signal("HUP");
    client.stdout.expect("- VNI 6 10.0.0.1/32 via 2001:db8::9");
    client.stderr.expect(&format!("server {one}: removed"));
    assert_eq!(at_one.frame()[3], 5, "the withdrawn route");
    // A mistake, and nothing is changed.
    file.write("[client]\nsubscribe = [5, \"x\"]\n");
    client.signal("HUP");
    client
        .stderr
        .expect("subscribe x: expected a VNI from 0 to 4294967295");
    at_two.barrier();
    let lines = second.stderr.clone();
    client.stop("TERM");
    second.stop("TERM");
    let lines = lines.all();
    assert_eq!(lines.matches("session ended").count(), 1, "{lines}");
    first.stop("TERM");
}

#[test]
fn reloaded_file_changes_the_log_level() {
    let base = "[server]\nlisten = \"127.0.0.1:0\"\n";
    let file = File::new("log", &format!("{base}log-level = \"warn\"\n"));
    let mut command = metalbond();
    command.args(["server", "--config", file.name()]);
    // So that it says where it listens.
    let server = Process::start(command.env("RUST_LOG", "info"));
    let address = server.listens_on("listening on ");
    file.write(&format!(
        "{base}log-level = \"debug\"\nlog-format = \"json\"\n"
    ));
    server.signal("HUP");
    let line = server.stderr.expect("configuration reloaded, applied");
    assert!(
        line.starts_with('{') && line.contains("log-format, log-level"),
        "{line}"
    );
    let mut peer = Raw::established(address);
    peer.send(&subscribe(3));
    let line = server.stderr.expect("VNI 3: subscribed");
    assert!(line.contains("\"vni\":3"), "{line}");
    file.write(&format!("{base}log-level = \"error\"\n"));
    server.signal("HUP");
    peer.barrier();
    server.stop("TERM");
}

#[test]
fn queue_hard_limit_below_one_burst_is_refused() {
    assert_check(
        "[server]\nqueue-hard-limit = \"7M\"\n",
        &[":2: queue-hard-limit: is below 8M, which one burst of changes can need"],
    );
}

#[test]
fn every_option_of_the_help_is_a_key() {
    for role in ["server", "client"] {
        let (_, help, _) = run(&[role, "--help"]);
        let words = help
            .split_whitespace()
            .filter_map(|it| it.strip_prefix("--"));
        let words = words.map(|it| it.trim_end_matches([',', '.', ';', ']']));
        for name in words.filter(|it| !["help", "version", "config"].contains(it)) {
            // No option takes a table.
            let file = File::new(
                &format!("key-{role}"),
                &format!("[{role}]\n{name} = {{}}\n"),
            );
            let (code, _, stderr) = run(&["check", file.name()]);
            assert!(
                code == 2 && !stderr.contains("unknown key"),
                "{name}: {stderr}"
            );
            assert!(stderr.contains(&format!(":2: {name}")), "{stderr}");
        }
    }
}

#[cfg(all(feature = "netlink", target_os = "linux"))]
mod kernel {
    //! The tables of a running client.

    use super::*;
    use crate::netns::{DEVICE, in_namespace, ip, make_device};
    use crate::support::eventually;

    /// The destinations of a table, in order.
    fn table(number: u32) -> Vec<String> {
        let routes = ip(&format!("-4 route show table {number} proto 254"));
        let mut found: Vec<String> = routes
            .lines()
            .filter_map(|line| line.split(' ').next())
            .map(str::to_owned)
            .collect();
        found.sort();
        found
    }

    #[test]
    fn reloaded_tables_and_types_change_while_routes_flow() {
        in_namespace("reload", || {
            make_device();
            let (server, address) = Process::server(&[]);
            let routes = "1#10.1.0.0/24#2001:db8::1,1#10.1.1.0/24#2001:db8::2#LB,\
                          2#10.2.0.0/24#2001:db8::1,3#10.3.0.0/24#2001:db8::1";
            let announcer = Process::client(address, &["-a", routes]);
            let base = format!(
                "[client]\nserver = \"{address}\"\ntun = \"{DEVICE}\"\nsubscribe = [1, 2, 3]\n"
            );
            let with = |more: &str| format!("{base}{more}\n");
            let file = File::new("kernel", &with("install-routes = [\"1#100\", \"2#200\"]"));
            let client = client(&file, &[]);
            // What is not ours is of no concern, wherever it is.
            ip(&format!("-4 route add 10.9.0.0/16 dev {DEVICE} table 300"));
            let one = ["10.1.0.0/24", "10.1.1.0/24"];
            eventually("both tables", || {
                table(100) == one && table(200) == ["10.2.0.0/24"]
            });

            let reload = |more: &str| {
                file.write(&with(more));
                client.signal("HUP");
            };
            // VNI 1 moves though it was complete long ago, 2 goes, 3 comes.
            reload("install-routes = [\"1#300\", \"3#100\"]");
            eventually("the moved tables", || {
                table(300) == one && table(100) == ["10.3.0.0/24"] && table(200).is_empty()
            });
            reload("install-routes = [\"1#300\"]\nexclude-route-type = \"lb\"\nipv4-only = true");
            eventually("no load balancer", || {
                table(300) == ["10.1.0.0/24"] && table(100).is_empty()
            });
            reload("install-routes = [\"1#300\"]\nmetric = 7");
            eventually("it is back", || table(300) == one);
            client
                .stderr
                .expect("key metric changed; takes effect after a restart");
            // Updates go where the table is.
            let late = Process::client(address, &["-a", "1#10.1.2.0/24#2001:db8::3"]);
            eventually("an update", || table(300).len() == 3);
            late.stop("TERM");
            eventually("its end", || table(300) == one);
            // All go, and one comes again: subscribed to all the time.
            reload("");
            eventually("nothing", || table(300).is_empty());
            reload("install-routes = [\"1#400\"]\ncleanup = true");
            eventually("a table", || table(400) == one);
            let foreign = ip("-4 route show table 300");
            assert!(foreign.starts_with("10.9.0.0/16"), "{foreign}");
            client.stop("TERM");
            assert!(table(400).is_empty(), "--cleanup came with the file");
            announcer.stop("TERM");
            server.stop("TERM");
        });
    }
}
