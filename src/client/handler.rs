//! Who is told of routes, and the thread that tells it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TryRecvError, select_biased};

use crate::core::client::{Event, Refused, ServerId};
use crate::core::session::CloseReason;
use crate::core::types::{Destination, NextHop, Route, Vni};
use crate::net::Postbox;

use super::mail::Mail;

/// Events that wait in the channel of [`Builder::events`](super::Builder::events): 64 KiB. What does not fit is
/// coalesced by route.
pub(super) const CHANNEL_EVENTS: usize = 1024;

/// Is told of routes, on a thread of its own.
///
/// A handler may be slow, and may call the client: sessions do not wait for it.
/// What changes while it is busy is coalesced by route. A panic is logged, and the
/// next event comes.
pub trait RouteHandler: Send + Sync + 'static {
    /// A route is there.
    fn add_route(&self, vni: Vni, route: Route);

    /// A route is gone.
    fn remove_route(&self, vni: Vni, route: Route);

    /// The table of a VNI is complete for the first time since the subscription.
    fn synced(&self, vni: Vni) {
        let _ = vni;
    }

    /// What a VNI does not have, nobody has: its table is complete, and every server at hand
    /// has had announcers for [`settle_time`](super::ClientConfig::settle_time).
    ///
    /// Comes once since the subscription, after [`Self::synced`]. What an earlier process left
    /// may be removed.
    fn settled(&self, vni: Vni) {
        let _ = vni;
    }

    /// A server refused something in a VNI, for the first time in its session: see
    /// [`Event::Refused`].
    fn refused(&self, server: ServerId, vni: Vni, what: Refused, why: &str) {
        let _ = (server, vni, what, why);
    }

    /// A server's handshake is complete.
    fn server_up(&self, server: ServerId) {
        let _ = server;
    }

    /// A server's session ended.
    fn server_down(&self, server: ServerId, reason: CloseReason) {
        let _ = (server, reason);
    }
}

impl<T: RouteHandler + ?Sized> RouteHandler for Arc<T> {
    fn add_route(&self, vni: Vni, route: Route) {
        (**self).add_route(vni, route);
    }

    fn remove_route(&self, vni: Vni, route: Route) {
        (**self).remove_route(vni, route);
    }

    fn synced(&self, vni: Vni) {
        (**self).synced(vni);
    }

    fn settled(&self, vni: Vni) {
        (**self).settled(vni);
    }

    fn refused(&self, server: ServerId, vni: Vni, what: Refused, why: &str) {
        (**self).refused(server, vni, what, why);
    }

    fn server_up(&self, server: ServerId) {
        (**self).server_up(server);
    }

    fn server_down(&self, server: ServerId, reason: CloseReason) {
        (**self).server_down(server, reason);
    }
}

/// Is told of destinations with all their next hops, on a thread of its own; otherwise as
/// [`RouteHandler`].
pub trait NextHopHandler: Send + Sync + 'static {
    /// The next hops of a destination changed: all that it has, in order; none if the
    /// destination is gone.
    fn next_hops_changed(&self, vni: Vni, destination: Destination, next_hops: &[NextHop]);

    /// The table of a VNI is complete for the first time since the subscription.
    fn synced(&self, vni: Vni) {
        let _ = vni;
    }

    /// What a VNI does not have, nobody has: see [`RouteHandler::settled`].
    fn settled(&self, vni: Vni) {
        let _ = vni;
    }

    /// A server refused something in a VNI, for the first time in its session: see
    /// [`Event::Refused`].
    fn refused(&self, server: ServerId, vni: Vni, what: Refused, why: &str) {
        let _ = (server, vni, what, why);
    }

    /// A server's handshake is complete.
    fn server_up(&self, server: ServerId) {
        let _ = server;
    }

    /// A server's session ended.
    fn server_down(&self, server: ServerId, reason: CloseReason) {
        let _ = (server, reason);
    }
}

impl<T: NextHopHandler + ?Sized> NextHopHandler for Arc<T> {
    fn next_hops_changed(&self, vni: Vni, destination: Destination, next_hops: &[NextHop]) {
        (**self).next_hops_changed(vni, destination, next_hops);
    }

    fn synced(&self, vni: Vni) {
        (**self).synced(vni);
    }

    fn settled(&self, vni: Vni) {
        (**self).settled(vni);
    }

    fn refused(&self, server: ServerId, vni: Vni, what: Refused, why: &str) {
        (**self).refused(server, vni, what, why);
    }

    fn server_up(&self, server: ServerId) {
        (**self).server_up(server);
    }

    fn server_down(&self, server: ServerId, reason: CloseReason) {
        (**self).server_down(server, reason);
    }
}

/// Ignores every route; for clients that only announce.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoOpHandler;

impl RouteHandler for NoOpHandler {
    fn add_route(&self, _: Vni, _: Route) {}

    fn remove_route(&self, _: Vni, _: Route) {}
}

/// Logs every route at level info.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoggingHandler;

impl RouteHandler for LoggingHandler {
    fn add_route(&self, vni: Vni, route: Route) {
        log::info!(vni = vni.0; "VNI {vni}: added {route}");
    }

    fn remove_route(&self, vni: Vni, route: Route) {
        log::info!(vni = vni.0; "VNI {vni}: removed {route}");
    }

    fn synced(&self, vni: Vni) {
        log::info!(vni = vni.0; "VNI {vni}: table complete");
    }
}

/// Where a consumer's thread gets its events from.
pub(super) struct Feed {
    pub(super) batches: Receiver<Vec<Event>>,
    pub(super) postbox: Postbox<Mail>,
    /// Disconnected when the client stops.
    pub(super) stopped: Receiver<()>,
}

/// Tells a handler everything that comes, until the client stops.
pub(super) fn run(tell: impl Fn(&Event), feed: &Feed) {
    for batch in &feed.batches {
        // There is room for the next batch while this one is worked on.
        feed.postbox.wake();
        for event in batch {
            if feed.stopped.try_recv() == Err(TryRecvError::Disconnected) {
                return;
            }
            let told = catch_unwind(AssertUnwindSafe(|| tell(&event)));
            if told.is_err() {
                log::error!("the route handler panicked at {event:?}");
            }
        }
    }
}

/// Passes everything that comes on to a channel, until its other end is gone or the
/// client stops.
pub(super) fn forward(events: &Sender<Event>, feed: &Feed) {
    for batch in &feed.batches {
        feed.postbox.wake();
        for event in batch {
            select_biased! {
                recv(feed.stopped) -> _ => return,
                send(events, event) -> sent => if sent.is_err() {
                    return;
                },
            }
        }
    }
}

/// Tells of routes, one by one.
pub(super) fn tell_routes(handler: &impl RouteHandler, event: &Event) {
    match event {
        Event::RouteAdded(vni, route) => handler.add_route(*vni, *route),
        Event::RouteRemoved(vni, route) => handler.remove_route(*vni, *route),
        Event::Synced(vni) => handler.synced(*vni),
        Event::Settled(vni) => handler.settled(*vni),
        // A handler is there from the beginning, and asked for routes.
        Event::Current | Event::NextHopsChanged(..) => {}
        Event::Refused(server, vni, what, why) => handler.refused(*server, *vni, *what, why),
        Event::ServerUp(server) => handler.server_up(*server),
        Event::ServerDown(server, reason) => handler.server_down(*server, *reason),
    }
}

/// Tells of destinations with all their next hops.
pub(super) fn tell_next_hops(handler: &impl NextHopHandler, event: &Event) {
    match event {
        Event::NextHopsChanged(vni, destination, next_hops) => {
            handler.next_hops_changed(*vni, *destination, next_hops);
        }
        Event::Synced(vni) => handler.synced(*vni),
        Event::Settled(vni) => handler.settled(*vni),
        // A handler is there from the beginning, and asked for next hops.
        Event::Current | Event::RouteAdded(..) | Event::RouteRemoved(..) => {}
        Event::Refused(server, vni, what, why) => handler.refused(*server, *vni, *what, why),
        Event::ServerUp(server) => handler.server_up(*server),
        Event::ServerDown(server, reason) => handler.server_down(*server, *reason),
    }
}
