//! A server that is attacked: over TCP and over its Unix socket, while a healthy pair uses it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustbond::inspect::{PeerStatus, Watch, WatchEvent, WatchFrom};
use rustbond::{Endpoint, Listener, MetalBondServer, ServerConfig, Vni};

use crate::folder::Folder;
use crate::siege::Pair;
use crate::support::{HELLO, PATIENCE, Raw, eventually};

/// How the hostile peers reach a server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Tcp,
    Unix,
}

impl Way {
    /// Runs an attack once for each way.
    pub(crate) fn each(attack: impl Fn(Self)) {
        for way in [Self::Tcp, Self::Unix] {
            attack(way);
        }
    }
}

/// A server with a healthy pair, and what is known of the others' sessions.
pub(crate) struct Fort {
    way: Way,
    /// Ends before its server.
    pub(crate) pair: Pair,
    pub(crate) server: MetalBondServer,
    /// Where its Unix socket is.
    folder: Folder,
    /// Connections to it so far.
    connections: Cell<u32>,
    watch: Watch,
    /// Reasons by name.
    ended: BTreeMap<String, String>,
}

impl Fort {
    pub(crate) fn new(way: Way, config: ServerConfig) -> Self {
        let folder = Folder::new();
        let endpoints = [
            "127.0.0.1:0".parse().unwrap(),
            Endpoint::unix(folder.path().join("peers")).unwrap(),
        ];
        let listeners = endpoints.map(|it| Listener::bind(&it).unwrap());
        let server = MetalBondServer::start_on(listeners, config).unwrap();
        let pair = Pair::start(server.local_addr());
        let watch = server
            .inspector()
            .watch(Some(Vni(99)), WatchFrom::Now)
            .unwrap();
        Self {
            way,
            pair,
            server,
            folder,
            connections: Cell::new(0),
            watch,
            ended: BTreeMap::new(),
        }
    }

    pub(crate) fn connect(&self) -> Raw {
        match self.way {
            Way::Tcp => Raw::connect(self.server.local_addr()),
            Way::Unix => {
                self.connections.set(self.connections.get() + 1);
                let number = self.connections.get();
                Raw::connect_path(&self.folder.path().join("peers"), number)
            }
        }
    }

    pub(crate) fn established(&self) -> Raw {
        let mut peer = self.connect();
        peer.establish(&HELLO);
        peer
    }

    /// Why the session of a name ended.
    pub(crate) fn reason(&mut self, session: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(reason) = self.ended.remove(session) {
                return reason;
            }
            for event in self.watch.wait(Duration::from_millis(100)).unwrap() {
                if let WatchEvent::PeerDown(name, reason) = event {
                    self.ended.insert(name, reason);
                }
            }
        }
        panic!("the session {session} goes on");
    }

    /// Sends bytes, after which the server must end the session for this reason.
    pub(crate) fn ends(&mut self, mut peer: Raw, name: &str, bytes: &[u8], reason: &str) {
        let session = peer.name.clone();
        peer.send(bytes);
        assert!(peer.closed_by_server(), "{name}");
        assert_eq!(self.reason(&session), reason, "{name}");
    }

    pub(crate) fn peer(&self, raw: &Raw) -> PeerStatus {
        let name = &raw.name;
        let mut peers = self.server.peers().unwrap().into_iter();
        peers.find(|it| it.name == *name).unwrap()
    }

    /// Nobody has suffered, and nobody but the pair is left.
    pub(crate) fn stands(self) {
        self.pair.goes_on();
        eventually("the pair alone is left", || {
            self.server.stats().sessions == 2
        });
        let pair = self.server.peers().unwrap();
        assert!(pair.iter().all(|it| it.malformed + it.refused == 0));
        eventually("nothing of the others is left", || {
            let stats = self.server.stats();
            stats.subscriptions == 1 && stats.announcements <= 1
        });
    }
}
