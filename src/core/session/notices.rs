//! The NOTICEs of a session that wait to be sent.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::core::types::Vni;
use crate::core::wire::{Notice, NoticeCode};

/// From one NOTICE of a code and VNI to the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// Pairs of code and VNI that are remembered at most. A peer that provokes more is not told of
/// all: a NOTICE is a help, and nothing depends on it alone.
const PAIRS: usize = 1024;

/// The NOTICEs of a session that wait to be sent: at most one of a code and VNI in a second.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// To be sent now.
    ready: VecDeque<Notice>,
    /// The pairs of the last second; `None`: nothing waits for its end.
    recent: BTreeMap<(NoticeCode, Vni), (Instant, Option<Notice>)>,
    /// When the first of those that wait may go.
    due: Option<Instant>,
    /// Until then there is no room for another pair.
    full_until: Option<Instant>,
}

impl Notices {
    /// Adds a NOTICE. It takes the place of one that waits with its code and VNI.
    pub(super) fn push(&mut self, notice: Notice, now: Instant) {
        let pair = (notice.code, notice.vni);
        if let Some((until, waiting)) = self.recent.get_mut(&pair)
            && now < *until
        {
            *waiting = Some(notice);
            self.due = Some(self.due.map_or(*until, |due| due.min(*until)));
            return;
        }
        if self.recent.len() >= PAIRS && !self.makes_room(now) {
            return;
        }
        self.recent.insert(pair, (now + INTERVAL, None));
        self.make_ready(notice);
    }

    /// A peer that reads nothing is told no more than that.
    fn make_ready(&mut self, notice: Notice) {
        if self.ready.len() < PAIRS {
            self.ready.push_back(notice);
        }
    }

    /// Takes the next NOTICE to be sent.
    pub(super) fn pop(&mut self) -> Option<Notice> {
        self.ready.pop_front()
    }

    /// Returns when [`Self::handle_timeout`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Lets those go that have waited long enough.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let mut due = Vec::new();
        for (until, waiting) in self.recent.values_mut() {
            if now >= *until
                && let Some(notice) = waiting.take()
            {
                *until = now + INTERVAL;
                due.push(notice);
            }
        }
        due.into_iter().for_each(|it| self.make_ready(it));
        self.forget(now);
        let waiting = self.recent.values().filter(|(_, it)| it.is_some());
        self.due = waiting.map(|(until, _)| *until).min();
    }

    /// Returns whether there is room for another pair. A flood has it looked for once in a while.
    fn makes_room(&mut self, now: Instant) -> bool {
        if self.full_until.is_some_and(|until| now < until) {
            return false;
        }
        self.forget(now);
        let is_full = self.recent.len() >= PAIRS;
        self.full_until = is_full.then(|| now + INTERVAL);
        !is_full
    }

    fn forget(&mut self, now: Instant) {
        self.recent
            .retain(|_, (until, waiting)| waiting.is_some() || now < *until);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test begins at some moment")]
mod tests {
    use super::*;

    fn notice(vni: u32, text: &str) -> Notice {
        Notice {
            code: NoticeCode::REFUSED_SUBSCRIPTION,
            vni: Vni(vni),
            text: text.into(),
        }
    }

    #[test]
    fn one_of_a_code_and_vni_goes_in_a_second_and_the_latest_is_told() {
        let start = Instant::now();
        let mut notices = Notices::default();
        for text in ["one", "two", "three"] {
            notices.push(notice(7, text), start);
        }
        notices.push(notice(8, "other"), start);
        assert_eq!(notices.pop(), Some(notice(7, "one")));
        assert_eq!(notices.pop(), Some(notice(8, "other")));
        assert_eq!(notices.pop(), None);
        assert_eq!(notices.due(), Some(start + INTERVAL));
        notices.handle_timeout(start + INTERVAL / 2);
        assert_eq!(notices.pop(), None);
        notices.handle_timeout(start + INTERVAL);
        assert_eq!(notices.pop(), Some(notice(7, "three")));
        assert_eq!((notices.pop(), notices.due()), (None, None));
        notices.push(notice(7, "four"), start + INTERVAL);
        assert_eq!(notices.pop(), None, "a second has not passed");
        notices.handle_timeout(start + 2 * INTERVAL);
        assert_eq!(notices.pop(), Some(notice(7, "four")));
        notices.handle_timeout(start + 3 * INTERVAL);
        assert!(notices.recent.is_empty());
    }

    #[test]
    fn flood_of_pairs_is_bounded() {
        let start = Instant::now();
        let mut notices = Notices::default();
        for vni in 0..10_000 {
            notices.push(notice(vni, ""), start);
        }
        assert_eq!(notices.ready.len(), PAIRS);
        assert_eq!(
            notices.full_until,
            Some(start + INTERVAL),
            "looked for room once"
        );
        // It reads nothing, and goes on.
        for vni in 10_000..20_000 {
            notices.push(notice(vni, ""), start + INTERVAL);
        }
        assert_eq!(notices.ready.len(), PAIRS);
        while notices.pop().is_some() {}
        let start = start + INTERVAL;
        notices.push(notice(9999, ""), start + INTERVAL);
        assert_eq!(notices.pop(), Some(notice(9999, "")));
        assert_eq!(notices.recent.len(), 1);
    }
}
