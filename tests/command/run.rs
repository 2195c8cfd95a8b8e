//! The built command: its arguments, its exit codes, its signals, its output.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use crate::process::{self, Process, finish, metalbond, run};

const SERVER: &str = "expected a server, as [2001:db8::1]:4711, host:4711 (without a port, 4711) \
                      or unix:/run/metalbond/peers";
const SYNTAX: &str = "expected VNI#PREFIX#NEXTHOP[#STD|#LB|#NAT#FROM#TO]";
const INSTALL: &str = "expected VNI#TABLE[#metric=N][#dev=DEVICE], a VNI from 0 to 16777215 and a \
                       table from 0 to 4294967295, its name or that of a VRF device";

#[track_caller]
fn assert_refused(line: &str, expected: &str) {
    let args: Vec<&str> = line.split(' ').filter(|it| !it.is_empty()).collect();
    let (code, stdout, stderr) = run(&args);
    assert_eq!(stderr, format!("metalbond: {expected}\n"), "{line}");
    assert_eq!((code, stdout.as_str()), (2, ""), "{line}");
}

#[test]
fn wrong_command_is_refused_in_one_line() {
    let all = [
        (
            "",
            "no command; expected server, client, show, monitor, announce, withdraw, subscribe, \
             unsubscribe, peer, log, reload, diff, probe, kernel, check or demo; see metalbond --help",
        ),
        (
            "serve",
            "serve: unknown command; expected server, client, show, monitor, announce, withdraw, \
             subscribe, unsubscribe, peer, log, reload, diff, probe, kernel, check or demo",
        ),
        ("--version=1", "--version 1: takes no value"),
        (
            "server --lisen x",
            "--lisen: unknown argument; did you mean --listen?",
        ),
        (
            "server x",
            "x: unknown argument; see metalbond server --help",
        ),
        (
            "client -z",
            "-z: unknown argument; see metalbond client --help",
        ),
        (
            "demo --fast",
            "--fast: unknown argument; see metalbond demo --help",
        ),
    ];
    for (line, expected) in all {
        assert_refused(line, expected);
    }
}

#[test]
fn wrong_server_arguments_are_refused_in_one_line() {
    let seconds = "expected a number of seconds from 0 to 4294967295";
    let listen = "expected an address to listen on, as [::]:4711, 127.0.0.1:4711 or unix:/run/metalbond/peers";
    let http = "expected an address and a port to listen on, as [::1]:8080 or :8080";
    let threads = "expected a number of threads from 1 to 256";
    let all = [
        ("--keepalive -1", format!("--keepalive -1: {seconds}")),
        ("--keepalive +1", format!("--keepalive +1: {seconds}")),
        ("--keepalive 1.5", format!("--keepalive 1.5: {seconds}")),
        (
            "--keepalive 4294967296",
            format!("--keepalive 4294967296: {seconds}"),
        ),
        ("--keepalive", format!("--keepalive: {seconds}")),
        ("--config a --config b", "--config: given twice".into()),
        ("-l [::1", format!("--listen [::1: {listen}")),
        (
            "--listen [::1]:65536",
            format!("--listen [::1]:65536: {listen}"),
        ),
        ("--listen=", format!("--listen: {listen}")),
        (
            "-l [::1]:5 -l [::1]:6,[::1]:5",
            "--listen [::1]:5: given twice".into(),
        ),
        ("--http 80", format!("--http 80: {http}")),
        ("--http ::1", format!("--http ::1: {http}")),
        ("--workers 0", format!("--workers 0: {threads}")),
        ("--workers 257", format!("--workers 257: {threads}")),
        (
            "--verbose=on",
            "--verbose on: expected true or false".into(),
        ),
    ];
    for (args, expected) in all {
        assert_refused(&format!("server {args}"), &expected);
    }
}

#[test]
fn wrong_client_arguments_are_refused_in_one_line() {
    let vni = "expected a VNI from 0 to 4294967295";
    let all = [
        ("-s a:b", format!("--server a:b: {SERVER}")),
        ("-s :4711", format!("--server :4711: {SERVER}")),
        ("-s [::1]:0", format!("--server [::1]:0: {SERVER}")),
        ("-s a -s b,a:4711", "--server a:4711: given twice".into()),
        ("-s a --subscribe x", format!("--subscribe x: {vni}")),
        (
            "-s a --subscribe 1,4294967296",
            format!("--subscribe 4294967296: {vni}"),
        ),
        ("-s a --vni -1", format!("--subscribe -1: {vni}")),
        (
            "-s a --install-routes 1",
            format!("--install-routes 1: {INSTALL}"),
        ),
        (
            "-s a --install-routes 16777216#1",
            format!("--install-routes 16777216#1: {INSTALL}"),
        ),
        (
            "-s a --install-routes 1#0x10",
            format!("--install-routes 1#0x10: {INSTALL}"),
        ),
        (
            "-s a --install-routes 1#4294967296",
            format!("--install-routes 1#4294967296: {INSTALL}"),
        ),
        (
            "-s a --hold x",
            "--stale-time x: expected a number of seconds from 0 to 4294967295".into(),
        ),
        (
            "-s a --tun sixteen-bytes-ab",
            "--tun sixteen-bytes-ab: expected a device name of 1 to 15 bytes without spaces and \
             slashes"
                .into(),
        ),
        (
            "-s a --rt-proto 4",
            "--rt-proto 4: expected a route protocol from 5 to 255".into(),
        ),
        (
            "-s a --metric -1",
            "--metric -1: expected a metric from 0 to 4294967295".into(),
        ),
        (
            "-s a --exclude-route-type std,x",
            "--exclude-route-type x: expected std, nat or lb".into(),
        ),
    ];
    for (args, expected) in all {
        assert_refused(&format!("client {args}"), &expected);
    }
}

#[test]
fn wrong_announcement_is_refused_with_its_wrong_part() {
    let all = [
        ("100", "a part is missing"),
        (
            "16777216#10.0.0.0/8#::1",
            "a VNI is a number from 0 to 16777215",
        ),
        (
            "1#10.0.0.0#::1",
            "a prefix is an IPv4 or IPv6 address with a length, as 10.0.1.0/24",
        ),
        ("1#10.0.0.0/8#host", "a next hop is an IPv6 or IPv4 address"),
        (
            "1#10.0.0.0/8#fe80::1%eth0",
            "a next hop has no scope (the part after %)",
        ),
        (
            "1#10.0.0.0/8#::1#NAT#1",
            "NAT takes the first and the last port, from 0 to 65535",
        ),
        (
            "1#10.0.0.0/8@::1#nat#1#65536",
            "NAT takes the first and the last port, from 0 to 65535",
        ),
        (
            "1#10.0.0.0/8@::1#nat#2#1",
            "NAT: the first port must not be greater than the last",
        ),
    ];
    for (text, problem) in all {
        let expected = format!("--announce {text}: {problem}; {SYNTAX}");
        assert_refused(&format!("client -s a -a {text}"), &expected);
    }
    assert_refused(
        "client -s a -a 1#10.0.0.0/8#::1,1#10.0.0.0/8@::1#std",
        "--announce: VNI 1 10.0.0.0/8 via ::1 is given twice",
    );
}

/// What Go's command takes is taken; where it hides a mistake, a line says so.
#[test]
fn arguments_of_go_are_taken_with_a_warning_where_they_hide_a_mistake() {
    let start = |line: &str| {
        let process = Process::start(metalbond().args(line.split(' ')));
        process.stderr.expect("option");
        process
    };
    let server = start("server -l [::1]:0 --keepalive 0 --verbose=false");
    server
        .stderr
        .expect("option keepalive 0: is taken as the default, 5");
    server.stop("TERM");

    let client = start(
        "client -s [::1]:1 --keepalive 0 --verbose=true --ipv4-only=FALSE --cleanup=0 \
         --subscribe 16777216,,7 -a 1#10.0.0.0/8#::1#standard,2#10.0.0.0/8#::1#LB#1#2",
    );
    for expected in [
        "option keepalive 0: is taken as the default, 5",
        "option subscribe 16777216: no packet can carry a VNI above 16777215",
        "option subscribe: an empty entry is skipped",
        "option announce 1#10.0.0.0/8#::1#standard: the type is none of STD, LB and NAT; it is \
         taken as STD, as by Go MetalBond",
        "only NAT takes ports; they are ignored",
    ] {
        client.stderr.expect(expected);
    }
    client.stop("TERM");

    let idle = start("client");
    idle.stderr
        .expect("option server: none is given; nothing is received or announced");
    idle.stop("TERM");
}

#[test]
fn help_does_not_show_that_switches_take_a_value() {
    let (_, help, _) = run(&["client", "--help"]);
    let line = help.lines().find(|it| it.contains("--cleanup")).unwrap();
    assert_eq!(line.trim_end().find("--cleanup="), None, "{line}");
    assert!(!line.contains("[="), "{line}");
}

#[test]
fn help_and_version_exit_with_success() {
    for line in [
        "--help",
        "-h",
        "server --help",
        "client --help",
        "demo --help",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let (code, stdout, stderr) = run(&args);
        assert_eq!((code, stderr.as_str()), (0, ""), "{line}");
        assert!(stdout.contains("Usage: metalbond"), "{line}");
    }
    let (code, stdout, _) = run(&["--version"]);
    let version = concat!("metalbond ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((code, stdout.as_str()), (0, version));
}

#[test]
fn output_to_a_closed_pipe_is_no_error() {
    for args in [&["--help"], &["demo"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut process = Process::start_into(metalbond().args(args), writer);
        assert_eq!(process.wait().code(), Some(0), "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn output_to_a_full_device_is_a_failure() {
    let expected = "cannot write to the standard output: No space left on device (os error 28)";
    let (_server, address) = Process::server(&[]);
    let server = address.to_string();
    let _announcer = Process::client(address, &["-a", "1#10.0.0.0/8#::1"]);
    let client = ["client", "-s", &server, "--subscribe", "1"];
    for args in [&["--version"][..], &["demo"], &client] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let mut process = Process::start_into(metalbond().args(args), full);
        assert_eq!(process.wait().code(), Some(1), "{args:?}");
        let line = format!("metalbond: {expected}");
        assert!(process.stderr.all().ends_with(&(line + "\n")), "{args:?}");
    }
}

#[test]
fn client_with_33_servers_is_refused() {
    let servers: Vec<String> = (0..33).map(|it| format!("host-{it}")).collect();
    assert_refused(
        &format!("client -s {}", servers.join(",")),
        "--server: 33 servers are given; a client has 32 at most",
    );
}

#[test]
fn longest_keepalive_interval_is_accepted() {
    let longest = ["--keepalive", "4294967295"];
    let (server, address) = Process::server(&longest);
    let client = Process::client(address, &[&longest[..], &["--hold", "4294967295"]].concat());
    client.stop("TERM");
    server.stop("TERM");
}

#[test]
fn port_in_use_is_a_failure() {
    let (server, address) = Process::server(&[]);
    let address = address.to_string();
    let (code, _, stderr) = run(&["server", "-l", &address]);
    let expected =
        format!("metalbond: cannot listen on {address}: Address already in use (os error 98)\n");
    assert_eq!((code, stderr), (1, expected));
    let (code, _, stderr) = run(&["server", "-l", "[::1]:0", "--http", &address]);
    assert_eq!(code, 1);
    let last = stderr.lines().find(|it| it.starts_with("metalbond: "));
    assert!(last.unwrap().contains(&address), "{stderr}");
    server.stop("TERM");
}

#[test]
fn signals_end_server_and_client_in_order() {
    for signal in ["INT", "TERM"] {
        let (server, address) = Process::server(&["--keepalive", "1", "--workers", "2", "-v"]);
        let subscriber = Process::client(address, &["--subscribe", "1"]);
        let announcer = Process::client(address, &["-a", "1#10.0.0.0/8#::1"]);
        subscriber.stdout.expect("+ VNI 1 10.0.0.0/8 via ::1");
        announcer.stop(signal);
        subscriber.stdout.expect("- VNI 1 10.0.0.0/8 via ::1");
        subscriber.stop(signal);
        server.stop(signal);
    }
}

#[test]
fn client_without_a_server_ends_at_a_signal() {
    let client = Process::start(metalbond().args(["client", "-s", "[::1]:1", "--subscribe", "1"]));
    client.stderr.expect("trying again");
    client.stop("TERM");
}

#[test]
fn announcements_in_both_syntaxes_reach_other_clients() {
    let (server, address) = Process::server(&[]);
    // The server by its name, lists by commas and by repetition, and a type in any case.
    let name = format!("localhost:{}", address.port());
    let go = Process::start(metalbond().args([
        "client",
        "--server",
        &name,
        "--subscribe",
        "100,200",
        "--announce",
        "100#10.0.1.0/24#2001:db8::1,100#10.0.1.0/24#2001:db8::2#STD",
        "--announce",
        "100#192.0.2.1/32#2001:db8::1#NAT#1024#65535",
        "--announce",
        "200#2001:db8:1::/48#2001:db8::1#LB",
    ]));
    let rust = Process::client(
        address,
        &[
            "--vni",
            "100",
            "--subscribe",
            "200",
            "-a",
            "100#10.0.2.7/24@192.0.2.9",
            "-a",
            "100#0.0.0.0/0@2001:db8::3#nat#0#0,200#::/0@fe80::1#lb",
        ],
    );
    for line in [
        "+ VNI 100 10.0.1.0/24 via 2001:db8::1",
        "+ VNI 100 10.0.1.0/24 via 2001:db8::2",
        "+ VNI 100 192.0.2.1/32 via 2001:db8::1 [NAT ports 1024-65535]",
        "+ VNI 200 2001:db8:1::/48 via 2001:db8::1 [LB]",
    ] {
        assert_eq!(rust.stdout.expect(line), line);
    }
    for line in [
        "+ VNI 100 10.0.2.7/24 via 192.0.2.9",
        "+ VNI 100 0.0.0.0/0 via 2001:db8::3 [NAT ports 0-0]",
        "+ VNI 200 ::/0 via fe80::1 [LB]",
    ] {
        assert_eq!(go.stdout.expect(line), line);
    }
    rust.stop("INT");
    go.stdout.expect("- VNI 200 ::/0 via fe80::1 [LB]");
    go.stop("INT");
    server.stop("INT");
}

#[test]
fn client_whose_reader_closes_ends_unless_it_has_other_work() {
    let (_server, address) = Process::server(&[]);
    let server = address.to_string();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let args = ["client", "-s", &server, "--subscribe", "7"];
    let mut printing = Process::start_into(metalbond().args(args), writer.try_clone().unwrap());
    let args = [&args[..], &["-a", "7#10.0.0.0/8#::1"]].concat();
    let announcing = Process::start_into(metalbond().args(args), writer);
    assert_eq!(printing.wait().code(), Some(0));
    printing.stderr.expect("nobody reads the output");
    let third = Process::client(address, &["--subscribe", "7", "-a", "7#10.0.0.0/9#::1"]);
    third.stdout.expect("+ VNI 7 10.0.0.0/8 via ::1");
    announcing.stop("TERM");
    third.stdout.expect("- VNI 7 10.0.0.0/8 via ::1");
}

#[cfg(feature = "http")]
#[test]
fn blocked_output_delays_the_end_only_a_little() {
    use std::io::Write;
    let (_server, address) = Process::server(&[]);
    let _announcer = Process::client(address, &["-a", "1#10.0.0.0/8#2001:db8::1"]);
    let start = || {
        let (reader, mut writer) = std::io::pipe().unwrap();
        // As much as a pipe holds: the first line finds no room.
        writer.write_all(&[b'x'; 64 << 10]).unwrap();
        let server = address.to_string();
        let args = [
            "client",
            "-s",
            &server,
            "--subscribe",
            "1",
            "--http",
            "[::1]:0",
        ];
        let client = Process::start_into(metalbond().args(args), writer);
        // Once a client shows a route, it is on its way to the output.
        let http = client.listens_on("serving HTTP on ");
        let deadline = Instant::now() + process::PATIENCE;
        while !get(http).contains("10.0.0.0/8") {
            assert!(Instant::now() < deadline, "no route");
            std::thread::sleep(Duration::from_millis(2));
        }
        (client, reader)
    };
    let ((patient, _unread), (mut impatient, _unread_too)) = (start(), start());
    let started = Instant::now();
    impatient.signal("TERM");
    impatient.stderr.expect("ending: SIGTERM");
    // Signals of the first second count as the first one.
    let deadline = started + process::PATIENCE;
    while impatient.is_running() {
        assert!(Instant::now() < deadline, "the process does not end");
        impatient.signal("INT");
        std::thread::sleep(Duration::from_millis(50));
    }
    let status = impatient.wait();
    assert_eq!((status.code(), status.signal()), (Some(130), None));
    assert!(started.elapsed() < Duration::from_secs(4), "at once");
    patient.stop("TERM");
    assert!(started.elapsed() < Duration::from_secs(15));
}

/// `/routes.json` of an HTTP server.
#[cfg(feature = "http")]
fn get(http: std::net::SocketAddr) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(http).unwrap();
    stream
        .write_all(b"GET /routes.json HTTP/1.0\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.into()
}

/// The set of signals that a process catches, bit n - 1 for signal n.
fn caught_signals(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("SigCgt:"));
    u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
}

#[test]
fn log_level_follows_the_environment() {
    let log = |name: &str| {
        let mut command = metalbond();
        command.args(["server", "-l", "127.0.0.1:0", "--keepalive", "1"]);
        let mut server = Process::start(command.env("RUST_LOG", name).arg("-v"));
        if name == "info" {
            let line = server.stderr.expect("listening on");
            assert_eq!(&line[10..11], "T", "{line}");
            assert_eq!(&line[23..31], "Z INFO  ", "{line}");
            server.signal("TERM");
        } else {
            // Silent: the system tells when the signals are caught.
            let deadline = Instant::now() + process::PATIENCE;
            while caught_signals(server.id()) & 0x4002 != 0x4002 {
                assert!(Instant::now() < deadline, "signals are not caught");
                std::thread::sleep(Duration::from_millis(2));
            }
            server.signal("TERM");
        }
        server.wait();
        server.stderr.all()
    };
    assert!(log("info").contains("ending: SIGTERM"));
    assert_eq!(log("error"), "");
}

#[cfg(feature = "http")]
#[test]
fn server_and_client_show_their_routes_over_http() {
    let http = ["--http", "127.0.0.1:0"];
    let (server, address) = Process::server(&http);
    let subscriber = Process::client(address, &[&http[..], &["--subscribe", "1"]].concat());
    let _announcer = Process::client(address, &["-a", "1#10.0.0.0/8#2001:db8::1"]);
    subscriber.stdout.expect("+ VNI 1 10.0.0.0/8");
    for process in [&server, &subscriber] {
        let text = get(process.listens_on("serving HTTP on "));
        let table: serde_json::Value = serde_json::from_str(&text).unwrap();
        let hops = &table["vnet"]["1"]["{\"IPVersion\":4,\"Prefix\":\"10.0.0.0/8\"}"];
        assert_eq!(hops[0]["TargetAddress"], "2001:db8::1");
    }
    subscriber.stop("TERM");
    server.stop("TERM");
}

#[test]
fn demo_shows_each_step() {
    let (code, stdout, stderr) = run(&["demo"]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    let steps: Vec<&str> = stdout.split("\n\n").collect();
    let has = |step: usize, part: &str| {
        assert!(steps[step].contains(part), "{part} in {}", steps[step]);
    };
    has(1, "1. Each connects to both servers");
    has(2, "2. Each announces");
    has(2, "alpha   100   10.0.2.0/24       2001:db8::b\n");
    has(2, "192.0.2.1/32      2001:db8::c [NAT ports 32768-65535]");
    has(2, "192.0.2.2/32      2001:db8::c [LB]");
    has(2, "2001:db8:1::/48   2001:db8::a");
    assert!(!stdout.contains("alpha   200"), "not subscribed");
    has(3, "3. Alpha withdraws");
    assert!(!steps[3].contains("2001:db8:1::/48"));
    has(4, "4. Gamma leaves.");
    assert!(!steps[4].contains("2001:db8::c"));
    has(5, "5. Server 1 stops.");
    has(5, "100   10.0.20.0/24      2001:db8::b");
    has(6, "6. Server 1 comes back");
    let table = |step: usize| steps[step].split_once("   CLIENT").unwrap().1.to_owned();
    assert_eq!(table(5), table(6));
    has(7, "Done: every client saw what it should.");
}

#[test]
fn demo_with_stay_serves_other_clients() {
    let demo = Process::start(metalbond().args(["demo", "--stay"]));
    let line = demo.stdout.expect("metalbond client --server");
    let args: Vec<&str> = line.split_whitespace().skip(1).collect();
    let guest = Process::start(metalbond().args(args));
    guest.stdout.expect("+ VNI 100 10.0.1.0/24 via 2001:db8::a");
    demo.stdout
        .expect("alpha  + VNI 100 10.0.9.0/24 via 2001:db8::9");
    guest.stop("INT");
    demo.stdout
        .expect("beta  - VNI 100 10.0.9.0/24 via 2001:db8::9");
    demo.stop("INT");
}

#[cfg(all(feature = "netlink", target_os = "linux"))]
#[test]
fn missing_right_to_change_routes_is_a_failure() {
    use std::os::unix::process::CommandExt;
    let args = "client -s [::1]:1 --subscribe 1 --install-routes 1#100 --tun lo";
    let mut command = metalbond();
    command.args(args.split(' '));
    // As root, as somebody else; as somebody else already, as that.
    let (code, _, stderr) = match metalbond().arg("--help").uid(65_534).output() {
        Ok(_) => finish(command.uid(65_534)),
        Err(_) => finish(&mut command),
    };
    let expected = "metalbond: changing kernel routes needs CAP_NET_ADMIN\n";
    assert_eq!((code, stderr.as_str()), (1, expected));
}
