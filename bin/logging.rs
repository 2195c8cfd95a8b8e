//! Log output: one line on the standard error for each event.

use std::io::Write;

use log::LevelFilter;

/// Starts logging from `level` on; the environment variable `RUST_LOG` wins.
pub(crate) fn start(level: LevelFilter) {
    env_logger::Builder::new()
        .filter_level(level)
        .parse_default_env()
        .format(|buffer, record| {
            let time = buffer.timestamp();
            writeln!(buffer, "{time} {:<5} {}", record.level(), record.args())
        })
        .init();
}

/// The level for `--verbose` or its absence.
pub(crate) fn level(is_verbose: bool) -> LevelFilter {
    if is_verbose {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    }
}
