//! Where to ask a running server or client.

use std::fmt;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::cli::endpoint::{self, Port};
use crate::cli::failure::Failure;
use crate::cli::socket::{CLIENT_SOCKET, SERVER_SOCKET};
use crate::cli::value::Expected;

/// The syntax of a place.
pub(crate) const SYNTAX: &str =
    "the path of a control socket, or HOST:PORT or http://HOST:PORT of --http";

/// A control socket, or an address that was given to `--http`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Socket(PathBuf),
    /// Host and port.
    Http(String),
}

impl FromStr for Place {
    type Err = Expected;

    /// Parses a place. A text with a slash is a path; `./NAME` is one in the working directory.
    fn from_str(text: &str) -> Result<Self, Expected> {
        let invalid = Expected(SYNTAX);
        if let Some(rest) = text.strip_prefix("http://") {
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            return address(rest).map(Self::Http).ok_or(invalid);
        }
        if text.contains("://") || text.is_empty() {
            return Err(invalid);
        }
        if text.contains('/') {
            return Ok(Self::Socket(text.into()));
        }
        match address(text) {
            Some(address) => Ok(Self::Http(address)),
            None if Path::new(text).exists() => Ok(Self::Socket(text.into())),
            None => Err(invalid),
        }
    }
}

/// Returns an address with a port; `None` without a port, which would be a guess.
fn address(text: &str) -> Option<String> {
    let with_port = endpoint::parse(text, Port::Connect)?;
    (with_port == text || text.parse::<std::net::SocketAddr>().is_ok()).then_some(with_port)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Http(address) => write!(f, "http://{address}"),
        }
    }
}

impl Place {
    /// Returns the place that was given, else the one usual socket on which something listens.
    pub(crate) fn given_or_usual(given: Option<&Self>) -> Result<Self, Failure> {
        if let Some(place) = given {
            return Ok(place.clone());
        }
        let usual = [SERVER_SOCKET, CLIENT_SOCKET];
        let found: Vec<&str> = usual.into_iter().filter(|it| is_alive(it)).collect();
        match found[..] {
            [path] => Ok(Self::Socket(path.into())),
            [] => Err(Failure::RunTime(format!(
                "nothing listens on {SERVER_SOCKET} or {CLIENT_SOCKET}; is a server or a client \
                 running? --at says where else to ask"
            ))),
            _ => Err(Failure::Argument(format!(
                "a server and a client run here; give --at {SERVER_SOCKET} or --at {CLIENT_SOCKET}"
            ))),
        }
    }
}

impl Place {
    /// Refuses an HTTP address: it shows, and changes nothing.
    pub(crate) fn must_be_socket(&self) -> Result<(), Failure> {
        match self {
            Self::Socket(_) => Ok(()),
            Self::Http(_) => Err(Failure::Argument(format!(
                "--at {self}: over HTTP there is only what `show` and `diff` ask for; give the \
                 path of a control socket"
            ))),
        }
    }
}

/// Returns whether something listens on a socket, even if this user may not connect.
fn is_alive(path: &str) -> bool {
    match UnixStream::connect(path) {
        Ok(_) => true,
        Err(error) => !matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::ConnectionRefused
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_addresses_are_told_apart() {
        let socket = |path: &str| Some(Place::Socket(path.into()));
        let http = |address: &str| Some(Place::Http(address.into()));
        let all = [
            ("/run/a.sock", socket("/run/a.sock")),
            ("./a", socket("./a")),
            ("http://[::1]:80", http("[::1]:80")),
            ("http://a.example:80/", http("a.example:80")),
            ("127.0.0.1:80", http("127.0.0.1:80")),
            ("host:80", http("host:80")),
            ("host", None),
            ("", None),
            ("https://host:80", None),
            ("http://host", None),
            ("http:///x", None),
        ];
        for (text, place) in all {
            assert_eq!(text.parse().ok(), place, "{text}");
        }
    }
}
