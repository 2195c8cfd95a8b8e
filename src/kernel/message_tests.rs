use super::*;
use crate::core::kernel_plan::RouteId;
use crate::core::kernel_plan::model::place;
use crate::kernel::parse::{self, ObjectKind};

const MARK: Mark = Mark {
    protocol: 254,
    device: 9,
    more: [NO_DEVICE; MORE_DEVICES],
    source: Ipv6Addr::UNSPECIFIED,
};

fn hop(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
}

fn encoded(op: &Op, mark: &Mark) -> Vec<u8> {
    let mut buffer = Vec::new();
    encode_op(&mut buffer, op, 7, mark);
    buffer
}

fn route(verb: Verb, prefix: &str, table: u32, target: Target) -> Op {
    Op::Route {
        route: RouteId::default(),
        verb,
        place: place(table, prefix.parse().unwrap()),
        target,
        previous: 0,
    }
}

fn reparse(bytes: &[u8]) -> parse::RouteSeen {
    let message = parse::messages(bytes).next().unwrap();
    assert_eq!(message.sequence, 7);
    parse::route(message.body).unwrap()
}

/// As `ip -6 nexthop add id 10 encap ip6 dst 2001:db8::1 dev <index 9> proto 254` sends it,
/// but for the zero fields of the encapsulation that it adds.
#[test]
#[cfg(target_endian = "little")]
fn nexthop_object_byte_by_byte() {
    let op = Op::AddHop {
        object: 0,
        id: 10,
        hop: Hop {
            device: 0,
            address: hop(1),
        },
    };
    #[rustfmt::skip]
    let expected = [
        72, 0, 0, 0, 104, 0, 0x01, 0x06, 7, 0, 0, 0, 0, 0, 0, 0,
        10, 0, 254, 0, 0, 0, 0, 0,
        8, 0, 1, 0, 10, 0, 0, 0,
        8, 0, 5, 0, 9, 0, 0, 0,
        6, 0, 7, 0, 4, 0, 0, 0,
        24, 0, 8, 0x80, 20, 0, 2, 0,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    ];
    assert_eq!(encoded(&op, &MARK), expected);
}

/// As `ip route add 10.0.0.0/24 nhid 11 table 300 proto 254` sends it.
#[test]
#[cfg(target_endian = "little")]
fn route_byte_by_byte() {
    let op = route(Verb::Add, "10.0.0.0/24", 300, Target::Object(11));
    #[rustfmt::skip]
    let expected = [
        52, 0, 0, 0, 24, 0, 0x01, 0x06, 7, 0, 0, 0, 0, 0, 0, 0,
        2, 24, 0, 0, 0, 254, 0, 1, 0, 0, 0, 0,
        8, 0, 1, 0, 10, 0, 0, 0,
        8, 0, 15, 0, 44, 1, 0, 0,
        8, 0, 30, 0, 11, 0, 0, 0,
    ];
    assert_eq!(encoded(&op, &MARK), expected);
    let mut bytes = encoded(&op, &MARK);
    request_ack(&mut bytes);
    assert_eq!(bytes[6], 0x05);
}

#[test]
fn encoded_messages_decode_to_the_same() {
    for (prefix, metric) in [("10.1.0.0/16", 0), ("::/0", 1024), ("fd00::1/128", 1024)] {
        let op = route(Verb::Beside, prefix, 70_000, Target::Object(5));
        let seen = reparse(&encoded(&op, &MARK));
        assert_eq!(seen.prefix, prefix.parse().unwrap());
        assert_eq!((seen.table, seen.protocol), (70_000, 254));
        assert_eq!((seen.metric, seen.object), (metric, Some(5)));
    }
    for count in [1, 2, 256] {
        let hops: Vec<Ipv6Addr> = (0..count).map(hop).collect();
        let op = route(Verb::Add, "10.0.0.0/8", 100, Target::Inline(hops.clone()));
        let seen = reparse(&encoded(&op, &MARK));
        let expected = |source| {
            let hops = hops.iter().map(|&address| Tunnelled {
                device: 9,
                source,
                address,
            });
            Some(hops.collect::<Vec<_>>())
        };
        assert_eq!(seen.hops, expected(Ipv6Addr::UNSPECIFIED));
        let source = hop(99);
        let mark = Mark { source, ..MARK };
        let seen = reparse(&encoded(&op, &mark));
        assert_eq!(seen.hops, expected(source));
    }
    let group = Op::AddGroup {
        object: 0,
        id: 3,
        members: vec![1, 2],
    };
    let bytes = encoded(&group, &MARK);
    let message = parse::messages(&bytes).next().unwrap();
    let object = parse::object(message.body).unwrap();
    assert_eq!(object.kind, ObjectKind::Group(vec![1, 2]));
    assert_eq!((object.id, object.protocol), (3, 254));
}

#[test]
fn refusal_carries_the_kernels_words() {
    let mut body = (-17_i32).to_ne_bytes().to_vec();
    body.extend_from_slice(&[0; 16]);
    body.extend_from_slice(&9_u16.to_ne_bytes());
    body.extend_from_slice(&attr::NLMSGERR_ATTR_MSG.to_ne_bytes());
    body.extend_from_slice(b"Gone\0\0\0\0");
    let message = parse::Message {
        kind: kind::ERROR,
        flags: flag::CAPPED | flag::ACK_ATTRIBUTES,
        sequence: 1,
        body: &body,
    };
    let answer = parse::answer(&message).unwrap();
    assert_eq!((answer.errno, answer.text.as_deref()), (17, Some("Gone")));
}

#[test]
fn no_length_is_trusted() {
    let inline = Target::Inline(vec![hop(1), hop(2)]);
    let ops = [
        route(Verb::Add, "10.0.0.0/24", 100, inline),
        route(Verb::Add, "fd00::/64", 100, Target::Object(3)),
        Op::AddHop {
            object: 0,
            id: 1,
            hop: Hop {
                device: 0,
                address: hop(1),
            },
        },
        Op::AddGroup {
            object: 0,
            id: 1,
            members: vec![2, 3],
        },
    ];
    let read = |bytes: &[u8]| {
        for message in parse::messages(bytes) {
            parse::route(message.body);
            parse::object(message.body);
            parse::link(message.body);
            parse::answer(&message);
        }
        parse::route(bytes);
        parse::object(bytes);
        parse::link(bytes);
    };
    for op in ops {
        let bytes = encoded(&op, &MARK);
        for at in 0..bytes.len() {
            read(&bytes[..at]);
            for value in [0, 1, 3, 5, 127, 255] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                read(&bytes);
            }
        }
    }
}

/// As Linux describes `ip link add red type vrf table 4321`.
#[test]
fn table_of_a_vrf_device_is_read() {
    let attribute = |kind: u16, value: &[u8]| {
        let len = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let link = |kind: &[u8], data: &[u8]| {
        let info = [
            attribute(attr::IFLA_INFO_KIND, kind),
            attribute(attr::IFLA_INFO_DATA, data),
        ]
        .concat();
        let mut body = vec![0, 0, 1, 0];
        body.extend_from_slice(&9_u32.to_ne_bytes());
        body.extend_from_slice(&[0; 8]);
        body.extend(attribute(attr::IFLA_IFNAME, b"red\0"));
        body.extend(attribute(attr::IFLA_LINKINFO, &info));
        parse::link(&body).unwrap()
    };
    let table = attribute(attr::IFLA_VRF_TABLE, &4321_u32.to_ne_bytes());
    assert_eq!(link(b"vrf\0", &table).vrf_table, Some(4321));
    assert_eq!(link(b"vxlan\0", &table).vrf_table, None);
    assert_eq!(link(b"vrf\0", &[]).vrf_table, None);
    assert_eq!(link(b"vrf\0", &table[..6]).vrf_table, None);
}

#[test]
fn members_of_groups_have_one_weight() {
    let group = Op::AddGroup {
        object: 0,
        id: 7,
        members: vec![1, 2],
    };
    let mut bytes = encoded(&group, &MARK);
    let kind = |bytes: &[u8]| {
        let message = parse::messages(bytes).next().unwrap();
        parse::object(message.body).unwrap().kind
    };
    assert_eq!(kind(&bytes), ObjectKind::Group(vec![1, 2]));
    let weight = bytes.len() - 4;
    assert_eq!(bytes[weight], Weight::ONE.on_the_wire());
    bytes[weight] = 1;
    assert_eq!(
        kind(&bytes),
        ObjectKind::Other,
        "somebody gave it another one"
    );
}
