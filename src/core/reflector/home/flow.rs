//! The subscriptions of a home's sessions, and what the owners of the VNIs send for them.

use std::time::Instant;

use super::peer::{Peer, Stage, Subscription};
use super::subscribers::Subscriber;
use super::{Home, Report};
use crate::core::reflector::memory::Pressure;
use crate::core::reflector::message::{Refusal, Request};
use crate::core::reflector::meter::{self, Meter, Phase};
use crate::core::reflector::outbox::Outbox;
use crate::core::rib::{PeerId, Segment, Span};
use crate::core::session::CloseReason;
use crate::core::types::Vni;
use crate::core::wire::{Capabilities, MessageType, NoticeCode, encode_subscription};

impl Home {
    /// Begins a subscription. Returns what the owner is to be asked, if it is news and allowed.
    pub(super) fn subscribe(&mut self, id: PeerId, vni: Vni) -> Option<Request> {
        let peer = self.peers.get_mut(&id)?;
        // A second SUBSCRIBE asks for what the session has; it changes nothing.
        if peer.subscriptions.contains_key(&vni) {
            return None;
        }
        let is_full = peer.subscriptions.len() >= self.config.limits.subscriptions_per_peer;
        let refusal = match self.pressure {
            _ if is_full => Some(Refusal::SubscriptionsOfPeer),
            Pressure::None => None,
            Pressure::High | Pressure::Over => Some(Refusal::Memory),
        };
        if let Some(why) = refusal {
            self.refused(id, 1, (NoticeCode::REFUSED_SUBSCRIPTION, vni), why);
            return None;
        }
        peer.epoch += 1;
        let epoch = peer.epoch;
        let stage = match peer.connection.queue().has_table(vni) {
            true => Stage::Waiting,
            false => Stage::Asked,
        };
        let subscription = Subscription::new(epoch, stage);
        peer.subscriptions.insert(vni, subscription);
        self.subscriptions += 1;
        self.reports.push_back(Report::Subscribed(id, vni));
        (stage == Stage::Asked).then_some(Request::Subscribe { vni, epoch })
    }

    /// Asks the owners for tables that waited until earlier ones were out of the queue.
    pub(super) fn ask_for_tables(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        for vni in peer.connection.queue_mut().take_tables_out() {
            if let Some(subscription) = peer.subscriptions.get_mut(&vni)
                && subscription.stage() == Stage::Waiting
            {
                subscription.set_stage(Stage::Asked);
                let epoch = subscription.epoch;
                self.requests.push((id, Request::Subscribe { vni, epoch }));
            }
        }
    }

    /// Ends a subscription. Returns what the owner is to be asked, if there was one.
    pub(super) fn unsubscribe(&mut self, id: PeerId, vni: Vni) -> Option<Request> {
        let peer = self.peers.get_mut(&id)?;
        let ended = peer.subscriptions.remove(&vni)?;
        if peer.subscriptions.len() * 8 < peer.subscriptions.capacity() {
            peer.subscriptions.shrink_to(peer.subscriptions.len() * 2);
        }
        let outbox = peer.connection.queue_mut();
        outbox.end(vni, ended.epoch);
        if outbox.has_dead_front() {
            self.purging.push_back(id);
        }
        outbox.count_bytes(&mut self.queue_bytes);
        if outbox.wants_sweep() {
            self.stand_in_line(id);
        }
        self.end_flow(vni, ended);
        self.ask_for_tables(id);
        self.reports.push_back(Report::Unsubscribed(id, vni));
        (ended.stage() != Stage::Waiting).then_some(Request::Unsubscribe(vni))
    }

    /// Goes on dropping what nobody wants any more of the queues.
    pub(in crate::core::reflector) fn purge(&mut self, meter: &mut Meter) {
        while !meter.is_spent()
            && let Some(id) = self.purging.pop_front()
        {
            meter.charge(meter::VNI);
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            let queue = peer.connection.queue_mut();
            let dropped = queue.drop_dead(meter.steps(meter::ITEM));
            meter.charge(meter::ITEM * dropped);
            if queue.has_dead_front() {
                self.purging.push_back(id);
            } else {
                self.unblocked(id);
            }
        }
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
        let at = self.subscribers.push(vni, Subscriber { peer: id, epoch });
        subscription.set_stage(Stage::Active { at });
        for span in spans {
            peer.connection.queue_mut().push_table(id, vni, epoch, span);
        }
        if peer
            .connection
            .session()
            .capabilities()
            .contains(Capabilities::END_OF_RIB)
        {
            let mut frame = Vec::new();
            encode_subscription(&mut frame, MessageType::EndOfRib, vni);
            let span = Span::whole(Segment::unmarked(frame, 1, 0));
            self.segments.add(span.segment());
            peer.connection
                .queue_mut()
                .push_end_of_rib(vni, epoch, span);
        }
        peer.connection
            .queue_mut()
            .count_bytes(&mut self.queue_bytes);
        self.make_ready(id);
    }

    /// Takes a subscription that has ended off the subscribers of its VNI.
    pub(super) fn end_flow(&mut self, vni: Vni, ended: Subscription) {
        self.subscriptions -= 1;
        let Stage::Active { at } = ended.stage() else {
            return;
        };
        let Some(moved) = self.subscribers.remove(vni, at) else {
            return;
        };
        let subscriptions = match self.peers.get_mut(&moved.peer) {
            Some(peer) => Some(&mut peer.subscriptions),
            None => self.departing.get_mut(&moved.peer),
        };
        if let Some(moved) = subscriptions.and_then(|it| it.get_mut(&vni)) {
            moved.set_stage(Stage::Active { at });
        }
    }

    /// Takes sessions that are gone off the subscribers of their VNIs, here and at the owners.
    pub(in crate::core::reflector) fn end_flows(&mut self, meter: &mut Meter) {
        while !meter.is_spent()
            && let Some((id, vnis)) = self.leaving.front_mut()
        {
            let id = *id;
            let Some(vni) = vnis.pop() else {
                self.leaving.pop_front();
                self.departing.remove(&id);
                continue;
            };
            meter.charge(meter::VNI);
            let subscriptions = self.departing.get_mut(&id);
            if let Some(ended) = subscriptions.and_then(|it| it.remove(&vni)) {
                self.end_flow(vni, ended);
                if ended.stage() != Stage::Waiting {
                    self.requests.push((id, Request::Unsubscribe(vni)));
                }
            }
        }
    }

    /// Queues changes of a VNI for all its subscribers, each without its own. Returns what that
    /// costs, in units of a [`Meter`].
    pub(in crate::core::reflector) fn queue_changes(&mut self, vni: Vni, spans: &[Span]) -> usize {
        let subscribers = self.subscribers.take(vni);
        let mut items = 0;
        for &Subscriber { peer, epoch } in subscribers.list() {
            self.queue(peer, |outbox| {
                for span in spans {
                    let push = &mut |span| {
                        items += 1;
                        outbox.push_delta(vni, epoch, span);
                    };
                    span.clone().for_peer(peer, push);
                }
            });
        }
        self.subscribers.put_back(subscribers);
        items
    }

    /// Queues changes for a session whose subscription is active, within its limits.
    fn queue(&mut self, id: PeerId, push: impl FnOnce(&mut Outbox)) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        push(peer.connection.queue_mut());
        let waiting = peer.connection.queue().delta_bytes();
        let (soft, hard) = (self.config.soft_limit, self.config.hard_limit);
        if waiting > soft.min(hard / 2) {
            // Coalescing the queue of a peer that reads would cost more than it saves: a burst of
            // new routes does not get shorter.
            let due = waiting > hard / 2 || peer.connection.is_slow(self.now);
            if due && peer.connection.queue().has_doubled() {
                self.stand_in_line(id);
            }
            self.end_if_too_slow(id);
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.connection
            .queue_mut()
            .count_bytes(&mut self.queue_bytes);
        if peer.becomes_ready() {
            self.ready.push(id);
        }
    }

    /// Ends a session past its limit.
    pub(super) fn end_if_too_slow(&mut self, id: PeerId) {
        let hard = self.config.hard_limit;
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.connection.queue().delta_bytes() > limit(hard, peer)
        {
            peer.connection.close(CloseReason::TooSlow);
            self.doomed.push(id);
        }
    }

    /// To be called when a connection that was full takes bytes again.
    ///
    /// A peer that was slow is spared what it missed and what was undone meanwhile: before it is
    /// sent more, if nobody stands in line before it.
    pub(in crate::core::reflector) fn resume(
        &mut self,
        id: PeerId,
        now: Instant,
        meter: &mut Meter,
    ) {
        let soft_limit = self.config.soft_limit;
        if let Some(peer) = self.peers.get(&id)
            && peer.connection.is_slow(now)
            && peer.connection.queue().delta_bytes() > soft_limit
            && peer.connection.queue().has_grown()
        {
            self.stand_in_line(id);
            if self.laggards.is_first(id) {
                meter.lend_phase(Phase::Writes, |meter| self.coalesce_in_line(meter));
            }
        }
    }
}

/// Bytes of changes past which a session is ended: one that stands in line to have them coalesced
/// is given half as much again.
pub(super) fn limit(hard_limit: usize, peer: &Peer) -> usize {
    let grace = if peer.is_in_line { hard_limit / 2 } else { 0 };
    hard_limit.saturating_add(grace)
}
