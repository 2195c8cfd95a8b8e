//! How much a client takes from its servers, and what it lacks because of that.
//!
//! A route beyond the limit is refused before the view is changed; the session goes on. What a
//! server has and the client refused is *missing*: the table of that server is not whole, and
//! does not vouch for what it lacks. Once there is room, the server is asked for the table again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::completeness::Cause;
use super::missing::Missing;
use super::report::Report;
use super::server::Server;
use super::view::{Age, Place, ServerBit};
use super::{Core, ServerId, Wants};
use crate::core::types::{Action, Route, Vni};
use crate::core::wire::NoticeCode;

/// Pause between two requests for tables that did not fit.
const ASK_PAUSE: Duration = Duration::from_secs(10);

/// Pause between the first refusal and its report, so that the numbers say something.
const REPORT_DELAY: Duration = Duration::from_secs(1);

/// Pause between two reports.
const REPORT_PAUSE: Duration = Duration::from_secs(60);

/// The most that a client holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Distinct routes, those imported into other VNIs among them.
    pub(crate) routes: usize,
    /// Subscriptions.
    pub(crate) vnis: usize,
}

/// What was refused.
#[derive(Debug)]
pub(super) struct Refusals {
    missing: Missing,
    /// Announcements refused since the start.
    total: u64,
    report_at: Option<Instant>,
    quiet_until: Option<Instant>,
    /// Tables are not asked for again before.
    next_ask: Option<Instant>,
    spare: Spare,
}

/// Stale copies that may give way, and how far the walk over them is.
#[derive(Debug, Default)]
struct Spare {
    clocks: VecDeque<(Vni, Age)>,
    place: Place,
    /// [`Completeness::changes`](super::completeness::Completeness::changes) when the walk began.
    as_of: Option<u64>,
    /// Copies that gave way since the start.
    total: u64,
    report_at: Option<Instant>,
    quiet_until: Option<Instant>,
}

impl Refusals {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            missing: Missing::new(seed),
            total: 0,
            report_at: None,
            quiet_until: None,
            next_ask: None,
            spare: Spare::default(),
        }
    }

    /// A server is lost, and all it has with it.
    pub(super) fn forget_server(&mut self, server: ServerId, bit: ServerBit) {
        self.missing.forget_server(server, bit);
    }

    /// A VNI is not subscribed to any more.
    pub(super) fn forget_vni(&mut self, vni: Vni) {
        self.missing.forget_vni(vni);
    }

    fn count(&mut self, now: Instant) {
        self.total += 1;
        let soon = now + REPORT_DELAY;
        let due = self.quiet_until.map_or(soon, |quiet| quiet.max(soon));
        self.report_at.get_or_insert(due);
        self.next_ask.get_or_insert(now);
    }
}

impl Core {
    /// Takes what a server says of a route, if there is room for it.
    pub(super) fn hear(
        &mut self,
        server: ServerId,
        bit: ServerBit,
        change: (Vni, Action, Route),
        now: Instant,
    ) {
        let (vni, action, route) = change;
        let is_heard = !self.refusals.missing.is_empty();
        match action {
            Action::Add if !self.admits(vni, &route) && !self.make_room(vni, &route, now) => {
                self.refusals.count(now);
                self.refusals.missing.insert(server, bit, vni, &route);
                self.completeness.refused(server, vni);
                self.tell_refusal(server, vni, now);
                return;
            }
            Action::Add => self.take(server, bit, change, now),
            Action::Remove => {}
        }
        if is_heard && self.refusals.missing.remove(server, bit, vni, &route) {
            self.completeness.whole(server, vni, now);
            self.obey();
        }
        if action == Action::Remove {
            self.take(server, bit, change, now);
        }
    }

    fn take(
        &mut self,
        server: ServerId,
        bit: ServerBit,
        change: (Vni, Action, Route),
        now: Instant,
    ) {
        let completeness = &self.completeness;
        let vouches = || completeness.vouches(server, change.0, now);
        self.view.update(bit, change, vouches);
    }

    /// Has stale copies give way to a route, those of the oldest loss first: a server that is
    /// there has it. Returns whether it fits.
    ///
    /// Each walk goes over a table once, whatever the number of routes that find room.
    fn make_room(&mut self, vni: Vni, route: &Route, now: Instant) -> bool {
        let changes = self.completeness.changes();
        if self.refusals.spare.as_of != Some(changes) {
            let clocks = self.completeness.spare();
            let spare = &mut self.refusals.spare;
            (spare.clocks, spare.place) = (clocks, Place::default());
            spare.as_of = Some(changes);
        }
        while !self.admits(vni, route) {
            let spare = &mut self.refusals.spare;
            let Some(&(of, age)) = spare.clocks.front() else {
                return false;
            };
            if self.view.drop_left(of, age, &mut spare.place) {
                spare.total += 1;
                let soon = now + REPORT_DELAY;
                let due = spare.quiet_until.map_or(soon, |quiet| quiet.max(soon));
                spare.report_at.get_or_insert(due);
            } else {
                spare.clocks.pop_front();
                spare.place = Place::default();
            }
        }
        true
    }

    /// Tells a server that a route of its was refused.
    fn tell_refusal(&mut self, server: ServerId, vni: Vni, now: Instant) {
        let link = self.servers.get_mut(&server).and_then(Server::link_mut);
        if let Some(link) = link {
            let code = NoticeCode::REFUSED_ANNOUNCEMENT;
            let why = "the client is at its limit of routes";
            link.connection.notify(code, vni, why, now);
        }
    }

    /// Whether a route fits. One that is held needs no room.
    fn admits(&self, vni: Vni, route: &Route) -> bool {
        let limit = self.config.limits.routes;
        self.view.len() + self.view.copies(vni) < limit || self.view.holds(vni, route)
    }

    /// Returns whether the client may subscribe to a VNI.
    pub(crate) fn has_room_for(&self, vni: Vni) -> bool {
        self.subscriptions.contains(&vni) || self.subscriptions.wanted() < self.config.limits.vnis
    }

    /// Returns how many announcements were refused since the start, and how many routes are
    /// missing.
    pub(crate) fn refused(&self) -> (u64, usize) {
        (self.refusals.total, self.refusals.missing.len())
    }

    /// Returns how many stale routes gave way since the start.
    pub(crate) fn displaced(&self) -> u64 {
        self.refusals.spare.total
    }

    /// Asks for the tables that did not fit, if there is room, and reports what was refused.
    pub(super) fn handle_refusals(&mut self, now: Instant) {
        let refusals = &mut self.refusals;
        if refusals.report_at.is_some_and(|at| at <= now) {
            refusals.report_at = None;
            refusals.quiet_until = Some(now + REPORT_PAUSE);
            self.reports.push(Report::Refused {
                limit: self.config.limits.routes,
                total: self.refusals.total,
                missing: self.refusals.missing.len(),
            });
        }
        let spare = &mut self.refusals.spare;
        if spare.report_at.is_some_and(|at| at <= now) {
            spare.report_at = None;
            spare.quiet_until = Some(now + REPORT_PAUSE);
            self.reports.push(Report::GaveWay {
                limit: self.config.limits.routes,
                total: spare.total,
            });
        }
        if self.asks_at().is_none_or(|at| at > now) {
            return;
        }
        self.refusals.next_ask = Some(now + ASK_PAUSE);
        for (server, vni) in self.refusals.missing.tables() {
            self.ask_again(server, vni, now);
        }
    }

    /// Asks for the tables again that servers refused a while ago.
    pub(super) fn ask_refusing(&mut self, now: Instant) {
        for (server, vni) in self.completeness.take_due_refusals(now) {
            let Some(link) = self.servers.get_mut(&server).and_then(Server::link_mut) else {
                continue;
            };
            let mut wants = Wants {
                subscriptions: &mut self.subscriptions,
                announcements: &mut self.announcements,
            };
            link.ask_again(vni, &mut wants);
        }
    }

    /// When [`Self::handle_refusals`] has something to do.
    pub(super) fn refusals_due(&self) -> Option<Instant> {
        self.refusals
            .report_at
            .into_iter()
            .chain(self.refusals.spare.report_at)
            .chain(self.asks_at())
            .chain(self.completeness.refusals_due())
            .min()
    }

    /// Returns when tables are asked for again; `None` while there is no room for them.
    ///
    /// An eighth of the limit is room enough: a table is not asked for again with each route
    /// that goes.
    fn asks_at(&self) -> Option<Instant> {
        let limits = self.config.limits;
        let missing = self.refusals.missing.len();
        let taken = self.view.len() + self.view.most_copies();
        let room = limits.routes.saturating_sub(taken) + self.spare_room();
        let is_room = missing > 0 && room >= missing.min(limits.routes / 8).max(1);
        self.refusals.next_ask.filter(|_| is_room)
    }

    /// Returns how many stale copies may give way, as far as is known: none while a table is told
    /// again, so that it is not asked for once more before its end.
    fn spare_room(&self) -> usize {
        match self.completeness.is_telling() {
            true => 0,
            false => self.view.left(),
        }
    }

    /// Has a server tell the table of a VNI again. What it told stays, as stale, until then.
    ///
    /// A legacy server takes an UNSUBSCRIBE for a withdrawal of all that this client announces
    /// in the VNI, so it is asked only where that is nothing; else the next session brings what
    /// is missing.
    fn ask_again(&mut self, server: ServerId, vni: Vni, now: Instant) {
        let announces = self.announcements.iter().any(|(of, _)| of == vni);
        let Some(entry) = self.servers.get_mut(&server) else {
            return;
        };
        let bit = entry.bit;
        let link = entry.link_mut().filter(|it| it.session().is_established());
        let Some(link) = link.filter(|it| !(it.is_legacy() && announces)) else {
            return;
        };
        let echoes = link.is_legacy();
        let mut wants = Wants {
            subscriptions: &mut self.subscriptions,
            announcements: &mut self.announcements,
        };
        link.ask_again(vni, &mut wants);
        self.refusals.missing.forget_table(server, bit, vni);
        let age = self.completeness.age(vni, Cause::AskedAgain, now);
        if self.view.lose(bit, vni, age, echoes) {
            self.completeness
                .became_stale(vni, age, Cause::AskedAgain, now);
        }
        self.completeness.asked_again(server, vni, now);
    }
}
