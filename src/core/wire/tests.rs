use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use prost::Message as _;

use super::frame::MAX_PAYLOAD;
use super::*;
use crate::core::types::{Action, Destination, IpNet, NextHop, NextHopType, Route, Vni};

/// Every frame of the recording: direction (`c1>s`) and bytes.
fn golden() -> Vec<(String, Vec<u8>)> {
    include_str!("../../../tests/golden/go-transcript.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let direction = words.next().unwrap().to_owned();
            let hex = words.nth(1).unwrap();
            let bytes = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect();
            (direction, bytes)
        })
        .collect()
}

fn reencode(frame: Frame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match frame.kind {
        MessageType::Hello => encode_hello(&mut out, &decode_hello(frame.payload).unwrap()),
        MessageType::Keepalive => out.extend_from_slice(&KEEPALIVE_FRAME),
        MessageType::Update => {
            let update = decode_update(frame.payload).unwrap();
            encode_update(&mut out, update.action, update.vni, &update.route);
        }
        kind => encode_subscription(&mut out, kind, decode_subscription(frame.payload).unwrap()),
    }
    out
}

#[test]
fn golden_frames_decode_and_encode_to_the_same_bytes() {
    let frames = golden();
    assert_eq!(frames.len(), 39);
    for (direction, bytes) in frames {
        let mut reassembler = Reassembler::default();
        let mut input = bytes.as_slice();
        let frame = reassembler.next(&mut input).unwrap().unwrap();
        assert_eq!(reencode(frame), bytes, "{direction}");
        assert!(input.is_empty());
    }
}

#[test]
fn golden_routes_mean_what_the_recording_says() {
    let updates: Vec<_> = golden()
        .iter()
        .filter(|(direction, bytes)| direction == "c2>s" && bytes[3] == 5)
        .map(|(_, bytes)| decode_update(&bytes[HEADER_LEN..]).unwrap())
        .collect();
    assert_eq!(updates.len(), 7);
    let hop = |text: &str| text.parse::<Ipv6Addr>().unwrap();
    let expected = [
        (
            100,
            "10.0.2.1/32",
            NextHop::nat(hop("2001:db8::2"), 1024, 2047),
        ),
        (
            100,
            "10.0.3.1/32",
            NextHop::load_balancer(hop("2001:db8::3")),
        ),
        (100, "10.0.1.0/24", NextHop::standard(hop("2001:db8::1"))),
        (
            100,
            "2001:db8:1::/48",
            NextHop::standard(hop("2001:db8::cafe")),
        ),
        (200, "0.0.0.0/0", NextHop::standard(hop("2001:db8::4"))),
        (200, "::/0", NextHop::standard(hop("2001:db8::4"))),
        (
            16_777_215,
            "192.168.1.1/32",
            NextHop::standard(hop("fe80::1")),
        ),
    ];
    for (update, (vni, prefix, next_hop)) in updates.iter().zip(expected) {
        let destination = Destination::new(prefix.parse().unwrap());
        assert_eq!(update.vni, Vni(vni));
        assert_eq!(update.route, Route::new(destination, next_hop));
    }
}

#[test]
fn any_cut_of_the_stream_gives_the_same_frames() {
    let frames = golden();
    let stream: Vec<u8> = frames.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..500 {
        let mut reassembler = Reassembler::default();
        let mut seen = Vec::new();
        let mut rest = stream.as_slice();
        while !rest.is_empty() {
            let most = if round == 0 { 1 } else { random.usize(1..=97) };
            let (mut piece, later) = rest.split_at(most.min(rest.len()));
            rest = later;
            while let Some(frame) = reassembler.next(&mut piece).unwrap() {
                seen.push(reencode(frame));
            }
            assert!(piece.is_empty());
            assert!(reassembler.held() < HEADER_LEN + MAX_PAYLOAD);
        }
        assert_eq!(seen.len(), frames.len());
        assert!(
            seen.iter()
                .zip(&frames)
                .all(|(seen, (_, sent))| seen == sent)
        );
    }
}

#[test]
fn headers_that_end_a_session() {
    let cases: [(&[u8], FrameError); 7] = [
        (b"GET / HTTP/1.1", FrameError::Version(b'G')),
        (&[0x16, 3, 1], FrameError::Version(0x16)),
        (&[0, 0, 0, 2], FrameError::Version(0)),
        (&[1, 0, 0, 0], FrameError::Type(0)),
        (&[1, 0, 0, 159], FrameError::Type(159)),
        (&[1, 0x04, 0xA5, 5], FrameError::Length(1189)),
        (&[1, 0xFF, 0xFF, 5], FrameError::Length(65535)),
    ];
    for (bytes, expected) in cases {
        assert_eq!(Reassembler::default().next(&mut &*bytes), Err(expected));
        let mut reassembler = Reassembler::default();
        let error = bytes
            .iter()
            .find_map(|byte| reassembler.next(&mut std::slice::from_ref(byte)).err());
        assert_eq!(error, Some(expected), "byte by byte");
    }
}

#[test]
fn longest_payload_is_a_frame() {
    let mut bytes = vec![1, 0x04, 0xA4, 2];
    bytes.resize(HEADER_LEN + MAX_PAYLOAD, 7);
    let mut reassembler = Reassembler::default();
    let mut input = &bytes[..bytes.len() - 1];
    assert_eq!(reassembler.next(&mut input), Ok(None));
    let mut input = &bytes[bytes.len() - 1..];
    let frame = reassembler.next(&mut input).unwrap().unwrap();
    assert_eq!(frame.payload.len(), MAX_PAYLOAD);
}

fn well_formed() -> proto::Update {
    proto::Update {
        action: 0,
        vni: 100,
        destination: Some(proto::Destination {
            ip_version: 0,
            prefix: vec![10, 0, 0, 0],
            prefix_length: 8,
        }),
        next_hop: Some(proto::NextHop {
            target_address: vec![0xfe; 16],
            ..Default::default()
        }),
    }
}

fn decoded(change: impl FnOnce(&mut proto::Update)) -> Result<Update, Malformed> {
    let mut message = well_formed();
    change(&mut message);
    decode_update(&message.encode_to_vec())
}

fn with_prefix(version: i32, size: usize, length: u32) -> Result<Update, Malformed> {
    decoded(|update| {
        update.destination = Some(proto::Destination {
            ip_version: version,
            prefix: vec![0; size],
            prefix_length: length,
        });
    })
}

fn with_hop(change: impl FnOnce(&mut proto::NextHop)) -> Result<Update, Malformed> {
    decoded(|update| change(update.next_hop.as_mut().unwrap()))
}

#[test]
fn malformed_messages_say_what_is_wrong() {
    assert_eq!(
        decoded(|update| update.destination = None),
        Err(Malformed::NoDestination)
    );
    assert_eq!(
        decoded(|update| update.next_hop = None),
        Err(Malformed::NoNextHop)
    );
    assert_eq!(decode_update(&[]), Err(Malformed::NoDestination));
    for size in [0, 3, 5, 15, 16, 17] {
        assert_eq!(with_prefix(0, size, 8), Err(Malformed::PrefixSize));
    }
    for size in [0, 3, 4, 15, 17] {
        assert_eq!(with_prefix(1, size, 8), Err(Malformed::PrefixSize));
    }
    assert_eq!(with_prefix(2, 4, 8), Err(Malformed::IpVersion));
    assert_eq!(with_prefix(-1, 16, 8), Err(Malformed::IpVersion));
    for length in [33, 129, 256, u32::MAX] {
        assert_eq!(with_prefix(0, 4, length), Err(Malformed::PrefixLength));
    }
    for length in [129, 256, u32::MAX] {
        assert_eq!(with_prefix(1, 16, length), Err(Malformed::PrefixLength));
    }
    assert!(with_prefix(0, 4, 32).is_ok() && with_prefix(1, 16, 128).is_ok());
    assert_eq!(
        with_hop(|hop| hop.target_address = vec![0; 15]),
        Err(Malformed::NextHopSize)
    );
    assert_eq!(
        with_hop(|hop| hop.nat_port_range_to = 65536),
        Err(Malformed::Port)
    );
    assert_eq!(decode_update(&[0x1a, 0x7f]), Err(Malformed::Encoding));
    assert_eq!(
        decode_update(&[0x18, 1]),
        Err(Malformed::Encoding),
        "wrong wire type"
    );
}

#[test]
fn unusual_values_are_relayed_unchanged() {
    let update = with_hop(|hop| {
        hop.target_address = vec![192, 0, 2, 1];
        hop.r#type = -7;
    });
    let update = update.unwrap();
    assert_eq!(
        update.route.next_hop.target_address,
        IpAddr::from([192, 0, 2, 1])
    );
    let mut out = Vec::new();
    encode_update(&mut out, update.action, update.vni, &update.route);
    assert_eq!(decode_update(&out[HEADER_LEN..]), Ok(update));
    assert_eq!(
        decoded(|update| update.action = 7).unwrap().action,
        Action::Add
    );
}

#[test]
fn unknown_fields_are_skipped() {
    // Field 9 in every wire type, a group among them.
    for unknown in [
        &[0x48, 0xff, 0x01][..],
        &[0x4a, 2, 1, 2],
        &[0x4d, 1, 2, 3, 4],
        &[0x49, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0x4b, 0x08, 1, 0x4c],
    ] {
        let mut bytes = unknown.to_vec();
        bytes.extend(well_formed().encode_to_vec());
        bytes.extend(unknown);
        assert_eq!(decode_update(&bytes), decoded(|_| ()));
    }
}

/// prost's own decoder, followed by the same rules: the reference.
fn reference(payload: &[u8]) -> Result<Update, ()> {
    let message = proto::Update::decode(payload).map_err(drop)?;
    let destination = message.destination.ok_or(())?;
    let hop = message.next_hop.ok_or(())?;
    let address = |bytes: &[u8]| match bytes.len() {
        4 => Ok(IpAddr::from(<[u8; 4]>::try_from(bytes).unwrap())),
        16 => Ok(IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap())),
        _ => Err(()),
    };
    let prefix = address(&destination.prefix)?;
    if destination.ip_version != i32::from(prefix.is_ipv6()) {
        return Err(());
    }
    let length = u8::try_from(destination.prefix_length).map_err(drop)?;
    Ok(Update {
        action: if message.action == 1 {
            Action::Remove
        } else {
            Action::Add
        },
        vni: Vni(message.vni),
        route: Route {
            destination: Destination::new(IpNet::new(prefix, length).map_err(drop)?),
            next_hop: NextHop {
                target_address: address(&hop.target_address)?,
                target_vni: hop.target_vni.try_into().ok(),
                hop_type: NextHopType::from_number(hop.r#type),
                nat_port_range_from: u16::try_from(hop.nat_port_range_from).map_err(drop)?,
                nat_port_range_to: u16::try_from(hop.nat_port_range_to).map_err(drop)?,
            },
        },
    })
}

#[test]
fn decoding_agrees_with_prost_on_damaged_payloads() {
    let mut random = fastrand::Rng::with_seed(2);
    let payloads: Vec<Vec<u8>> = golden()
        .into_iter()
        .filter(|(_, bytes)| bytes[3] == 5)
        .map(|(_, bytes)| bytes[HEADER_LEN..].to_vec())
        .collect();
    let mut accepted = 0;
    for _ in 0..200_000 {
        let mut payload = payloads[random.usize(..payloads.len())].clone();
        for _ in 0..random.usize(0..3) {
            let at = random.usize(..payload.len());
            match random.u8(..4) {
                0 => payload[at] = random.u8(..),
                1 => payload.truncate(at.max(1)),
                2 => payload.insert(at, random.u8(..)),
                _ => payload.extend(payloads[random.usize(..payloads.len())].clone()),
            }
        }
        let ours = decode_update(&payload).map_err(drop);
        assert_eq!(ours, reference(&payload), "{payload:02x?}");
        accepted += usize::from(ours.is_ok());
    }
    assert!(
        accepted > 10_000,
        "the damage left {accepted} payloads readable"
    );
}

#[test]
fn encoding_is_canonical_and_splits_into_action_and_key() {
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..10_000 {
        let route = random_route(&mut random);
        let vni = Vni(random.u32(..) >> random.u32(0..32));
        let (mut add, mut remove) = (Vec::new(), Vec::new());
        encode_update(&mut add, Action::Add, vni, &route);
        encode_update(&mut remove, Action::Remove, vni, &route);
        assert_eq!(frame_len(&add), add.len());
        assert_eq!(decode_update(&add[HEADER_LEN..]).unwrap().route, route);
        assert_eq!(split_update(&add).0, Action::Add);
        assert_eq!(split_update(&remove).0, Action::Remove);
        assert_eq!(split_update(&add).1, split_update(&remove).1);
    }
}

fn random_route(random: &mut fastrand::Rng) -> Route {
    let prefix = if random.bool() {
        IpNet::new(Ipv4Addr::from(random.u32(..)).into(), random.u8(0..=32))
    } else {
        IpNet::new(Ipv6Addr::from(random.u128(..)).into(), random.u8(0..=128))
    };
    Route {
        destination: Destination::new(prefix.unwrap()),
        next_hop: NextHop {
            target_address: if random.bool() {
                Ipv6Addr::from(random.u128(..)).into()
            } else {
                Ipv4Addr::from(random.u32(..)).into()
            },
            target_vni: (random.u32(..) >> random.u32(0..32)).try_into().ok(),
            hop_type: NextHopType::from_number(random.i32(-2..5)),
            nat_port_range_from: random.u16(..),
            nat_port_range_to: random.u16(..),
        },
    }
}

#[test]
fn hello_carries_extensions_and_stays_short() {
    let hello = Hello {
        keepalive_interval: u32::MAX,
        is_server: true,
        extensions: Some(Extensions {
            capabilities: Capabilities::OWN,
            node_id: [0xff; 16],
            uptime_seconds: u32::MAX,
        }),
    };
    let mut frame = Vec::new();
    encode_hello(&mut frame, &hello);
    assert!(
        frame.len() - HEADER_LEN <= 252,
        "RustBond 0.1 reads 256 bytes"
    );
    assert_eq!(decode_hello(&frame[HEADER_LEN..]), Ok(hello));
    assert!(
        hello
            .extensions
            .unwrap()
            .capabilities
            .contains(Capabilities::STREAM)
    );
}
