//! Sockets that the service manager passes (sd_listen_fds(3)).

use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use rustbond::Listener;
use socket2::{Domain, SockRef, Type};

use crate::cli::failure::Failure;

pub(super) const VARIABLES: &[&str] = &["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The first descriptor that is passed.
const FIRST: RawFd = 3;

/// The descriptors that were passed to this process and are not used yet, in order; the last one
/// may be an error.
#[derive(Debug, Default)]
pub(crate) struct Passed(Vec<(RawFd, io::Result<OwnedFd>)>);

impl Passed {
    /// Takes the descriptors.
    ///
    /// Must be called before this process opens any: a number that was not passed is then seen.
    pub(super) fn from_environment() -> Self {
        let number = |name| std::env::var(name).ok()?.parse().ok();
        let is_mine = number("LISTEN_PID") == Some(std::process::id());
        let count: u32 = number("LISTEN_FDS").filter(|_| is_mine).unwrap_or(0);
        let mut taken = Vec::new();
        for (number, _) in (FIRST..).zip(0..count) {
            taken.push((number, take(number)));
            if taken.last().is_some_and(|(_, it)| it.is_err()) {
                break;
            }
        }
        Self(taken)
    }

    /// Returns the sockets that were passed, to listen on them; none if none was passed.
    pub(crate) fn take_listeners(&mut self) -> Result<Vec<Listener>, Failure> {
        let taken = std::mem::take(&mut self.0).into_iter();
        let listeners = taken.map(|(number, socket)| to_listener(number, socket));
        listeners
            .collect::<Result<_, _>>()
            .map_err(Failure::RunTime)
    }
}

/// Checks that a descriptor is a TCP or Unix socket that listens.
fn to_listener(number: RawFd, socket: io::Result<OwnedFd>) -> Result<Listener, String> {
    let refuse = |what: &str| format!("the passed socket (descriptor {number}): {what}");
    let socket = socket.map_err(|error| refuse(&error.to_string()))?;
    let examined = SockRef::from(&socket);
    let is_stream = examined.r#type().is_ok_and(|it| it == Type::STREAM);
    let domain = examined.domain().ok().filter(|_| is_stream);
    let listener = match domain {
        Some(Domain::IPV4 | Domain::IPV6) => Listener::try_from(TcpListener::from(socket)),
        Some(Domain::UNIX) => Listener::try_from(UnixListener::from(socket)),
        _ => return Err(refuse("expected a TCP or Unix socket that listens")),
    };
    listener.map_err(|error| refuse(&error.to_string()))
}

/// Takes ownership of a descriptor that this process was started with.
#[allow(unsafe_code, reason = "a number becomes a descriptor")]
fn take(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl takes any number and checks it.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above shows that it is open. Nothing else in this process owns it: the
    // manager passed it with this number, and it is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
