//! What is packaged: the units, checked offline, and what is made from the definition of the
//! options. The packages themselves are built by `packaging/deb.sh` and `packaging/static.sh`.
#![allow(clippy::print_stderr, reason = "who is skipped says so")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::netns;
use crate::process::{Process, run};
use crate::support::{self, Raw};

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/systemd");

/// A folder of a test; gone with this.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("metalbond-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().into()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// What a tool prints, both ways; `None`, and says so, where there is none or it fails.
fn output(tool: &str, args: &[&str]) -> Option<(bool, String)> {
    match Command::new(tool).args(args).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8(text).unwrap()))
        }
        Err(error) => {
            eprintln!("SKIPPED: {tool}: {error}");
            None
        }
    }
}

fn unit(name: &str) -> String {
    fs::read_to_string(Path::new(UNITS).join(name)).unwrap()
}

/// The values of a unit's setting, in order.
fn settings<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines.filter(|it| it.0 == name).map(|it| it.1).collect()
}

#[test]
fn units_are_as_closed_as_promised() {
    for (name, most) in [("server", 1.5), ("client", 2.0), ("tunnel", 2.0)] {
        let path = format!("{UNITS}/metalbond-{name}.service");
        let args = ["security", "--offline=true", "--no-pager", &path];
        let Some((_, text)) = output("systemd-analyze", &args) else {
            return;
        };
        let line = text
            .lines()
            .find(|it| it.contains("Overall exposure level"));
        let Some((_, rest)) = line.and_then(|it| it.rsplit_once(": ")) else {
            eprintln!("SKIPPED: systemd-analyze cannot check units offline: {text}");
            return;
        };
        let level: f32 = rest.split(' ').next().unwrap().parse().unwrap();
        assert!(level <= most, "{name}: {level}");
    }
}

#[test]
fn units_are_valid() {
    let folder = Folder::new("units");
    let mut paths = Vec::new();
    for entry in fs::read_dir(UNITS).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let binary = env!("CARGO_BIN_EXE_metalbond");
        let text = unit(&name).replace("/usr/bin/metalbond", binary);
        fs::write(folder.0.join(&name), text).unwrap();
        paths.push(folder.join(&name));
    }
    assert_eq!(paths.len(), 4);
    let args = ["verify", "--man=no"].into_iter();
    let args: Vec<&str> = args.chain(paths.iter().map(String::as_str)).collect();
    if let Some((_, text)) = output("systemd-analyze", &args) {
        // Of the machine's own units, and of those that this one lacks.
        let ours = text.lines().filter(|line| line.contains("metalbond"));
        let ours: Vec<&str> = ours.filter(|it| !it.contains("network-online")).collect();
        assert!(ours.is_empty(), "{ours:#?}");
    }
}

#[test]
fn units_start_what_the_command_understands() {
    for role in ["server", "client"] {
        let unit = unit(&format!("metalbond-{role}.service"));
        let start = settings(&unit, "ExecStart");
        let config = format!("/etc/metalbond/{role}.toml");
        assert_eq!(
            start,
            [format!("/usr/bin/metalbond {role} --config {config}")]
        );
        let (_, help, _) = run(&[role, "--help"]);
        assert!(help.contains("--config <FILE>"), "{help}");
    }
}

/// The configuration that is shipped, with its options as they are where nothing else is said.
#[test]
fn default_files_state_the_defaults() {
    let folder = Folder::new("templates");
    for role in ["server", "client"] {
        let (code, template, _) = run(&["template", role]);
        assert_eq!(code, 0);
        // Those in capitals have no default and show what they take.
        let is_default = |line: &&str| {
            let value = line.strip_prefix('#').and_then(|it| it.split_once(" = "));
            value.is_some_and(|(_, value)| {
                value != "true"
                    && !value
                        .trim_matches(['[', ']', '"'])
                        .starts_with(char::is_uppercase)
            })
        };
        let keys = template.lines().filter(is_default);
        let keys: Vec<&str> = keys.map(|line| &line[1..]).collect();
        assert!(keys.len() > 4, "{template}");
        let server = if role == "client" {
            "server = \"a\"\n"
        } else {
            ""
        };
        let path = folder.join(role);
        fs::write(&path, format!("[{role}]\n{server}{}\n", keys.join("\n"))).unwrap();
        let (code, stdout, stderr) = run(&["check", &path]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
        let (_, help, _) = run(&[role, "--help"]);
        let words = help.split([' ', ',', '\n']);
        let named: BTreeSet<&str> = words.filter(|it| it.starts_with("--")).collect();
        for option in named {
            let is_key = template.contains(&format!("\n#{} = ", &option[2..]));
            assert_eq!(
                is_key,
                !["--help", "--config"].contains(&option),
                "{option}"
            );
        }
    }
}

#[test]
fn manual_pages_and_completions_name_every_command_and_option() {
    let folder = Folder::new("man");
    let (code, _, stderr) = run(&["man", &folder.join("man1")]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let page = |name: &str| fs::read_to_string(folder.join(&format!("man1/{name}.1"))).unwrap();
    let completions = ["bash", "zsh", "fish"].map(|shell| run(&["completions", shell]).1);
    let (_, help, _) = run(&["--help"]);
    let commands = help.lines().skip_while(|it| *it != "Commands:").skip(1);
    let commands = commands.take_while(|it| !it.is_empty());
    let commands: Vec<&str> = commands
        .map(|it| it.split_whitespace().next().unwrap())
        .collect();
    assert!(commands.starts_with(&["server", "client"]), "{help}");
    for command in commands {
        let escaped = format!("metalbond\\-{command}(1)");
        assert!(page("metalbond").contains(&escaped), "{escaped}");
        let (_, help, _) = run(&[command, "--help"]);
        let page = page(&format!("metalbond-{command}")).replace('\\', "");
        // What a text says of other commands' options is none of this one's.
        let lines = help.lines().map(str::trim_start);
        let definitions = lines.filter(|it| it.starts_with('-'));
        let words = definitions.flat_map(|it| it.split([' ', ',']).take(3));
        for option in words.filter(|it| it.starts_with("--")) {
            assert!(page.contains(option), "{option} in the page of {command}");
            for text in &completions {
                // That of fish writes `-l name`.
                assert!(text.contains(&option[2..]), "{option} in {command}: {text}");
            }
        }
    }
    for packagers in ["completions", "template"] {
        assert!(!completions[0].contains(packagers), "{packagers}");
    }
    let (code, _, stderr) = run(&["completions", "tcsh"]);
    let expected = "metalbond: <SHELL> tcsh: expected bash, zsh or fish\n";
    assert_eq!((code, stderr.as_str()), (2, expected));
}

#[test]
fn bash_completes_commands_and_options() {
    let script = "source /dev/stdin && COMP_WORDS=(metalbond server --dr) COMP_CWORD=2 && \
                  _metalbond metalbond --dr server && echo \"${COMPREPLY[@]}\"";
    let (_, completions, _) = run(&["completions", "bash"]);
    let folder = Folder::new("bash");
    let path = folder.join("completions");
    fs::write(&path, completions).unwrap();
    let script = script.replace("/dev/stdin", &path);
    if let Some((_, text)) = output("bash", &["--norc", "-c", &script]) {
        assert_eq!(text, "--drain\n");
    }
}

/// The lines of the tunnel's unit, as root, in place of the system.
#[test]
fn tunnel_unit_makes_the_device_and_removes_it() {
    netns::in_namespace("tunnel", || {
        let unit = unit("metalbond-tunnel.service");
        let device = settings(&unit, "Environment")[0]
            .strip_prefix("DEVICE=")
            .unwrap();
        let exists = || netns::ip("link show").contains(&format!(": {device}"));
        let execute = |line: &str| {
            let line = line.replace("${DEVICE}", device);
            let shell = format!("export DEVICE={device}; {line}");
            output("sh", &["-c", &shell]).unwrap()
        };
        let all = |name| {
            for line in settings(&unit, name) {
                let (is_done, text) = execute(line);
                if text.contains("Unknown device type") || text.contains("not supported") {
                    eprintln!("SKIPPED: the kernel has no ip6tnl");
                    return false;
                }
                assert!(is_done, "{line}: {text}");
            }
            true
        };
        if !all("ExecStart") {
            return;
        }
        assert!(exists());
        // One that is there stays.
        assert!(all("ExecStart"));
        let details = netns::ip(&format!("-details link show {device}"));
        assert!(details.contains("ip6tnl external"), "{details}");
        assert!(details.contains(",UP"), "{details}");
        assert!(all("ExecStop"));
        assert!(!exists());
    });
}

/// The names of the system calls that a filter lets through.
fn allowed_calls(unit: &str) -> Option<BTreeSet<String>> {
    let mut allowed = BTreeSet::new();
    for filter in settings(unit, "SystemCallFilter") {
        let denied = filter.strip_prefix('~');
        for group in denied.unwrap_or(filter).split(' ') {
            let calls = group_calls(group)?;
            match denied {
                None => allowed.extend(calls),
                Some(_) => allowed.retain(|it| !calls.contains(it)),
            }
        }
    }
    // What systemd allows besides, for its own steps before the program begins.
    allowed.extend(group_calls("@default")?);
    allowed.insert("execve".into());
    Some(allowed)
}

fn group_calls(group: &str) -> Option<BTreeSet<String>> {
    let (_, text) = output("systemd-analyze", &["syscall-filter", "--no-pager", group])?;
    let mut calls = BTreeSet::new();
    let words = text
        .lines()
        .map(str::trim)
        .filter(|it| !it.starts_with('#'));
    for word in words.filter(|it| !it.is_empty() && *it != group) {
        if word.starts_with('@') {
            calls.extend(group_calls(word)?);
        } else {
            calls.insert(word.into());
        }
    }
    Some(calls)
}

/// The calls of a process that was traced into a file, with their arguments.
fn traced(path: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap();
    let calls = text.lines().filter_map(|line| {
        let (_, call) = line.split_once(' ')?;
        let (name, arguments) = call.trim().split_once('(')?;
        let is_name = name
            .bytes()
            .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'_');
        is_name.then(|| (name.to_owned(), arguments.to_owned()))
    });
    calls.collect()
}

/// A `metalbond` under `strace`, which writes to `trace`.
fn start_traced(trace: &str, args: &[&str]) -> Option<Process> {
    output("strace", &["--version"])?;
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", trace, env!("CARGO_BIN_EXE_metalbond")]);
    Some(Process::start(command.args(args).env_remove("RUST_LOG")))
}

/// What runs under `strace` gets its signals itself.
fn stop_traced(mut process: Process, name: &str) {
    let children = format!("/proc/{0}/task/{0}/children", process.id());
    let child = fs::read_to_string(children).unwrap();
    let status = Command::new("kill").arg(child.trim()).status().unwrap();
    assert!(status.success());
    assert_eq!(
        process.wait().code(),
        Some(0),
        "{name}: {}",
        process.stderr.all()
    );
}

fn assert_allowed(name: &str, trace: &str) {
    let unit = unit(&format!("metalbond-{name}.service"));
    let Some(allowed) = allowed_calls(&unit) else {
        return;
    };
    let calls = traced(trace);
    assert!(
        calls.iter().any(|it| it.0 == "epoll_wait"),
        "nothing was traced"
    );
    let names: BTreeSet<&String> = calls.iter().map(|it| &it.0).collect();
    let denied: Vec<_> = names.iter().filter(|it| !allowed.contains(**it)).collect();
    assert!(denied.is_empty(), "{name} uses {denied:?}");
    // MemoryDenyWriteExecute: what the loader maps from files may be executed, and not written.
    for (call, arguments) in &calls {
        let maps = call == "mmap" && arguments.contains("PROT_WRITE|PROT_EXEC");
        let changes = matches!(call.as_str(), "mprotect" | "pkey_mprotect")
            && arguments.contains("PROT_EXEC");
        assert!(!maps && !changes, "{name}: {call}({arguments}");
    }
    let families = settings(&unit, "RestrictAddressFamilies")[0];
    let families: Vec<&str> = families.split(' ').collect();
    for (_, arguments) in calls.iter().filter(|it| it.0 == "socket") {
        let family = arguments.split([',', '|']).next().unwrap();
        assert!(families.contains(&family), "{name} opens {family}");
    }
}

/// Both at work, from their start to their end: no system call that their units deny.
#[test]
fn server_and_client_call_nothing_that_their_units_deny() {
    netns::in_namespace("filter", || {
        netns::make_device();
        let folder = Folder::new("strace");
        let (at_server, at_client) = (folder.join("server"), folder.join("client"));
        let config = folder.join("server.toml");
        fs::write(&config, "[server]\nhttp = \"127.0.0.1:4712\"\n").unwrap();
        let listen = [
            "server",
            "--listen",
            "[::]:4711",
            "--drain",
            "1",
            "--config",
            &config,
        ];
        let Some(server) = start_traced(&at_server, &listen) else {
            return;
        };
        let address = server.listens_on("listening on ");
        let install = ["--install-routes", "1#100", "--tun", netns::DEVICE];
        let client = [
            "client",
            "--server",
            "localhost:4711",
            "--subscribe",
            "1",
            "--http",
            "127.0.0.1:4713",
        ];
        let client = start_traced(&at_client, &[&client[..], &install].concat()).unwrap();
        client.stderr.expect("established");
        let mut announcer = Raw::established(address);
        for number in 0..100 {
            announcer.send(&support::update(0, 1, number, 1));
        }
        support::eventually("routes are installed", || {
            netns::ip("route show table 100").lines().count() == 100
        });
        for port in [4712, 4713] {
            let mut request = Raw::connect(([127, 0, 0, 1], port).into());
            request
                .send(b"GET /routes.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let mut answer = String::new();
            std::io::Read::read_to_string(&mut request.stream, &mut answer).unwrap();
            assert!(answer.contains("200 OK"), "{answer}");
        }
        drop(announcer);
        stop_traced(client, "client");
        stop_traced(server, "server");
        assert_allowed("server", &at_server);
        assert_allowed("client", &at_client);
    });
}

#[test]
fn command_asked_for_help_starts_nothing() {
    for command in ["completions", "man", "template"] {
        let (code, stdout, _) = run(&[command, "--help"]);
        assert_eq!(code, 0);
        assert!(stdout.contains(&format!("metalbond {command}")), "{stdout}");
    }
}
