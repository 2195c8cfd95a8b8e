//! The floor: prebuilt netlink messages, sent 64 at a time.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};
use rustbond::IpNet;

use crate::TABLE;
use crate::netns::{DEVICE, ip};

const BATCH: usize = 64;

/// Installs routes, each to the nexthop object of its hop, which is made on the way; returns
/// how long sending took.
///
/// # Panics
///
/// When the kernel refuses one.
pub(crate) fn install(
    routes: impl Iterator<Item = (IpNet, u32)>,
    underlay: impl Fn(u32) -> Ipv6Addr,
) -> Duration {
    let index = device_index();
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let mut made = std::collections::BTreeSet::new();
    for (prefix, hop) in routes {
        if made.insert(hop) {
            messages.push(nexthop(hop + 1, index, underlay(hop)));
        }
        messages.push(route(&prefix, hop + 1));
    }
    let batches: Vec<Vec<u8>> = messages
        .chunks_mut(BATCH)
        .map(|batch| {
            let last = batch.last_mut().expect("chunks are not empty");
            last[6] |= 4; // NLM_F_ACK
            batch.concat()
        })
        .collect();
    let mut socket = Socket::new(NETLINK_ROUTE).expect("a socket");
    socket.bind_auto().expect("an address");
    socket
        .connect(&SocketAddr::new(0, 0))
        .expect("the kernel is there");
    let mut answer = [0_u8; 8192];
    let begin = Instant::now();
    for batch in &batches {
        socket.send(batch, 0).expect("the kernel reads");
        let len = socket
            .recv(&mut &mut answer[..], 0)
            .expect("the kernel answers");
        assert!(len >= 20 && answer[16..20] == [0; 4], "refused");
    }
    begin.elapsed()
}

/// Enlarges the receive buffer of a socket past the system's limit.
///
/// # Panics
///
/// Without the right to.
#[allow(unsafe_code)] // No crate wraps SO_RCVBUFFORCE.
pub(crate) fn enlarge(socket: &Socket, size: i32) {
    use std::os::fd::AsRawFd;
    let len = libc::socklen_t::try_from(size_of_val(&size)).expect("an int is small");
    // SAFETY: the descriptor is open, the pointer and the length are those of `size`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const size).cast(),
            len,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// The IPv4 destination of a notification that a route was made.
pub(crate) fn new_route(bytes: &[u8]) -> Option<[u8; 4]> {
    const NEW_ROUTE: u16 = 24;
    const DESTINATION: u16 = 1;
    let number = |bytes: &[u8], at: usize| {
        let bytes = bytes.get(at..at + 2)?.try_into().ok()?;
        Some(u16::from_ne_bytes(bytes))
    };
    if number(bytes, 4)? != NEW_ROUTE {
        return None;
    }
    let mut rest = bytes.get(28..)?;
    loop {
        let len = usize::from(number(rest, 0)?);
        if number(rest, 2)? == DESTINATION {
            return rest.get(4..8)?.first_chunk().copied();
        }
        rest = rest.get(len.max(4).next_multiple_of(4)..)?;
    }
}

fn device_index() -> u32 {
    let text = ip(&format!("-o link show {DEVICE}"));
    let (index, _) = text.split_once(':').expect("ip prints the index first");
    index.parse().expect("the index is a number")
}

fn message(kind: u16, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let len = u32::try_from(16 + body.len()).expect("small");
    let mut message = len.to_ne_bytes().to_vec();
    message.extend_from_slice(&kind.to_ne_bytes());
    // NLM_F_REQUEST, NLM_F_CREATE, NLM_F_EXCL
    message.extend_from_slice(&0x601_u16.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&body);
    message
}

fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).expect("small");
    let mut attr = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    attr.extend_from_slice(value);
    attr.resize(attr.len().next_multiple_of(4), 0);
    attr
}

fn nexthop(id: u32, device: u32, address: Ipv6Addr) -> Vec<u8> {
    message(
        104,
        &[
            &[10, 0, 254, 0, 0, 0, 0, 0],
            &attr(1, &id.to_ne_bytes()),
            &attr(5, &device.to_ne_bytes()),
            &attr(7, &4_u16.to_ne_bytes()),
            &attr(8 | 0x8000, &attr(2, &address.octets())),
        ],
    )
}

fn route(prefix: &IpNet, id: u32) -> Vec<u8> {
    let (family, address) = match prefix.network() {
        IpAddr::V4(address) => (2, address.octets().to_vec()),
        IpAddr::V6(address) => (10, address.octets().to_vec()),
    };
    message(
        24,
        &[
            &[family, prefix.prefix_len(), 0, 0, 0, 254, 0, 1, 0, 0, 0, 0],
            &attr(1, &address),
            &attr(15, &TABLE.to_ne_bytes()),
            &attr(30, &id.to_ne_bytes()),
        ],
    )
}
