//! Settings of the kernel writer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::ops::Range;
use std::time::Duration;

use super::message::{MORE_DEVICES, metrics};
use crate::core::kernel_plan::Scope;
use crate::core::types::{NextHopType, Vni};
use crate::error::{Error, Result};

/// How routes name their next hops in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NexthopMode {
    /// By nexthop objects where the kernel has them (Linux 5.3), else in the route.
    #[default]
    Auto,
    /// Always in the route. IPv6 routes then use one next hop, the lowest address.
    Never,
}

/// Settings of [`super::KernelWriter`].
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// The kernel table of each VNI, 1 to 2^32-1. VNIs may share a table; a destination that
    /// several announce leads to the next hops of the lowest. Routes of other VNIs are ignored. Default: none, which is refused at start.
    pub vni_tables: BTreeMap<Vni, u32>,
    /// Name of the tunnel device, 1 to 15 bytes: an ip6tnl, vxlan or geneve device made with
    /// `external`. Default: `ip6tnl0`.
    pub device: String,
    /// Devices of VNIs that have another one than `device`, 7 at most; needs nexthop objects.
    /// VNIs with one table and metric have one device. Default: none.
    pub vni_devices: BTreeMap<Vni, String>,
    /// The underlay address that encapsulated packets leave from. Default: the system chooses
    /// it for each.
    pub encap_source: Option<Ipv6Addr>,
    /// Leave out IPv6 destinations. Default: no.
    pub ipv4_only: bool,
    /// Protocol number that marks our routes and nexthop objects, 5 to 255 (lower ones are
    /// the kernel's own and the administrator's). Default: 254.
    pub protocol: u8,
    /// Metric of our routes; those that are found with another one move. `None` or 0 is the
    /// default of the family: 0 in IPv4, 1024 in IPv6.
    pub metric: Option<u32>,
    /// Metrics of VNIs that have others than `metric`. Default: none.
    pub vni_metrics: BTreeMap<Vni, u32>,
    /// Next-hop types that are not installed. Default: none.
    pub excluded_types: Vec<NextHopType>,
    /// Remove our routes and nexthop objects at shutdown. Default: no, they stay and the
    /// next process adopts them.
    pub cleanup_on_exit: bool,
    /// How routes name their next hops.
    pub nexthop_objects: NexthopMode,
    /// Numbers of our nexthop objects, 65,536 at least. Objects in this range with our
    /// protocol on our device are ours. Default: 16,777,216 numbers from 0x4d42_0000.
    pub nexthop_ids: Range<u32>,
    /// Leave underlay addresses out of nexthop groups while this host has no route to them;
    /// needs nexthop objects. Default: no.
    pub track_nexthops: bool,
    /// How often the kernel's state is read without a reason, 1 s to 1 day. Default: 300 s.
    /// Costs about 2 microseconds a route, in slices between which routes are written.
    pub check_interval: Duration,
}

impl Default for KernelConfig {
    fn default() -> Self {
        Self {
            vni_tables: BTreeMap::new(),
            device: "ip6tnl0".into(),
            vni_devices: BTreeMap::new(),
            encap_source: None,
            ipv4_only: false,
            protocol: 254,
            metric: None,
            vni_metrics: BTreeMap::new(),
            excluded_types: Vec::new(),
            cleanup_on_exit: false,
            nexthop_objects: NexthopMode::Auto,
            nexthop_ids: 0x4d42_0000..0x4e42_0000,
            track_nexthops: false,
            check_interval: Duration::from_secs(300),
        }
    }
}

/// Smallest allowed size of the range of nexthop numbers.
const MIN_NEXTHOP_IDS: usize = 1 << 16;

impl KernelConfig {
    /// Refuses settings that cannot work.
    pub(super) fn validate(&self) -> Result<()> {
        if self.vni_tables.is_empty() {
            let text = "no VNI is mapped to a kernel table";
            return Err(Error::InvalidConfig(text.into()));
        }
        self.validate_settings()
    }

    /// Does the same as [`Self::validate`], but allows that no VNI is mapped.
    pub(super) fn validate_settings(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::InvalidConfig(text));
        if let Some((vni, _)) = self.vni_tables.iter().find(|(_, table)| **table == 0) {
            return refuse(format!(
                "VNI {vni} is mapped to kernel table 0; allowed are 1 to 4294967295"
            ));
        }
        let tables: BTreeSet<u32> = self.vni_tables.values().copied().collect();
        if tables.len() > usize::from(u16::MAX) {
            return refuse(format!(
                "{} kernel tables; at most 65535 are allowed",
                tables.len()
            ));
        }
        self.validate_devices()?;
        if let Some(source) = self.encap_source
            && (source.is_unspecified() || source.is_loopback() || source.is_multicast())
        {
            return refuse(format!(
                "underlay address {source} to send from; allowed are addresses of this host"
            ));
        }
        if self.protocol < 5 {
            return refuse(format!(
                "route protocol {}; allowed are 5 to 255",
                self.protocol
            ));
        }
        if self.nexthop_ids.len() < MIN_NEXTHOP_IDS || self.nexthop_ids.start == 0 {
            return refuse(format!(
                "nexthop numbers {:?}; allowed are at least {MIN_NEXTHOP_IDS}, without 0",
                self.nexthop_ids
            ));
        }
        let allowed = Duration::from_secs(1)..=Duration::from_secs(86_400);
        if !allowed.contains(&self.check_interval) {
            return refuse(format!(
                "check interval {:?}; allowed are 1 s to 1 day",
                self.check_interval
            ));
        }
        Ok(())
    }

    fn validate_devices(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::InvalidConfig(text));
        let devices = self.devices();
        for device in &devices {
            let bad = |byte: u8| byte == b'/' || byte.is_ascii_whitespace() || byte == 0;
            if device.is_empty() || device.len() > 15 || device.bytes().any(bad) {
                return refuse(format!(
                    "device name {device:?}; allowed are 1 to 15 bytes without spaces and slashes"
                ));
            }
        }
        if devices.len() > 1 + MORE_DEVICES {
            return refuse(format!(
                "{} tunnel devices; at most {} are allowed",
                devices.len(),
                1 + MORE_DEVICES
            ));
        }
        let mut by_place: BTreeMap<(u32, u32), (Vni, &String)> = BTreeMap::new();
        for (vni, table) in &self.vni_tables {
            let metric = self.vni_metrics.get(vni).copied().or(self.metric);
            let device = self.vni_devices.get(vni).unwrap_or(&self.device);
            let place = (*table, metric.unwrap_or_default());
            let (other, first) = *by_place.entry(place).or_insert((*vni, device));
            if first != device {
                return refuse(format!(
                    "VNIs {other} and {vni} with one table and metric and two devices, {first} and \
                     {device}; give one of them another table or metric"
                ));
            }
        }
        Ok(())
    }

    /// Returns the names of the devices, that of most VNIs first.
    pub(super) fn devices(&self) -> Vec<String> {
        let mut devices = vec![self.device.clone()];
        for device in self.vni_devices.values() {
            if !devices.contains(device) {
                devices.push(device.clone());
            }
        }
        devices
    }

    /// Returns the places of devices in [`Self::devices`].
    pub(super) fn device_numbers(&self) -> BTreeMap<Vni, u8> {
        let devices = self.devices();
        let number = |device: &String| {
            let number = devices.iter().position(|it| it == device);
            number.and_then(|it| u8::try_from(it).ok()).unwrap_or(0)
        };
        let numbers = self.vni_devices.iter();
        numbers.map(|(vni, name)| (*vni, number(name))).collect()
    }

    /// Refuses other devices of VNIs than a running writer has.
    pub(super) fn same_devices(&self, running: &Self) -> Result<()> {
        if self.vni_devices == running.vni_devices {
            return Ok(());
        }
        let text = "devices of VNIs cannot change while the writer runs; restart it";
        Err(Error::InvalidConfig(text.into()))
    }

    /// Returns the settings that differ from those of a running writer and are fixed at its
    /// start.
    pub(super) fn fixed(&self, running: &Self) -> Vec<&'static str> {
        let differs = [
            ("device", self.device != running.device),
            ("protocol", self.protocol != running.protocol),
            ("metric", self.metric != running.metric),
            ("encap_source", self.encap_source != running.encap_source),
            (
                "nexthop_objects",
                self.nexthop_objects != running.nexthop_objects,
            ),
            (
                "track_nexthops",
                self.track_nexthops != running.track_nexthops,
            ),
            ("nexthop_ids", self.nexthop_ids != running.nexthop_ids),
        ];
        let differs = differs.into_iter().filter(|(_, differs)| *differs);
        differs.map(|(name, _)| name).collect()
    }

    /// Returns the VNIs of which more routes belong into the kernel than with other settings.
    pub(super) fn widened(&self, before: &Self) -> BTreeSet<Vni> {
        let mut excluded = before.excluded_types.iter();
        let takes_more = excluded.any(|it| !self.excluded_types.contains(it))
            || (before.ipv4_only && !self.ipv4_only);
        let all = self.vni_tables.iter();
        let is_moved = |vni: &Vni, table: &u32| {
            before.vni_tables.get(vni) != Some(table)
                || before.vni_metrics.get(vni) != self.vni_metrics.get(vni)
        };
        let widened = all.filter(|(vni, table)| takes_more || is_moved(vni, table));
        widened.map(|(vni, _)| *vni).collect()
    }

    pub(super) fn scope(&self) -> Scope {
        Scope {
            vni_tables: self.vni_tables.clone(),
            vni_metrics: self
                .vni_metrics
                .iter()
                .map(|(vni, metric)| (*vni, metrics(Some(*metric))))
                .collect(),
            ipv4_only: self.ipv4_only,
            excluded_types: self.excluded_types.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> KernelConfig {
        KernelConfig {
            vni_tables: BTreeMap::from([(Vni(1), 100)]),
            ..KernelConfig::default()
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        assert!(valid().validate().is_ok());
        let refused = |config: KernelConfig| config.validate().unwrap_err().to_string();
        assert!(refused(KernelConfig::default()).contains("no VNI"));
        let mut config = valid();
        config.vni_tables.insert(Vni(2), 0);
        assert!(refused(config).contains("table 0"));
        for device in ["", "a device", "a/b", "sixteen-bytes-ab"] {
            let device = device.to_owned();
            assert!(
                refused(KernelConfig { device, ..valid() }).contains("device name"),
                "every bad name is refused"
            );
        }
        let config = KernelConfig {
            protocol: 4,
            ..valid()
        };
        assert!(refused(config).contains("protocol 4"));
        let config = KernelConfig {
            nexthop_ids: 1..100,
            ..valid()
        };
        assert!(refused(config).contains("nexthop numbers"));
        let config = KernelConfig {
            check_interval: Duration::ZERO,
            ..valid()
        };
        assert!(refused(config).contains("check interval"));
    }
}
