//! The work that waits, and whose turn it is.

use super::{Phase, Shard};

/// Work that waits in a queue of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Withdrawing what peers announced that are gone.
    Departures,
    /// Sending tables to those who subscribed.
    Joins,
    /// Reducing the queues of laggards to what they amount to.
    Coalescing,
    /// Taking sessions that are gone off the subscribers.
    Leaving,
    /// Dropping what nobody wants any more of queues.
    Purging,
    /// Dropping what waited for sessions that are gone.
    Leftovers,
}

impl Kind {
    pub(super) const FIRST: Self = Self::Departures;
    const COUNT: usize = 6;

    fn next(self) -> Self {
        match self {
            Self::Departures => Self::Joins,
            Self::Joins => Self::Coalescing,
            Self::Coalescing => Self::Leaving,
            Self::Leaving => Self::Purging,
            Self::Purging => Self::Leftovers,
            Self::Leftovers => Self::Departures,
        }
    }
}

impl Shard {
    /// Does the work that waits, for as long as the meter lasts.
    pub(super) fn work(&mut self) {
        self.owner.begin_work();
        self.home.end_doomed();
        self.route_all();
        let (mut kind, mut idle) = (self.next_work, 0);
        while idle < Kind::COUNT && !self.meter.is_over(Phase::Work) {
            idle = if self.work_on(kind) { 0 } else { idle + 1 };
            kind = kind.next();
        }
        // Idle shards begin where the order is best: with what makes other work.
        self.next_work = match idle < Kind::COUNT {
            true => kind,
            false => Kind::FIRST,
        };
        // All at once: in long spans, each of which costs every subscriber the same.
        let Self { owner, meter, .. } = self;
        meter.lend_phase(Phase::HandOut, |meter| owner.hand_out(meter));
        // A log is rewritten when nothing of it is left to be handed out: that would cut a span.
        // Those that give back what they can are first: who has outgrown its table is among them.
        owner.reclaim(meter);
        owner.compact(meter);
        self.route_all();
        self.owner.sweep_segments(&mut self.meter);
        self.home.sweep_segments(&mut self.meter);
    }

    /// Does a share of one kind of work. Returns whether there was any.
    fn work_on(&mut self, kind: Kind) -> bool {
        let Self {
            home, owner, meter, ..
        } = self;
        let was_some = meter.lend_share(|meter| match kind {
            Kind::Departures => owner.depart(meter),
            Kind::Joins => owner.serve_joins(meter),
            Kind::Coalescing => home.coalesce_in_line(meter),
            Kind::Leaving => home.end_flows(meter),
            Kind::Purging => home.purge(meter),
            Kind::Leftovers => home.drop_leftovers(meter),
        });
        if was_some {
            self.route_all();
        }
        was_some
    }

    fn route_all(&mut self) {
        self.route_owners_messages();
        self.home.end_doomed();
        self.route_departures();
        self.route_held_requests();
    }
}
