//! Unix sockets: the options and calls that a MetalBond connection needs.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::path::Path;

use mio::net::UnixStream;
use socket2::SockRef;

use super::queue::is_read;
use crate::core::pace::SendQueue;

/// Bytes that the kernel may hold for a peer (`SO_SNDBUF`, which the kernel doubles for its own
/// overhead). A KEEPALIVE waits behind no more than these.
const SEND_BUFFER: usize = 128 * 1024;

/// A non-blocking Unix socket.
#[derive(Debug)]
pub(crate) struct Unix {
    pub(super) socket: UnixStream,
}

impl Unix {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self { socket }
    }

    /// Connects. A server whose queue of connections is full refuses for the moment
    /// (`WouldBlock`).
    pub(super) fn dial(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).map(Self::new)
    }

    pub(super) fn tune(&self) -> io::Result<()> {
        SockRef::from(&self.socket).set_send_buffer_size(SEND_BUFFER)
    }

    /// Returns the user whose process connected to this socket, or listened on it
    /// (SO_PEERCRED, unix(7)).
    #[allow(unsafe_code, reason = "nothing wraps this call")]
    pub(super) fn user(&self) -> io::Result<u32> {
        let mut found = libc::ucred {
            pid: 0,
            uid: 0,
            gid: 0,
        };
        let mut length = libc::socklen_t::try_from(size_of_val(&found)).unwrap_or(0);
        // SAFETY: the kernel writes at most `length` bytes to `found`, all of them numbers.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut found).cast(),
                &raw mut length,
            )
        };
        match result {
            0 => Ok(found.uid),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buffer)
    }

    pub(super) fn peek(&self) -> io::Result<usize> {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        SockRef::from(&self.socket).peek(&mut byte)
    }

    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.socket.write_vectored(slices)
    }

    pub(super) fn send_queue(&self) -> io::Result<SendQueue> {
        Ok(SendQueue {
            is_empty: is_read(&self.socket)?,
            window: None,
        })
    }

    pub(super) fn finish(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }
}
