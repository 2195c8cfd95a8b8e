//! What is logged, and how, as options.

use clap::Args;
use log::LevelFilter;

use super::Format;
use crate::cli::args::Expected;

pub(crate) const LEVEL: &str = "off, error, warn, info, debug or trace";
pub(crate) const FORMAT: &str = "text or json";

#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Log")]
pub(crate) struct LogArgs {
    /// Log more, as --log-level debug; the environment variable RUST_LOG says what in detail.
    #[arg(short, long)]
    verbose: bool,

    /// Least important events that are logged: error, warn, info, debug, trace or off
    /// [default: info].
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    log_level: Option<LevelFilter>,

    /// Lines for people or a JSON object each: text or json.
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = format)]
    log_format: Format,
}

impl LogArgs {
    /// The level that was asked for, `--log-level` before `--verbose`.
    pub(crate) fn level(self) -> LevelFilter {
        let default = if self.verbose {
            LevelFilter::Debug
        } else {
            LevelFilter::Info
        };
        self.log_level.unwrap_or(default)
    }

    pub(crate) fn format(self) -> Format {
        self.log_format
    }
}

pub(crate) fn level(text: &str) -> Result<LevelFilter, Expected> {
    match text {
        "off" => Ok(LevelFilter::Off),
        "error" => Ok(LevelFilter::Error),
        "warn" => Ok(LevelFilter::Warn),
        "info" => Ok(LevelFilter::Info),
        "debug" => Ok(LevelFilter::Debug),
        "trace" => Ok(LevelFilter::Trace),
        _ => Err(Expected(LEVEL)),
    }
}

fn format(text: &str) -> Result<Format, Expected> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(Expected(FORMAT)),
    }
}
