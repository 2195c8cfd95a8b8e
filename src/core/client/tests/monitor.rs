//! What no server may ever be sent, checked at the moment it is sent.

use std::collections::{BTreeMap, BTreeSet};

use super::script::Kind;
use crate::core::types::{Action, Route, Vni};
use crate::core::wire::{
    MessageType, Reassembler, decode_notice, decode_subscription, decode_update,
};

/// Watches one connection in both directions.
#[derive(Debug)]
pub(super) struct Monitor {
    kind: Kind,
    sent: Reassembler,
    delivered: Reassembler,
    keepalives: u64,
    replies: u64,
    subscribed: BTreeSet<Vni>,
    /// Changed subscriptions, and the KEEPALIVE that followed, once it did.
    unanswered: BTreeMap<Vni, (MessageType, Option<u64>)>,
    told: BTreeSet<(Vni, Route)>,
    /// Told before an UNSUBSCRIBE that a legacy server may take for a withdrawal.
    doubtful: BTreeSet<(Vni, Route)>,
}

impl Monitor {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            sent: Reassembler::default(),
            delivered: Reassembler::default(),
            keepalives: 0,
            replies: 0,
            subscribed: BTreeSet::new(),
            unanswered: BTreeMap::new(),
            told: BTreeSet::new(),
            doubtful: BTreeSet::new(),
        }
    }

    /// The client was given these bytes of the server's.
    pub(super) fn deliver(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.delivered.next(&mut bytes).expect("valid frames") {
            self.replies += u64::from(frame.kind == MessageType::Keepalive);
        }
    }

    /// The client sends these bytes to the server.
    pub(super) fn observe(&mut self, mut fresh: &[u8]) {
        let mut sent = std::mem::take(&mut self.sent);
        while let Some(frame) = sent.next(&mut fresh).expect("valid frames") {
            match frame.kind {
                MessageType::Hello => {}
                MessageType::Keepalive => {
                    self.keepalives += 1;
                    for (_, barrier) in self.unanswered.values_mut() {
                        barrier.get_or_insert(self.keepalives);
                    }
                }
                MessageType::Subscribe => {
                    let vni = decode_subscription(frame.payload).unwrap();
                    self.must_be_answered(vni, MessageType::Unsubscribe);
                    assert!(self.subscribed.insert(vni), "SUBSCRIBE {vni} twice");
                    self.unanswered.insert(vni, (frame.kind, None));
                }
                MessageType::Unsubscribe => {
                    let vni = decode_subscription(frame.payload).unwrap();
                    if self.kind.is_legacy() {
                        self.must_be_answered(vni, MessageType::Subscribe);
                        let of_vni = self.told.iter().filter(|(of, _)| *of == vni);
                        self.doubtful.extend(of_vni);
                        self.told.retain(|(of, _)| *of != vni);
                    }
                    assert!(self.subscribed.remove(&vni), "UNSUBSCRIBE {vni} twice");
                    self.unanswered.insert(vni, (frame.kind, None));
                }
                MessageType::Update => {
                    let update = decode_update(frame.payload).unwrap();
                    self.update(update.action, (update.vni, update.route));
                }
                MessageType::Notice => {
                    assert!(!self.kind.is_legacy(), "no message type above 5");
                    decode_notice(frame.payload).unwrap();
                }
                MessageType::EndOfRib => panic!("clients never send END_OF_RIB"),
            }
        }
        self.sent = sent;
    }

    fn update(&mut self, action: Action, key: (Vni, Route)) {
        if self.kind.is_legacy() {
            self.must_be_answered(key.0, MessageType::Unsubscribe);
        }
        let is_doubtful = self.doubtful.remove(&key);
        match action {
            Action::Add => assert!(self.told.insert(key), "{key:?} announced twice"),
            Action::Remove => {
                let was_told = self.told.remove(&key) || is_doubtful;
                assert!(was_told, "{key:?} withdrawn, though not announced");
            }
        }
    }

    /// A message of this kind about a VNI, if there was one, went around.
    fn must_be_answered(&self, vni: Vni, kind: MessageType) {
        if let Some((of, barrier)) = self.unanswered.get(&vni)
            && *of == kind
        {
            let is_answered = barrier.is_some_and(|barrier| self.replies >= barrier);
            assert!(is_answered, "no round trip after {kind:?} {vni}");
        }
    }
}
