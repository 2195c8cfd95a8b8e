//! A guide to the client, with three complete programs.
//!
//! A client holds what its program wants (subscriptions, announcements) and brings
//! every server to that, whenever the server comes. No call waits for a server or
//! fails because of one; [`flush`](crate::MetalBondClient::flush) and
//! [`wait_synced`](crate::MetalBondClient::wait_synced) wait where a program wants to.
//!
//! What the servers say is one view: the first that has a route adds it, the last that
//! loses it removes it. The routes of a server that is lost stay until every server at hand
//! has told its table and has had announcers for
//! [`settle_time`](crate::ClientConfig::settle_time), at most for
//! [`stale_time`](crate::ClientConfig::stale_time). A reconnect with an unchanged table is no
//! event at all.
//!
//! All three programs get the same [events](crate::Event). A consumer may be slow:
//! sessions do not wait for it, and what changes meanwhile is coalesced, so that it is
//! told the difference between what it knows and what is so.
//!
//! # With a handler
//!
//! The handler has a thread of its own. It may call the client, and may panic: that is
//! logged, and the next event comes.
//!
//! ```no_run
//! use std::net::Ipv6Addr;
//! use std::time::Duration;
//!
//! use rustbond::{
//!     Destination, MetalBondClient, NextHop, Result, Route, RouteHandler, ServerId, Vni,
//! };
//!
//! struct Printer;
//!
//! impl RouteHandler for Printer {
//!     fn add_route(&self, vni: Vni, route: Route) {
//!         println!("{vni}: + {route}");
//!     }
//!
//!     fn remove_route(&self, vni: Vni, route: Route) {
//!         println!("{vni}: - {route}");
//!     }
//!
//!     fn server_up(&self, server: ServerId) {
//!         println!("{server} is up");
//!     }
//! }
//!
//! fn main() -> Result<()> {
//!     let client = MetalBondClient::builder()
//!         .servers(&["[2001:db8::1]:4711", "[2001:db8::2]:4711"])
//!         .keepalive(5)
//!         .stale_time(Duration::from_secs(300))
//!         .handler(Printer)?;
//!     let vni = Vni(100);
//!     client.subscribe(vni)?;
//!     let prefix = Destination::from_ipv4([10, 0, 0, 1].into(), 32);
//!     let here = NextHop::standard("2001:db8::abcd".parse::<Ipv6Addr>().expect("an address"));
//!     client.announce(vni, prefix, here)?;
//!     // Every server that is reachable has read it.
//!     client.flush(Duration::from_secs(10))?;
//!     // The table is there.
//!     client.wait_synced(vni, Duration::from_secs(10))?;
//!     println!("{} routes", client.route_count()?);
//!     std::thread::park();
//!     client.shutdown()
//! }
//! ```
//!
//! # With a channel
//!
//! The channel is bounded and ends when the client does. It holds a receiver of crossbeam's, so
//! that a program can select over it and channels of its own; dropping it ends the consumer. Here the events tell of
//! whole sets of next hops, which is what a data plane with ECMP programs. A handler is told the
//! same if it is a [`NextHopHandler`](crate::NextHopHandler), given to
//! [`next_hop_handler`](crate::Builder::next_hop_handler).
//!
//! ```no_run
//! use rustbond::{Event, EventDetail, MetalBondClient, Result, Vni};
//!
//! fn main() -> Result<()> {
//!     let (client, events) = MetalBondClient::builder()
//!         .server("[2001:db8::1]:4711")
//!         .detail(EventDetail::NextHops)
//!         .import(Vni(200), Vni(100))
//!         .events()?;
//!     client.subscribe(Vni(100))?;
//!     client.subscribe(Vni(200))?;
//!     for event in &events {
//!         match event {
//!             Event::NextHopsChanged(vni, destination, hops) if hops.is_empty() => {
//!                 println!("{vni}: {destination} is gone");
//!             }
//!             Event::NextHopsChanged(vni, destination, hops) => {
//!                 let hops: Vec<String> = hops.iter().map(ToString::to_string).collect();
//!                 println!("{vni}: {destination} via {}", hops.join(", "));
//!             }
//!             Event::Synced(vni) => println!("{vni}: complete"),
//!             Event::ServerDown(server, reason) => println!("{server}: {reason}"),
//!             _ => {}
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! A part of a program that comes later calls
//! [`watch`](crate::MetalBondClient::watch): its channel begins with all that is so, as
//! events, and goes on with what changes.
//!
//! # With a poll loop of one's own
//!
//! A [`Driver`](crate::Driver) has no thread: it is one more descriptor and one more
//! deadline in the loop of its program. None of its calls blocks. Servers are best
//! given as literal addresses; a name is resolved on a thread that lives only for that.
//!
//! ```no_run
//! use std::net::UdpSocket;
//! use std::os::fd::AsRawFd;
//!
//! use mio::unix::SourceFd;
//! use mio::{Events, Interest, Poll, Token};
//! use rustbond::{Event, MetalBondClient, Vni};
//!
//! const METALBOND: Token = Token(0);
//! const OTHER: Token = Token(1);
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut driver = MetalBondClient::builder()
//!         .server("[2001:db8::1]:4711")
//!         .driver()?;
//!     driver.subscribe(Vni(100))?;
//!     let other = UdpSocket::bind("[::1]:0")?;
//!     other.set_nonblocking(true)?;
//!
//!     let mut poll = Poll::new()?;
//!     let registry = poll.registry();
//!     let descriptor = driver.as_raw_fd();
//!     registry.register(&mut SourceFd(&descriptor), METALBOND, Interest::READABLE)?;
//!     registry.register(&mut SourceFd(&other.as_raw_fd()), OTHER, Interest::READABLE)?;
//!     let mut ready = Events::with_capacity(16);
//!     loop {
//!         poll.poll(&mut ready, driver.poll_timeout())?;
//!         // Cheap when there is nothing to do, so no need to look who was ready.
//!         driver.process();
//!         for event in driver.events() {
//!             match event {
//!                 Event::RouteAdded(vni, route) => println!("{vni}: + {route}"),
//!                 Event::RouteRemoved(vni, route) => println!("{vni}: - {route}"),
//!                 other => println!("{other:?}"),
//!             }
//!         }
//!         let mut datagram = [0; 1500];
//!         while let Ok((len, from)) = other.recv_from(&mut datagram) {
//!             println!("{len} bytes from {from}");
//!         }
//!     }
//! }
//! ```
