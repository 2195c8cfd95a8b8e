//! What one client is sent on one connection, frame by frame.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use rustbond::internals::sim::{Frame, FrameReader};
use rustbond::{Action, Route, Vni};

/// Follows a connection in both directions at the client's end.
#[derive(Debug)]
pub(crate) struct Monitor {
    sent: FrameReader,
    received: FrameReader,
    /// Of the VNIs with a flow.
    tables: BTreeMap<Vni, Table>,
    /// Both sides offer the extensions.
    is_modern: bool,
    /// The server has answered a KEEPALIVE.
    pub(crate) is_established: bool,
    /// What the server said since that was last taken.
    news: Vec<News>,
    /// When the server process was started.
    started: Instant,
    /// SUBSCRIBEs that the client sent.
    subscribes: u64,
    /// How many of them are older than the last end of a subscription.
    outdated: BTreeMap<Vni, u64>,
    /// KEEPALIVEs that the client sent, and that the server answered.
    keepalives: [u64; 2],
    /// Where this client's own routes lead, if the server has no older session of it.
    own: Option<IpAddr>,
}

/// KEEPALIVE round trips, one after the other, after which a table that has no END_OF_RIB is
/// complete: the server answers the first after it has read the SUBSCRIBE, and the second after
/// it has queued the table.
const ROUND_TRIPS: u8 = 2;

/// What an UPDATE said.
#[derive(Clone, Copy, Debug)]
pub(crate) enum News {
    Added(Vni, Route),
    /// `is_complete`: the server had told the whole table before.
    Removed {
        vni: Vni,
        route: Route,
        is_complete: bool,
    },
}

#[derive(Debug, Default)]
struct Table {
    routes: BTreeSet<Route>,
    is_complete: bool,
    /// Which SUBSCRIBE of the connection asked for it.
    number: u64,
    /// The KEEPALIVE whose answer ends the next round trip, and how many follow.
    awaits: Option<(u64, u8)>,
    /// Unsubscribed; what still comes is old.
    is_leaving: bool,
}

impl Monitor {
    /// `own`: what would be an echo; none if there may be an older session of it. `started`: when
    /// the server process was.
    pub(crate) fn new(is_modern: bool, own: Option<IpAddr>, started: Instant) -> Self {
        Self {
            sent: FrameReader::default(),
            received: FrameReader::default(),
            tables: BTreeMap::new(),
            is_modern,
            is_established: false,
            news: Vec::new(),
            started,
            subscribes: 0,
            outdated: BTreeMap::new(),
            keepalives: [0; 2],
            own,
        }
    }

    /// What the client sends.
    pub(crate) fn sends(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.sent.read(&mut bytes) {
            match frame {
                Frame::Subscribe(vni) => {
                    self.subscribes += 1;
                    let table = Table {
                        number: self.subscribes,
                        awaits: Some((self.keepalives[0] + 1, ROUND_TRIPS - 1)),
                        ..Table::default()
                    };
                    let before = self.tables.insert(vni, table);
                    let is_new = before.is_none_or(|it| it.is_leaving);
                    assert!(is_new, "a second SUBSCRIBE of VNI {vni}");
                }
                Frame::Unsubscribe(vni) => {
                    let table = self.tables.get_mut(&vni);
                    table.expect("an UNSUBSCRIBE of nothing").is_leaving = true;
                }
                Frame::Keepalive => self.keepalives[0] += 1,
                Frame::Hello | Frame::Update(..) => {}
                Frame::Notice => assert!(self.is_modern, "NOTICE to a legacy peer"),
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
                Frame::Notice => assert!(self.is_modern, "NOTICE to a legacy peer"),
                Frame::Keepalive => {
                    self.is_established = true;
                    self.end_round_trips();
                }
                Frame::Subscribe(_) | Frame::Unsubscribe(_) | Frame::Malformed => {
                    panic!("a server sends {frame:?}")
                }
            }
        }
    }

    /// The server answers a KEEPALIVE.
    fn end_round_trips(&mut self) {
        self.keepalives[1] += 1;
        let [sent, answered] = self.keepalives;
        for table in self.tables.values_mut() {
            if let Some((at, more)) = table.awaits
                && answered >= at
            {
                table.awaits = more.checked_sub(1).map(|more| (sent + 1, more));
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
                self.news.push(News::Added(vni, route));
            }
            Action::Remove => {
                let was_there = table.routes.remove(&route);
                assert!(was_there, "REMOVE of {route}, which is not there");
                let is_complete = match self.is_modern {
                    true => table.is_complete,
                    false => table.awaits.is_none(),
                };
                self.news.push(News::Removed {
                    vni,
                    route,
                    is_complete,
                });
            }
        }
    }

    /// What the server said since the last call.
    pub(crate) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// When the server process was started.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// The client ends a subscription: what it asked for with its first SUBSCRIBEs counts no more.
    pub(crate) fn outdate(&mut self, vni: Vni, subscribes: u64) {
        self.outdated.insert(vni, subscribes);
    }

    /// What the client asked for and still wants.
    fn wanted(&self, vni: Vni) -> Option<&Table> {
        let outdated = self.outdated.get(&vni).copied().unwrap_or(0);
        let table = self.tables.get(&vni).filter(|it| !it.is_leaving)?;
        (table.number > outdated).then_some(table)
    }

    /// Whether the server has told a route of a VNI, and the table may be incomplete.
    pub(crate) fn has_told(&self, vni: Vni, route: &Route) -> bool {
        self.wanted(vni).is_some_and(|it| it.routes.contains(route))
    }

    /// What the server has told of a VNI so far.
    pub(crate) fn routes(&self, vni: Vni) -> impl Iterator<Item = &Route> {
        self.wanted(vni).into_iter().flat_map(|it| &it.routes)
    }

    /// Whether the server has told the whole table of a VNI.
    pub(crate) fn is_complete(&self, vni: Vni) -> bool {
        self.wanted(vni).is_some_and(|it| match self.is_modern {
            true => it.is_complete,
            false => it.awaits.is_none(),
        })
    }

    /// The table of a VNI as this server tells it; none if there is no flow.
    pub(crate) fn table(&self, vni: Vni) -> Option<&BTreeSet<Route>> {
        let table = self.tables.get(&vni).filter(|it| !it.is_leaving)?;
        let is_complete = table.is_complete || !self.is_modern;
        is_complete.then_some(&table.routes)
    }
}
