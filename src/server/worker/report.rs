//! What a worker does about the reports of its shard.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Worker;
use crate::core::reflector::Report;
use crate::core::rib::PeerId;
use crate::core::session::CloseReason;
use crate::server::journal::Journal;
use crate::server::mail::AcceptorMail;
use crate::server::watch::Happening;

impl Worker {
    /// Logs what happened, and drops the connections whose session is over.
    pub(super) fn report(&mut self, now: Instant) {
        while let Some(report) = self.shard.poll_report() {
            match report {
                Report::Established(id) => {
                    if let Some(peer) = self.peer(id) {
                        self.journal.established(id, peer, now);
                        self.tell_watches(&Happening::PeerUp(peer));
                    }
                }
                Report::Subscribed(id, vni) => {
                    if let Some(peer) = self.peer(id) {
                        Journal::subscribed(peer, vni);
                    }
                }
                Report::Unsubscribed(id, vni) => {
                    if let Some(peer) = self.peer(id) {
                        Journal::unsubscribed(peer, vni);
                    }
                }
                Report::Malformed(id, why, total) => {
                    if let Some(peer) = self.peer(id) {
                        self.journal.malformed(peer, why, total, now);
                    }
                }
                Report::Refused(id, total) => {
                    if let Some(peer) = self.peer(id) {
                        self.journal.over_limit(peer, total, now);
                    }
                }
                Report::LegacyDrop(id, overrun) => {
                    if let Some(peer) = self.peer(id)
                        && let Some(ip) = peer.ip()
                    {
                        let verdict = self.links.paces.lock().ended(ip, overrun, now);
                        self.journal.paced(peer, verdict, now);
                    }
                }
                Report::LegacyTable(id, size) => {
                    if let Some(peer) = self.peer(id)
                        && let Some(ip) = peer.ip()
                        && self.links.paces.lock().taken(ip, size)
                    {
                        Journal::full_pace_again(peer);
                    }
                }
                Report::Notice(id, notice) => {
                    if let Some(peer) = self.peer(id) {
                        self.journal.notice(peer, &notice, now);
                    }
                }
                Report::Closed(id, reason) => self.closed(id, reason, now),
            }
        }
        self.journal.sum_up(now);
    }

    fn closed(&mut self, id: PeerId, reason: CloseReason, now: Instant) {
        let Some(conn) = self.turn.remove(id) else {
            return;
        };
        let peer = conn.peer();
        let closed = AcceptorMail::Closed(peer.source());
        self.links.acceptor.post(closed, 1);
        self.stats.closed.fetch_add(1, Ordering::Relaxed);
        self.journal.closed(id, peer, reason, now);
        self.links.flaps.lock().ended(peer.source(), reason, now);
        self.tell_watches(&Happening::PeerDown(peer, reason));
    }
}
