//! What a server logs of its peers: a line for each event, up to a limit a minute, so that no
//! peer can fill a disk. Events above the limit are logged at level debug and summed up.

use std::time::{Duration, Instant};

use log::Level;

use crate::core::limit::Throttle;
use crate::core::map::{Map, map};
use crate::core::pace::Verdict;
use crate::core::rib::PeerId;
use crate::core::session::CloseReason;
use crate::core::types::Vni;
use crate::core::wire::{Malformed, Notice};
use crate::net::Peer;

/// Sessions that begin, or end, in a minute and at a worker, of which each has a line.
const SESSIONS: u32 = 300;

/// Other events in a minute, of a kind and at a worker or the acceptor, of which each has a line.
const TROUBLES: u32 = 10;

/// Events that a peer can cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Established,
    Ended,
    /// A connection that never became a session.
    Failed,
    Malformed,
    OverLimit,
    Paced,
    Refused,
    Notice,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Established,
        Self::Ended,
        Self::Failed,
        Self::Malformed,
        Self::OverLimit,
        Self::Paced,
        Self::Refused,
        Self::Notice,
    ];

    /// Returns the words after a number of them.
    fn plural(self) -> &'static str {
        match self {
            Self::Established => "sessions established",
            Self::Ended => "sessions ended",
            Self::Failed => "connections without a handshake",
            Self::Malformed => "reports of malformed messages",
            Self::OverLimit => "reports of refused requests",
            Self::Paced => "legacy peers gone while a table was sent",
            Self::Refused => "connections refused",
            Self::Notice => "notices of peers",
        }
    }

    fn most(self) -> u32 {
        match self {
            Self::Established | Self::Ended => SESSIONS,
            _ => TROUBLES,
        }
    }
}

/// The log of one thread of a server.
pub(super) struct Journal {
    throttles: [Throttle; Kind::ALL.len()],
    /// Since when sessions are established.
    since: Map<PeerId, Instant>,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self {
            throttles: Kind::ALL.map(|kind| Throttle::new(kind.most())),
            since: map(crate::random::seed()),
        }
    }

    /// Returns the level for an event: `level`, or debug when there are too many.
    pub(super) fn level(&mut self, kind: Kind, level: Level, now: Instant) -> Level {
        // A line that is not written anyway does not count.
        if level > log::max_level() || self.throttles[kind as usize].admits(now) {
            level
        } else {
            Level::Debug
        }
    }

    pub(super) fn established(&mut self, id: PeerId, peer: Peer, now: Instant) {
        self.since.insert(id, now);
        let level = self.level(Kind::Established, Level::Info, now);
        log::log!(level, peer:% = peer; "peer {peer}: established");
    }

    pub(super) fn closed(&mut self, id: PeerId, peer: Peer, reason: CloseReason, now: Instant) {
        let level = match reason.is_orderly() {
            true => Level::Info,
            false => Level::Warn,
        };
        if let Some(since) = self.since.remove(&id) {
            let seconds = now.saturating_duration_since(since).as_secs();
            let level = self.level(Kind::Ended, level, now);
            log::log!(level, peer:% = peer, reason:% = reason, seconds = seconds;
                "peer {peer}: session ended after {seconds} s: {reason}");
            return;
        }
        // A connection that only checks whether the port is open is not worth a line.
        let level = match level {
            Level::Info => Level::Debug,
            level => self.level(Kind::Failed, level, now),
        };
        log::log!(level, peer:% = peer, reason:% = reason;
            "peer {peer}: no session: {reason}");
    }

    pub(super) fn malformed(&mut self, peer: Peer, why: Malformed, total: u64, now: Instant) {
        let level = self.level(Kind::Malformed, Level::Warn, now);
        log::log!(level, peer:% = peer, total = total;
            "peer {peer}: message dropped: {why} ({total} so far)");
    }

    pub(super) fn over_limit(&mut self, peer: Peer, total: u64, now: Instant) {
        let level = self.level(Kind::OverLimit, Level::Warn, now);
        log::log!(level, peer:% = peer, total = total;
            "peer {peer}: limit reached, {total} routes or subscriptions refused so far");
    }

    pub(super) fn notice(&mut self, peer: Peer, notice: &Notice, now: Instant) {
        let level = self.level(Kind::Notice, Level::Warn, now);
        log::log!(level, peer:% = peer, vni = notice.vni.0; "peer {peer}: {notice}");
    }

    pub(super) fn paced(&mut self, peer: Peer, verdict: Verdict, now: Instant) {
        match verdict {
            Verdict::Suspected => log::debug!(peer:% = peer;
                "peer {peer}: gone while it may have had a full buffer; if that repeats, its pace \
                 is halved"),
            Verdict::Halved(halvings) => {
                let level = self.level(Kind::Paced, Level::Warn, now);
                let share = 1 << halvings;
                log::log!(level, peer:% = peer;
                    "peer {peer}: gone at the same place of a table again; the next attempt has \
                     1/{share} of the pace");
            }
        }
    }

    pub(super) fn full_pace_again(peer: Peer) {
        log::info!(peer:% = peer;
            "peer {peer}: has taken a whole table; the next attempt has the full pace");
    }

    pub(super) fn refused(&mut self, peer: Peer, why: &str, now: Instant) {
        let level = self.level(Kind::Refused, Level::Warn, now);
        log::log!(level, peer:% = peer; "peer {peer}: refused, {why}");
    }

    pub(super) fn subscribed(peer: Peer, vni: Vni) {
        log::debug!(peer:% = peer, vni = vni.0; "peer {peer}: VNI {vni}: subscribed");
    }

    pub(super) fn unsubscribed(peer: Peer, vni: Vni) {
        log::debug!(peer:% = peer, vni = vni.0; "peer {peer}: VNI {vni}: unsubscribed");
    }

    /// Returns when there is something to sum up.
    pub(super) fn due(&self) -> Option<Instant> {
        self.throttles.iter().filter_map(Throttle::due).min()
    }

    /// Returns how long until then.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let due = self.due()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Logs how many events were held back.
    pub(super) fn sum_up(&mut self, now: Instant) {
        for (kind, throttle) in Kind::ALL.into_iter().zip(&mut self.throttles) {
            if let Some(count) = throttle.take_held(now) {
                let what = kind.plural();
                log::warn!(count = count; "{count} more {what} in the last minute");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_throttle() {
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }
}
