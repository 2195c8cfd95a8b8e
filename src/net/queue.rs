//! What the kernel says of a connection's sending side.

use std::io;
use std::os::fd::AsRawFd;

use crate::core::pace::SendQueue;

/// `struct tcp_info` in 32-bit words, as far as it is used (linux/tcp.h).
const WORDS: usize = 58;

/// Of it: segments sent and not acknowledged.
const UNACKED: usize = 6;

/// Of it: bytes not sent.
const NOTSENT_BYTES: usize = 36;

/// Of it: the peer's window, as of the last acknowledgement (since Linux 5.4).
const SND_WND: usize = 57;

/// Asks for `TCP_INFO`.
///
/// It says in one call what `SIOCOUTQ` says, and the window.
#[allow(unsafe_code, reason = "nothing wraps this call")]
pub(super) fn send_queue(socket: &impl AsRawFd) -> io::Result<SendQueue> {
    let mut info = [0_u32; WORDS];
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` bytes to `info`, and their number to `length`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let words = length as usize / size_of::<u32>();
    Ok(SendQueue {
        is_empty: info[UNACKED] == 0 && info[NOTSENT_BYTES] == 0,
        window: (words > SND_WND).then_some(info[SND_WND]),
    })
}

/// Asks whether the far end has read all that was written to a Unix socket (`SIOCOUTQ`).
#[allow(unsafe_code, reason = "nothing wraps this call")]
pub(super) fn is_read(socket: &impl AsRawFd) -> io::Result<bool> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes a number to `bytes`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    match result {
        0 => Ok(bytes == 0),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn queue_fills_and_the_window_closes_as_the_peer_does_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_peer, _) = listener.accept().unwrap();
        let before = send_queue(&stream).unwrap();
        assert!(before.is_empty);
        assert!(before.window > Some(0), "{before:?}");
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 16 * 1024]).is_ok() {}
        assert!(!send_queue(&stream).unwrap().is_empty);
        while send_queue(&stream).unwrap().window > Some(16 * 1024) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn queue_of_a_unix_socket_is_empty_once_its_peer_has_read() {
        let (mut near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(is_read(&near).unwrap());
        near.write_all(&[1, 2, 3]).unwrap();
        assert!(!is_read(&near).unwrap());
        far.read_exact(&mut [0; 3]).unwrap();
        assert!(is_read(&near).unwrap());
    }
}
