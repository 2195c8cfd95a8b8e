//! How peers without reassembly are sent to, as options of server and client.

use clap::Args;
use rustbond::LegacyPacing;

use crate::cli::args::Expected;
use crate::cli::limits::bytes;

pub(crate) const MODE: &str = "auto or off";
pub(crate) const RATE: &str =
    "a number of bytes from 4096 to 4294967295, with K, M or G for powers of 1024";

#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Legacy peers")]
pub(crate) struct PacingArgs {
    /// Spare peers that lose a connection at a cut frame or a full buffer, as Go's do: auto or off.
    #[arg(long, value_name = "MODE", default_value = "auto", value_parser = mode)]
    legacy_pacing: LegacyPacing,

    /// Bytes per second to such a peer at most.
    #[arg(long, value_name = "BYTES", default_value = "8M", value_parser = rate)]
    #[arg(allow_negative_numbers = true)]
    legacy_rate: u32,
}

impl PacingArgs {
    pub(crate) fn mode(self) -> LegacyPacing {
        self.legacy_pacing
    }

    /// Bytes per second.
    pub(crate) fn rate(self) -> u32 {
        self.legacy_rate
    }
}

fn mode(text: &str) -> Result<LegacyPacing, Expected> {
    match text {
        "auto" => Ok(LegacyPacing::Auto),
        "off" => Ok(LegacyPacing::Off),
        _ => Err(Expected(MODE)),
    }
}

fn rate(text: &str) -> Result<u32, Expected> {
    let rate = bytes(text).ok().and_then(|it| u32::try_from(it).ok());
    rate.filter(|it| *it >= 4096).ok_or(Expected(RATE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_has_a_least_and_the_default_is_the_librarys() {
        assert_eq!(
            rate("8M").unwrap(),
            rustbond::ServerConfig::default().legacy_rate
        );
        assert_eq!(rate("4k").unwrap(), 4096);
        for text in ["", "0", "4095", "4G", "-1", "fast"] {
            assert!(rate(text).is_err(), "{text:?}");
        }
        assert_eq!(mode("off").unwrap(), LegacyPacing::Off);
        assert!(mode("OFF").is_err());
    }
}
