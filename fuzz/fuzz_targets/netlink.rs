//! Whatever the kernel answers and tells, the writer goes on, waits when it waits, and ends
//! when it is told to.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use rustbond::internals::HostileKernel;
use rustbond::{Destination, NextHop, Route};

#[derive(Arbitrary, Debug)]
enum Step {
    Add { number: u8 },
    Remove { number: u8 },
    Synced,
    Turns(u8),
}

/// A netlink message; most of them look right from afar.
#[derive(Arbitrary, Debug)]
struct Message {
    kind: u8,
    flags: u16,
    /// The request's number, plus so much.
    sequence: Option<u16>,
    head: Head,
    attributes: Vec<(u8, Value)>,
    is_cut: bool,
}

#[derive(Arbitrary, Debug)]
enum Head {
    Success,
    Error {
        errno: u8,
        rest: [u8; 16],
    },
    Link {
        is_up: bool,
    },
    Object {
        family: u8,
        protocol: u8,
    },
    Route {
        is_ipv6: bool,
        length: u8,
        protocol: u8,
        kind: u8,
    },
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Value {
    Number(u8),
    Short(u8),
    /// The index of the device.
    Device,
    Name,
    Address(u8),
    Encapsulated(u8),
    Members(Vec<u8>),
    Bytes(Vec<u8>),
}

fn address(number: u8) -> [u8; 16] {
    let mut address = [0; 16];
    address[0] = 0x20;
    address[15] = number;
    address
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    out.extend(len.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

impl Message {
    fn write(&self, out: &mut Vec<u8>) {
        let mut body = match &self.head {
            Head::Success => vec![0; 20],
            Head::Error { errno, rest } => {
                let mut body = (-i32::from(*errno)).to_ne_bytes().to_vec();
                body.extend_from_slice(rest);
                body
            }
            Head::Link { is_up } => {
                let mut body = vec![0; 16];
                body[4..8].copy_from_slice(&9_u32.to_ne_bytes());
                let flags = if *is_up { 0x1_0001_u32 } else { 0 };
                body[8..12].copy_from_slice(&flags.to_ne_bytes());
                body
            }
            Head::Object { family, protocol } => {
                let family = if *family < 200 { 10 } else { *family };
                let protocol = if *protocol < 200 { 254 } else { *protocol };
                vec![family, 0, protocol, 0, 0, 0, 0, 0]
            }
            Head::Route {
                is_ipv6,
                length,
                protocol,
                kind,
            } => {
                let family = if *is_ipv6 { 10 } else { 2 };
                let protocol = if *protocol < 200 { 254 } else { *protocol };
                let kind = if *kind < 200 { 1 } else { *kind };
                vec![family, *length, 0, 0, 100, protocol, 0, kind, 0, 0, 0, 0]
            }
            Head::Bytes(bytes) => bytes.clone(),
        };
        for (kind, value) in &self.attributes {
            let value = match value {
                Value::Number(number) => (1000 + u32::from(*number % 20)).to_ne_bytes().to_vec(),
                Value::Short(number) => u16::from(*number).to_ne_bytes().to_vec(),
                Value::Device => 9_u32.to_ne_bytes().to_vec(),
                Value::Name => b"tun\0".to_vec(),
                Value::Address(number) => address(*number).to_vec(),
                Value::Encapsulated(number) => {
                    let mut value = Vec::new();
                    attribute(&mut value, 2, &address(*number));
                    value
                }
                Value::Members(members) => {
                    let id = |it: &u8| (1000 + u32::from(*it % 20)).to_ne_bytes();
                    members
                        .iter()
                        .flat_map(|it| [id(it), [0; 4]].concat())
                        .collect()
                }
                Value::Bytes(bytes) => bytes.clone(),
            };
            attribute(&mut body, u16::from(kind % 32), &value);
        }
        const KINDS: [u16; 10] = [2, 3, 4, 16, 17, 24, 25, 104, 105, 99];
        let mut len = u32::try_from(16 + body.len()).expect("short");
        if self.is_cut {
            len += 7;
        }
        out.extend(len.to_ne_bytes());
        out.extend(KINDS[usize::from(self.kind) % KINDS.len()].to_ne_bytes());
        out.extend(self.flags.to_ne_bytes());
        // All ones: the number of the latest request.
        let sequence = self.sequence.map_or(u32::MAX, u32::from);
        out.extend(sequence.to_ne_bytes());
        out.extend([0; 4]);
        out.append(&mut body);
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

#[derive(Debug)]
enum Datagram {
    Messages(Vec<Message>),
    Bytes(Vec<u8>),
}

impl<'a> Arbitrary<'a> for Datagram {
    fn arbitrary(from: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(if from.ratio(7, 8)? {
            Self::Messages(from.arbitrary()?)
        } else {
            Self::Bytes(from.arbitrary()?)
        })
    }
}

fn bytes(datagram: Datagram) -> Vec<u8> {
    match datagram {
        Datagram::Bytes(bytes) => bytes,
        Datagram::Messages(messages) => {
            let mut out = Vec::new();
            messages.iter().for_each(|it| it.write(&mut out));
            out
        }
    }
}

#[derive(Arbitrary, Debug)]
struct Input {
    uses_objects: bool,
    refuses: u8,
    answers: Vec<Datagram>,
    notifications: Vec<Datagram>,
    steps: Vec<Step>,
}

fn route(number: u8) -> Route {
    let hop = std::net::Ipv6Addr::from(address(number % 5));
    let destination = if number & 0x80 == 0 {
        Destination::from_ipv4(u32::from(number / 5).into(), 32)
    } else {
        Destination::from_ipv6(u128::from(number / 5).into(), 128)
    };
    Route::new(destination, NextHop::standard(hop))
}

fuzz_target!(|input: Input| {
    let answers = input.answers.into_iter().map(bytes).collect();
    let notifications = input.notifications.into_iter().map(bytes).collect();
    let refuses = input.refuses > 250;
    let mut kernel = HostileKernel::new(input.uses_objects, refuses, answers, notifications);
    for step in input.steps {
        match step {
            Step::Add { number } => kernel.add(route(number)),
            Step::Remove { number } => kernel.remove(route(number)),
            Step::Synced => kernel.synced(),
            Step::Turns(count) => (0..count % 16).for_each(|_| kernel.turn()),
        }
    }
    kernel.shutdown();
});
