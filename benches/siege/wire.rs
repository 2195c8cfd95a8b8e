//! What peers send, encoded without the library.
#![allow(dead_code, reason = "every test and benchmark uses its part")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

pub(crate) const KEEPALIVE: [u8; 4] = [1, 0, 0, 2];

fn varint(mut value: u32) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
    out
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[1, high, low, kind], payload].concat()
}

pub(crate) fn subscribe(vni: u32) -> Vec<u8> {
    frame(3, &[vec![8], varint(vni)].concat())
}

pub(crate) fn unsubscribe(vni: u32) -> Vec<u8> {
    frame(4, &[vec![8], varint(vni)].concat())
}

/// Announces, or withdraws, IPv4 route `number` of a VNI.
pub(crate) fn update(is_withdrawn: bool, vni: u32, number: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    if is_withdrawn {
        payload.extend([8, 1]);
    }
    payload.push(2 << 3);
    payload.extend(varint(vni));
    payload.extend([3 << 3 | 2, 8, 2 << 3 | 2, 4]);
    payload.extend(number.to_be_bytes());
    payload.extend([3 << 3, 32, 4 << 3 | 2, 18, 1 << 3 | 2, 16]);
    payload.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    frame(5, &payload)
}

pub(crate) fn announcements(vni: u32, numbers: std::ops::Range<u32>) -> Vec<u8> {
    numbers.flat_map(|it| update(false, vni, it)).collect()
}

/// HELLO of a peer that reassembles frames, with an interval of 60 s: it is not paced.
pub(crate) fn hello() -> Vec<u8> {
    // Extensions: version 1, capability STREAM.
    let extensions = [0xc2, 0x3e, 4, 8, 1, 16, 1];
    frame(1, &[&[8, 60][..], &extensions].concat())
}

/// A session whose handshake is over, of a peer that reassembles frames: it is not paced.
pub(crate) fn session(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    // Or a KEEPALIVE behind a request waits for the acknowledgement of that.
    stream.set_nodelay(true).unwrap();
    stream.write_all(&hello()).unwrap();
    stream.write_all(&KEEPALIVE).unwrap();
    until_keepalive(&mut stream);
    stream
}

/// Sends KEEPALIVE behind everything else, and waits until it is answered.
pub(crate) fn barrier(stream: &mut TcpStream) {
    stream.write_all(&KEEPALIVE).unwrap();
    until_keepalive(stream);
}

/// Reads frames up to a KEEPALIVE.
pub(crate) fn until_keepalive(stream: &mut TcpStream) {
    try_until_keepalive(stream).unwrap();
}

pub(crate) fn try_until_keepalive(stream: &mut TcpStream) -> std::io::Result<()> {
    loop {
        let mut header = [0; 4];
        stream.read_exact(&mut header)?;
        let len = u16::from_be_bytes([header[1], header[2]]);
        stream.read_exact(&mut vec![0; len.into()])?;
        if header[3] == KEEPALIVE[3] {
            return Ok(());
        }
    }
}
