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

use std::time::Instant;

use rustbond::{Event, Vni};

use super::client::Client;
use super::script::VNIS;
use super::world::World;

impl Client {
    /// Stops its thread.
    pub(crate) fn pause(&mut self) {
        (self.is_paused, self.has_slept) = (true, true);
    }

    /// Notes what the client may remove after something happened.
    pub(crate) fn judge(&mut self, now: Instant) {
        self.ledger.judge(&self.monitors, now);
    }

    /// After a turn: looks at each route that is gone.
    pub(crate) fn check_turn(&mut self, number: usize, now: Instant) {
        self.judge(now);
        self.has_slept = false;
        let Some(core) = &mut self.core else { return };
        for event in core.take_witnessed() {
            let Event::RouteRemoved(vni, route) = event else {
                continue;
            };
            // What leads to the client itself is hidden, and stays.
            if core.servers_of(vni, &route).is_some() {
                continue;
            }
            if let Some(why) = self.ledger.must_hold(&self.monitors, (vni, route)) {
                panic!("client {number} has removed {route} of VNI {vni}, though {why}");
            }
        }
    }
}

impl World {
    /// After a step: looks at all routes, those that are hidden among them.
    pub(crate) fn check_promise(&mut self) {
        let now = self.now;
        for (number, it) in self.clients.iter_mut().enumerate() {
            let Some(core) = &it.core else { continue };
            for key in it.ledger.held(&it.monitors) {
                if core.servers_of(key.0, &key.1).is_some() {
                    continue;
                }
                if let Some(why) = it.ledger.must_hold(&it.monitors, key) {
                    let (vni, route) = key;
                    panic!("client {number} does not hold {route} of VNI {vni}, though {why}");
                }
            }
            if it.has_slept {
                continue;
            }
            let received = (1..=VNIS).map(Vni).flat_map(|vni| {
                let received = core.received(vni).into_iter();
                received.map(move |(route, _)| (vni, route))
            });
            for (vni, route) in received {
                let may = it.ledger.may_hold(&it.monitors, (vni, route), now);
                assert!(
                    may,
                    "client {number} still holds {route} of VNI {vni}, which nobody tells, and \
                     nobody told within the stale time"
                );
            }
            it.ledger.prune(now);
        }
    }
}
