//! A kernel made of bytes that can fail any call.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::Ipv6Addr;
use std::rc::Rc;

use ipnet::IpNet;

use super::MARK;
use crate::core::kernel_plan::model::{Installed, Model, Nexthop, place};
use crate::core::kernel_plan::{Hop, Op, Place, RouteId, Target, Verb, errno};
use crate::kernel::claim::Claimed;
use crate::kernel::message::{AF_INET, Mark, attr, encode_op, flag, kind};
use crate::kernel::parse::{self, Message, ObjectKind};
use crate::kernel::socket::Netlink;

/// The mark of somebody else.
const FOREIGN: Mark = Mark {
    protocol: 3,
    device: 1,
    more: [0; 7],
    source: Ipv6Addr::UNSPECIFIED,
};

/// A kernel behind sockets.
#[derive(Default)]
pub(super) struct Kernel {
    pub(super) model: Model,
    /// Index of the device, if there is one, and whether it is up.
    pub(super) link: Option<(u32, bool)>,
    answers: VecDeque<Vec<u8>>,
    /// What is left of the answer to the last dump.
    dumped: VecDeque<Vec<u8>>,
    notifications: VecDeque<Vec<u8>>,
    pub(super) calls: usize,
    /// The call that fails, and how.
    pub(super) fail: Option<(usize, i32)>,
    /// Messages that changed something or tried to.
    pub(super) changes: usize,
}

#[derive(Clone, Default)]
pub(super) struct Net(pub(super) Rc<RefCell<Kernel>>);

impl Kernel {
    /// Counts a call that may fail.
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        match self.fail {
            Some((at, errno)) if at == self.calls => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    fn push(&mut self, kind: u16, sequence: u32, body: &[u8]) {
        self.answers.push_back(datagram(kind, 0, sequence, body));
    }

    fn request(&mut self, message: &Message<'_>) {
        let sequence = message.sequence;
        match message.kind {
            kind::GET_LINK if message.flags & flag::DUMP != 0 => {
                if let Some((index, up)) = self.link {
                    let answer = link(index, up);
                    self.push(kind::NEW_LINK, sequence, &answer);
                }
                self.push(kind::DONE, sequence, &[0; 4]);
            }
            kind::GET_LINK => match self.link {
                Some((index, up)) => {
                    let answer = link(index, up);
                    self.push(kind::NEW_LINK, sequence, &answer);
                }
                None => self.error(sequence, errno::ENODEV),
            },
            kind::GET_NEXTHOP => self.dump_objects(sequence),
            kind::GET_ROUTE => self.dump_routes(sequence, message.body),
            _ => {
                self.changes += 1;
                let result = match self.link {
                    Some((_, true)) => self.model.apply(&operation(message)),
                    _ => Err(errno::ENETDOWN),
                };
                match result {
                    Err(errno) => self.error(sequence, errno),
                    Ok(()) if message.flags & flag::ACK != 0 => self.error(sequence, 0),
                    Ok(()) => {}
                }
            }
        }
    }

    fn error(&mut self, sequence: u32, errno: i32) {
        let mut body = (-errno).to_ne_bytes().to_vec();
        body.resize(20, 0);
        self.push(kind::ERROR, sequence, &body);
    }

    fn dump_objects(&mut self, sequence: u32) {
        for (&id, object) in &self.model.objects {
            let address = Ipv6Addr::LOCALHOST;
            let (op, mark) = match object.clone() {
                Nexthop::Hop(address) => (hop_op(id, address), MARK),
                Nexthop::Group(members) => (
                    Op::AddGroup {
                        object: 0,
                        id,
                        members,
                    },
                    MARK,
                ),
                Nexthop::Foreign => (hop_op(id, address), FOREIGN),
            };
            let mut bytes = Vec::new();
            encode_op(&mut bytes, &op, sequence, &mark);
            self.answers.push_back(bytes);
        }
        self.push(kind::DONE, sequence, &[0; 4]);
    }

    fn dump_routes(&mut self, sequence: u32, body: &[u8]) {
        let family = body[0];
        let asked = parse::attributes(&body[12..])
            .find(|(kind, _)| *kind == attr::RTA_TABLE)
            .map(|(_, table)| u32::from_ne_bytes(table.try_into().unwrap()));
        let mut any = false;
        for (place, routes) in &self.model.routes {
            let of_family = (family == AF_INET) == matches!(place.prefix, IpNet::V4(_));
            if !of_family || asked.is_some_and(|table| place.table != table) {
                continue;
            }
            for route in routes {
                any = true;
                let (mark, target) = match route {
                    Installed::Ours(target) => (MARK, target.clone()),
                    Installed::Foreign => (FOREIGN, Target::Object(1)),
                };
                let op = route_op(Verb::Add, *place, target);
                let mut bytes = Vec::new();
                encode_op(&mut bytes, &op, sequence, &mark);
                self.answers.push_back(bytes);
            }
        }
        if any {
            self.push(kind::DONE, sequence, &[0; 4]);
        } else {
            // As Linux says for a table that was never used.
            self.error(sequence, errno::ENOENT);
        }
    }

    /// Somebody else deletes a route.
    pub(super) fn delete_route(&mut self, key: (u32, IpNet)) {
        let place = place(key.0, key.1);
        let (mark, target) = match self.model.take(place) {
            Some(Installed::Ours(target)) => (MARK, target),
            Some(Installed::Foreign) => (FOREIGN, Target::Object(1)),
            None => panic!("it is there"),
        };
        let op = route_op(Verb::Delete, place, target);
        let mut bytes = Vec::new();
        encode_op(&mut bytes, &op, 0, &mark);
        self.notifications.push_back(bytes);
    }

    /// The device changes; the kernel drops what goes through it.
    pub(super) fn set_link(&mut self, link_now: Option<(u32, bool)>) {
        let (index, up) = link_now.or(self.link).unwrap();
        let gone = link_now.is_none();
        self.link = link_now;
        if gone || !up {
            self.model.lose_device();
        }
        let kind = if gone { kind::DEL_LINK } else { kind::NEW_LINK };
        let body = link(index, up && !gone);
        self.notifications.push_back(datagram(kind, 0, 0, &body));
    }
}

fn datagram(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(16 + body.len()).unwrap();
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(body);
    bytes
}

fn link(index: u32, up: bool) -> Vec<u8> {
    let flags: u32 = if up { 0x1_0001 } else { 0 };
    let mut body = vec![0; 4];
    body.extend_from_slice(&index.to_ne_bytes());
    body.extend_from_slice(&flags.to_ne_bytes());
    body.extend_from_slice(&[0; 4]);
    // IFLA_IFNAME "tun".
    body.extend_from_slice(&8_u16.to_ne_bytes());
    body.extend_from_slice(&attr::IFLA_IFNAME.to_ne_bytes());
    body.extend_from_slice(b"tun\0");
    // What `ip link add tun type ip6tnl external` makes.
    let attribute = |kind: u16, value: &[u8]| {
        let len = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let data = attribute(attr::IFLA_IPTUN_COLLECT_METADATA, &[]);
    let mut info = attribute(attr::IFLA_INFO_KIND, b"ip6tnl\0");
    info.extend(attribute(attr::IFLA_INFO_DATA, &data));
    body.extend(attribute(attr::IFLA_LINKINFO, &info));
    body
}

fn hop_op(id: u32, address: Ipv6Addr) -> Op {
    Op::AddHop {
        object: 0,
        id,
        hop: Hop { device: 0, address },
    }
}

fn route_op(verb: Verb, place: Place, target: Target) -> Op {
    Op::Route {
        route: RouteId::default(),
        verb,
        place,
        target,
        previous: 0,
    }
}

/// The operation that a message asks for.
fn operation(message: &Message<'_>) -> Op {
    let replace = message.flags & flag::REPLACE != 0;
    match message.kind {
        kind::NEW_NEXTHOP => {
            let object = parse::object(message.body).unwrap();
            assert_eq!(object.protocol, MARK.protocol);
            match object.kind {
                ObjectKind::Hop(hop) => hop_op(object.id, hop.address),
                ObjectKind::Group(members) if replace => Op::ReplaceGroup {
                    id: object.id,
                    members,
                },
                ObjectKind::Group(members) => Op::AddGroup {
                    object: 0,
                    id: object.id,
                    members,
                },
                ObjectKind::Other => panic!("not one that the writer makes"),
            }
        }
        kind::DEL_NEXTHOP => Op::DeleteObject {
            id: parse::object(message.body).unwrap().id,
        },
        kind::NEW_ROUTE | kind::DEL_ROUTE => {
            let route = parse::route(message.body).unwrap();
            assert_eq!(route.protocol, MARK.protocol);
            let verb = match message.kind {
                kind::DEL_ROUTE => Verb::Delete,
                _ if replace => panic!("it may be a route of somebody else"),
                _ if message.flags & flag::EXCLUSIVE == 0 => Verb::Beside,
                _ => Verb::Add,
            };
            let hops = route
                .hops
                .map(|hops| Target::Inline(hops.into_iter().map(|hop| hop.address).collect()));
            let target = route.object.map(Target::Object).or(hops);
            let place = Place {
                table: route.table,
                prefix: route.prefix,
                metric: route.metric,
            };
            route_op(verb, place, target.unwrap())
        }
        other => panic!("message of type {other}"),
    }
}

impl Netlink for Net {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut kernel = self.0.borrow_mut();
        kernel.call()?;
        for message in parse::messages(bytes) {
            kernel.request(&message);
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut kernel = self.0.borrow_mut();
        kernel.call()?;
        let bytes = kernel.answers.pop_front();
        let bytes = bytes.ok_or(io::ErrorKind::WouldBlock)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn dump(&mut self, request: &[u8]) -> io::Result<()> {
        let mut kernel = self.0.borrow_mut();
        kernel.call()?;
        let before = std::mem::take(&mut kernel.answers);
        for message in parse::messages(request) {
            kernel.request(&message);
        }
        kernel.dumped = std::mem::replace(&mut kernel.answers, before);
        Ok(())
    }

    fn dumped(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut kernel = self.0.borrow_mut();
        kernel.call()?;
        let bytes = kernel.dumped.pop_front();
        let bytes = bytes.ok_or(io::ErrorKind::WouldBlock)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn stop_dump(&mut self) -> io::Result<()> {
        let mut kernel = self.0.borrow_mut();
        kernel.call()?;
        kernel.dumped.clear();
        Ok(())
    }

    fn notification(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut kernel = self.0.borrow_mut();
        kernel.call()?;
        let bytes = kernel.notifications.pop_front();
        let bytes = bytes.ok_or(io::ErrorKind::WouldBlock)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn claims(&self) -> Vec<Claimed> {
        Vec::new()
    }
}
