//! The addresses whose peers lost their connection to the pace.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{BURST, HALVINGS_MAX};

/// Bytes between two ends that count as the same place: a burst more or less, and what the peer had
/// read of the last one.
const SAME_PLACE: u64 = 2 * BURST as u64;

/// How long an address is remembered after its last failure.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// Addresses remembered at once; about 100 KB.
const ADDRESSES: usize = 1024;

/// The end of a connection that a full buffer of the peer can have caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overrun {
    /// When the connection began.
    pub(crate) begun: Instant,
    /// Bytes of a table that were sent before it.
    pub(crate) place: u64,
}

/// What an end means for the pace of the next connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// One end proves nothing: processes are killed. The pace stays.
    Suspected,
    /// The second end in a row at the same place, or a further one: the pace is halved so many
    /// times.
    Halved(u8),
}

/// The addresses of peers whose connection ended while their buffer may have been full.
///
/// A legacy peer has no name, so that the address stands for it.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    entries: BTreeMap<IpAddr, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    halvings: u8,
    /// Where in a table the last connection ended, and when.
    place: u64,
    ended: Instant,
}

impl Memory {
    /// How often the pace to an address is halved.
    pub(crate) fn halvings(&self, address: IpAddr, now: Instant) -> u8 {
        self.entry(address, now).map_or(0, |it| it.halvings)
    }

    fn entry(&self, address: IpAddr, now: Instant) -> Option<Entry> {
        let entry = self.entries.get(&address).copied();
        entry.filter(|it| now < it.ended + REMEMBERED)
    }

    /// Remembers an end. An overrun repeats: each attempt ends at the same place of the table.
    pub(crate) fn ended(&mut self, address: IpAddr, overrun: Overrun, now: Instant) -> Verdict {
        let before = self.entry(address, now);
        // Of two connections at once, the second is another peer of that address.
        let is_repeated = before.is_some_and(|it| {
            overrun.begun >= it.ended && overrun.place.abs_diff(it.place) <= SAME_PLACE
        });
        let halvings = before.map_or(0, |it| it.halvings);
        let halvings = (halvings + u8::from(is_repeated)).min(HALVINGS_MAX);
        if self.entries.len() >= ADDRESSES && !self.entries.contains_key(&address) {
            self.make_room(now);
        }
        let entry = Entry {
            halvings,
            place: overrun.place,
            ended: now,
        };
        self.entries.insert(address, entry);
        match is_repeated {
            true => Verdict::Halved(halvings),
            false => Verdict::Suspected,
        }
    }

    /// Forgives an address whose peer has taken a table of so many bytes. Returns whether its
    /// pace was halved.
    pub(crate) fn taken(&mut self, address: IpAddr, size: u64) -> bool {
        let Some(entry) = self.entries.get(&address).copied() else {
            return false;
        };
        // A small table is no proof for a large one.
        if size < entry.place / 2 {
            return false;
        }
        self.entries.remove(&address);
        entry.halvings > 0
    }

    /// Forgets what is out of date, or else what would be first.
    fn make_room(&mut self, now: Instant) {
        self.entries
            .retain(|_, entry| now < entry.ended + REMEMBERED);
        if self.entries.len() >= ADDRESSES {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.ended);
            if let Some(address) = oldest.map(|(address, _)| *address) {
                self.entries.remove(&address);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test begins at some moment")]
mod tests {
    use super::*;

    /// A connection that began and ended at these milliseconds.
    fn overrun(start: Instant, begun: u64, place: u64) -> Overrun {
        let begun = start + Duration::from_millis(begun);
        Overrun { begun, place }
    }

    #[test]
    fn second_end_at_one_place_halves_the_pace_and_an_eighth_is_the_least() {
        let start = Instant::now();
        let [slow, other]: [IpAddr; 2] =
            ["2001:db8::1", "2001:db8::2"].map(|it| it.parse().unwrap());
        let mut memory = Memory::default();
        let mut now = start;
        for (attempt, halvings) in [0, 1, 2, 3, 3, 3].into_iter().enumerate() {
            assert_eq!(memory.halvings(other, now), 0);
            let overrun = overrun(start, 1000 * attempt as u64, 500_000 + attempt as u64);
            now = overrun.begun + Duration::from_millis(500);
            let verdict = memory.ended(slow, overrun, now);
            let expected = match attempt {
                0 => Verdict::Suspected,
                _ => Verdict::Halved(halvings),
            };
            assert_eq!(verdict, expected);
            assert_eq!(memory.halvings(slow, now), halvings);
        }
        assert_eq!(memory.halvings(slow, now + REMEMBERED), 0);
    }

    #[test]
    fn ends_at_different_places_or_of_two_peers_at_once_slow_nobody() {
        let start = Instant::now();
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        let mut memory = Memory::default();
        for attempt in 0..20 {
            let place = 100_000 + attempt * (SAME_PLACE + 1);
            let overrun = overrun(start, 1000 * attempt, place);
            let now = overrun.begun + Duration::from_millis(500);
            assert_eq!(memory.ended(address, overrun, now), Verdict::Suspected);
        }
        // Both began before either ended.
        let now = start + Duration::from_secs(60);
        for begun in [59_000, 59_001] {
            let overrun = overrun(start, begun, 900_000);
            assert_eq!(memory.ended(address, overrun, now), Verdict::Suspected);
        }
        assert_eq!(memory.halvings(address, now), 0);
    }

    #[test]
    fn table_that_was_taken_forgives_and_a_small_one_does_not() {
        let start = Instant::now();
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        let mut memory = Memory::default();
        let end = |memory: &mut Memory, begun| {
            let overrun = overrun(start, begun, 500_000);
            memory.ended(address, overrun, overrun.begun)
        };
        assert_eq!(end(&mut memory, 0), Verdict::Suspected);
        assert_eq!(end(&mut memory, 1), Verdict::Halved(1));
        assert!(!memory.taken(address, 100_000));
        assert_eq!(memory.halvings(address, start), 1);
        assert!(memory.taken(address, 500_000));
        assert_eq!(memory.halvings(address, start), 0);
        assert_eq!(
            end(&mut memory, 2),
            Verdict::Suspected,
            "one proves nothing"
        );
        assert!(!memory.taken(address, 500_000), "nothing was halved");
        assert_eq!(end(&mut memory, 3), Verdict::Suspected);
    }

    #[test]
    fn ever_new_addresses_cost_no_more_memory() {
        let start = Instant::now();
        let mut memory = Memory::default();
        for number in 0..5000 {
            let overrun = overrun(start, number.into(), 100_000);
            let address = IpAddr::V4(number.into());
            memory.ended(address, overrun, overrun.begun);
        }
        assert_eq!(memory.entries.len(), ADDRESSES);
        let newest = IpAddr::V4(4999.into());
        assert!(
            memory
                .entry(newest, start + Duration::from_secs(5))
                .is_some()
        );
    }
}
