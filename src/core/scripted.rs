//! What tests of the core hold their subjects against: who announces what, and a table that
//! takes no message that changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use crate::core::session::{Role, SessionConfig};
use crate::core::types::{Action, Route, Vni};
use crate::core::wire::{Capabilities, Extensions};

/// A session of this implementation with a keepalive interval of 5 s.
pub(crate) fn session(role: Role) -> SessionConfig {
    SessionConfig {
        role,
        keepalive_interval: 5,
        handshake_timeout: Duration::from_secs(10),
        extensions: Some(Extensions {
            capabilities: Capabilities::OWN,
            node_id: [1; 16],
            uptime_seconds: 0,
        }),
    }
}

/// Applies a change to a table.
///
/// # Panics
///
/// If the change is a duplicate ADD or the REMOVE of what is not there.
pub(crate) fn hear<K: Copy + Ord + Debug>(table: &mut BTreeSet<K>, action: Action, key: K) {
    let is_news = match action {
        Action::Add => table.insert(key),
        Action::Remove => table.remove(&key),
    };
    assert!(is_news, "{action:?} of {key:?} changes nothing");
}

/// Who announces what, whatever the subject makes of it.
#[derive(Debug)]
pub(crate) struct Truth<P> {
    announcers: BTreeMap<(Vni, Route), BTreeSet<P>>,
}

impl<P> Default for Truth<P> {
    fn default() -> Self {
        let announcers = BTreeMap::new();
        Self { announcers }
    }
}

impl<P: Copy + Ord> Truth<P> {
    /// A peer announces or withdraws a route.
    pub(crate) fn apply(&mut self, peer: P, action: Action, vni: Vni, route: Route) {
        let announcers = self.announcers.entry((vni, route)).or_default();
        match action {
            Action::Add => announcers.insert(peer),
            Action::Remove => announcers.remove(&peer),
        };
    }

    /// A peer leaves with all that it announced.
    pub(crate) fn leave(&mut self, peer: P) {
        for announcers in self.announcers.values_mut() {
            announcers.remove(&peer);
        }
    }

    /// The routes of a VNI that a peer is to see: those that another one announces.
    pub(crate) fn seen_by(&self, peer: P, vni: Vni) -> BTreeSet<Route> {
        let sees = |((of, route), announcers): (&(Vni, Route), &BTreeSet<P>)| {
            (*of == vni && announcers.iter().any(|it| *it != peer)).then_some(*route)
        };
        self.announcers.iter().filter_map(sees).collect()
    }

    /// The routes of a VNI that somebody announces, and who does.
    pub(crate) fn live(&self, vni: Vni) -> BTreeMap<Route, BTreeSet<P>> {
        let live = |((of, route), announcers): (&(Vni, Route), &BTreeSet<P>)| {
            (*of == vni && !announcers.is_empty()).then(|| (*route, announcers.clone()))
        };
        self.announcers.iter().filter_map(live).collect()
    }

    /// How many routes were ever announced.
    pub(crate) fn len(&self) -> usize {
        self.announcers.len()
    }
}
