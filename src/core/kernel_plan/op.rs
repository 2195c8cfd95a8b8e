//! What the plan and the kernel tell each other.

use std::net::Ipv6Addr;

use ipnet::IpNet;

use super::store::RouteId;
use super::strays::Stray;

/// Where a route stands in the kernel: what a lookup finds first is decided by these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) table: u32,
    /// Without host bits.
    pub(crate) prefix: IpNet,
    /// As the kernel shows it.
    pub(crate) metric: u32,
}

/// An underlay address, and the tunnel device that leads there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Hop {
    /// Counts the devices of the configuration from 0; most have only that one.
    pub(crate) device: u8,
    pub(crate) address: Ipv6Addr,
}

/// Where a route leads, as the kernel is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// To a nexthop object.
    Object(u32),
    /// To these underlay addresses by the first tunnel device, ascending.
    Inline(Vec<Ipv6Addr>),
    /// By other tunnel devices, or from another underlay address, in the kernel's order.
    Via(Vec<Tunnelled>),
}

/// An encapsulation, as a route carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tunnelled {
    /// Index of the tunnel device.
    pub(crate) device: u32,
    /// The underlay address that packets leave from; unspecified if the system chooses it.
    pub(crate) source: Ipv6Addr,
    /// The underlay address that they go to.
    pub(crate) address: Ipv6Addr,
}

/// What is done to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Creates it; the kernel refuses it when any route stands in its place.
    Add,
    /// Creates it beside another one of ours, which is deleted afterwards. No message asks
    /// the kernel to replace a route: it would replace somebody else's as well.
    Beside,
    /// Deletes it.
    Delete,
}

/// One message to the kernel.
///
/// Operations of a batch are done in order; what one creates, later ones use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Creates a nexthop object for an underlay address.
    AddHop { object: u32, id: u32, hop: Hop },
    /// Creates a group of nexthop objects.
    AddGroup {
        object: u32,
        id: u32,
        members: Vec<u32>,
    },
    /// Changes the members of a group, for all routes that use it.
    ReplaceGroup { id: u32, members: Vec<u32> },
    /// Deletes a nexthop object; the kernel takes a single one out of every group.
    DeleteObject { id: u32 },
    /// Changes a route. `target` is where it leads, for [`Verb::Delete`] where it led.
    Route {
        route: RouteId,
        verb: Verb,
        place: Place,
        target: Target,
        /// What was installed before, to go back to when the kernel refuses.
        previous: u32,
    },
    /// Deletes a route of ours that is no longer wanted where it stands, or as it is.
    Sweep(Stray),
}

/// What happened to a route in a place, and it was not us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A route with our protocol was put there, not in place of another one.
    Put(Target),
    /// A route with our protocol was deleted there.
    Gone(Target),
    /// A route with our protocol was put there, to an object of our range that is not ours: it may
    /// have been when that was told.
    Unknown,
    /// Somebody else's was put in place of the first one there.
    Replaced,
    /// Somebody else's was put before all others there.
    First,
    /// Somebody else's was put behind others there.
    Behind,
    /// Somebody else's was deleted there.
    Left,
}

/// What became of a change that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing of ours changed.
    None,
    /// A route of ours was lost: it waits in [`Plan::repair`].
    Lost,
    /// Somebody else's route stands in the way of one of ours.
    Shadowed,
    /// The state of the table is to be read again.
    Unclear,
}
