//! Nothing is removed that somebody still has: looked at after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use rustbond::{Route, Vni};

use super::script::SERVERS;
use super::world::World;

/// What a client held at the end of a step.
#[derive(Debug, Default)]
pub(crate) struct Past {
    at: Option<Instant>,
    /// The routes, each with the end of the last step at which a connected server had it.
    held: BTreeMap<(Vni, Route), Instant>,
    /// The connection to each server, and since when there is that one.
    conns: [Option<(u32, Instant)>; SERVERS],
    /// What some server has said is gone since then.
    removed: BTreeSet<(Vni, Route)>,
    /// What the client has announced itself: a withdrawal ends equal routes of legacy servers.
    own: BTreeSet<(Vni, Route)>,
}

impl Past {
    /// The client has ended the subscription of a VNI: its routes go.
    pub(crate) fn forget(&mut self, vni: Vni) {
        self.held.retain(|(of, _), _| *of != vni);
    }

    /// A server has said that routes are gone.
    pub(crate) fn heard(&mut self, removed: Vec<(Vni, Route)>) {
        self.removed.extend(removed);
    }
}

impl World {
    /// No client has removed a route that is announced while a server could still tell it.
    ///
    /// Such a server is connected and has told it or is on the way to; or it was lost less than
    /// the settle time ago, or has been up for less, so that nobody knows yet what it has. A
    /// route may go when a server said so, and when its copies have been stale for as long as
    /// they may. Where a policy makes routes of others, only the end of a world is looked at.
    pub(crate) fn check_promise(&mut self) {
        let announced = self.announced();
        for client in 0..self.clients.len() {
            let it = &self.clients[client];
            if it.is_paused || it.plan.has_policy {
                continue;
            }
            let Some(core) = &it.core else { continue };
            let vnis = it.subscribed.iter();
            let held = vnis.flat_map(|vni| {
                let received = core.received(*vni).into_iter();
                received.map(|(route, _)| (*vni, route))
            });
            let held: BTreeSet<(Vni, Route)> = held.collect();
            for (key, had_at) in it.past.held.iter().filter(|(key, _)| !held.contains(key)) {
                let by = announced.get(key);
                let is_alive = by.is_some_and(|by| by.iter().any(|by| *by != client));
                let stale_time = it.plan.setup.stale_time;
                let is_told = it.past.removed.contains(key) || it.past.own.contains(key);
                // Copies of several losses may go after half of the time.
                let is_expired = self.now - *had_at >= stale_time / 2;
                let is_wanted = it.subscribed.contains(&key.0);
                if !is_wanted || !is_alive || is_told || is_expired {
                    continue;
                }
                if let Some((server, why)) = self.at_hand(client, key) {
                    let (vni, route) = key;
                    panic!(
                        "client {client} has removed {route} of VNI {vni}, though server {server} \
                         {why}"
                    );
                }
            }
            self.remember(client, held);
        }
    }

    /// A server that may have a route, as far as a client can know, since the last step.
    fn at_hand(&self, client: usize, (vni, route): &(Vni, Route)) -> Option<(usize, &'static str)> {
        let it = &self.clients[client];
        let setup = &it.plan.setup;
        (0..SERVERS).find_map(|server| {
            let server_setup = &self.setup.servers[server];
            if let Some((conn, since)) = it.past.conns[server]
                && it.conns[server] == Some(conn)
            {
                let monitor = it.monitors[server].as_ref()?;
                let is_loading = monitor.table(*vni).is_none();
                let is_young = self.servers[server]
                    .started
                    .is_some_and(|at| self.now - at < setup.settle_time);
                let is_modern = setup.is_modern && server_setup.is_modern;
                return match () {
                    () if monitor.has_told(*vni, route) => Some((server, "has told it")),
                    () if is_loading && self.now - since < setup.stale_time => {
                        Some((server, "has not told all"))
                    }
                    () if is_young && is_modern => Some((server, "has just been started")),
                    () => None,
                };
            }
            // One that is lost in this step may have known before that the route is gone.
            let lost_at = it.lost_at[server].filter(|at| it.past.at >= Some(*at))?;
            let is_fresh = self.now - lost_at < setup.settle_time;
            (is_fresh && it.conns[server].is_none()).then_some((server, "was just lost"))
        })
    }

    fn remember(&mut self, client: usize, held: BTreeSet<(Vni, Route)>) {
        let now = self.now;
        let it = &mut self.clients[client];
        let Some(core) = &it.core else { return };
        let before = std::mem::take(&mut it.past);
        let had_at = |key: &(Vni, Route)| match core.servers_of(key.0, &key.1) {
            Some(0) => before.held.get(key).or(before.at.as_ref()).copied(),
            Some(_) | None => None,
        };
        let held = held.into_iter();
        let conns = std::array::from_fn(|server| {
            let conn = it.conns[server]?;
            let known = before.conns[server].filter(|(known, _)| *known == conn);
            Some(known.unwrap_or_else(|| (conn, before.at.unwrap_or(now))))
        });
        let mut own = before.own;
        own.extend(it.announced.iter().copied());
        it.past = Past {
            at: Some(now),
            held: held.map(|key| (key, had_at(&key).unwrap_or(now))).collect(),
            conns,
            removed: BTreeSet::new(),
            own,
        };
    }
}
