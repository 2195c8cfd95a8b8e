//! Where a server is to be found.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::core::types::Transport;
use crate::error::Error;

/// Where a server is to be found, or listens, and how it is reached.
///
/// Written in one of these forms:
///
/// - `HOST:PORT`: TCP. The host is a name, an IPv4 address, or an IPv6 address in brackets:
///   `server.example.org:4711`, `192.0.2.1:4711`, `[2001:db8::1]:4711`, `[fe80::1%3]:4711`.
/// - `unix:/PATH`: a Unix socket of this host. The path is absolute, of at most 107 bytes
///   (unix(7)).
///
/// ```
/// # use rustbond::Endpoint;
/// let endpoint: Endpoint = "[2001:db8::1]:4711".parse()?;
/// assert_eq!(endpoint.port(), Some(4711));
/// assert_eq!(endpoint.to_string(), "[2001:db8::1]:4711");
/// let endpoint: Endpoint = "unix:/run/metalbond/peers".parse()?;
/// assert_eq!(endpoint.port(), None);
/// assert!("2001:db8::1:4711".parse::<Endpoint>().is_err());
/// # Ok::<(), rustbond::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    place: Place,
    /// The address to connect from. It is no part of the text.
    source: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Tcp(Host, u16),
    Unix(Arc<Path>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    /// The system's resolver knows its addresses.
    Name(Box<str>),
    /// An address, with the scope of a link-local one.
    Address(IpAddr, u32),
}

/// Bytes of the path of a Unix socket at most: `sun_path` without its final zero (unix(7)).
const PATH_MAX: usize = 107;

impl Endpoint {
    /// Returns the Unix socket at a path.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] unless the path is absolute and has at most 107 bytes, none of
    /// them zero.
    pub fn unix(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let refuse = |why: &str| {
            let text = format!(
                "{:?} is not the path of a Unix socket: {why}",
                path.display()
            );
            Err(Error::InvalidConfig(text))
        };
        let bytes = path.as_os_str().as_bytes();
        if !path.is_absolute() {
            return refuse("it is not absolute");
        }
        if bytes.len() > PATH_MAX {
            return refuse("it has more than 107 bytes");
        }
        if bytes.contains(&0) || bytes.ends_with(b"/") {
            return refuse("it names no file");
        }
        Ok(Self {
            place: Place::Unix(path.into()),
            source: None,
        })
    }

    /// Returns the port; `None` for a Unix socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match &self.place {
            Place::Tcp(_, port) => Some(*port),
            Place::Unix(_) => None,
        }
    }

    /// Returns the path of a Unix socket; `None` for the other transports.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Tcp(..) => None,
            Place::Unix(path) => Some(path),
        }
    }

    /// Returns what carries the bytes.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match &self.place {
            Place::Tcp(..) => Transport::Tcp,
            Place::Unix(_) => Transport::Unix,
        }
    }

    /// Returns the address to connect from; `None`: the system chooses.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Sets the address to connect from. A Unix socket has none.
    #[must_use]
    pub fn with_source(self, source: Option<IpAddr>) -> Self {
        Self { source, ..self }
    }

    /// Returns the address; `None` if the host is a name, and for a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.place {
            Place::Tcp(Host::Address(ip, scope), port) => Some(socket_address(*ip, *port, *scope)),
            Place::Tcp(Host::Name(_), _) | Place::Unix(_) => None,
        }
    }

    /// Returns all addresses. Blocks as long as the system's resolver takes if the host is a
    /// name. A Unix socket has none.
    pub(crate) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.place {
            Place::Tcp(Host::Address(ip, scope), port) => {
                Ok(vec![socket_address(*ip, *port, *scope)])
            }
            Place::Tcp(Host::Name(name), port) => {
                (&**name, *port).to_socket_addrs().map(Iterator::collect)
            }
            Place::Unix(_) => Ok(Vec::new()),
        }
    }
}

fn socket_address(ip: IpAddr, port: u16, scope: u32) -> SocketAddr {
    match ip {
        IpAddr::V4(_) => SocketAddr::new(ip, port),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        let scope = match address {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(address) => address.scope_id(),
        };
        Self {
            place: Place::Tcp(Host::Address(address.ip(), scope), address.port()),
            source: None,
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a text of another form; the error says why.
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::unix(path);
        }
        let refuse = |why: &str| {
            let text = format!("{text:?} is not the address of a server: {why}");
            Err(Error::InvalidConfig(text))
        };
        if let Some((scheme, _)) = text.split_once("://") {
            return refuse(&format!("the transport {scheme}:// is not supported"));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return refuse("the port is missing; write HOST:PORT");
        };
        if text.parse::<Ipv6Addr>().is_ok() || host.parse::<Ipv6Addr>().is_ok() {
            return refuse("put an IPv6 address in brackets, as in [2001:db8::1]:4711");
        }
        if host.is_empty() {
            return refuse("the host is missing; write HOST:PORT");
        }
        if host.contains([':', '[', ']', '/']) {
            return refuse("write HOST:PORT, with an IPv6 address in brackets");
        }
        if !is_host_name(host) {
            return refuse("the host is neither a name nor an address");
        }
        let Ok(port) = port.parse() else {
            return refuse("the port is not a number up to 65535");
        };
        Ok(Self {
            place: Place::Tcp(Host::Name(host.into()), port),
            source: None,
        })
    }
}

/// Returns whether a text can be given to a resolver. A name of another alphabet is written in
/// its ASCII form (`xn--`).
fn is_host_name(text: &str) -> bool {
    let is_allowed = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_');
    let has_hyphen_at_an_end = |label: &[u8]| label.starts_with(b"-") || label.ends_with(b"-");
    let text = text.strip_suffix('.').unwrap_or(text);
    let mut labels = text.split('.').map(str::as_bytes);
    let are_allowed = labels
        .clone()
        .all(|label| (1..=63).contains(&label.len()) && label.iter().all(|it| is_allowed(*it)))
        && !labels.clone().any(has_hyphen_at_an_end);
    // No name ends in a number; resolvers take such a text for an odd form of an IPv4 address.
    let is_hex = |label: &[u8]| {
        let digits = label
            .strip_prefix(b"0x")
            .or_else(|| label.strip_prefix(b"0X"));
        digits.is_some_and(|it| it.iter().all(u8::is_ascii_hexdigit))
    };
    let is_number = |label: &[u8]| label.iter().all(u8::is_ascii_digit) || is_hex(label);
    are_allowed && !labels.next_back().is_some_and(is_number) && text.len() <= 253
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp(Host::Name(name), port) => write!(f, "{name}:{port}"),
            Place::Tcp(Host::Address(ip, scope), port) => socket_address(*ip, *port, *scope).fmt(f),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_is_written_as_it_was_read() {
        for text in [
            "server.example.org:4711",
            "192.0.2.1:4711",
            "[2001:db8::1]:4711",
            "[fe80::1%3]:4711",
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
            assert_eq!(endpoint.port(), Some(4711));
            assert_eq!(endpoint.address(), text.parse().ok());
        }
    }

    #[test]
    fn unix_socket_is_written_as_it_was_read() {
        let text = "unix:/run/metalbond/peers";
        let endpoint: Endpoint = text.parse().unwrap();
        assert_eq!(endpoint.to_string(), text);
        assert_eq!(endpoint.path(), Some("/run/metalbond/peers".as_ref()));
        assert_eq!((endpoint.port(), endpoint.address()), (None, None));
        let long = format!("unix:/{}", "a".repeat(PATH_MAX));
        for (text, why) in [
            ("unix:", "not absolute"),
            ("unix:run/socket", "not absolute"),
            ("unix:/", "names no file"),
            ("unix:/run/", "names no file"),
            ("unix:/run/a\0b", "names no file"),
            (&*long, "more than 107 bytes"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(long[..long.len() - 1].parse::<Endpoint>().is_ok());
    }

    #[test]
    fn text_that_is_no_endpoint_is_refused_with_the_reason() {
        for (text, why) in [
            ("host", "the port is missing"),
            (":4711", "the host is missing"),
            ("", "the port is missing"),
            ("[::1]", "in brackets"),
            ("nonsense", "the port is missing"),
            ("nonsense with spaces:4711", "neither a name nor an address"),
            (" host:4711", "neither a name nor an address"),
            ("a..b:4711", "neither a name nor an address"),
            ("256.1.1.1:4711", "neither a name nor an address"),
            ("0x7f000001:4711", "neither a name nor an address"),
            ("127.0.0.0x1:4711", "neither a name nor an address"),
            ("-:4711", "neither a name nor an address"),
            ("1.2.3:4711", "neither a name nor an address"),
            ("host:", "the port is not a number"),
            ("host:65536", "the port is not a number"),
            ("::1:4711", "in brackets"),
            ("2001:db8::1", "in brackets"),
            ("host:1:2", "in brackets"),
            ("[host]:1", "in brackets"),
            ("tls://host:4711", "tls:// is not supported"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
