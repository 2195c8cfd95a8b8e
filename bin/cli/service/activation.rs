//! Sockets that the service manager passes (sd_listen_fds(3)).

use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use socket2::{Domain, SockRef, Type};

use crate::cli::failure::Failure;

pub(super) const VARIABLES: &[&str] = &["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The first descriptor that is passed.
const FIRST: RawFd = 3;

/// The number of sockets that were passed to this process and are not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Passed(u32);

impl Passed {
    pub(super) fn from_environment() -> Self {
        let number = |name| std::env::var(name).ok()?.parse().ok();
        let is_mine = number("LISTEN_PID") == Some(std::process::id());
        Self(number("LISTEN_FDS").filter(|_| is_mine).unwrap_or(0))
    }

    /// Takes the socket that was passed, to listen on it; `None` if none was passed.
    pub(crate) fn take_listener(&mut self) -> Result<Option<TcpListener>, Failure> {
        match std::mem::take(&mut self.0) {
            0 => Ok(None),
            1 => to_listener(FIRST).map(Some).map_err(Failure::RunTime),
            count => Err(Failure::RunTime(format!(
                "{count} sockets were passed (LISTEN_FDS); expected one"
            ))),
        }
    }
}

/// Takes a descriptor and checks that it is a TCP socket that listens.
fn to_listener(number: RawFd) -> Result<TcpListener, String> {
    let refuse = |what: &str| format!("the passed socket (descriptor {number}): {what}");
    let socket = take(number).map_err(|error| refuse(&error.to_string()))?;
    let examined = SockRef::from(&socket);
    let is_tcp = examined.r#type().is_ok_and(|it| it == Type::STREAM)
        && examined
            .domain()
            .is_ok_and(|it| it == Domain::IPV4 || it == Domain::IPV6);
    if !is_tcp || !examined.is_listener().unwrap_or(false) {
        return Err(refuse("expected a TCP socket that listens"));
    }
    Ok(socket.into())
}

/// Takes ownership of a descriptor that this process was started with.
#[allow(unsafe_code, reason = "a number becomes a descriptor")]
fn take(number: RawFd) -> std::io::Result<OwnedFd> {
    // SAFETY: fcntl takes any number and checks it.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the call above shows that it is open. Nothing else in this process owns it: the
    // manager passed it with this number, and it is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
