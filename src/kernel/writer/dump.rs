//! Long answers of the kernel: what is asked, and what was heard.

use std::collections::VecDeque;
use std::io;

use super::{DATAGRAM, Writer};
use crate::core::kernel_plan::{Mode, errno};
use crate::kernel::device::tunnels;
use crate::kernel::message::{self, AF_INET, AF_INET6, flag, kind};
use crate::kernel::parse::{self, LinkSeen, Message};
use crate::kernel::socket::Netlink;

/// A request whose answer is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Links,
    Objects,
    /// Of one table, or of all.
    Routes(u8, Option<u32>),
}

/// Which tables are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tables {
    /// Those of our VNIs.
    Ours,
    /// All, for what somebody may have left there.
    All,
}

/// What became of the answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// There is more.
    Part,
    /// That was all, of one moment.
    All,
    /// That was all, and something changed meanwhile: some may be missing.
    Torn,
}

/// A reading of the kernel.
#[derive(Debug)]
pub(super) struct Reading {
    /// What is still to be read; the first one is being read, once it is asked.
    pub(super) requests: VecDeque<Request>,
    /// The number of the request that is being read.
    pub(super) asked: Option<u32>,
    pub(super) is_torn: bool,
    links: Vec<LinkSeen>,
    groups: Vec<(u32, Vec<u32>)>,
}

impl<N: Netlink> Writer<N> {
    /// A reading that has not begun.
    pub(super) fn reading_of(&self, tables: Tables) -> Reading {
        let mut requests = VecDeque::from([Request::Objects]);
        match tables {
            Tables::All => {
                requests.push_front(Request::Links);
                requests.extend([AF_INET, AF_INET6].map(|it| Request::Routes(it, None)));
            }
            Tables::Ours => {
                for table in self.plan.tables() {
                    let of = [AF_INET, AF_INET6].map(|it| Request::Routes(it, Some(table)));
                    requests.extend(of);
                }
            }
        }
        Reading {
            requests,
            asked: None,
            is_torn: false,
            links: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// Sends the request that comes next.
    pub(super) fn ask(&mut self, reading: &mut Reading) -> io::Result<()> {
        let Some(request) = reading.requests.front() else {
            return Ok(());
        };
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.out.clear();
        match *request {
            Request::Links => {
                reading.links.clear();
                message::encode_link_dump(&mut self.out, sequence);
            }
            Request::Objects => {
                reading.groups.clear();
                message::encode_nexthop_dump(&mut self.out, sequence);
            }
            Request::Routes(family, table) => {
                self.plan.begin_routes();
                message::encode_route_dump(&mut self.out, sequence, family, table);
            }
        }
        reading.asked = Some(sequence);
        reading.is_torn = false;
        self.net.dump(&self.out)
    }

    /// Reads one datagram of the answer. A table that does not exist is empty.
    pub(super) fn hear(&mut self, reading: &mut Reading) -> io::Result<Heard> {
        let mut datagram = std::mem::take(&mut self.datagram);
        let heard = match self.net.dumped(&mut datagram) {
            Ok(len) => self.take_in(reading, &datagram[..len.min(DATAGRAM)]),
            Err(error) => Err(error),
        };
        self.datagram = datagram;
        heard
    }

    fn take_in(&mut self, reading: &mut Reading, datagram: &[u8]) -> io::Result<Heard> {
        let Some(request) = reading.requests.front().copied() else {
            return Ok(Heard::All);
        };
        for message in parse::messages(datagram) {
            if Some(message.sequence) != reading.asked {
                continue;
            }
            reading.is_torn |= message.flags & flag::DUMP_INTERRUPTED != 0;
            match message.kind {
                kind::DONE | kind::ERROR => {
                    let answer = parse::answer(&message);
                    return match answer.map_or(0, |answer| answer.errno) {
                        0 | errno::ENOENT if reading.is_torn => Ok(Heard::Torn),
                        0 | errno::ENOENT => Ok(Heard::All),
                        // A kernel without nexthop objects has none of ours.
                        errno::EOPNOTSUPP
                            if request == Request::Objects && self.plan.mode() == Mode::Inline =>
                        {
                            Ok(Heard::All)
                        }
                        errno => Err(io::Error::from_raw_os_error(errno)),
                    };
                }
                kind::OVERRUN => return Err(io::Error::from_raw_os_error(errno::ENOBUFS)),
                _ => self.one(reading, request, &message),
            }
        }
        Ok(Heard::Part)
    }

    /// Takes in one thing of what was asked for.
    fn one(&mut self, reading: &mut Reading, request: Request, message: &Message<'_>) {
        match request {
            Request::Links if message.kind == kind::NEW_LINK => {
                reading.links.extend(parse::link(message.body));
            }
            Request::Links => {}
            Request::Objects => {
                if let Some(object) = parse::object(message.body) {
                    self.saw_object(object, &mut reading.groups);
                }
            }
            Request::Routes(_, table) => {
                if let Some(route) = parse::route(message.body)
                    && !route.special
                    && table.is_none_or(|it| it == route.table)
                {
                    self.saw_route(&route);
                }
            }
        }
    }

    /// Notes that a request is answered.
    pub(super) fn heard_all(&mut self, reading: &mut Reading) {
        reading.asked = None;
        match reading.requests.pop_front() {
            Some(Request::Links) => self.tunnels = tunnels(&std::mem::take(&mut reading.links)),
            Some(Request::Objects) => {
                // Objects come in the order of their numbers: a member may come after its group.
                for (id, members) in std::mem::take(&mut reading.groups) {
                    self.plan.saw_group(id, &members);
                }
            }
            Some(Request::Routes(..)) | None => {}
        }
    }
}
