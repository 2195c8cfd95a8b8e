//! Whatever a configuration file says, it is taken, or refused with a place and a reason.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "the command's own modules, of which one is run"
)]

#[path = "../../bin/announcement.rs"]
mod announcement;
#[path = "../../bin/args.rs"]
mod args;
#[path = "../../bin/ask/mod.rs"]
mod ask;
#[path = "../../bin/client.rs"]
mod client;
#[path = "../../bin/config/mod.rs"]
mod config;
#[path = "../../bin/control.rs"]
mod control;
#[path = "../../bin/demo/mod.rs"]
mod demo;
#[path = "../../bin/descriptors.rs"]
mod descriptors;
#[path = "../../bin/endpoint.rs"]
mod endpoint;
#[path = "../../bin/failure.rs"]
mod failure;
#[path = "../../bin/http.rs"]
mod http;
#[path = "../../bin/kernel.rs"]
mod kernel;
#[path = "../../bin/limits.rs"]
mod limits;
#[path = "../../bin/logging/mod.rs"]
mod logging;
#[path = "../../bin/manual.rs"]
mod manual;
#[path = "../../bin/output.rs"]
mod output;
#[path = "../../bin/pacing.rs"]
mod pacing;
#[path = "../../bin/refusal.rs"]
mod refusal;
#[path = "../../bin/reload.rs"]
mod reload;
#[path = "../../bin/server.rs"]
mod server;
#[path = "../../bin/service/mod.rs"]
mod service;
#[path = "../../bin/signals.rs"]
mod signals;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use refusal::Parsed;

/// A file in memory, of this process.
fn file() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| PathBuf::from(format!("/dev/shm/metalbond-fuzz-{}", std::process::id())))
}

fuzz_target!(|text: &[u8]| {
    std::fs::write(file(), text).expect("memory can be written to");
    for role in ["server", "client"] {
        let line = ["metalbond", role, "--config"].map(OsString::from);
        let line = line.into_iter().chain([file().into()]);
        match refusal::parse(line) {
            Parsed::Command(_) | Parsed::Text(_) => {}
            Parsed::Refused(failure) => {
                // In the file, or an option that is in neither file nor command line.
                let said = failure.to_string();
                let has_place = said.contains("metalbond-fuzz-") || said.starts_with("--");
                assert!(has_place, "neither file nor option is named: {said}");
            }
        }
    }
});
