//! Where a server is to be found.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::str::FromStr;

use crate::error::Error;

/// Where a server is to be found, and how it is reached.
///
/// Written as `HOST:PORT`, where the host is a name, an IPv4 address, or an IPv6 address in
/// brackets: `server.example.org:4711`, `192.0.2.1:4711`, `[2001:db8::1]:4711`,
/// `[fe80::1%3]:4711`.
///
/// ```
/// # use rustbond::Endpoint;
/// let endpoint: Endpoint = "[2001:db8::1]:4711".parse()?;
/// assert_eq!(endpoint.port(), 4711);
/// assert_eq!(endpoint.to_string(), "[2001:db8::1]:4711");
/// assert!("2001:db8::1:4711".parse::<Endpoint>().is_err());
/// # Ok::<(), rustbond::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: Host,
    port: u16,
    transport: Transport,
    /// The address to connect from. It is no part of the text.
    source: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    /// The system's resolver knows its addresses.
    Name(Box<str>),
    /// An address, with the scope of a link-local one.
    Address(IpAddr, u32),
}

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// TCP as it is.
    Tcp,
}

impl Endpoint {
    /// Returns the port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns what carries the bytes.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Returns the address to connect from; `None`: the system chooses.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Sets the address to connect from.
    #[must_use]
    pub fn with_source(self, source: Option<IpAddr>) -> Self {
        Self { source, ..self }
    }

    /// Returns the address, or `None` if the host is a name.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.host {
            Host::Address(ip, scope) => Some(socket_address(*ip, self.port, *scope)),
            Host::Name(_) => None,
        }
    }

    /// Returns all addresses. Blocks as long as the system's resolver takes if the host is a
    /// name.
    pub(crate) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.host {
            Host::Address(ip, scope) => Ok(vec![socket_address(*ip, self.port, *scope)]),
            Host::Name(name) => (&**name, self.port)
                .to_socket_addrs()
                .map(Iterator::collect),
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
            host: Host::Address(address.ip(), scope),
            port: address.port(),
            transport: Transport::Tcp,
            source: None,
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for anything but `HOST:PORT`; the text says why.
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let refuse = |why: &str| {
            let text = format!("{text:?} is not the address of a server: {why}");
            Err(Error::InvalidConfig(text))
        };
        if let Some((scheme, _)) = text.split_once("://") {
            return refuse(&format!("the transport {scheme}:// is not supported"));
        }
        if text.starts_with("unix:") {
            return refuse("the transport unix: is not supported");
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
            host: Host::Name(host.into()),
            port,
            transport: Transport::Tcp,
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
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(ip, scope) => socket_address(*ip, self.port, *scope).fmt(f),
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
            assert_eq!(endpoint.port(), 4711);
            assert_eq!(endpoint.address(), text.parse().ok());
        }
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
            ("unix:/run/socket", "unix: is not supported"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
