//! What one client is sent on one connection, frame by frame.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rustbond::internals::sim::{Frame, FrameReader};
use rustbond::{Action, Route, Vni};

/// Follows a connection in both directions at the client's end.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    sent: FrameReader,
    received: FrameReader,
    /// Of the VNIs with a flow.
    tables: BTreeMap<Vni, Table>,
    /// Both sides offer the extensions.
    is_modern: bool,
    /// The server has answered a KEEPALIVE.
    pub(crate) is_established: bool,
    /// What the server said is gone, since that was last taken.
    removed: Vec<(Vni, Route)>,
    /// Where this client's own routes lead, if the server has no older session of it.
    own: Option<IpAddr>,
}

#[derive(Debug, Default)]
struct Table {
    routes: BTreeSet<Route>,
    is_complete: bool,
    /// Unsubscribed; what still comes is old.
    is_leaving: bool,
}

impl Monitor {
    /// `own`: what would be an echo; none if there may be an older session of it.
    pub(crate) fn new(is_modern: bool, own: Option<IpAddr>) -> Self {
        Self {
            is_modern,
            own,
            ..Self::default()
        }
    }

    /// What the client sends.
    pub(crate) fn sends(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.sent.read(&mut bytes) {
            match frame {
                Frame::Subscribe(vni) => {
                    let before = self.tables.insert(vni, Table::default());
                    let is_new = before.is_none_or(|it| it.is_leaving);
                    assert!(is_new, "a second SUBSCRIBE of VNI {vni}");
                }
                Frame::Unsubscribe(vni) => {
                    let table = self.tables.get_mut(&vni);
                    table.expect("an UNSUBSCRIBE of nothing").is_leaving = true;
                }
                Frame::Hello | Frame::Keepalive | Frame::Update(..) => {}
                Frame::EndOfRib(_) | Frame::Malformed => panic!("a client sends {frame:?}"),
            }
        }
    }

    /// What the client receives.
    pub(crate) fn receives(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.received.read(&mut bytes) {
            match frame {
                Frame::Update(action, vni, route) => self.update(action, vni, route),
                Frame::EndOfRib(vni) => {
                    assert!(self.is_modern, "END_OF_RIB to a legacy peer");
                    let table = self.tables.get_mut(&vni).expect("END_OF_RIB of nothing");
                    let is_news = !std::mem::replace(&mut table.is_complete, true);
                    assert!(is_news || table.is_leaving, "a second END_OF_RIB");
                }
                Frame::Hello => {}
                Frame::Keepalive => self.is_established = true,
                Frame::Subscribe(_) | Frame::Unsubscribe(_) | Frame::Malformed => {
                    panic!("a server sends {frame:?}")
                }
            }
        }
    }

    fn update(&mut self, action: Action, vni: Vni, route: Route) {
        let table = self.tables.get_mut(&vni);
        let table = table.unwrap_or_else(|| panic!("{route} of VNI {vni}, which has no flow"));
        if table.is_leaving {
            return;
        }
        match action {
            Action::Add => {
                let is_echo = self.own == Some(route.next_hop.target_address);
                assert!(!is_echo, "an echo of {route} in VNI {vni}");
                assert!(table.routes.insert(route), "a second ADD of {route}");
            }
            Action::Remove => {
                let was_there = table.routes.remove(&route);
                assert!(was_there, "REMOVE of {route}, which is not there");
                self.removed.push((vni, route));
            }
        }
    }

    /// What the server said is gone since the last call.
    pub(crate) fn take_removed(&mut self) -> Vec<(Vni, Route)> {
        std::mem::take(&mut self.removed)
    }

    /// Whether the server has told a route of a VNI, and the table may be incomplete.
    pub(crate) fn has_told(&self, vni: Vni, route: &Route) -> bool {
        let table = self.tables.get(&vni).filter(|it| !it.is_leaving);
        table.is_some_and(|it| it.routes.contains(route))
    }

    /// The table of a VNI as this server tells it; none if there is no flow.
    pub(crate) fn table(&self, vni: Vni) -> Option<&BTreeSet<Route>> {
        let table = self.tables.get(&vni).filter(|it| !it.is_leaving)?;
        let is_complete = table.is_complete || !self.is_modern;
        is_complete.then_some(&table.routes)
    }
}
