//! A server as the client meets it: what it has, was told, and said.

use std::collections::BTreeSet;

use crate::core::types::{Action, NextHopType, Route, Vni};
use crate::core::wire::{
    Capabilities, Extensions, Hello, KEEPALIVE_FRAME, MessageType, Notice, NoticeCode, Reassembler,
    decode_hello, decode_subscription, decode_update, encode_hello, encode_notice,
    encode_subscription, encode_update,
};

/// Whose habits a server has (listed in `tests/common/double`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// This implementation's.
    Modern,
    /// Go MetalBond's: echoes in the initial table, UNSUBSCRIBE withdraws.
    Go,
    /// RustBond 0.1's: legacy, but UNSUBSCRIBE withdraws nothing.
    OldRust,
}

impl Kind {
    pub(super) fn is_legacy(self) -> bool {
        self != Self::Modern
    }
}

/// A server; it outlives its connections.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) kind: Kind,
    /// Who it is; names of one server have the same.
    pub(super) node: u8,
    pub(super) interval: u32,
    /// What its HELLO says, if it is a modern one.
    pub(super) uptime_seconds: u32,
    /// What others announce to it.
    pub(super) table: BTreeSet<(Vni, Route)>,
    /// What it announces itself, to everybody, once a session is established.
    pub(super) own: BTreeSet<(Vni, Route)>,
    /// Whether it can be connected to.
    pub(super) is_there: bool,
    /// The client's socket takes nothing.
    pub(super) is_blocked: bool,
    /// What it sends stays on its way.
    pub(super) is_held: bool,
    /// It reads and says nothing for now: like every server it answers all in the end.
    pub(super) is_mute: bool,
    /// Its policy forbids this VNI.
    pub(super) refuses: Option<Vni>,
    pub(super) talk: Option<Talk>,
}

/// A message as a server reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Hello,
    Keepalive,
    Subscribe(Vni),
    Unsubscribe(Vni),
    Add(Vni, Route),
    Remove(Vni, Route),
}

/// One connection of a server.
#[derive(Debug, Default)]
pub(super) struct Talk {
    reassembler: Reassembler,
    /// Sent by the client, not read.
    pub(super) inbox: Vec<u8>,
    /// Sent to the client, not delivered.
    pub(super) outbox: Vec<u8>,
    pub(super) is_established: bool,
    pub(super) subscribed: BTreeSet<Vni>,
    pub(super) announced: BTreeSet<(Vni, Route)>,
    pub(super) heard: Vec<Heard>,
    unanswered: Vec<Heard>,
}

impl Script {
    pub(super) fn named(node: u8, kind: Kind) -> Self {
        Self {
            kind,
            node,
            interval: 5,
            uptime_seconds: 3600,
            table: BTreeSet::new(),
            own: BTreeSet::new(),
            is_there: false,
            is_blocked: false,
            is_held: false,
            is_mute: false,
            refuses: None,
            talk: None,
        }
    }

    /// Somebody else announces or withdraws; `false` if that changes nothing.
    pub(super) fn say(&mut self, action: Action, vni: Vni, route: Route) -> bool {
        let is_news = match action {
            Action::Add => self.table.insert((vni, route)),
            Action::Remove => self.table.remove(&(vni, route)),
        };
        if is_news
            && let Some(talk) = &mut self.talk
            && talk.subscribed.contains(&vni)
        {
            encode_update(&mut talk.outbox, action, vni, &route);
        }
        is_news
    }

    /// Reads all that came.
    pub(super) fn serve(&mut self) {
        let Some(mut talk) = self.talk.take() else {
            return;
        };
        let inbox = std::mem::take(&mut talk.inbox);
        let mut reassembler = std::mem::take(&mut talk.reassembler);
        let mut bytes = &inbox[..];
        while let Some(frame) = reassembler.next(&mut bytes).expect("valid frames") {
            let heard = match frame.kind {
                MessageType::Hello => {
                    let hello = decode_hello(frame.payload).unwrap();
                    assert!(!hello.is_server);
                    Heard::Hello
                }
                MessageType::Keepalive => Heard::Keepalive,
                MessageType::Subscribe => {
                    Heard::Subscribe(decode_subscription(frame.payload).unwrap())
                }
                MessageType::Unsubscribe => {
                    Heard::Unsubscribe(decode_subscription(frame.payload).unwrap())
                }
                MessageType::Update => {
                    let update = decode_update(frame.payload).unwrap();
                    match update.action {
                        Action::Add => Heard::Add(update.vni, update.route),
                        Action::Remove => Heard::Remove(update.vni, update.route),
                    }
                }
                MessageType::Notice => continue,
                MessageType::EndOfRib => panic!("clients never send END_OF_RIB"),
            };
            talk.heard.push(heard);
            talk.unanswered.push(heard);
        }
        if !self.is_mute {
            for heard in std::mem::take(&mut talk.unanswered) {
                self.answer(&mut talk, heard);
            }
        }
        talk.reassembler = reassembler;
        self.talk = Some(talk);
    }

    fn answer(&self, talk: &mut Talk, heard: Heard) {
        match heard {
            Heard::Hello => {
                let extensions = Extensions {
                    capabilities: Capabilities::OWN,
                    node_id: [self.node; 16],
                    uptime_seconds: self.uptime_seconds,
                };
                let hello = Hello {
                    keepalive_interval: self.interval,
                    is_server: true,
                    extensions: (self.kind == Kind::Modern).then_some(extensions),
                };
                encode_hello(&mut talk.outbox, &hello);
            }
            Heard::Keepalive => {
                if !std::mem::replace(&mut talk.is_established, true) {
                    for (vni, route) in &self.own {
                        encode_update(&mut talk.outbox, Action::Add, *vni, route);
                    }
                }
                talk.outbox.extend_from_slice(&KEEPALIVE_FRAME);
            }
            Heard::Subscribe(vni) if self.refuses == Some(vni) => {
                talk.subscribed.insert(vni);
                let notice = Notice {
                    code: NoticeCode::REFUSED_SUBSCRIPTION,
                    vni,
                    text: "no".into(),
                };
                encode_notice(&mut talk.outbox, &notice);
            }
            Heard::Subscribe(vni) => self.send_table(talk, vni),
            Heard::Unsubscribe(vni) => {
                assert!(talk.subscribed.remove(&vni), "{vni} was not subscribed");
                if self.kind == Kind::Go {
                    talk.announced.retain(|(of, _)| *of != vni);
                }
            }
            // Both may come twice to a legacy server, which shrugs.
            Heard::Add(vni, route) => {
                let is_new = talk.announced.insert((vni, route));
                assert!(is_new || self.kind.is_legacy(), "{route} announced twice");
            }
            Heard::Remove(vni, route) => {
                let was_there = talk.announced.remove(&(vni, route));
                assert!(
                    was_there || self.kind.is_legacy(),
                    "{route} withdrawn twice"
                );
            }
        }
    }

    fn send_table(&self, talk: &mut Talk, vni: Vni) {
        assert!(
            talk.subscribed.insert(vni),
            "a second SUBSCRIBE for {vni} freezes Go"
        );
        let mut table = self.table.iter().copied().collect::<Vec<_>>();
        if self.kind == Kind::Go {
            let is_echoed = |(_, route): &&(Vni, Route)| {
                let hop_type = route.next_hop.hop_type;
                matches!(
                    hop_type,
                    NextHopType::Standard | NextHopType::LoadBalancerTarget
                )
            };
            table.extend(talk.announced.iter().filter(is_echoed));
        }
        for (_, route) in table.iter().filter(|(of, _)| *of == vni) {
            encode_update(&mut talk.outbox, Action::Add, vni, route);
            if self.kind == Kind::Go && route.destination.prefix.addr().is_ipv4() {
                // Of two announcers.
                encode_update(&mut talk.outbox, Action::Add, vni, route);
            }
        }
        if self.kind == Kind::Modern {
            encode_subscription(&mut talk.outbox, MessageType::EndOfRib, vni);
        }
    }
}
