//! How often the sessions from a source ended of late.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::core::limit::Recent;
use crate::core::session::CloseReason;
use crate::net::Source;

/// Sources remembered at once; about 2 MB.
const SOURCES: usize = 16_384;

/// The sources whose sessions ended.
#[derive(Debug, Default)]
pub(super) struct Flaps {
    entries: BTreeMap<Source, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    ends: Recent,
    last: Instant,
    reason: CloseReason,
}

impl Flaps {
    /// A session from a source ended.
    pub(super) fn ended(&mut self, source: Source, reason: CloseReason, now: Instant) {
        if self.entries.len() >= SOURCES && !self.entries.contains_key(&source) {
            self.make_room(now);
        }
        let entry = self.entries.entry(source).or_insert_with(|| Entry {
            ends: Recent::new(now),
            last: now,
            reason,
        });
        entry.ends.count(now);
        entry.last = now;
        entry.reason = reason;
    }

    /// How many sessions from a source ended in the last hour, and why the last one did.
    pub(super) fn of(&self, source: Source, now: Instant) -> Option<(u32, CloseReason)> {
        let entry = self.entries.get(&source)?;
        let count = entry.ends.total(now);
        (count > 0).then_some((count, entry.reason))
    }

    /// Forgets what does not count any more, or else the older half.
    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, entry| entry.ends.total(now) > 0);
        if self.entries.len() >= SOURCES {
            let mut lasts: Vec<Instant> = self.entries.values().map(|it| it.last).collect();
            let (_, middle, _) = lasts.select_nth_unstable(SOURCES / 2);
            let middle = *middle;
            self.entries.retain(|_, entry| entry.last > middle);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sources_are_not_confused() {
        let now = Instant::now();
        let one = Source::Address([192, 0, 2, 1].into());
        let other = Source::User(0);
        let mut flaps = Flaps::default();
        flaps.ended(one, CloseReason::Silent, now);
        flaps.ended(one, CloseReason::PeerClosed, now);
        assert_eq!(flaps.of(one, now), Some((2, CloseReason::PeerClosed)));
        assert_eq!(flaps.of(other, now), None);
        assert_eq!(flaps.of(one, now + Duration::from_secs(3700)), None);
    }

    #[test]
    fn ever_new_sources_cost_no_more_memory() {
        let start = Instant::now();
        let mut flaps = Flaps::default();
        for number in 0..50_000 {
            let now = start + Duration::from_millis(number.into());
            flaps.ended(Source::User(number), CloseReason::Silent, now);
            assert!(flaps.entries.len() <= SOURCES);
        }
        let newest = Source::User(49_999);
        let now = start + Duration::from_secs(50);
        assert_eq!(flaps.of(newest, now), Some((1, CloseReason::Silent)));
    }
}
