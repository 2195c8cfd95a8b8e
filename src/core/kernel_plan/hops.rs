//! Underlay addresses to which no packet can be encapsulated.

use std::net::{IpAddr, Ipv6Addr};

/// The underlay address of a next hop.
///
/// # Errors
///
/// Why no tunnel can lead to it.
pub(super) fn underlay(address: IpAddr) -> Result<Ipv6Addr, &'static str> {
    let address = match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(_) => return Err("an IPv4 address"),
    };
    if address.is_unspecified() {
        return Err("the unspecified address");
    }
    if address.is_loopback() {
        return Err("the loopback address");
    }
    if address.is_multicast() {
        return Err("a multicast address");
    }
    if address.is_unicast_link_local() {
        return Err("a link-local address");
    }
    if address.to_ipv4_mapped().is_some() {
        return Err("an IPv4 address that is mapped to IPv6");
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_that_no_tunnel_can_lead_to_is_named() {
        for (address, reason) in [
            ("192.0.2.1", "an IPv4"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("ff02::1", "multicast"),
            ("fe80::1", "link-local"),
            ("::ffff:192.0.2.1", "mapped"),
        ] {
            let refused = underlay(address.parse().unwrap()).unwrap_err();
            assert!(refused.contains(reason), "{address}: {refused}");
        }
        for address in ["2001:db8::1", "fd00::1", "::2"] {
            let address: Ipv6Addr = address.parse().unwrap();
            assert_eq!(underlay(address.into()), Ok(address));
        }
    }
}
