//! How often the sessions of an address ended of late.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::session::CloseReason;

/// How long an ended session counts; then it counts for a tenth of that more at most.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// The ends of one stretch of that are counted together.
const STRETCHES: usize = 10;

/// Addresses remembered at once; about 2 MB.
const ADDRESSES: usize = 16_384;

/// The addresses whose sessions ended.
#[derive(Debug)]
pub(super) struct Flaps {
    begin: Instant,
    entries: BTreeMap<IpAddr, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The number of the stretch of the last end.
    stretch: u64,
    /// Of that stretch and those before it, the latest first.
    ends: [u16; STRETCHES],
    reason: CloseReason,
}

impl Flaps {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begin: now,
            entries: BTreeMap::new(),
        }
    }

    /// A session of an address ended.
    pub(super) fn ended(&mut self, address: IpAddr, reason: CloseReason, now: Instant) {
        let stretch = self.stretch(now);
        if self.entries.len() >= ADDRESSES && !self.entries.contains_key(&address) {
            self.make_room(stretch);
        }
        let entry = self.entries.entry(address).or_insert(Entry {
            stretch,
            ends: [0; STRETCHES],
            reason,
        });
        entry.advance(stretch);
        entry.ends[0] = entry.ends[0].saturating_add(1);
        entry.reason = reason;
    }

    /// How many sessions of an address ended of late, and why the last one did.
    pub(super) fn of(&self, address: IpAddr, now: Instant) -> Option<(u32, CloseReason)> {
        let mut entry = *self.entries.get(&address)?;
        entry.advance(self.stretch(now));
        let count = entry.count();
        (count > 0).then_some((count, entry.reason))
    }

    fn stretch(&self, now: Instant) -> u64 {
        let length = REMEMBERED.as_millis() / STRETCHES as u128;
        let passed = now.saturating_duration_since(self.begin).as_millis();
        u64::try_from(passed / length).unwrap_or(u64::MAX)
    }

    /// Forgets what does not count any more, or else what would be first.
    fn make_room(&mut self, stretch: u64) {
        self.entries
            .retain(|_, entry| entry.stretch + (STRETCHES as u64) > stretch);
        if self.entries.len() >= ADDRESSES {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.stretch);
            if let Some(address) = oldest.map(|(address, _)| *address) {
                self.entries.remove(&address);
            }
        }
    }
}

impl Entry {
    fn advance(&mut self, stretch: u64) {
        let passed = usize::try_from(stretch.saturating_sub(self.stretch)).unwrap_or(usize::MAX);
        let passed = passed.min(STRETCHES);
        self.ends.copy_within(..STRETCHES - passed, passed);
        self.ends[..passed].fill(0);
        self.stretch = self.stretch.max(stretch);
    }

    fn count(&self) -> u32 {
        self.ends.iter().map(|it| u32::from(*it)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_counts_for_an_hour() {
        let start = Instant::now();
        let minutes = |count: u64| start + Duration::from_secs(60 * count);
        let [one, other]: [IpAddr; 2] = ["192.0.2.1", "::1"].map(|it| it.parse().unwrap());
        let mut flaps = Flaps::new(start);
        for minute in [1, 2, 30] {
            flaps.ended(one, CloseReason::Silent, minutes(minute));
        }
        flaps.ended(one, CloseReason::PeerClosed, minutes(31));
        let count = |minute| flaps.of(one, minutes(minute)).map(|(count, _)| count);
        assert_eq!(
            flaps.of(one, minutes(31)),
            Some((4, CloseReason::PeerClosed))
        );
        assert_eq!(count(59), Some(4));
        assert_eq!(count(70), Some(2));
        assert_eq!(count(100), None);
        assert_eq!(flaps.of(other, minutes(31)), None);
    }

    #[test]
    fn ever_new_addresses_cost_no_more_memory() {
        let start = Instant::now();
        let mut flaps = Flaps::new(start);
        for number in 0..20_000 {
            flaps.ended(IpAddr::V4(number.into()), CloseReason::Silent, start);
        }
        assert_eq!(flaps.entries.len(), ADDRESSES);
    }
}
