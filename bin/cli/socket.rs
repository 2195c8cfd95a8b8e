//! Where the control socket of a server or client is.

use std::path::PathBuf;

/// The control socket of a server, unless `--control` names another.
pub(crate) const SERVER_SOCKET: &str = "/run/metalbond/server.sock";

/// The control socket of a client, unless `--control` names another.
pub(crate) const CLIENT_SOCKET: &str = "/run/metalbond/client.sock";

/// The value of `--control`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Off,
    At(PathBuf),
}

impl Choice {
    /// Parses a path or `off`; `None` for an empty text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "" => None,
            "off" => Some(Self::Off),
            path => Some(Self::At(path.into())),
        }
    }
}
