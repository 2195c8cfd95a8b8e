//! What a worker does and tells off the way of a route.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Worker;
use crate::core::rib::PeerId;
use crate::core::session::CloseReason;
use crate::inspect::{Announcers, RouteEntry, VniStatus};
use crate::net::PeerSelector;
use crate::server::drain::Plan;
use crate::server::mail::{Ending, Peers, Piece, Request, Walk};
use crate::server::watch::{Happening, WatchSender};

/// Routes that a worker looks up at once; about 0.3 ms.
const ROUTES_AT_ONCE: usize = 4096;

/// Tables that the watches of a worker are sent in one turn; each takes a microsecond or more.
const TABLES_AT_ONCE: usize = 256;

impl Worker {
    /// Does what another thread asks for.
    pub(super) fn serve(&mut self, request: Request, now: Instant) {
        match request {
            Request::UpdateOwn(update, reply) => reply.send(self.shard.update_own(&update, now)),
            Request::End(whose, ending, reply) => reply.send(self.end(whose, ending, now)),
            Request::Drain(order) => {
                let sessions = self.turn.iter().map(|(id, _)| id).collect();
                self.drain = Some(Plan::new(order, sessions, now));
            }
            Request::Reconfigure {
                shard,
                user_timeout,
            } => {
                self.shard.reconfigure(shard);
                self.user_timeout = user_timeout;
            }
            Request::Watch(watch, reply) => {
                self.watch(watch);
                reply.send(());
            }
            Request::EndWatches => self.end_watches(),
            Request::OwnCount(reply) => reply.send(self.shard.tables().own_count()),
            Request::Own(reply) => reply.send(self.shard.tables().own()),
            Request::Peers(reply) => reply.send(self.peers(now)),
            Request::Names(reply) => {
                let names = self.turn.iter().map(|(id, conn)| (id, conn.peer()));
                reply.send(names.collect());
            }
            Request::Vnis(reply) => reply.send(self.vnis()),
            Request::Routes(walk, reply) => reply.send(self.routes(walk)),
            #[cfg(test)]
            Request::Hang { began, held } => {
                began.send(());
                assert!(held.recv().is_err());
            }
            #[cfg(test)]
            Request::Panic => panic!("a test asked for it"),
        }
    }

    /// Ends the sessions that are meant. Returns how many.
    fn end(&mut self, whose: PeerSelector, ending: Ending, now: Instant) -> usize {
        let all = self.turn.iter();
        let meant = all.filter(|(_, conn)| whose.selects(conn.peer()));
        let ids: Vec<PeerId> = meant.map(|(id, _)| id).collect();
        for &id in &ids {
            match ending {
                Ending::Reset => self.shard.close(id, CloseReason::Reset, now),
                Ending::Drain(_) => self.shard.drain(id, now),
            }
        }
        ids.len()
    }

    fn peers(&self, now: Instant) -> Peers {
        let mut sessions = Vec::new();
        self.shard.for_each_session(|view| {
            if let Some(peer) = self.peer(view.id) {
                sessions.push((view, peer));
            }
        });
        let mut announced = Vec::new();
        let tables = self.shard.tables();
        tables.for_each_announcer(|peer, routes| announced.push((peer, routes)));
        Peers {
            at: now,
            sessions,
            announced,
        }
    }

    fn vnis(&self) -> Vec<VniStatus> {
        let mut vnis = Vec::new();
        let tables = self.shard.tables();
        tables.for_each_vni(|vni, table, subscribers| {
            vnis.push(VniStatus {
                vni,
                table,
                subscribers,
                is_synced: None,
            });
        });
        vnis
    }

    fn routes(&self, walk: Walk) -> Piece {
        let tables = self.shard.tables();
        let mut cursor = match walk {
            Walk::From(vni) => tables.walk(vni),
            Walk::Next(cursor) => cursor,
        };
        let mut entries = Vec::new();
        let is_over = tables.step(&mut cursor, ROUTES_AT_ONCE, |vni, route, peers| {
            entries.push(RouteEntry {
                vni,
                route,
                announcers: match *peers {
                    [peer] => Announcers::One(peer.0),
                    _ => peers.iter().map(|peer| peer.0).collect(),
                },
                is_suppressed: false,
            });
        });
        Piece {
            entries,
            next: (!is_over).then_some(cursor),
        }
    }

    /// Begins a watch: the current routes if it wants them, and then everything that happens.
    fn watch(&mut self, mut watch: WatchSender) {
        self.shard.tables_mut().set_watched(true);
        if watch.scope.wants_current {
            let mut vnis = BTreeSet::new();
            match watch.scope.vni {
                Some(vni) => vnis.extend([vni]),
                None => self.shard.tables().for_each_vni(|vni, _, _| {
                    vnis.insert(vni);
                }),
            }
            watch.begin_with(vnis);
            self.watches.push(watch);
        } else if watch.feed([Happening::Current]) {
            self.watches.push(watch);
        }
    }

    /// Forgets the watches whose receivers are gone.
    fn end_watches(&mut self) {
        self.watches.retain(|watch| !watch.is_lost());
        let is_watched = !self.watches.is_empty();
        self.shard.tables_mut().set_watched(is_watched);
    }

    /// Sends the watches what this turn has changed, and some of the current routes.
    pub(super) fn feed_watches(&mut self) {
        if self.watches.is_empty() {
            return;
        }
        self.pass_on_changes();
        let mut budget = TABLES_AT_ONCE;
        let mut watches = std::mem::take(&mut self.watches);
        for at in 0..watches.len() {
            while budget > 0
                && let Some(vni) = watches[at].step()
            {
                let tables = self.shard.tables_mut().current(Some(vni));
                // The table has what was fresh; the other watches are to hear of that.
                for (vni, spans) in self.shard.tables_mut().take_watched() {
                    for watch in &mut watches {
                        watch.change(vni, &spans);
                    }
                }
                let spans = tables.into_iter().flat_map(|(_, spans)| spans);
                watches[at].table(vni, spans);
                budget -= 1;
            }
        }
        self.watches = watches;
        self.watches.retain(|it| !it.is_lost());
        let is_watched = !self.watches.is_empty();
        self.shard.tables_mut().set_watched(is_watched);
    }

    /// Sends the watches what has changed.
    fn pass_on_changes(&mut self) {
        for (vni, spans) in self.shard.tables_mut().take_watched() {
            self.watches.retain_mut(|watch| watch.change(vni, &spans));
        }
    }

    /// Returns whether a watch is to be sent more of the current routes.
    pub(super) fn has_watch_steps(&self) -> bool {
        self.watches.iter().any(WatchSender::wants_step)
    }

    /// Sends all watches one thing that happened.
    pub(super) fn tell_watches(&mut self, happened: &Happening) {
        self.watches
            .retain_mut(|watch| watch.feed([happened.clone()]));
    }
}
