//! The limits that a server keeps its peers within, as options.

use std::time::Duration;

use clap::Args;
use rustbond::ServerConfig;

use crate::cli::announcement::parse_decimal;
use crate::cli::args::Expected;

pub(crate) const COUNT: &str = "a number from 1 to 4294967295";
pub(crate) const BYTES: &str = "a number of bytes, with K, M or G for powers of 1024";
pub(crate) const SECONDS: &str = "a number of seconds from 1 to 4294967295";

/// Each has the default of [`ServerConfig`]; the costs are those at worst.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// Connections at once; 4 KiB each and what the kernel takes [default: 32768].
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    max_sessions: Option<u32>,

    /// Connections at once from one address [default: 8192].
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    max_sessions_per_address: Option<u32>,

    /// Connections accepted in a second; more wait [default: 5000].
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    max_accepts_per_second: Option<u32>,

    /// Routes announced by all peers; 130 B each [default: 16000000].
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    max_routes: Option<u32>,

    /// Routes announced by one peer, at each worker [default: 2000000].
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    max_routes_per_peer: Option<u32>,

    /// VNIs that one peer subscribes to; 100 B each [default: 16384].
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    max_subscriptions_per_peer: Option<u32>,

    /// Seconds that a handshake may take [default: 10].
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    handshake_timeout: Option<Duration>,

    /// Changes that wait for a stalled peer until they are folded by route [default: 256K].
    #[arg(long, value_name = "BYTES", value_parser = bytes, allow_negative_numbers = true)]
    queue_soft_limit: Option<usize>,

    /// Changes that wait for a peer until its session is closed [default: 64M].
    #[arg(long, value_name = "BYTES", value_parser = bytes, allow_negative_numbers = true)]
    queue_hard_limit: Option<usize>,
}

impl Limits {
    /// Refuses what is wrong between values; the text names them.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut config = ServerConfig::default();
        self.apply(&mut config);
        if config.queue_soft_limit > config.queue_hard_limit {
            return Err("--queue-soft-limit: is above queue-hard-limit".into());
        }
        Ok(())
    }

    /// Sets what was given.
    pub(crate) fn apply(&self, config: &mut ServerConfig) {
        let set = |limit: &mut usize, given: Option<u32>| {
            if let Some(given) = given.and_then(|it| it.try_into().ok()) {
                *limit = given;
            }
        };
        set(&mut config.max_sessions, self.max_sessions);
        set(
            &mut config.max_sessions_per_address,
            self.max_sessions_per_address,
        );
        set(&mut config.max_routes, self.max_routes);
        set(&mut config.max_routes_per_peer, self.max_routes_per_peer);
        set(
            &mut config.max_subscriptions_per_peer,
            self.max_subscriptions_per_peer,
        );
        config.max_accepts_per_second = self
            .max_accepts_per_second
            .unwrap_or(config.max_accepts_per_second);
        config.handshake_timeout = self.handshake_timeout.unwrap_or(config.handshake_timeout);
        config.queue_soft_limit = self.queue_soft_limit.unwrap_or(config.queue_soft_limit);
        config.queue_hard_limit = self.queue_hard_limit.unwrap_or(config.queue_hard_limit);
    }
}

fn count(text: &str) -> Result<u32, Expected> {
    let count = parse_decimal(text).filter(|it| *it != 0);
    count.ok_or(Expected(COUNT))
}

fn seconds(text: &str) -> Result<Duration, Expected> {
    let seconds = parse_decimal(text).filter(|it: &u32| *it != 0);
    let seconds = seconds.map(|it| Duration::from_secs(it.into()));
    seconds.ok_or(Expected(SECONDS))
}

pub(crate) fn bytes(text: &str) -> Result<usize, Expected> {
    let parse = || {
        let (number, shift) = match text.to_ascii_uppercase().strip_suffix(['K', 'M', 'G']) {
            None => (text.to_owned(), 0),
            Some(number) => match text.as_bytes().last()?.to_ascii_uppercase() {
                b'K' => (number.to_owned(), 10),
                b'M' => (number.to_owned(), 20),
                _ => (number.to_owned(), 30),
            },
        };
        parse_decimal::<usize>(&number)?.checked_mul(1 << shift)
    };
    parse().ok_or(Expected(BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_powers_of_1024() {
        assert_eq!(bytes("1000").unwrap(), 1000);
        assert_eq!(bytes("256k").unwrap(), 256 << 10);
        assert_eq!(bytes("64M").unwrap(), 64 << 20);
        assert_eq!(bytes("2G").unwrap(), 2 << 30);
        for text in ["", "K", "-1", "1.5M", "1T", "99999999999G"] {
            assert!(bytes(text).is_err(), "{text:?}");
        }
    }
}
