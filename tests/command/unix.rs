//! The command over Unix sockets.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::folder::Folder;
use crate::process::{Process, metalbond, run};

/// A server at a Unix socket and at a port.
fn server(folder: &Folder) -> Process {
    let endpoints = format!("127.0.0.1:0,unix:{}", folder.file("peers"));
    let control = folder.file("server.sock");
    let args = [
        "server",
        "-l",
        &endpoints,
        "--unix-group",
        "root",
        "--control",
        &control,
    ];
    let server = Process::start(metalbond().args(args));
    server.stderr.expect("control socket at");
    server
}

#[test]
fn clients_and_operators_use_a_unix_socket_as_they_use_a_port() {
    let folder = Folder::new();
    let server = server(&folder);
    let endpoint = format!("unix:{}", folder.file("peers"));
    server
        .stderr
        .expect(&format!("listening on {endpoint} with"));
    let made = fs::metadata(folder.file("peers")).unwrap();
    assert_eq!((made.permissions().mode() & 0o777, made.gid()), (0o660, 0));
    let args = ["client", "-s", &endpoint, "--subscribe", "100"];
    let client = Process::start(metalbond().args(args));
    client
        .stderr
        .expect(&format!("server {endpoint}: established"));
    let at = folder.file("server.sock");
    let ask = |args: &[&str]| {
        let (code, stdout, stderr) = run(&[args, &["--at", &at]].concat());
        assert_eq!(code, 0, "{args:?}: {stderr}");
        stdout
    };
    let uid = fs::metadata("/proc/self").unwrap().uid();
    let name = format!("unix:{uid}#1");
    let peers = ask(&["show", "peers"]);
    assert!(peers.contains(&format!("{name} ")), "{peers}");
    let status = ask(&["show", "status"]);
    let listening = status.lines().find(|it| it.starts_with("listening"));
    assert!(
        listening.is_some_and(|it| it.ends_with(&endpoint)),
        "{status}"
    );
    let peers = ask(&["show", "peers", "-o", "json"]);
    let peers: serde_json::Value = serde_json::from_str(&peers).unwrap();
    assert_eq!(peers[0]["transport"], "unix", "{peers}");
    assert_eq!(peers[0]["identity"], format!("uid {uid}"), "{peers}");
    assert!(peers[0]["address"].is_null(), "{peers}");
    ask(&["peer", "reset", &name]);
    client.stderr.expect("session ended after");
    let (code, probed, stderr) = run(&["probe", &endpoint]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        probed.contains(&endpoint) && probed.contains("RustBond, server"),
        "{probed}"
    );
    client.stop("TERM");
    server.stop("TERM");
    assert_eq!(folder.len(), 0, "nothing is left behind");
}

#[test]
fn second_server_is_refused_and_the_socket_of_a_dead_one_is_taken_over() {
    let folder = Folder::new();
    let mut first = server(&folder);
    let endpoint = format!("unix:{}", folder.file("peers"));
    let (code, _, stderr) = run(&["server", "-l", &endpoint, "--control", "off"]);
    assert_eq!(code, 1);
    let expected = format!("cannot listen on {endpoint}: another process listens there");
    assert!(stderr.contains(&expected), "{stderr}");
    first.signal("KILL");
    first.wait();
    let second = server(&folder);
    let (code, _, stderr) = run(&["probe", &endpoint, "--count", "1"]);
    assert_eq!(code, 0, "{stderr}");
    second.stop("TERM");
}

#[test]
fn wrong_unix_sockets_and_groups_are_refused_in_one_line() {
    let long = format!("unix:/{}", "a".repeat(107));
    for (args, expected) in [
        (
            ["server", "-l", "unix:peers"],
            "--listen unix:peers: expected",
        ),
        (["server", "-l", &long], "--listen unix:/aaa"),
        (
            ["client", "-s", "unix:"],
            "--server unix:: expected a server",
        ),
        (
            ["server", "--http", "unix:/tmp/x"],
            "--http unix:/tmp/x: expected",
        ),
        (
            ["server", "--unix-group", "no such group"],
            "--unix-group no such group: expected",
        ),
    ] {
        let (code, _, stderr) = run(&args);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}
