//! The tunnel device: whether it is there, and whether it encapsulates.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use super::message::{self, kind};
use super::parse::{self, LinkSeen};
use super::socket::Netlink;
use crate::core::kernel_plan::errno;

/// The tunnel device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Device {
    Missing,
    Down {
        index: u32,
    },
    Up {
        index: u32,
    },
    /// Packets by it would leave as they are, or not at all.
    Unfit {
        index: u32,
        because: Unfit,
    },
}

/// Why a device is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is not a tunnel.
    Kind,
    /// It is a tunnel to one fixed address: it ignores what routes say.
    Fixed,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kind => {
                "does not encapsulate: it must be of type ip6tnl, vxlan or geneve, made with \"external\""
            }
            Self::Fixed => "encapsulates to one fixed address: make it with \"external\"",
        })
    }
}

impl Device {
    pub(super) fn of(link: &LinkSeen) -> Self {
        let index = link.index;
        match (unfit(link), link.usable) {
            (Some(because), _) => Self::Unfit { index, because },
            (None, true) => Self::Up { index },
            (None, false) => Self::Down { index },
        }
    }

    pub(super) const fn is_up(self) -> bool {
        matches!(self, Self::Up { .. })
    }

    /// The index that routes name: none for one that they must not lead by.
    pub(super) const fn usable_index(self) -> Option<u32> {
        match self {
            Self::Down { index } | Self::Up { index } => Some(index),
            Self::Missing | Self::Unfit { .. } => None,
        }
    }

    pub(super) const fn index(self) -> Option<u32> {
        match self {
            Self::Missing => None,
            Self::Down { index } | Self::Up { index } | Self::Unfit { index, .. } => Some(index),
        }
    }

    /// Why routes wait, if they do.
    pub(super) fn problem(self, name: &str) -> Option<String> {
        match self {
            Self::Up { .. } => None,
            Self::Missing => Some(format!("tunnel device {name} does not exist")),
            Self::Down { .. } => Some(format!("tunnel device {name} is down")),
            Self::Unfit { because, .. } => Some(format!("device {name} {because}")),
        }
    }
}

/// Returns why packets by a device are not encapsulated as routes say, if they are not.
fn unfit(link: &LinkSeen) -> Option<Unfit> {
    match link.kind.as_deref() {
        Some("ip6tnl" | "vxlan" | "geneve") if link.is_external => None,
        Some("ip6tnl" | "vxlan" | "geneve") => Some(Unfit::Fixed),
        _ => Some(Unfit::Kind),
    }
}

/// Asks for the device by its name.
///
/// # Errors
///
/// Whatever the kernel says but that there is none.
pub(super) fn query_device(
    net: &mut impl Netlink,
    name: &str,
    sequence: u32,
    datagram: &mut [u8],
) -> io::Result<Device> {
    let link = query_link(net, name, sequence, datagram)?;
    Ok(link.map_or(Device::Missing, |link| Device::of(&link)))
}

/// Asks for any device by its name.
///
/// # Errors
///
/// Whatever the kernel says but that there is none.
pub(super) fn query_link(
    net: &mut impl Netlink,
    name: &str,
    sequence: u32,
    datagram: &mut [u8],
) -> io::Result<Option<LinkSeen>> {
    let mut request = Vec::new();
    message::encode_link_request(&mut request, sequence, name);
    net.send(&request)?;
    loop {
        let len = net.receive(datagram)?.min(datagram.len());
        for message in parse::messages(&datagram[..len]) {
            if message.sequence != sequence {
                continue;
            }
            if message.kind == kind::NEW_LINK
                && let Some(link) = parse::link(message.body)
            {
                return Ok(Some(link));
            }
            match parse::answer(&message).map_or(0, |answer| answer.errno) {
                errno::ENODEV => return Ok(None),
                errno => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}

/// Returns the devices by which routes of ours, or of an earlier process, may lead.
pub(super) fn tunnels<'a>(links: impl IntoIterator<Item = &'a LinkSeen>) -> BTreeSet<u32> {
    let fit = links.into_iter().filter(|link| unfit(link).is_none());
    fit.map(|link| link.index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(kind: Option<&str>, is_external: bool, usable: bool) -> LinkSeen {
        LinkSeen {
            index: 7,
            usable,
            name: "tun".into(),
            kind: kind.map(Into::into),
            is_external,
            vrf_table: None,
        }
    }

    #[test]
    fn device_that_does_not_encapsulate_as_routes_say_is_unfit() {
        for kind in ["ip6tnl", "vxlan", "geneve"] {
            let up = Device::of(&link(Some(kind), true, true));
            assert_eq!(up, Device::Up { index: 7 });
            let down = Device::of(&link(Some(kind), true, false));
            assert_eq!(down, Device::Down { index: 7 });
            let fixed = Device::of(&link(Some(kind), false, true));
            let text = fixed.problem("tun").unwrap();
            assert!(text.contains("external"), "{text}");
        }
        for kind in [None, Some("veth"), Some("bridge"), Some("gre")] {
            let device = Device::of(&link(kind, true, true));
            let text = device.problem("eth0").unwrap();
            assert!(text.contains("eth0 does not encapsulate"), "{text}");
        }
        let all = [
            link(Some("vxlan"), true, false),
            link(Some("veth"), false, true),
        ];
        assert_eq!(tunnels(&all), BTreeSet::from([7]));
    }
}
