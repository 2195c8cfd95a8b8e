//! Which `Host` a request may name.
//!
//! A page from elsewhere can make a browser ask a server on loopback, under a name of its own
//! that leads there (DNS rebinding), and read the answers. Such a request names that host.

use std::net::{IpAddr, SocketAddr};

/// The names that a server answers to, besides addresses.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    is_checked: bool,
    names: Vec<String>,
}

impl Hosts {
    /// Checks hosts if the listener is on loopback or names are given. This machine's own name
    /// and `localhost` are always among them.
    pub(super) fn new(listener: SocketAddr, mut names: Vec<String>) -> Self {
        let is_checked = listener.ip().to_canonical().is_loopback() || !names.is_empty();
        names.push("localhost".into());
        // Without such a file there is one name fewer.
        if let Ok(own) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
            names.push(own.trim().into());
        }
        Self { is_checked, names }
    }

    /// Returns whether a request is for this server. One without a host is: no browser sent it.
    pub(super) fn admits(&self, host: Option<&str>) -> bool {
        let Some(host) = host.map(str::trim).filter(|it| !it.is_empty()) else {
            return true;
        };
        let host = without_port(host);
        let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
        let host = host.strip_suffix('.').unwrap_or(host);
        let is_name = |name: &String| without_port(name).eq_ignore_ascii_case(host);
        !self.is_checked || is_address(host) || self.names.iter().any(is_name)
    }
}

/// Returns the name or address without port and brackets.
fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match host.split_once(':') {
        // An address without brackets has more than one colon.
        Some((name, port)) if !port.contains(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_answers_to_addresses_and_own_names_only() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 80));
        let hosts = Hosts::new(loopback, vec!["Routes.example:8080".into()]);
        for host in [
            "127.0.0.1:80",
            "[::1]:80",
            "::1",
            "192.0.2.1",
            "localhost",
            "LOCALHOST.:1",
            "routes.example",
            "routes.EXAMPLE:99",
            "",
        ] {
            assert!(hosts.admits(Some(host)), "{host}");
        }
        assert!(hosts.admits(None));
        for host in [
            "evil.example",
            "evil.example:80",
            "localhost.evil.example",
            "[evil",
        ] {
            assert!(!hosts.admits(Some(host)), "{host}");
        }
        let anywhere = Hosts::new(([192, 0, 2, 1], 80).into(), Vec::new());
        assert!(anywhere.admits(Some("evil.example")), "not on loopback");
        let named = Hosts::new(([192, 0, 2, 1], 80).into(), vec!["good.example".into()]);
        assert!(named.admits(Some("good.example")) && !named.admits(Some("evil.example")));
    }
}
