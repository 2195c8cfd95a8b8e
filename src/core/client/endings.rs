//! How sessions with servers end, and what follows from that.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::completeness::{Cause, Verdict};
use super::events::Event;
use super::report::Report;
use super::server::Phase;
use super::view::ServerBit;
use super::{Core, ServerId};
use crate::core::session::CloseReason;
use crate::core::types::Vni;

/// How long a server that is connected under another name is left alone.
const TWIN_WAIT: Duration = Duration::from_secs(60);

impl Core {
    /// After anything that touched a session: its end, or what it must be told.
    pub(super) fn settle(&mut self, server: ServerId, now: Instant) {
        self.refuse_twin(server);
        match self.link(server).map(|link| link.session().closed()) {
            Some(Some(reason)) => self.end(server, reason, now),
            Some(None) => self.pump(server),
            None => {}
        }
    }

    /// Leaves a server that has just said who it is, if that one is connected already: it would
    /// give the client's own routes back, and all others twice.
    fn refuse_twin(&mut self, server: ServerId) {
        let Some(entry) = self.servers.get(&server) else {
            return;
        };
        let is_new = entry.link().map(|it| it.session().is_hello_received());
        let Some(node) = entry.node().filter(|_| is_new == Some(true)) else {
            return;
        };
        let mut others = self.servers.iter().filter(|(id, _)| **id != server);
        let twin = others.find_map(|(id, it)| (it.node() == Some(node)).then_some(*id));
        if let Some(entry) = self.servers.get_mut(&server)
            && twin.is_some()
        {
            entry.twin = twin;
            if let Some(link) = entry.link_mut() {
                link.connection.close(CloseReason::Duplicate);
            }
        }
    }

    /// A server is not connected any more: its other names are to be tried. They may still tell
    /// what it told, so that nothing goes before.
    fn release_twins(&mut self, of: ServerId, now: Instant) {
        for (id, server) in &mut self.servers {
            if server.twin == Some(of) {
                server.twin = None;
                if let Phase::Waiting { until, .. } = &mut server.phase {
                    *until = now;
                    self.completeness.coming(*id);
                }
            }
        }
    }

    /// Has a server dialled at once that waits for its next attempt and that nobody wants left
    /// alone.
    pub(crate) fn hasten(&mut self, server: ServerId, now: Instant) {
        if let Some(entry) = self.servers.get_mut(&server)
            && !entry.is_drained
            && entry.twin.is_none()
            && let Phase::Waiting { until, .. } = &mut entry.phase
        {
            *until = now;
        }
    }

    fn end(&mut self, server: ServerId, reason: CloseReason, now: Instant) {
        let Some(entry) = self.servers.get_mut(&server) else {
            return;
        };
        let was_established = entry.established_at.is_some();
        let link = entry.lose(reason, now);
        if let Phase::Waiting { until, .. } = &mut entry.phase
            && entry.twin.is_some()
        {
            *until = now + TWIN_WAIT;
        }
        let bit = entry.bit;
        self.release_twins(server, now);
        let Some(link) = link else {
            return;
        };
        if was_established {
            self.completeness.lost(server, now);
        } else {
            self.completeness.failed(server, now);
        }
        self.refusals.forget_server(server, bit);
        self.updates_sent += link.sent().update;
        self.subscriptions.forget(bit, |_| true);
        self.announcements.forget(bit, |_| true);
        let echoes = link.is_legacy();
        // What is to go by now is older than this loss.
        self.obey();
        for vni in link.vnis() {
            self.lose_table(bit, vni, echoes, now);
        }
        if was_established && !self.completeness.has_established() && self.view.len() > 0 {
            self.reports.push(Report::AllLost {
                routes: self.view.len(),
                vnis: self.view.stale_vnis(),
                stale_time: self.config.stale_time,
            });
        }
        self.completeness.evaluate(now);
        self.obey();
        self.view.push(&Event::ServerDown(server, reason));
    }

    /// What a server told of a VNI is stale from now on.
    pub(super) fn lose_table(&mut self, bit: ServerBit, vni: Vni, echoes: bool, now: Instant) {
        let age = self.completeness.age(vni, Cause::Lost, now);
        if self.view.lose(bit, vni, age, echoes) {
            self.completeness.became_stale(vni, age, Cause::Lost, now);
        }
    }

    /// Does what the completeness of the tables calls for.
    pub(super) fn obey(&mut self) {
        let (mut routes, mut vnis) = (0, BTreeSet::new());
        while let Some(verdict) = self.completeness.poll_verdict() {
            match verdict {
                Verdict::Sweep(vni) => self.view.sweep(vni),
                Verdict::Expire(vni, age) => {
                    let expired = self.view.expire(vni, age);
                    routes += expired;
                    vnis.extend((expired > 0).then_some(vni));
                }
                Verdict::Synced(vni) => self.view.push(&Event::Synced(vni)),
                Verdict::Settled(vni) => self.view.push(&Event::Settled(vni)),
            }
        }
        if routes > 0 {
            let vnis = vnis.len();
            self.reports.push(Report::Expired { routes, vnis });
        }
    }
}
