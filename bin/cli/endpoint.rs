//! Addresses with a port, as users write them.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use rustbond::Endpoint;

/// MetalBond's port.
pub(crate) const DEFAULT_PORT: u16 = 4711;

/// The purpose of a port, which decides what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// To listen on; 0 is any free port, the default is MetalBond's.
    Listen,
    /// To listen on; there is no default, since the protocol has no port of its own.
    ListenGiven,
    /// To connect to; the default is MetalBond's.
    Connect,
}

/// Parses `HOST`, `HOST:PORT`, `ADDRESS`, `ADDRESS:PORT`, `[ADDRESS]` and `[ADDRESS]:PORT`, and
/// `:PORT` to listen on. Returns the form with a port; `None` for anything else.
///
/// `unix:/PATH` stays as it is where peers meet.
pub(crate) fn parse(text: &str, port: Port) -> Option<String> {
    if text.starts_with("unix:") {
        let is_socket = port != Port::ListenGiven && text.parse::<Endpoint>().is_ok();
        return is_socket.then(|| text.to_owned());
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0 || port != Port::Connect).then(|| address.to_string());
    }
    let default = (port != Port::ListenGiven).then_some(DEFAULT_PORT);
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, default?).to_string());
    }
    if let Some(inner) = text.strip_prefix('[') {
        // The text has a zone, or no port.
        let with_port = format!("[{}:{}", inner, default?);
        return with_port
            .parse::<SocketAddrV6>()
            .ok()
            .map(|it| it.to_string());
    }
    let (host, number) = match text.split_once(':') {
        Some(("", number)) if port != Port::Connect => ("[::]", parse_port(number, port)?),
        Some((host, number)) if is_host_name(host) => (host, parse_port(number, port)?),
        None if is_host_name(text) => (text, default?),
        Some(_) | None => return None,
    };
    Some(format!("{host}:{number}"))
}

fn parse_port(text: &str, port: Port) -> Option<u16> {
    let is_number = text.bytes().all(|it| it.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number)?;
    (number != 0 || port != Port::Connect).then_some(number)
}

/// Returns whether a text is the name or the IPv4 address of a host.
fn is_host_name(text: &str) -> bool {
    !text.contains(['[', ':']) && format!("{text}:1").parse::<Endpoint>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_without_a_port_get_the_default() {
        let all = [
            ("[::1]:4711", "[::1]:4711"),
            ("[::1]:1", "[::1]:1"),
            ("[::1]", "[::1]:4711"),
            ("::1", "[::1]:4711"),
            ("2001:db8::1", "[2001:db8::1]:4711"),
            ("[fe80::1%3]", "[fe80::1%3]:4711"),
            ("[fe80::1%3]:5", "[fe80::1%3]:5"),
            ("1.2.3.4", "1.2.3.4:4711"),
            ("1.2.3.4:65535", "1.2.3.4:65535"),
            ("host", "host:4711"),
            ("a-b.example.org.:12", "a-b.example.org.:12"),
        ];
        for (text, expected) in all {
            let parsed = parse(text, Port::Connect);
            assert_eq!(parsed.as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_server_are_refused() {
        let all = [
            "",
            ":",
            ":4711",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "host:x",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[1.2.3.4]",
            "::1]",
            "a b",
            "a/b",
            "-é",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "0x7f000001",
            "127.0.0.0x1",
            "-",
            "a-.b",
            "a..b",
            "[::1]:0",
            "host:1:2",
            "[host]:1",
        ];
        for text in all {
            assert_eq!(parse(text, Port::Connect), None, "{text}");
        }
    }

    #[test]
    fn addresses_to_listen_on_may_omit_host_and_port() {
        let listen = |text| parse(text, Port::Listen);
        assert_eq!(listen(":5"), Some("[::]:5".into()));
        assert_eq!(listen("127.0.0.1:0"), Some("127.0.0.1:0".into()));
        assert_eq!(listen("localhost"), Some("localhost:4711".into()));
        assert_eq!(listen(""), None);
        assert_eq!(parse(":80", Port::ListenGiven), Some("[::]:80".into()));
        assert_eq!(parse("::", Port::ListenGiven), None);
        assert_eq!(parse("[::]", Port::ListenGiven), None);
        assert_eq!(parse("host", Port::ListenGiven), None);
    }
}
