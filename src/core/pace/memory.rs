//! The addresses whose peers lost their connection to the pace.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::HALVINGS_MAX;

/// How long an address is remembered after its last failure.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// Addresses remembered at once; about 100 KB.
const ADDRESSES: usize = 1024;

/// The addresses of peers that ended their connection while a table was sent to them.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    entries: BTreeMap<IpAddr, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    halvings: u8,
    until: Instant,
}

impl Memory {
    /// How often the pace to an address is halved.
    pub(crate) fn halvings(&self, address: IpAddr, now: Instant) -> u8 {
        let entry = self.entries.get(&address);
        entry
            .filter(|it| now < it.until)
            .map_or(0, |it| it.halvings)
    }

    /// Halves the pace for an address. Returns how often it has been halved so far.
    pub(crate) fn halve(&mut self, address: IpAddr, now: Instant) -> u8 {
        let halvings = (self.halvings(address, now) + 1).min(HALVINGS_MAX);
        if self.entries.len() >= ADDRESSES && !self.entries.contains_key(&address) {
            self.make_room(now);
        }
        let until = now + REMEMBERED;
        self.entries.insert(address, Entry { halvings, until });
        halvings
    }

    /// Forgets what is out of date, or else what would be first.
    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, entry| now < entry.until);
        if self.entries.len() >= ADDRESSES {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.until);
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

    #[test]
    fn an_address_is_remembered_for_an_hour_and_others_are_not_confused() {
        let now = Instant::now();
        let [slow, other]: [IpAddr; 2] =
            ["2001:db8::1", "2001:db8::2"].map(|it| it.parse().unwrap());
        let mut memory = Memory::default();
        assert_eq!([memory.halve(slow, now), memory.halve(slow, now)], [1, 2]);
        assert_eq!(memory.halvings(other, now), 0);
        assert_eq!(memory.halvings(slow, now + Duration::from_secs(3599)), 2);
        assert_eq!(memory.halvings(slow, now + REMEMBERED), 0);
        for _ in 0..20 {
            memory.halve(other, now);
        }
        assert_eq!(memory.halvings(other, now), HALVINGS_MAX);
    }

    #[test]
    fn ever_new_addresses_cost_no_more_memory() {
        let start = Instant::now();
        let mut memory = Memory::default();
        for number in 0..5000 {
            let now = start + Duration::from_millis(number.into());
            memory.halve(IpAddr::V4(number.into()), now);
        }
        assert_eq!(memory.entries.len(), ADDRESSES);
        let newest = IpAddr::V4(4999.into());
        assert_eq!(memory.halvings(newest, start + Duration::from_secs(5)), 1);
    }
}
