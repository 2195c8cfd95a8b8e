//! Datagrams to the service manager (sd_notify(3)).

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

pub(super) const VARIABLES: &[&str] = &["NOTIFY_SOCKET"];

/// How long to wait for a manager that does not read, before a datagram is dropped.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The way to the service manager.
#[derive(Clone, Debug)]
pub(crate) struct Notifier {
    socket: Arc<UnixDatagram>,
}

/// A reload in progress; it is over when this is dropped.
#[derive(Debug)]
pub(crate) struct Reloading<'a>(&'a Notifier);

impl Drop for Reloading<'_> {
    fn drop(&mut self) {
        self.0.send("READY=1\n");
    }
}

impl Notifier {
    /// Connects to the socket of `NOTIFY_SOCKET`: a path, or an abstract name after `@`.
    pub(super) fn from_environment() -> Option<Self> {
        let name = std::env::var_os("NOTIFY_SOCKET")?;
        match connect(name.as_bytes()) {
            Ok(socket) => Some(Self {
                socket: Arc::new(socket),
            }),
            Err(error) => {
                // The log is not started yet.
                crate::cli::output::warn(format_args!(
                    "the service manager is not informed: NOTIFY_SOCKET {}: {error}",
                    name.display()
                ));
                None
            }
        }
    }

    /// Reports that the command is ready, with its status in one line.
    pub(super) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// Reports the status in one line. Returns whether the manager received it.
    pub(super) fn status(&self, status: &str) -> bool {
        self.send(&format!("STATUS={status}\n"))
    }

    /// Reports a sign of life, which the manager's watchdog wants once in its interval.
    pub(super) fn alive(&self) {
        self.send("WATCHDOG=1\n");
    }

    /// Reports that the command is about to end.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\n");
    }

    /// Reports that a reload has begun; the drop of the return value reports its end.
    pub(crate) fn reloading(&self) -> Reloading<'_> {
        let now = monotonic_usec();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}\n"));
        Reloading(self)
    }

    /// Sends a message. Returns whether the manager received it; it is not sent again.
    fn send(&self, message: &str) -> bool {
        match self.socket.send(message.as_bytes()) {
            Ok(_) => true,
            Err(error) => {
                log::debug!("informing the service manager: {error}");
                false
            }
        }
    }
}

fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let address = match name {
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
        [b'@', name @ ..] => abstract_address(name)?,
        _ => return Err(io::Error::other("neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns `CLOCK_MONOTONIC` in microseconds, by which the manager tells reloads apart.
#[allow(unsafe_code, reason = "an Instant does not say its number")]
fn monotonic_usec() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a valid timespec, for the length of the call.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) } != 0 {
        return 0;
    }
    let seconds = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(0));
    let rest = Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0));
    u64::try_from((seconds + rest).as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reload_begins_and_ends() {
        let (manager, own) = UnixDatagram::pair().unwrap();
        let notifier = Notifier {
            socket: Arc::new(own),
        };
        let mut buffer = [0; 100];
        let mut next = || {
            let len = manager.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..len].into()).unwrap()
        };
        let before = monotonic_usec();
        let reloading = notifier.reloading();
        let said = next();
        let at = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        let at: u64 = at.trim_end().parse().unwrap();
        assert!(
            (before..=monotonic_usec()).contains(&at) && before > 0,
            "{said}"
        );
        drop(reloading);
        assert_eq!(next(), "READY=1\n");
    }

    #[test]
    fn names_of_no_socket_are_refused() {
        for name in [&b""[..], b"vsock:2:1", b"run/x", b"/nonexistent/socket"] {
            assert!(connect(name).is_err());
        }
    }
}
