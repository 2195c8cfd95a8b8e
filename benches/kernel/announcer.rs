//! A session that announces, as bytes: it costs the other processes no time.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpStream};

use rustbond::{IpNet, Vni};

use crate::role::clock;
use crate::{VNI, prefix, underlay};

/// HELLO with a keepalive interval of 600 s, and the extension STREAM.
const HELLO: [u8; 14] = [1, 0, 10, 1, 8, 0xd8, 4, 0xc2, 0x3e, 4, 8, 1, 16, 1];
const KEEPALIVE: [u8; 4] = [1, 0, 0, 2];

/// Announced, or withdrawn.
#[derive(Clone, Copy)]
pub(crate) enum What {
    Announce,
    Withdraw,
}

pub(crate) struct Announcer(TcpStream);

impl Announcer {
    pub(crate) fn connect(server: &str) -> Self {
        let mut stream = TcpStream::connect(server).expect("the server listens");
        stream.set_nodelay(true).expect("a socket has options");
        stream.write_all(&HELLO).expect("the server reads");
        let mut announcer = Self(stream);
        announcer.barrier();
        announcer
    }

    /// Waits until the server has read all that was sent.
    pub(crate) fn barrier(&mut self) {
        self.0.write_all(&KEEPALIVE).expect("the server reads");
        let mut header = [0; 4];
        while header != KEEPALIVE {
            self.0.read_exact(&mut header).expect("the server answers");
            let mut payload = vec![0; usize::from(header[2])];
            self.0.read_exact(&mut payload).expect("the server answers");
        }
    }

    /// Sends UPDATEs of so many routes, each a number, a hop and whether it is IPv6; returns
    /// when the first was sent, after they were made.
    pub(crate) fn send(
        &mut self,
        what: What,
        routes: impl Iterator<Item = (u32, u32, bool)>,
    ) -> u64 {
        self.send_to(VNI, what, routes)
    }

    /// Does the same in another VNI.
    pub(crate) fn send_to(
        &mut self,
        vni: Vni,
        what: What,
        routes: impl Iterator<Item = (u32, u32, bool)>,
    ) -> u64 {
        let mut bytes = Vec::new();
        for (n, hop, v6) in routes {
            update(&mut bytes, vni, what, &prefix(n, v6), underlay(hop));
        }
        let start = clock();
        self.0.write_all(&bytes).expect("the server reads");
        start
    }
}

fn update(out: &mut Vec<u8>, vni: Vni, what: What, prefix: &IpNet, hop: Ipv6Addr) {
    let start = out.len();
    out.extend([1, 0, 0, 5]);
    if matches!(what, What::Withdraw) {
        out.extend([8, 1]);
    }
    let vni = u8::try_from(vni.0).expect("a small number");
    out.extend([0x10, vni, 0x1a]);
    match prefix {
        IpNet::V4(net) => {
            out.extend([8, 0x12, 4]);
            out.extend(net.network().octets());
        }
        IpNet::V6(net) => {
            out.extend([22, 8, 1, 0x12, 16]);
            out.extend(net.network().octets());
        }
    }
    out.extend([0x18, prefix.prefix_len(), 0x22, 18, 0x0a, 16]);
    out.extend(hop.octets());
    out[start + 2] = u8::try_from(out.len() - start - 4).expect("an UPDATE is short");
}
