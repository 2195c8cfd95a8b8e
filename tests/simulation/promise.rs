//! Nothing is removed that somebody still has: judged in every turn of every client.
//!
//! A client must hold what a server has told it and has not taken back, until that server's
//! session is lost; and after that, until every server at hand has told all and vouches, or one
//! that vouches says that the route is gone, or the stale time is over. It must not hold it longer
//! than the stale time.
//!
//! Three things are not demanded, each for a reason:
//! - that a paused client lets go of anything in time: its thread does not run, and has not had
//!   a turn yet when it is resumed;
//! - that a client holds what a legacy server says of a route that the client once announced
//!   itself: such a server may send routes back to their announcer, and an echo looks the same;
//! - that a client waits for what no server at hand knows: an announcer that returns to a server
//!   after the settle time is too late for those who were told that the server has everything.
//!
//! Judged is what a turn has changed, what has become due, and everything at moments that a
//! seed chooses and in the end: that must find nothing that the turns have not.

use std::time::Instant;

use rustbond::{Event, Route, Vni};

use super::agenda::Key;
use super::client::Client;
use super::script::VNIS;
use super::world::World;

/// Of so many looks at a client after a step or a turn, one is at everything.
const AUDIT_STEPS: u32 = 64;
const AUDIT_TURNS: u32 = 16_384;
/// So it is where the world is at rest.
const AUDIT_RESTS: u32 = 8;

impl Client {
    /// Stops its thread.
    pub(crate) fn pause(&mut self) {
        (self.is_paused, self.has_slept) = (true, true);
    }

    /// Notes what the client may remove after something happened.
    pub(crate) fn judge(&mut self, now: Instant) {
        self.ledger.judge(&self.monitors, now);
    }

    /// Notes that within a turn.
    pub(crate) fn judge_news(&mut self, now: Instant) {
        self.ledger.judge_news(&self.monitors, now);
    }

    /// After a turn: looks at each route about which something has changed, and at those that have
    /// been stale for the stale time.
    pub(crate) fn check_turn(&mut self, number: usize, now: Instant) {
        self.judge(now);
        self.has_slept = false;
        let Some(core) = &mut self.core else { return };
        for event in core.take_witnessed() {
            match event {
                Event::RouteAdded(vni, route) | Event::RouteRemoved(vni, route) => {
                    self.ledger.agenda.touch((vni, route));
                }
                _ => {}
            }
        }
        let keys = self.ledger.take_agenda(now);
        self.is_stirred |= !keys.is_empty();
        for key in keys {
            self.check_route(number, key, now);
        }
        for vni in (1..=VNIS).map(Vni) {
            let routes = self.core.as_ref().map_or(0, |core| core.routes_in(vni));
            if self.ledger.agenda.take_whole(vni, routes) {
                self.is_stirred = true;
                let held = self.check_vni(number, vni, now);
                self.ledger.agenda.set_held(vni, held.into_iter());
            }
        }
    }

    fn check_route(&mut self, number: usize, key: Key, now: Instant) {
        let Some(core) = &self.core else { return };
        // What leads to the client itself is hidden, and stays.
        let is_held = core.servers_of(key.0, &key.1).is_some();
        self.ledger.agenda.note_held(key, is_held);
        match is_held {
            true => self.check_held(number, key, now),
            false => self.check_gone(number, key),
        }
    }

    fn check_held(&self, number: usize, (vni, route): Key, now: Instant) {
        let may = self.ledger.may_hold(&self.monitors, (vni, route), now);
        assert!(
            may,
            "client {number} still holds {route} of VNI {vni}, which nobody tells, and nobody told \
             within the stale time"
        );
    }

    fn check_gone(&self, number: usize, (vni, route): Key) {
        if let Some(why) = self.ledger.must_hold(&self.monitors, (vni, route)) {
            panic!("client {number} does not hold {route} of VNI {vni}, though {why}");
        }
    }

    /// Looks at all routes of a VNI, those that are hidden among them; returns what is held.
    fn check_vni(&self, number: usize, vni: Vni, now: Instant) -> Vec<Route> {
        let Some(core) = &self.core else {
            return Vec::new();
        };
        for key in self.ledger.held(&self.monitors) {
            if key.0 == vni && core.servers_of(vni, &key.1).is_none() {
                self.check_gone(number, key);
            }
        }
        let received = core.received(vni).into_iter();
        let held: Vec<Route> = received.map(|(route, _)| route).collect();
        if !self.has_slept {
            for route in &held {
                self.check_held(number, (vni, *route), now);
            }
        }
        held
    }

    /// Looks at everything. Nothing may be wrong, and nothing may be there or gone that the turns
    /// did not see.
    pub(crate) fn audit(&self, number: usize, now: Instant) {
        let Some(core) = &self.core else { return };
        assert!(
            core.has_events() || core.visible().into_iter().eq(self.told.iter().copied()),
            "client {number}: events and view differ, and no turn saw why"
        );
        for vni in (1..=VNIS).map(Vni) {
            let held = self.check_vni(number, vni, now);
            assert!(
                self.ledger.agenda.agrees(vni, held.into_iter()),
                "client {number}: the turns saw other routes of VNI {vni} come and go"
            );
        }
    }
}

impl World {
    /// After a step: looks at what has become due and had no turn, and at some clients as a whole.
    pub(crate) fn check_promise(&mut self) {
        for (number, it) in self.clients.iter().enumerate() {
            if self.auditor.u32(..AUDIT_STEPS) == 0 {
                it.audit(number, self.now);
            }
            let Some(core) = &it.core else { continue };
            if it.has_slept {
                continue;
            }
            for key in it.ledger.with_imports(it.ledger.agenda.due(self.now)) {
                if core.servers_of(key.0, &key.1).is_some() {
                    it.check_held(number, key, self.now);
                }
            }
        }
    }

    /// At rest: looks at some clients as a whole.
    pub(crate) fn audit_some(&mut self) {
        for (number, it) in self.clients.iter().enumerate() {
            if self.auditor.u32(..AUDIT_RESTS) == 0 {
                it.audit(number, self.now);
            }
        }
    }

    /// Looks at all clients as a whole.
    pub(crate) fn audit(&self) {
        for (number, it) in self.clients.iter().enumerate() {
            it.audit(number, self.now);
        }
    }

    /// After a turn of a client.
    pub(crate) fn check_turn(&mut self, client: usize) {
        let it = &mut self.clients[client];
        it.check_turn(client, self.now);
        if self.auditor.u32(..AUDIT_TURNS) == 0 {
            it.audit(client, self.now);
        }
    }
}
