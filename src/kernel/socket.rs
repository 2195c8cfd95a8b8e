//! The way to the kernel, thin enough to be replaced by a double.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};
use socket2::{SockFilter, SockRef};

use super::claim::{self, Claimed};

/// Groups whose notifications are of interest: links, routes of both families, nexthops.
const GROUPS: [u32; 4] = [1, 7, 11, 32];

/// Receive buffer of the notifications: about 10,000 of them. More at once means that the
/// kernel drops some, says so, and is read again.
const NOTIFICATION_BUFFER: usize = 8 << 20;

/// Receive buffer of the answers. A batch of 128 that fails altogether needs 110 KiB.
const ANSWER_BUFFER: usize = 1 << 20;

/// The kernel answers before a request returns; a dump is read in pieces that are ready.
/// Who waits this long has lost an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Requests, their answers, and notifications.
pub(super) trait Netlink {
    /// Sends a datagram of requests.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Receives a datagram of answers, at most as long as `buffer`.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` when answers were lost, [`io::ErrorKind::WouldBlock`] when none came in time.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Sends a request whose answer is long, and is received by [`Self::dumped`].
    fn dump(&mut self, request: &[u8]) -> io::Result<()>;

    /// Receives a datagram of the answer to [`Self::dump`].
    ///
    /// # Errors
    ///
    /// As of [`Self::receive`].
    fn dumped(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Leaves the rest of the answer to [`Self::dump`] unread, if there is one.
    fn stop_dump(&mut self) -> io::Result<()>;

    /// Receives a datagram of notifications about changes that are not ours.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` when some were lost, [`io::ErrorKind::WouldBlock`] when there are none.
    fn notification(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Returns what the writers that live in this network namespace claim.
    fn claims(&self) -> Vec<Claimed>;
}

/// Three netlink sockets: for requests and answers, for long answers, so that something can be
/// written while they come, and for notifications.
pub(super) struct KernelSocket {
    requests: Socket,
    dumps: Socket,
    notifications: Socket,
}

impl KernelSocket {
    /// Opens the sockets in the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let (requests, port) = answering()?;
        let (dumps, _) = answering()?;

        let mut notifications = Socket::new(NETLINK_ROUTE)?;
        notifications.bind_auto()?;
        notifications.set_non_blocking(true)?;
        let socket = SockRef::from(&notifications);
        socket.attach_filter(&all_but_port(port))?;
        enlarge(&notifications, NOTIFICATION_BUFFER);
        for group in GROUPS {
            // Kernels without nexthop objects have no such group.
            if let Err(error) = notifications.add_membership(group) {
                log::debug!("no notifications of netlink group {group}: {error}");
            }
        }
        Ok(Self {
            requests,
            dumps,
            notifications,
        })
    }

    /// The descriptor to poll for notifications.
    pub(super) fn notifications_fd(&self) -> RawFd {
        self.notifications.as_raw_fd()
    }
}

impl Netlink for KernelSocket {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = self.requests.send(bytes, 0)?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    fn receive(&mut self, mut buffer: &mut [u8]) -> io::Result<usize> {
        self.requests.recv(&mut buffer, 0)
    }

    fn dump(&mut self, request: &[u8]) -> io::Result<()> {
        self.dumps.send(request, 0).map(|_| ())
    }

    fn dumped(&mut self, mut buffer: &mut [u8]) -> io::Result<usize> {
        self.dumps.recv(&mut buffer, 0)
    }

    fn stop_dump(&mut self) -> io::Result<()> {
        // The kernel makes no second dump for a socket with a first one.
        (self.dumps, _) = answering()?;
        Ok(())
    }

    fn notification(&mut self, mut buffer: &mut [u8]) -> io::Result<usize> {
        self.notifications.recv(&mut buffer, 0)
    }

    fn claims(&self) -> Vec<Claimed> {
        claim::living()
    }
}

/// A socket for requests and their answers, and its port.
fn answering() -> io::Result<(Socket, u32)> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    let port = socket.bind_auto()?.port_number();
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_cap_ack(true)?;
    socket.set_ext_ack(true)?;
    // Refused before Linux 4.20, where dumps are not filtered; the reader filters too.
    if let Err(error) = socket.set_netlink_get_strict_chk(true) {
        log::debug!("netlink without strict checking: {error}");
    }
    SockRef::from(&socket).set_read_timeout(Some(ANSWER_TIMEOUT))?;
    enlarge(&socket, ANSWER_BUFFER);
    Ok((socket, port))
}

/// A classic BPF program that drops the messages whose header names `port`: the kernel puts
/// there who asked for the change, so our own changes do not come back to us.
fn all_but_port(port: u32) -> [SockFilter; 4] {
    /// Load the 32-bit word at an absolute offset, in network byte order.
    const LOAD: u16 = 0x20;
    /// Jump if equal.
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// Offset of the port in a netlink header.
    const PORT_AT: u32 = 12;
    [
        SockFilter::new(LOAD, 0, 0, PORT_AT),
        SockFilter::new(JUMP_EQUAL, 0, 1, port.to_be()),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

/// Enlarges a receive buffer past the system's limit, or up to it where that is not allowed.
fn enlarge(socket: &Socket, size: usize) {
    if force_receive_buffer(socket, size).is_err()
        && let Err(error) = SockRef::from(socket).set_recv_buffer_size(size)
    {
        log::debug!("netlink receive buffer stays small: {error}");
    }
}

#[allow(unsafe_code)] // No crate wraps SO_RCVBUFFORCE.
fn force_receive_buffer(socket: &Socket, size: usize) -> io::Result<()> {
    let size = libc::c_int::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
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
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
