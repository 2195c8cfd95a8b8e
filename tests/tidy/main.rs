//! What clippy cannot see: who may name what, and how long a file may be.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod modules;

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file at most: what a reader can hold in mind.
const LINES: usize = 600;

/// What lies here holds no socket, clock, thread, channel, lock, atomic, randomness or log.
const CORE: &str = "src/core/";

/// A word, where it may stand (prefixes of paths), and why nowhere else.
const RULES: [(&str, &[&str], &str); 5] = [
    (
        "mio::",
        &[
            "src/net/",
            "src/server/",
            "src/client/engine",
            "src/kernel/",
            "src/http/",
        ],
        "only the shell names mio",
    ),
    (
        "prost",
        &["src/core/wire/", "build.rs"],
        "only wire knows protobuf",
    ),
    ("rtnetlink", &["src/kernel/"], "only kernel speaks netlink"),
    (
        "serde_json",
        &["src/http/", "bin/cli/logging/", "bin/cli/ask/"],
        "only http, the log and the commands that ask know JSON",
    ),
    ("clap", &["bin/"], "only the command reads arguments"),
];

/// What the core may not name.
const IMPURE: [&str; 10] = [
    "std::thread",
    "std::net::Tcp",
    "crossbeam_channel",
    "parking_lot",
    "std::sync::atomic",
    "Mutex",
    "SystemTime",
    "log::",
    "crate::random",
    "socket2",
];

/// Modules that may name each other in a circle, and why that is better than none.
const CYCLES: &[(&str, &str)] = &[];

fn sources(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let name = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

fn all_sources() -> Vec<(String, String)> {
    ["src", "bin", "tests", "benches"]
        .iter()
        .flat_map(|it| sources(it))
        .collect()
}

fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.contains("/tests/") || name.starts_with("tests/")
}

/// The code of a file: without its tests and its comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..tests]
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn files_stay_short() {
    for (name, text) in all_sources() {
        let lines = text.lines().count();
        assert!(
            lines <= LINES,
            "{name} has {lines} lines, {LINES} are allowed"
        );
    }
}

#[test]
fn words_stay_where_they_belong() {
    for (name, text) in sources("src").into_iter().chain(sources("bin")) {
        for (word, allowed, why) in RULES {
            let is_allowed = is_test(&name) || allowed.iter().any(|it| name.starts_with(it));
            let named = code(&text).find(|line| line.contains(word));
            assert!(
                is_allowed || named.is_none(),
                "{name}: {why}: {}",
                named.unwrap()
            );
        }
    }
}

#[test]
fn core_names_nothing_impure() {
    let mut seen = 0;
    for (name, text) in sources("src") {
        if is_test(&name) || !name.starts_with(CORE) {
            continue;
        }
        seen += 1;
        for word in IMPURE {
            let named = code(&text).find(|line| {
                line.match_indices(word).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    !before.is_some_and(|it| it.is_alphanumeric() || it == ':' || it == '_')
                })
            });
            // The log of a table is a module of ours.
            let named = named.filter(|line| !line.contains("use log::Log;"));
            assert_eq!(named, None, "{name} names {word}");
        }
    }
    assert!(seen > 20, "the core lies somewhere else");
}

#[test]
fn ignored_tests_give_a_reason() {
    let bare = concat!("#[", "ignore]");
    for (name, text) in all_sources() {
        assert!(
            !text.contains(bare),
            "{name} ignores a test without a reason"
        );
    }
}

#[test]
fn modules_form_no_cycle() {
    let mut found = Vec::new();
    for folder in ["src", "bin"] {
        let files: Vec<(String, String)> = sources(folder)
            .into_iter()
            .filter(|(name, _)| !is_test(name))
            .map(|(name, text)| (name[folder.len() + 1..].to_owned(), text))
            .collect();
        let cycles = modules::Modules::new(&files).cycles();
        found.extend(
            cycles
                .iter()
                .map(|it| format!("{folder}: {}", it.join(", "))),
        );
    }
    let allowed: Vec<&str> = CYCLES.iter().map(|(cycle, _)| *cycle).collect();
    for cycle in &found {
        assert!(allowed.contains(&cycle.as_str()), "a cycle of {cycle}");
    }
    for cycle in allowed {
        assert!(found.iter().any(|it| it == cycle), "there is none: {cycle}");
    }
}
