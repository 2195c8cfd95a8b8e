//! One server of a client: where its connection stands, and how it fared.

use std::time::Instant;

use super::backoff::Backoff;
use super::completeness::Doubt;
use super::link::Link;
use super::notices::Notices;
use super::status::ServerId;
use super::view::ServerBit;
use crate::core::limit::{Quiet, Recent};
use crate::core::session::CloseReason;
use crate::core::time::after;

/// A server, whether there is a connection to it or not.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) bit: ServerBit,
    pub(super) phase: Phase,
    pub(super) backoff: Backoff,
    pub(super) last_loss: Option<CloseReason>,
    /// Messages dropped as malformed since the start.
    pub(super) malformed: u64,
    /// Limits how often that is reported.
    pub(super) malformed_quiet: Quiet,
    pub(super) notices: Notices,
    /// Limits how often they are reported.
    pub(super) notice_quiet: Quiet,
    /// How often its session ended.
    pub(super) flaps: Recent,
    /// Since when it is in the phase it is in.
    pub(super) since: Instant,
    /// An operator asked the client to leave it until it is dialled next.
    pub(super) is_drained: bool,
    /// The server that this one turned out to be, while that is connected.
    pub(super) twin: Option<ServerId>,
    pub(super) established_at: Option<Instant>,
    pub(super) doubt: Doubt,
}

/// Where the connection to a server stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// To be dialled then.
    Waiting { until: Instant, is_retry: bool },
    /// Being dialled.
    Dialling { until: Instant },
    /// Connected.
    Up(Box<Link>),
}

impl Server {
    /// A server to be dialled at once.
    pub(super) fn new(bit: ServerBit, backoff: Backoff, now: Instant) -> Self {
        Self {
            bit,
            phase: Phase::Waiting {
                until: now,
                is_retry: false,
            },
            backoff,
            last_loss: None,
            malformed: 0,
            malformed_quiet: Quiet::default(),
            notices: Notices::default(),
            notice_quiet: Quiet::default(),
            flaps: Recent::new(now),
            since: now,
            is_drained: false,
            twin: None,
            established_at: None,
            doubt: Doubt::None,
        }
    }

    /// The connection, if there is one.
    pub(super) fn link(&self) -> Option<&Link> {
        match &self.phase {
            Phase::Up(link) => Some(link),
            Phase::Waiting { .. } | Phase::Dialling { .. } => None,
        }
    }

    /// The connection, if there is one.
    pub(super) fn link_mut(&mut self) -> Option<&mut Link> {
        match &mut self.phase {
            Phase::Up(link) => Some(link),
            Phase::Waiting { .. } | Phase::Dialling { .. } => None,
        }
    }

    /// The node behind the connection, once it has said who it is.
    pub(super) fn node(&self) -> Option<[u8; 16]> {
        let hello = self.link()?.session().hello()?;
        let node = hello.extensions?.node_id;
        (node != [0; 16]).then_some(node)
    }

    /// Notes that the session ended, or that an attempt failed. Returns the connection, if there
    /// was one. The server is to be dialled again after a while.
    pub(super) fn lose(&mut self, reason: CloseReason, now: Instant) -> Option<Box<Link>> {
        self.last_loss = Some(reason);
        self.notices.end_session();
        if reason.is_path_failure() {
            self.doubt = Doubt::CutOff;
        }
        self.since = now;
        if let Some(since) = self.established_at.take() {
            self.flaps.count(now);
            if reason.is_departure() {
                self.backoff.departed(now - since);
            } else {
                self.backoff.failed();
            }
        }
        let until = after(now, self.backoff.next());
        let waiting = Phase::Waiting {
            until,
            is_retry: true,
        };
        match std::mem::replace(&mut self.phase, waiting) {
            Phase::Up(link) => Some(link),
            Phase::Waiting { .. } | Phase::Dialling { .. } => None,
        }
    }
}
