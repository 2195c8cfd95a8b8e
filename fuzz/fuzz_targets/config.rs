//! Whatever a configuration file says, it is taken, or refused with a place and a reason.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "the command's own modules, of which one is run"
)]

#[path = "../../bin/cli/mod.rs"]
mod cli;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

use cli::refusal::{self, Parsed};
use libfuzzer_sys::fuzz_target;

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
