//! The subscriptions of a home's sessions, and what the owners of the VNIs send for them.

use std::time::{Duration, Instant};

use super::peer::Subscription;
use super::{Home, Report};
use crate::core::reflector::message::Request;
use crate::core::reflector::outbox::Outbox;
use crate::core::rib::{PeerId, Segment, Span};
use crate::core::session::CloseReason;
use crate::core::types::Vni;
use crate::core::wire::{Capabilities, MessageType, encode_subscription};

/// A peer that takes nothing for this long is stalled, not just busy.
///
/// Coalescing the queue of a peer that reads would cost more than it saves: a burst
/// of new routes does not get shorter.
const STALL: Duration = Duration::from_millis(500);

impl Home {
    /// Begins a subscription. Returns what the owner is to be asked, if it is news and allowed.
    pub(super) fn subscribe(&mut self, id: PeerId, vni: Vni) -> Option<Request> {
        let peer = self.peers.get_mut(&id)?;
        // A second SUBSCRIBE asks for what the session has; it changes nothing.
        if peer.subscriptions.contains_key(&vni) {
            return None;
        }
        if peer.subscriptions.len() >= self.config.limits.subscriptions_per_peer {
            self.refused(id, 1);
            return None;
        }
        peer.epoch += 1;
        let epoch = peer.epoch;
        let active = false;
        let subscription = Subscription { epoch, active };
        peer.subscriptions.insert(vni, subscription);
        self.subscriptions += 1;
        self.reports.push_back(Report::Subscribed(id, vni));
        Some(Request::Subscribe { vni, epoch })
    }

    /// Ends a subscription. Returns what the owner is to be asked, if there was one.
    pub(super) fn unsubscribe(&mut self, id: PeerId, vni: Vni) -> Option<Request> {
        let peer = self.peers.get_mut(&id)?;
        peer.subscriptions.remove(&vni)?;
        peer.connection.queue_mut().purge(vni);
        self.end_flow(id, vni);
        self.reports.push_back(Report::Unsubscribed(id, vni));
        Some(Request::Unsubscribe(vni))
    }

    /// Queues the table of a VNI; what follows for the VNI goes to the peer from now on.
    pub(in crate::core::reflector) fn begin_flow(
        &mut self,
        id: PeerId,
        vni: Vni,
        epoch: u32,
        spans: Vec<Span>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let expected = peer
            .subscriptions
            .get_mut(&vni)
            .filter(|it| it.epoch == epoch);
        let Some(subscription) = expected else {
            return;
        };
        subscription.active = true;
        self.subscribers.entry(vni).or_default().push(id);
        for span in spans {
            peer.connection.queue_mut().push_table(vni, span);
        }
        if peer
            .connection
            .session()
            .capabilities()
            .contains(Capabilities::END_OF_RIB)
        {
            let mut frame = Vec::new();
            encode_subscription(&mut frame, MessageType::EndOfRib, vni);
            let span = Span::whole(Segment::unmarked(frame, 1));
            peer.connection.queue_mut().push_end_of_rib(vni, span);
        }
        self.make_ready(id);
    }

    /// Forgets an active subscriber of a VNI.
    pub(super) fn end_flow(&mut self, id: PeerId, vni: Vni) {
        self.subscriptions -= 1;
        let Some(subscribers) = self.subscribers.get_mut(&vni) else {
            return;
        };
        if let Some(at) = subscribers.iter().position(|it| *it == id) {
            subscribers.swap_remove(at);
        }
        if subscribers.is_empty() {
            self.subscribers.remove(&vni);
        }
    }

    /// Queues changes of a VNI for all its subscribers, each without its own.
    pub(in crate::core::reflector) fn queue_changes(&mut self, vni: Vni, spans: &[Span]) {
        let subscribers = self.subscribers.remove(&vni).unwrap_or_default();
        for &id in &subscribers {
            self.queue(id, vni, |outbox| {
                for span in spans {
                    let push = &mut |span| outbox.push_delta(vni, span);
                    span.clone().without(id, push);
                }
            });
        }
        if !subscribers.is_empty() {
            self.subscribers.insert(vni, subscribers);
        }
    }

    /// Queues a change of a VNI that only one subscriber hears of.
    pub(in crate::core::reflector) fn queue_change(&mut self, id: PeerId, vni: Vni, span: Span) {
        self.queue(id, vni, |outbox| outbox.push_delta(vni, span));
    }

    /// Queues changes for a session whose subscription is active, within its limits.
    fn queue(&mut self, id: PeerId, vni: Vni, push: impl FnOnce(&mut Outbox)) {
        let (config, now) = (self.config, self.now);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if !peer.subscriptions.get(&vni).is_some_and(|it| it.active) {
            return;
        }
        push(peer.connection.queue_mut());
        let waiting = peer.connection.queue().delta_bytes();
        let due = waiting > config.hard_limit / 2
            || (waiting > config.soft_limit && peer.connection.is_stalled(now, STALL));
        if due && peer.connection.queue().has_doubled() {
            peer.coalesce(config.seed);
            self.counters.coalesced += 1;
        }
        if peer.connection.queue().delta_bytes() > config.hard_limit {
            peer.connection.close(CloseReason::TooSlow);
            self.doomed.push(id);
        }
        self.make_ready(id);
    }

    /// To be called when a connection that was full takes bytes again.
    ///
    /// A peer that stalled is spared what it missed and what was undone meanwhile.
    pub(in crate::core::reflector) fn resume(&mut self, id: PeerId, now: Instant) {
        let soft_limit = self.config.soft_limit;
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.connection.is_stalled(now, STALL)
            && peer.connection.queue().delta_bytes() > soft_limit
            && peer.connection.queue().has_grown()
        {
            peer.coalesce(self.config.seed);
            self.counters.coalesced += 1;
        }
    }
}
