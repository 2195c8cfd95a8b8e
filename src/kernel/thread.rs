//! The handle, and the thread behind it.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use foldhash::quality::RandomState;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use parking_lot::Mutex;

use super::claim::{Claimed, claim};
use super::config::{KernelConfig, NexthopMode};
use super::device::{Device, query_device};
use super::message::{self, Mark, kind};
use super::parse;
use super::room::Clients;
use super::socket::{KernelSocket, Netlink};
use super::stats::{Gauges, KernelStatus};
use super::writer::{Change, Command, Ends, Next, Writer, WriterConfig};
use crate::core::kernel_plan::{Mode, Plan, PlanConfig, errno};
use crate::core::time::after;
use crate::core::types::{Route, Vni};
use crate::error::{Error, Result};
use crate::heartbeat::{Beat, Heartbeat, Turns};
use crate::life::Life;

/// Commands that may wait for the thread, 88 bytes each: 1.4 MiB. The thread takes several
/// million a second; a caller that finds the channel full waits for room.
const COMMANDS: usize = 1 << 14;

/// How long the last handle that is dropped waits for the thread.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a caller that waits for the thread looks whether it still runs.
const LOOK: Duration = Duration::from_millis(50);

/// Pause after a poll that failed.
const POLL_RETRY: Duration = Duration::from_millis(200);

/// The first device of every network namespace.
const LOOPBACK: u32 = 1;

const THREAD_NAME: &str = "metalbond-netlink";

const WAKE: Token = Token(0);
const NOTIFICATION: Token = Token(1);

/// Writes routes into the kernel; a handle, cheap to clone.
///
/// The last handle dropped shuts the writer down as [`Self::shutdown`] does, within 5 s.
#[derive(Clone)]
pub struct KernelWriter {
    inner: Arc<Inner>,
}

struct Inner {
    commands: Sender<Command>,
    wake: Arc<Wake>,
    gauges: Arc<Gauges>,
    thread: Mutex<Option<JoinHandle<()>>>,
    life: Life,
    clients: Arc<Clients>,
    /// The settings in use; off the hot path.
    config: Mutex<KernelConfig>,
}

/// Wakes the thread, with a system call only when it sleeps.
struct Wake {
    waker: Waker,
    asleep: AtomicBool,
    turns: Turns,
}

impl Wake {
    fn wake(&self) {
        if self.asleep.swap(false, SeqCst)
            && let Err(error) = self.waker.wake()
        {
            log::error!("cannot wake the netlink thread: {error}");
        }
    }
}

/// What a writer is made of, besides its settings.
struct Parts<N, C> {
    net: N,
    plan: Plan,
    mark: Mark,
    mode: Mode,
    claimed: Claimed,
    /// Held as long as the thread runs.
    claim: C,
}

impl KernelWriter {
    /// Starts the thread `metalbond-netlink`, in the network namespace of the caller.
    ///
    /// It adopts the routes and nexthop objects that an earlier process left.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a setting outside its range; [`Error::Netlink`] for a
    /// device that does not encapsulate and without `CAP_NET_ADMIN`; a device that does not
    /// exist is waited for; [`Error::Io`] when sockets or the thread fail.
    pub fn start(config: KernelConfig) -> Result<Self> {
        config.validate()?;
        let mut net = KernelSocket::open().map_err(Error::io("open a netlink socket"))?;
        let (mark, mode) = examine(&mut net, &config)?;
        let claimed = Claimed {
            protocol: config.protocol,
            ids: config.nexthop_ids.clone(),
            is_inline: mode == Mode::Inline,
        };
        let claim = claim(&claimed)?;
        let poll = Poll::new().map_err(Error::io("create a poll"))?;
        let fd: RawFd = net.notifications_fd();
        poll.registry()
            .register(&mut SourceFd(&fd), NOTIFICATION, Interest::READABLE)
            .map_err(Error::io("poll a netlink socket"))?;
        let parts = Parts {
            net,
            plan: Plan::new(plan_config(&config, mode)),
            mark,
            mode,
            claimed,
            claim,
        };
        Self::launch(parts, poll, config)
    }

    /// Starts the thread of a writer.
    fn launch<N, C>(parts: Parts<N, C>, poll: Poll, config: KernelConfig) -> Result<Self>
    where
        N: Netlink + Send + 'static,
        C: Send + 'static,
    {
        let waker =
            Waker::new(poll.registry(), WAKE).map_err(Error::io("create an event descriptor"))?;
        let wake = Arc::new(Wake {
            waker,
            asleep: AtomicBool::new(false),
            turns: Turns::default(),
        });
        let gauges = Arc::new(Gauges::default());
        let uses_objects = parts.mode == Mode::Objects;
        gauges.uses_objects.store(uses_objects, Relaxed);
        gauges.running.store(true, Relaxed);
        gauges.set_device(&config.device);
        let clients = Arc::<Clients>::default();
        let (commands, receiver) = bounded(COMMANDS);
        let writer_config = WriterConfig {
            devices: config.devices(),
            check_interval: config.check_interval,
            cleanup_on_exit: config.cleanup_on_exit,
            track_nexthops: config.track_nexthops && uses_objects,
            claimed: parts.claimed,
        };
        let ends = Ends {
            commands: receiver,
            clients: Arc::clone(&clients),
            gauges: Arc::clone(&gauges),
        };
        let writer = Writer::new(parts.net, parts.plan, parts.mark, writer_config, ends);
        let life = Life::default();
        let thread = spawn(&life, writer, parts.claim, poll, Arc::clone(&wake))?;
        Ok(Self {
            inner: Arc::new(Inner {
                commands,
                wake,
                gauges,
                thread: Mutex::new(Some(thread)),
                life,
                clients,
                config: Mutex::new(config),
            }),
        })
    }

    /// Asks for a route in the kernel. A route that was asked for before changes nothing.
    ///
    /// Host bits do not count, and routes to one underlay address are one hop. Ignored: other
    /// VNIs, excluded types, IPv6 destinations with `ipv4_only`. Never waits for the kernel;
    /// waits for the thread when 16,384 changes are waiting.
    pub fn add(&self, vni: Vni, route: Route) {
        self.inner.send(Command::Add(vni, route));
    }

    /// Takes back a route that [`Self::add`] asked for; other routes change nothing. Waits as
    /// [`Self::add`] does.
    pub fn remove(&self, vni: Vni, route: Route) {
        self.inner.send(Command::Remove(vni, route));
    }

    /// Reports that the initial table of a VNI is complete.
    ///
    /// When all VNIs of a kernel table are complete, the writer removes the routes that it
    /// found there at start and that nobody asked for.
    pub fn synced(&self, vni: Vni) {
        self.inner.send(Command::Synced(vni));
    }

    /// Changes settings of a running writer. Returns the names of the changed settings that
    /// are fixed at start; these stay as they are.
    ///
    /// The tables and metrics of VNIs, `ipv4_only`, `excluded_types`, `cleanup_on_exit` and
    /// `check_interval` can change, and the last VNI may go. Routes that do not belong into the
    /// kernel any more are removed. Of VNIs of which more routes belong there than before, `received`
    /// is asked for all, in a moment at which changes are submitted here already; a VNI that is
    /// settled is to be reported by [`Self::synced`] again afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a setting outside its range and for other devices of VNIs,
    /// which are fixed at start; then nothing is changed. Those
    /// of `received`; then the kernel keeps what it has of the VNIs that widened.
    pub fn reconfigure(
        &self,
        config: KernelConfig,
        received: impl Fn(Vni) -> Result<Vec<Route>>,
    ) -> Result<Vec<&'static str>> {
        config.validate_settings()?;
        let mut running = self.inner.config.lock();
        config.same_devices(&running)?;
        let fixed = config.fixed(&running);
        let widened = config.widened(&running);
        self.inner.send(Command::Reconfigure(Box::new(Change {
            scope: config.scope(),
            check_interval: config.check_interval,
            cleanup_on_exit: config.cleanup_on_exit,
            awaited: widened.clone(),
        })));
        for vni in widened {
            self.inner.send(Command::Received(vni, received(vni)?));
        }
        *running = KernelConfig {
            vni_tables: config.vni_tables,
            vni_metrics: config.vni_metrics,
            ipv4_only: config.ipv4_only,
            excluded_types: config.excluded_types,
            cleanup_on_exit: config.cleanup_on_exit,
            check_interval: config.check_interval,
            ..running.clone()
        };
        Ok(fixed)
    }

    /// Waits until all that was submitted before is in the kernel, or was refused by it
    /// ([`KernelStatus::failed`] counts those).
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`]; [`Error::Netlink`] while the tunnel device is missing or down;
    /// [`Error::Closed`] after the shutdown; [`Error::Panicked`] if the thread has panicked.
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        let (reply, answer) = bounded(1);
        let deadline = after(Instant::now(), timeout);
        let sent = self
            .inner
            .commands
            .send_timeout(Command::Flush(reply), timeout);
        sent.map_err(|error| match error.is_timeout() {
            true => Error::Timeout,
            false => self.inner.life.error(),
        })?;
        self.inner.wake.wake();
        self.inner.await_answer(&answer, deadline)
    }

    /// Returns what the writer last published of its state.
    #[must_use]
    pub fn stats(&self) -> KernelStatus {
        self.inner.gauges.snapshot()
    }

    /// The loop of the writer's thread, to see whether it turns.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        let wake = Arc::clone(&self.inner.wake);
        let turns = wake.turns.clone();
        Heartbeat::new(vec![Beat::new(THREAD_NAME, turns, move || wake.wake())])
    }

    /// Whether the writer's thread still runs, and how it ended.
    #[must_use]
    pub fn life(&self) -> Life {
        self.inner.life.clone()
    }

    /// The way of a client to the thread, and what tells it of room there.
    pub(super) fn ends(&self) -> (Sender<Command>, Arc<Clients>) {
        (self.inner.commands.clone(), Arc::clone(&self.inner.clients))
    }

    /// Wakes the thread.
    pub(super) fn wake(&self) {
        self.inner.wake.wake();
    }

    /// Writes what was submitted before, or with `cleanup_on_exit` removes all that is ours,
    /// and ends the thread. Later calls do nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] when that takes longer; the thread ends nevertheless.
    /// [`Error::Panicked`] if the thread has panicked; then the kernel keeps what it has.
    pub fn shutdown(&self, timeout: Duration) -> Result<()> {
        self.inner.shutdown(timeout)
    }

    /// As [`Self::shutdown`], and leaves the routes in the kernel even with `cleanup_on_exit`:
    /// for a program that ends because something in it failed, and that is started again.
    ///
    /// # Errors
    ///
    /// As of [`Self::shutdown`].
    pub fn abandon(&self, timeout: Duration) -> Result<()> {
        self.inner.gauges.keeps_routes.store(true, Relaxed);
        self.inner.shutdown(timeout)
    }
}

impl Inner {
    fn send(&self, command: Command) {
        if self.commands.send(command).is_err() {
            log::debug!("route change after the shutdown of the kernel writer");
        }
        self.wake.wake();
    }

    /// Waits for the thread's answer. A command that the thread did not take before it ended stays
    /// in the channel, and its answer never comes: so the thread is looked at too.
    fn await_answer(&self, answer: &Receiver<Result<()>>, deadline: Instant) -> Result<()> {
        loop {
            let look = deadline.min(after(Instant::now(), LOOK));
            match answer.recv_deadline(look) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => return Err(self.life.error()),
                Err(RecvTimeoutError::Timeout) if look == deadline => return Err(Error::Timeout),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Err(ended) = self.life.check() {
                return answer.try_recv().unwrap_or(Err(ended));
            }
        }
    }

    fn shutdown(&self, timeout: Duration) -> Result<()> {
        let Some(thread) = self.thread.lock().take() else {
            return Ok(());
        };
        let deadline = after(Instant::now(), timeout);
        let (reply, answer) = bounded(1);
        let sent = self
            .commands
            .send_deadline(Command::Shutdown(reply, deadline), deadline);
        self.wake.wake();
        if sent.is_err_and(|error| error.is_timeout()) {
            return Err(Error::Timeout);
        }
        // The thread answers at the deadline at the latest, after the call it is in.
        let grace = Duration::from_millis(500);
        let result = match self.await_answer(&answer, deadline + grace) {
            Err(Error::Timeout) if self.life.check().is_ok() => return Err(Error::Timeout),
            result => result,
        };
        if thread.join().is_err() {
            return Err(self.life.error());
        }
        result
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.shutdown(DROP_TIMEOUT) {
            log::warn!("kernel writer: {error}");
        }
    }
}

/// Starts the thread, whose end is told to `life`. `claim` is dropped when it has ended.
fn spawn<N, C>(
    life: &Life,
    writer: Writer<N>,
    claim: C,
    poll: Poll,
    wake: Arc<Wake>,
) -> Result<JoinHandle<()>>
where
    N: Netlink + Send + 'static,
    C: Send + 'static,
{
    let (life, guard) = (life.clone(), life.guard(THREAD_NAME, || {}));
    let run = move || {
        let _claim = claim;
        let mut writer = writer;
        // Dropped before the writer: callers that find that gone then see why.
        let _guard = guard;
        run(&mut writer, poll, &wake);
        life.stop();
    };
    let thread = std::thread::Builder::new().name(THREAD_NAME.into());
    thread
        .spawn(run)
        .map_err(Error::io("start the netlink thread"))
}

/// The thread.
fn run<N: Netlink>(writer: &mut Writer<N>, mut poll: Poll, wake: &Wake) {
    /// Marks the thread as ended, even after a panic.
    struct Ended(Arc<Gauges>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.running.store(false, Relaxed);
        }
    }
    let _ended = Ended(writer.gauges());
    let mut events = Events::with_capacity(4);
    loop {
        wake.turns.count();
        let now = Instant::now();
        let wait_until = match writer.turn(now) {
            Next::Stop => return,
            Next::Again => continue,
            Next::Wait(at) => at,
        };
        // A sender after this sees the flag; a command sent before is seen here. So it is with a
        // heartbeat: one that asked before is answered by this count.
        wake.asleep.store(true, SeqCst);
        wake.turns.count();
        if writer.has_commands() {
            wake.asleep.store(false, SeqCst);
            continue;
        }
        let timeout = wait_until.saturating_duration_since(Instant::now());
        if let Err(error) = poll.poll(&mut events, Some(timeout))
            && error.kind() != io::ErrorKind::Interrupted
        {
            log::error!("netlink thread cannot poll: {error}");
            std::thread::sleep(POLL_RETRY);
        }
        wake.asleep.store(false, SeqCst);
    }
}

fn plan_config(config: &KernelConfig, mode: Mode) -> PlanConfig {
    PlanConfig {
        vni_tables: config.vni_tables.clone(),
        ipv4_only: config.ipv4_only,
        excluded_types: config.excluded_types.clone(),
        mode,
        nexthop_ids: config.nexthop_ids.clone(),
        protocol: config.protocol,
        metrics: message::metrics(config.metric),
        vni_metrics: config.scope().vni_metrics,
        vni_devices: config.device_numbers(),
        seed: random_seed(),
    }
}

/// Looks for the device and the right to change routes, and how routes name their hops.
fn examine(net: &mut impl Netlink, config: &KernelConfig) -> Result<(Mark, Mode)> {
    let mut datagram = vec![0; 64 << 10];
    let device = query_device(net, &config.device, 1, &mut datagram)
        .map_err(Error::io("look for the tunnel device"))?;
    let mark = Mark {
        protocol: config.protocol,
        // Where it is missing, the first device: nothing is made by it.
        device: device.index().unwrap_or(LOOPBACK),
        more: [message::NO_DEVICE; message::MORE_DEVICES],
        source: config.encap_source.unwrap_or(Ipv6Addr::UNSPECIFIED),
    };
    let probed = probe(net, config, &mark).map_err(Error::io("probe nexthop objects"))?;
    let mode = match (probed, config.nexthop_objects) {
        (errno::EPERM, _) => {
            return Err(Error::Netlink(
                "changing kernel routes needs CAP_NET_ADMIN".into(),
            ));
        }
        // The device may be down; that is waited for.
        (errno::ENOENT | errno::ENETDOWN, NexthopMode::Auto) => Mode::Objects,
        _ => Mode::Inline,
    };
    for name in config.devices() {
        let device = query_device(net, &name, 1, &mut datagram)
            .map_err(Error::io("look for a tunnel device"))?;
        if let Device::Unfit { .. } = device
            && let Some(text) = device.problem(&name)
        {
            return Err(Error::Netlink(text));
        }
    }
    if mode == Mode::Inline && !config.vni_devices.is_empty() {
        let text = "devices of single VNIs need nexthop objects";
        return Err(Error::InvalidConfig(text.into()));
    }
    match (mode, config.nexthop_objects) {
        (Mode::Objects, _) => log::info!("kernel routes use nexthop objects"),
        (Mode::Inline, NexthopMode::Never) => log::info!("kernel routes carry their next hops"),
        (Mode::Inline, NexthopMode::Auto) => log::warn!(
            "no nexthop objects in this kernel ({}): routes carry their next hops, IPv6 one each",
            io::Error::from_raw_os_error(probed)
        ),
    }
    if config.track_nexthops && mode == Mode::Inline {
        log::warn!("next hops are not followed: that needs nexthop objects");
    }
    Ok((mark, mode))
}

/// What the kernel says to the replacement of a nexthop object that does not exist.
fn probe(net: &mut impl Netlink, config: &KernelConfig, mark: &Mark) -> io::Result<i32> {
    let mut datagram = vec![0; 64 << 10];
    let mut sequence = 2;
    let mut ids = config.nexthop_ids.clone().rev();
    // The kernel has an answer for every number; one that exists must not be replaced.
    let free = loop {
        let Some(id) = ids.next() else {
            return Ok(errno::EOPNOTSUPP);
        };
        let mut request = Vec::new();
        message::encode_nexthop_request(&mut request, sequence, id);
        net.send(&request)?;
        if answer(net, sequence, &mut datagram)? != 0 {
            break id;
        }
        sequence += 1;
    };
    sequence += 1;
    let mut request = Vec::new();
    message::encode_probe(&mut request, sequence, free, mark);
    net.send(&request)?;
    answer(net, sequence, &mut datagram)
}

/// The error number of the answer to a request; 0 for success and for data.
fn answer(net: &mut impl Netlink, sequence: u32, datagram: &mut [u8]) -> io::Result<i32> {
    loop {
        let len = net.receive(datagram)?.min(datagram.len());
        for message in parse::messages(&datagram[..len]) {
            if message.sequence == sequence {
                return Ok(match message.kind {
                    kind::ERROR => parse::answer(&message).map_or(0, |answer| answer.errno),
                    _ => 0,
                });
            }
        }
    }
}

/// A number that differs from process to process.
fn random_seed() -> u64 {
    use std::hash::BuildHasher;
    RandomState::default().hash_one(std::process::id())
}

#[cfg(test)]
mod tests;
