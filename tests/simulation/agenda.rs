//! What of a client is to be judged after its next turn: what changed, and what is due.
//!
//! A judgement of all routes after each turn takes four times as long as the rest of the world.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use rustbond::{Route, Vni};

use super::script::VNIS;

/// A route of a VNI.
pub(crate) type Key = (Vni, Route);

/// What is to be judged, and what was held when that was last looked at.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    touched: Vec<Key>,
    /// Whether each VNI is to be judged as a whole.
    whole: [bool; VNIS as usize],
    /// What time alone makes right or wrong.
    due: BTreeMap<Instant, Vec<Key>>,
    held: [HashSet<Route>; VNIS as usize],
}

/// Place of a VNI in what there is for each.
fn place(vni: Vni) -> usize {
    vni.0 as usize - 1
}

impl Agenda {
    /// Something about a route has changed.
    pub(crate) fn touch(&mut self, key: Key) {
        self.touched.push(key);
    }

    /// Something about each route of a VNI has changed.
    pub(crate) fn touch_all(&mut self, vni: Vni) {
        self.whole[place(vni)] = true;
    }

    /// Something about routes changes at a time.
    pub(crate) fn schedule(&mut self, at: Instant, keys: impl IntoIterator<Item = Key>) {
        self.due.entry(at).or_default().extend(keys);
    }

    /// What is to be judged, route by route, that of earlier times for which nothing is due.
    pub(crate) fn take_touched(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.touched)
    }

    /// What has become due, once.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<Key> {
        let mut keys = Vec::new();
        while let Some(entry) = self.due.first_entry()
            && *entry.key() <= now
        {
            keys.append(&mut entry.remove());
        }
        keys
    }

    /// What is due, and not taken.
    pub(crate) fn due(&self, now: Instant) -> impl Iterator<Item = Key> + '_ {
        self.due.range(..=now).flat_map(|(_, keys)| keys).copied()
    }

    /// Whether a VNI is to be judged as a whole, once; so it is if the client holds another number
    /// of routes than the events and the frames that it read explain.
    pub(crate) fn take_whole(&mut self, vni: Vni, routes: usize) -> bool {
        let at = place(vni);
        std::mem::take(&mut self.whole[at]) || self.held[at].len() != routes
    }

    /// Notes whether a route is held.
    pub(crate) fn note_held(&mut self, (vni, route): Key, is_held: bool) {
        let held = &mut self.held[place(vni)];
        match is_held {
            true => held.insert(route),
            false => held.remove(&route),
        };
    }

    /// Notes all that is held in a VNI.
    pub(crate) fn set_held(&mut self, vni: Vni, routes: impl Iterator<Item = Route>) {
        self.held[place(vni)] = routes.collect();
    }

    /// Whether exactly these routes are noted as held in a VNI.
    pub(crate) fn agrees(
        &self,
        vni: Vni,
        mut routes: impl ExactSizeIterator<Item = Route>,
    ) -> bool {
        let held = &self.held[place(vni)];
        held.len() == routes.len() && routes.all(|route| held.contains(&route))
    }
}
