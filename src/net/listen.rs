//! Listening sockets.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use crate::error::{Error, Result};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Listens on the first address that works, as `std::net::TcpListener::bind` does;
/// on `[::]` for both families.
pub(crate) fn listen_on_first(address: impl ToSocketAddrs) -> Result<TcpListener> {
    let addresses = address
        .to_socket_addrs()
        .map_err(Error::io("resolve the listening address"))?;
    let mut failure = Error::InvalidConfig("the listening address resolves to nothing".into());
    for address in addresses {
        match listen(address) {
            Ok(listener) => return Ok(listener),
            Err(source) => failure = Error::Listen { address, source },
        }
    }
    Err(failure)
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
