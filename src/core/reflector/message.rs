//! What shards tell each other, and which of them is told.

use crate::core::rib::{PeerId, Span};
use crate::core::types::Vni;
use crate::core::wire::Update;

/// How sessions and VNIs are spread over the shards of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Topology {
    shards: usize,
}

impl Topology {
    /// # Panics
    ///
    /// If there is no shard.
    pub(crate) fn new(shards: usize) -> Self {
        assert!(shards > 0, "a server has at least one shard");
        Self { shards }
    }

    /// How many shards there are.
    pub(crate) fn shards(self) -> usize {
        self.shards
    }

    /// The shard that has the session.
    pub(crate) fn home(self, peer: PeerId) -> usize {
        peer.0 as usize % self.shards
    }

    /// The shard that has the table.
    pub(crate) fn owner(self, vni: Vni) -> usize {
        // Fibonacci hashing: VNIs that lie close together spread over the shards.
        let mixed = u64::from(vni.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        usize::try_from(mixed).map_or(0, |mixed| mixed % self.shards)
    }
}

/// What a session asks of the owner of a VNI.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request {
    /// Announces or withdraws.
    Update(Update),
    /// Wants the table and its changes.
    Subscribe {
        vni: Vni,
        /// Tells this subscription from earlier ones of the same session.
        epoch: u32,
    },
    /// Wants them no longer.
    Unsubscribe(Vni),
}

impl Request {
    /// The VNI that it is about.
    pub(super) fn vni(self) -> Vni {
        match self {
            Self::Update(update) => update.vni,
            Self::Subscribe { vni, .. } | Self::Unsubscribe(vni) => vni,
        }
    }
}

/// Why an announcement or a subscription is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The server has as many routes as it may.
    Routes,
    /// The session has as many routes as it may.
    RoutesOfPeer,
    /// The server has as many VNIs as it may.
    Vnis,
    /// The session announces in as many VNIs as it may.
    VnisOfPeer,
    /// The session has as many subscriptions as it may.
    SubscriptionsOfPeer,
    /// Memory is short.
    Memory,
}

impl Refusal {
    /// What the peer is told.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Routes => "the server is at its limit of routes",
            Self::RoutesOfPeer => "the session is at its limit of routes",
            Self::Vnis => "the server is at its limit of VNIs",
            Self::VnisOfPeer => "the session is at its limit of VNIs",
            Self::SubscriptionsOfPeer => "the session is at its limit of subscriptions",
            Self::Memory => "the server is short of memory",
        }
    }
}

/// From shard to shard. All messages from one shard to another arrive in order.
#[derive(Debug)]
pub(crate) enum Message {
    /// To the owner: a session announces and withdraws.
    Updates { peer: PeerId, updates: Vec<Update> },
    /// To the owner: a session wants a VNI's table and changes.
    Subscribe {
        peer: PeerId,
        vni: Vni,
        /// Tells this subscription from earlier ones of the same session.
        epoch: u32,
    },
    /// To the owner: a session does not want them any more.
    Unsubscribe { peer: PeerId, vni: Vni },
    /// To every owner: a session has ended, its routes and subscriptions with it.
    Gone { peer: PeerId },
    /// To the home: the table of a VNI; the changes that follow belong to it.
    Table {
        peer: PeerId,
        vni: Vni,
        epoch: u32,
        spans: Vec<Span>,
    },
    /// To a home: changes of a VNI, for its subscribers there.
    Changes { vni: Vni, spans: Vec<Span> },
    /// To the home: announcements were refused.
    Refused {
        peer: PeerId,
        routes: u64,
        /// The last of them: its VNI, and why.
        last: (Vni, Refusal),
    },
    /// To the home: memory is short, and a session holds most of it.
    Shed { peer: PeerId },
}

impl Message {
    /// How many routes messages are about, for the account of the mailbox that they lie in.
    pub(crate) fn weight(messages: &[Self]) -> usize {
        let weigh = |message: &Self| match message {
            Self::Updates { updates, .. } => updates.len(),
            Self::Subscribe { .. }
            | Self::Unsubscribe { .. }
            | Self::Gone { .. }
            | Self::Table { .. }
            | Self::Changes { .. }
            | Self::Refused { .. }
            | Self::Shed { .. } => 1,
        };
        messages.iter().map(weigh).sum()
    }
}
