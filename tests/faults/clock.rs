//! The wall clock jumps.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::observer::{Load, Observer, VICTIMS, table_of};
use crate::process::{Process, metalbond};
use crate::support::{Raw, eventually, v4};

/// A wall clock of some processes' own; all other clocks are the machine's.
struct Clock {
    library: PathBuf,
    /// What libfaketime reads at every look at the clock.
    offset: PathBuf,
}

impl Clock {
    /// `None`, and says so, without libfaketime.
    fn new() -> Option<Self> {
        let output = Command::new("sh")
            .args(["-c", "ls /usr/lib*/*/faketime/libfaketimeMT.so.1 /usr/lib*/faketime/libfaketimeMT.so.1 2>/dev/null"])
            .output()
            .unwrap();
        let found = String::from_utf8(output.stdout).unwrap();
        let Some(library) = found.lines().next() else {
            eprintln!("SKIPPED: no libfaketime");
            return None;
        };
        let name = format!("metalbond-clock-{}", std::process::id());
        let clock = Self {
            library: Path::new(library).into(),
            offset: std::env::temp_dir().join(name),
        };
        clock.jump("+0");
        Some(clock)
    }

    /// Sets how far it is off: `-1y`, `+3d`.
    fn jump(&self, offset: &str) {
        // A reader sees the old or the new one, never half of it.
        let new = self.offset.with_extension("new");
        std::fs::write(&new, offset).unwrap();
        std::fs::rename(&new, &self.offset).unwrap();
    }

    fn start(&self, args: &[&str]) -> Process {
        let mut command = metalbond();
        command
            .args(args)
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
        Process::start(&mut command)
    }

    /// A client that subscribes and announces, once it is established.
    fn client(&self, server: &str, number: u32, hold: &str) -> Process {
        let route = format!("100#{}#2001:db8::2", v4(VICTIMS + number).prefix);
        let args = ["client", "-s", server, "--keepalive", "1"];
        let own = ["--subscribe", "100", "-a", &route, "--hold", hold];
        let client = self.start(&[&args[..], &own[..]].concat());
        client.stderr.expect("established");
        client
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.offset));
    }
}

/// The year at the beginning of a line of the log.
fn year(line: &str) -> u32 {
    line[..4].parse().unwrap_or_else(|_| panic!("{line}"))
}

/// The wall clock of a server and of its clients jumps by years, back and forth, under load;
/// then the server dies, and the clock jumps again.
///
/// Promised: no session ends, no route comes or goes, nothing is held for shorter or longer: the
/// wall clock is what the log shows, and nothing else.
#[test]
fn wall_clock_jumps_change_nothing_but_the_log() {
    let Some(clock) = Clock::new() else {
        return;
    };
    let server = clock.start(&["server", "-l", "127.0.0.1:0", "--keepalive", "1"]);
    let address = server.listens_on("listening on ");
    let endpoint = address.to_string();
    let first_year = year(&server.stderr.expect("listening on"));
    let witness = Observer::new(&[&endpoint]);
    let load = Load::start(&[&endpoint]);
    let (long, short) = (
        clock.client(&endpoint, 0, "300"),
        clock.client(&endpoint, 1, "3"),
    );
    for (jump, years) in [("-10y", -10), ("+10y", 10), ("-20y", -20), ("+0", 0)] {
        clock.jump(jump);
        // Longer than silence is borne.
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            witness.is_served();
        }
        // A session that comes now is logged with the time of now.
        let peer = Raw::established(address);
        let name = peer.stream.local_addr().unwrap().to_string();
        let line = server.stderr.expect(&format!("{name}: established"));
        let jumped = i64::from(year(&line)) - i64::from(first_year);
        assert!((jumped - years).abs() <= 1, "{jump}: {line}");
    }
    let (_source, expected) = load.finish();
    let all = table_of(&endpoint);
    assert_eq!(all.len(), expected.len() + 2);
    for process in [&long, &short] {
        let lines = process.stderr.so_far();
        assert!(
            !lines.iter().any(|it| it.contains("trying again")),
            "{lines:?}"
        );
    }
    assert_eq!(witness.losses(), []);

    // What is printed as removed from here on was not withdrawn, but let go.
    let printed = |it: &Process| {
        it.stdout
            .so_far()
            .iter()
            .filter(|it| it.starts_with('-'))
            .count()
    };
    // The load keeps their number while it moves on: which there are shows its end.
    let quiet = |it: &Process| {
        let held = held(&it.stdout.so_far());
        let mut all = expected.iter().map(|(_, it)| it.destination.prefix);
        held.len() == expected.len() + 1 && all.all(|it| held.contains(&it.to_string()))
    };
    eventually("both have all", || quiet(&long) && quiet(&short));
    let removed = [printed(&long), printed(&short)];
    drop(server);
    long.stderr.expect("trying again");
    short.stderr.expect("trying again");
    clock.jump("-10y");
    eventually("a hold of 3 s is over", || {
        printed(&short) == removed[1] + expected.len() + 1
    });
    clock.jump("+10y");
    let until = Instant::now() + Duration::from_secs(2);
    eventually("some time passes", || Instant::now() > until);
    assert_eq!(printed(&long), removed[0], "a hold of 300 s is not over");
}

/// The prefixes that lines like `+ VNI 100 10.0.1.0/24 via ...` added and did not remove.
fn held(lines: &[String]) -> BTreeSet<String> {
    let mut held = BTreeSet::new();
    for line in lines {
        let mut words = line.split(' ');
        let (change, prefix) = (words.next(), words.nth(2));
        match (change, prefix) {
            (Some("+"), Some(prefix)) => held.insert(prefix.to_owned()),
            (Some("-"), Some(prefix)) => held.remove(prefix),
            _ => false,
        };
    }
    held
}
