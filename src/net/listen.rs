//! Listening sockets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use super::endpoint::Endpoint;
use super::peer::Peer;
use super::socket_file::{Access, Bound};
use super::stream::Stream;
use super::unix::Unix;
use crate::error::{Error, Result};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A socket that listens for peers.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    endpoint: Endpoint,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(Bound),
}

impl Listener {
    /// Listens at an endpoint: the address of a host, `[::]` for both families, or a Unix socket.
    /// A host without IPv6 listens on `0.0.0.0` instead of `[::]`, and the log says so.
    ///
    /// A Unix socket has mode 0660 and the group of the process; [`Self::for_group`] names
    /// another. A socket that a dead process left is replaced; the file is removed with the
    /// listener.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] if the endpoint cannot be listened on.
    pub fn bind(endpoint: &Endpoint) -> Result<Self> {
        Self::for_group(endpoint, None)
    }

    /// As [`Self::bind`]; a Unix socket belongs to the group with this number.
    ///
    /// # Errors
    ///
    /// As [`Self::bind`].
    pub fn for_group(endpoint: &Endpoint, group: Option<u32>) -> Result<Self> {
        let failed = |source| Error::Listen {
            endpoint: endpoint.to_string(),
            source,
        };
        let Some(path) = endpoint.path() else {
            let addresses = endpoint.resolve();
            let addresses = addresses.map_err(Error::io("resolve the listening address"))?;
            return listen_on_first(&*addresses)?.try_into();
        };
        let bound = Bound::new(path, Access::Group(group)).map_err(failed)?;
        Ok(Self {
            socket: Socket::Unix(bound),
            endpoint: endpoint.clone(),
        })
    }

    /// Where it listens, with the port that was chosen if it was 0.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

/// A TCP socket that listens already, as one that a service manager passed.
impl TryFrom<TcpListener> for Listener {
    type Error = Error;

    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the socket does not listen.
    fn try_from(listener: TcpListener) -> Result<Self> {
        check(&SockRef::from(&listener))?;
        let prepared = listener.set_nonblocking(true);
        prepared.map_err(Error::io("prepare the listening socket"))?;
        let address = listener.local_addr();
        let address = address.map_err(Error::io("read the listening address"))?;
        Ok(Self {
            socket: Socket::Tcp(listener),
            endpoint: address.into(),
        })
    }
}

/// A Unix socket that listens already, as one that a service manager passed. Its file stays.
impl TryFrom<UnixListener> for Listener {
    type Error = Error;

    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the socket does not listen, or has no path.
    fn try_from(listener: UnixListener) -> Result<Self> {
        check(&SockRef::from(&listener))?;
        let address = listener.local_addr();
        let address = address.map_err(Error::io("read the path of the listening socket"))?;
        let path = address.as_pathname();
        let path = path.ok_or_else(|| Error::InvalidConfig("the socket has no path".into()))?;
        let endpoint = Endpoint::unix(path)?;
        let bound = Bound::adopt(listener);
        Ok(Self {
            socket: Socket::Unix(bound.map_err(Error::io("prepare the listening socket"))?),
            endpoint,
        })
    }
}

fn check(socket: &SockRef<'_>) -> Result<()> {
    match socket.is_listener() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::InvalidConfig("the socket does not listen".into())),
        Err(error) => Err(Error::io("examine the listening socket")(error)),
    }
}

/// Listens on the first address that works, as `std::net::TcpListener::bind` does;
/// on `[::]` for both families.
pub(crate) fn listen_on_first(address: impl ToSocketAddrs) -> Result<TcpListener> {
    let addresses = address
        .to_socket_addrs()
        .map_err(Error::io("resolve the listening address"))?;
    let mut failure = Error::InvalidConfig("the listening address resolves to nothing".into());
    for address in addresses {
        match listen_without_ipv6(address, listen(address)) {
            Ok(listener) => return Ok(listener),
            Err(source) => {
                let endpoint = address.to_string();
                failure = Error::Listen { endpoint, source };
            }
        }
    }
    Err(failure)
}

/// Has a host without IPv6 listen for IPv4 alone, if it was to listen for both.
fn listen_without_ipv6(
    address: SocketAddr,
    listener: io::Result<TcpListener>,
) -> io::Result<TcpListener> {
    let is_both = address.is_ipv6() && address.ip().is_unspecified();
    let is_lacking = |error: &io::Error| {
        // The kernel was built or started without IPv6, or no device has it.
        matches!(
            error.raw_os_error(),
            Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
        )
    };
    match listener {
        Err(error) if is_both && is_lacking(&error) => {
            let ipv4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            log::warn!("this host has no IPv6 ({error}): listening on {ipv4} instead of {address}");
            listen(ipv4)
        }
        other => other,
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A [`Listener`] in a loop.
#[derive(Debug)]
pub(crate) enum Acceptance {
    Tcp(mio::net::TcpListener),
    Unix(Bound),
}

impl Acceptance {
    /// Registers a listener.
    pub(crate) fn new(listener: Listener, registry: &Registry, token: Token) -> io::Result<Self> {
        match listener.socket {
            Socket::Tcp(listener) => {
                let mut listener = mio::net::TcpListener::from_std(listener);
                registry.register(&mut listener, token, Interest::READABLE)?;
                Ok(Self::Tcp(listener))
            }
            Socket::Unix(bound) => {
                let descriptor = bound.listener.as_raw_fd();
                registry.register(&mut SourceFd(&descriptor), token, Interest::READABLE)?;
                Ok(Self::Unix(bound))
            }
        }
    }

    /// Accepts a connection. One that has no address of its own gets a number: `users` counts
    /// them.
    pub(crate) fn accept(&mut self, users: &mut u32) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                Ok((stream.into(), Peer::accepted(address)))
            }
            Self::Unix(bound) => {
                let (stream, _) = bound.listener.accept()?;
                stream.set_nonblocking(true)?;
                let unix = Unix::new(mio::net::UnixStream::from_std(stream));
                let uid = unix.user()?;
                *users = users.wrapping_add(1);
                let number = *users;
                Ok((unix.into(), Peer::User { uid, number }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_without_ipv6_listens_for_ipv4() {
        let lacks = || Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
        let both = "[::]:0".parse().unwrap();
        let listener = listen_without_ipv6(both, lacks()).unwrap();
        assert!(listener.local_addr().unwrap().is_ipv4());
        // Whoever names an IPv6 address wants that one.
        let one = "[2001:db8::1]:0".parse().unwrap();
        assert!(listen_without_ipv6(one, lacks()).is_err());
        let in_use = Err(io::ErrorKind::AddrInUse.into());
        assert!(listen_without_ipv6(both, in_use).is_err());
    }
}
