//! The netlink writer before a kernel that says anything.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use super::claim::Claimed;
use super::message::{Mark, flag};
use super::socket::Netlink;
use super::writer::{Command, Ends, Next, Writer, WriterConfig};
use crate::core::kernel_plan::{Mode, Plan, PlanConfig};
use crate::core::types::{Route, Vni};

/// What the kernel says, datagram by datagram; after that nothing.
struct Script {
    /// Answers, and notifications.
    heard: [VecDeque<Vec<u8>>; 2],
    /// Of the last request.
    sequence: [u8; 4],
    refuses: bool,
}

impl Script {
    /// A sequence number of all ones stands for that of the request.
    fn next(&mut self, which: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut datagram) = self.heard[which].pop_front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let mut at = 0;
        while let Some(header) = datagram.get_mut(at..at + 12) {
            if header[8..] == [0xff; 4] {
                header[8..].copy_from_slice(&self.sequence);
            }
            let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            at = at.saturating_add(len.max(16).next_multiple_of(4));
        }
        let len = datagram.len().min(buffer.len());
        buffer[..len].copy_from_slice(&datagram[..len]);
        // As the kernel does when the buffer is short.
        Ok(datagram.len())
    }
}

impl Netlink for Script {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.refuses {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        let mut rest = bytes;
        while let Some(header) = rest.first_chunk::<16>() {
            let [a, b, c, d, _, _, flags @ ..] = *header;
            let flags = u16::from_ne_bytes([flags[0], flags[1]]);
            if flags & flag::REQUEST != 0 {
                self.sequence.copy_from_slice(&header[8..12]);
            }
            let len = u32::from_ne_bytes([a, b, c, d]) as usize;
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next(0, buffer)
    }

    fn dump(&mut self, request: &[u8]) -> io::Result<()> {
        self.send(request)
    }

    fn dumped(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer)
    }

    fn stop_dump(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn notification(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next(1, buffer)
    }

    fn claims(&self) -> Vec<Claimed> {
        Vec::new()
    }
}

/// A writer of VNI 1 into table 100 by the device `tun`, and the kernel it talks to.
pub struct HostileKernel {
    writer: Writer<Script>,
    commands: Sender<Command>,
    now: Instant,
}

impl HostileKernel {
    /// `answers` to requests and `notifications`, in order; `refuses` to be sent anything.
    #[allow(clippy::disallowed_methods, reason = "a thread begins at some moment")]
    pub fn new(
        uses_objects: bool,
        refuses: bool,
        answers: Vec<Vec<u8>>,
        notifications: Vec<Vec<u8>>,
    ) -> Self {
        let plan = Plan::new(PlanConfig {
            vni_tables: BTreeMap::from([(Vni(1), 100)]),
            ipv4_only: false,
            excluded_types: Vec::new(),
            mode: if uses_objects {
                Mode::Objects
            } else {
                Mode::Inline
            },
            nexthop_ids: 1000..1016,
            protocol: 254,
            metrics: [0, 1024],
            vni_metrics: BTreeMap::new(),
            vni_devices: BTreeMap::new(),
            seed: 1,
        });
        let script = Script {
            heard: [answers.into(), notifications.into()],
            sequence: [0; 4],
            refuses,
        };
        let mark = Mark {
            protocol: 254,
            device: 9,
            more: [super::message::NO_DEVICE; 7],
            source: std::net::Ipv6Addr::UNSPECIFIED,
        };
        let config = WriterConfig {
            devices: vec!["tun".into()],
            check_interval: Duration::from_secs(60),
            cleanup_on_exit: true,
            track_nexthops: false,
            claimed: Claimed {
                protocol: 254,
                ids: 1000..1016,
                is_inline: !uses_objects,
            },
        };
        let (commands, receiver) = bounded(1024);
        let ends = Ends {
            commands: receiver,
            clients: Arc::default(),
            gauges: Arc::default(),
        };
        Self {
            writer: Writer::new(script, plan, mark, config, ends),
            commands,
            now: Instant::now(),
        }
    }

    pub fn add(&mut self, route: Route) {
        self.command(Command::Add(Vni(1), route));
    }

    pub fn remove(&mut self, route: Route) {
        self.command(Command::Remove(Vni(1), route));
    }

    pub fn synced(&mut self) {
        self.command(Command::Synced(Vni(1)));
    }

    fn command(&mut self, command: Command) {
        if self.commands.try_send(command).is_err() {
            self.turn();
        }
    }

    /// Lets the writer do what is due, then passes the time until it wants to do more.
    ///
    /// # Panics
    ///
    /// If it wants to come back at a time that is over.
    pub fn turn(&mut self) {
        match self.writer.turn(self.now) {
            Next::Again | Next::Stop => self.now += Duration::from_millis(1),
            Next::Wait(at) => {
                assert!(at > self.now, "a wait that does not wait");
                self.now = at;
            }
        }
    }

    /// Has the writer clean up and end.
    ///
    /// # Panics
    ///
    /// If it does not by its deadline.
    pub fn shutdown(mut self) {
        let deadline = self.now + Duration::from_secs(1);
        let (reply, answer) = bounded(1);
        while !self.commands.is_empty() {
            self.turn();
        }
        self.command(Command::Shutdown(reply, deadline));
        while self.now <= deadline + Duration::from_millis(1) {
            if self.writer.turn(self.now) == Next::Stop {
                assert!(answer.try_recv().is_ok(), "the caller gets an answer");
                return;
            }
            self.now += Duration::from_millis(1);
        }
        panic!("the end is not bounded");
    }
}
