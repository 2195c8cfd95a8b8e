//! Parsers of single values, and what puts the result into a field.

use std::net::Ipv6Addr;
use std::num::NonZeroUsize;
use std::time::Duration;

use log::LevelFilter;
use rustbond::{Endpoint, LegacyPacing, NextHopType, Vni};

use super::row::Wrong;
use super::{KernelForm, Mapping, Options};
use crate::cli::announcement::{Announcement, Invalid};
use crate::cli::endpoint::{self, Port};
use crate::cli::groups;
use crate::cli::logging::Format;
use crate::cli::rt_tables;
use crate::cli::value::{VNI_MAX, bytes, decimal, vni, wide_vni};

/// The kernel's main table, where the host's own routes are.
const MAIN_TABLE: u32 = 254;

/// Seconds between keepalives unless given; 0 is taken for it, as by Go MetalBond.
const KEEPALIVE: u32 = 5;

/// Sets a field to a value that was parsed.
pub(super) fn set<T>(field: &mut T, parsed: Option<impl Into<T>>) -> Result<(), Wrong> {
    *field = parsed.ok_or(Wrong::Value)?.into();
    Ok(())
}

/// Adds a value that was parsed to a list.
pub(super) fn push<T>(list: &mut Vec<T>, parsed: Option<T>) -> Result<(), Wrong> {
    list.push(parsed.ok_or(Wrong::Value)?);
    Ok(())
}

/// Reads where to listen.
pub(super) fn listen(text: &str) -> Option<Endpoint> {
    endpoint::parse(text, Port::Listen)?.parse().ok()
}

/// Reads a group: its number, or its name.
pub(super) fn group(text: &str) -> Option<u32> {
    decimal(text).or_else(|| groups::number(text))
}

/// Reads a host name: what stands in a URL, without a port.
pub(super) fn host(text: &str) -> Option<String> {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '.' | '_');
    let is_host = !text.is_empty() && text.chars().all(is_plain);
    is_host.then(|| text.to_owned())
}

pub(super) fn flag(text: &str) -> Option<bool> {
    text.parse().ok()
}

/// A number from 1 to 4294967295.
pub(super) fn positive(text: &str) -> Option<u32> {
    decimal(text).filter(|it| *it != 0)
}

/// The same, where the library counts in words of the machine.
pub(super) fn count(text: &str) -> Option<usize> {
    positive(text)?.try_into().ok()
}

pub(super) fn positive_seconds(text: &str) -> Option<Duration> {
    positive(text).map(|it| Duration::from_secs(it.into()))
}

pub(super) fn seconds(text: &str) -> Option<Duration> {
    decimal(text).map(|it: u32| Duration::from_secs(it.into()))
}

/// Seconds of a day at most.
pub(super) fn drain(text: &str) -> Option<u32> {
    decimal(text).filter(|it| *it <= 86_400)
}

pub(super) fn workers(text: &str) -> Option<NonZeroUsize> {
    decimal(text).filter(|it: &NonZeroUsize| it.get() <= 256)
}

pub(super) fn keepalive(options: &mut Options, text: &str) -> Option<u32> {
    let seconds: u32 = decimal(text)?;
    if seconds == 0 {
        let problem = format!("is taken as the default, {KEEPALIVE}");
        options.warn("keepalive", Some(text), &problem);
        return Some(KEEPALIVE);
    }
    Some(seconds)
}

/// Where to serve HTTP, if anywhere: an empty text is none, as to Go MetalBond.
pub(super) fn http(options: &mut Options, text: &str) -> Option<Option<String>> {
    if text.is_empty() {
        options.warn("http", None, "is empty; nothing is served over HTTP");
        return Some(None);
    }
    endpoint::parse(text, Port::ListenGiven).map(Some)
}

pub(super) fn subscription(options: &mut Options, text: &str) -> Option<Vni> {
    let vni = wide_vni(text)?;
    if vni.0 > VNI_MAX {
        let problem = format!("no packet can carry a VNI above {VNI_MAX}");
        options.warn("subscribe", Some(text), &problem);
    }
    Some(vni)
}

pub(super) fn announcement(options: &mut Options, text: &str) -> Result<Announcement, Invalid> {
    let (announcement, liberties) = Announcement::parse(text)?;
    for liberty in liberties {
        options.warn("announce", Some(text), &liberty.to_string());
    }
    Ok(announcement)
}

pub(super) fn mapping(options: &mut Options, text: &str) -> Option<Mapping> {
    let mut parts = text.split('#');
    let (number, table) = (parts.next()?, parts.next()?);
    let (mut metric, mut own_device) = (None, None);
    for part in parts {
        match part.split_once('=')? {
            ("metric", text) if metric.is_none() => metric = Some(decimal(text)?),
            ("dev", text) if own_device.is_none() => own_device = Some(device(text)?),
            _ => return None,
        }
    }
    let table = decimal(table).or_else(|| rt_tables::number(table));
    let (vni, mut table) = (vni(number)?, table?);
    if table == 0 {
        let problem = format!(
            "table 0 is taken as the main table, {MAIN_TABLE}, which has the host's own routes"
        );
        options.warn("install-routes", Some(text), &problem);
        table = MAIN_TABLE;
    }
    Some(Mapping {
        vni,
        table,
        metric,
        device: own_device,
    })
}

pub(super) fn device(text: &str) -> Option<String> {
    let is_bad = |it: char| it == '/' || it.is_whitespace() || it.is_control();
    let is_name = (1..=15).contains(&text.len()) && !text.contains(is_bad);
    is_name.then(|| text.into())
}

/// An underlay address of this host.
pub(super) fn encap_source(text: &str) -> Option<Ipv6Addr> {
    let address: Ipv6Addr = text.parse().ok()?;
    let is_wrong = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    (!is_wrong).then_some(address)
}

/// A route protocol; the kernel itself uses those below 5.
pub(super) fn protocol(text: &str) -> Option<u8> {
    decimal(text).filter(|it| *it >= 5)
}

pub(super) fn kernel_form(text: &str) -> Option<KernelForm> {
    match text {
        "nexthop" => Some(KernelForm::Nexthop),
        "inline" => Some(KernelForm::Inline),
        _ => None,
    }
}

pub(super) fn kind(text: &str) -> Option<NextHopType> {
    match text.to_ascii_lowercase().as_str() {
        "std" => Some(NextHopType::Standard),
        "nat" => Some(NextHopType::Nat),
        "lb" => Some(NextHopType::LoadBalancerTarget),
        _ => None,
    }
}

pub(super) fn level(text: &str) -> Option<LevelFilter> {
    match text {
        "off" => Some(LevelFilter::Off),
        "error" => Some(LevelFilter::Error),
        "warn" => Some(LevelFilter::Warn),
        "info" => Some(LevelFilter::Info),
        "debug" => Some(LevelFilter::Debug),
        "trace" => Some(LevelFilter::Trace),
        _ => None,
    }
}

pub(super) fn format(text: &str) -> Option<Format> {
    match text {
        "text" => Some(Format::Text),
        "json" => Some(Format::Json),
        _ => None,
    }
}

pub(super) fn pacing(text: &str) -> Option<LegacyPacing> {
    match text {
        "auto" => Some(LegacyPacing::Auto),
        "off" => Some(LegacyPacing::Off),
        _ => None,
    }
}

/// Bytes per second, at least 4096.
pub(super) fn rate(text: &str) -> Option<u32> {
    let rate = u32::try_from(bytes(text)?).ok();
    rate.filter(|it| *it >= 4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapping_may_name_a_metric_and_a_device() {
        let parse = |text: &str| mapping(&mut Options::default(), text);
        let of = |text: &str| parse(text).map(|it| (it.vni.0, it.table, it.metric));
        let device = |text: &str| parse(text).and_then(|it| it.device);
        assert_eq!(device("100#1#dev=red#metric=5").as_deref(), Some("red"));
        assert_eq!(of("100#200"), Some((100, 200, None)));
        assert_eq!(of("100#main#metric=50"), Some((100, 254, Some(50))));
        for text in [
            "100",
            "100#1#50",
            "100#1#metric=",
            "100#1#metric=5#metric=6",
            "#1",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn rate_has_a_minimum_and_the_default_of_the_library() {
        assert_eq!(
            rate("8M").unwrap(),
            rustbond::ServerConfig::default().legacy_rate
        );
        assert_eq!(rate("4k").unwrap(), 4096);
        for text in ["", "0", "4095", "4G", "-1", "fast"] {
            assert!(rate(text).is_none(), "{text:?}");
        }
        assert_eq!(pacing("off").unwrap(), LegacyPacing::Off);
        assert!(pacing("OFF").is_none());
    }
}
