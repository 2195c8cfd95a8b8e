//! Installs routes into the kernel, if this binary can.

pub(crate) use imp::Kernel;

#[cfg(all(feature = "netlink", target_os = "linux"))]
mod imp {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use rustbond::inspect::Inspect;
    use rustbond::kernel::{KernelConfig, KernelWriter, NexthopMode};
    use rustbond::{Builder, Heartbeat, Life, MetalBondClient};

    use crate::cli::failure::Failure;
    use crate::cli::options::{Client as Options, KernelForm};

    /// How long the last changes of kernel routes may take at the end.
    const STOP_TIMEOUT: Duration = Duration::from_secs(10);

    /// The kernel's tables.
    #[derive(Clone)]
    pub(crate) struct Kernel(KernelWriter);

    impl Kernel {
        /// Starts writing routes; `None` without `--install-routes`.
        pub(crate) fn start(options: &Options) -> Result<Option<Self>, Failure> {
            if options.install_routes.is_empty() {
                return Ok(None);
            }
            let writer = KernelWriter::start(config(options))?;
            Ok(Some(Self(writer)))
        }

        /// Starts a client whose routes it installs.
        pub(crate) fn client(&self, builder: Builder) -> rustbond::Result<MetalBondClient> {
            self.0.install(builder)
        }

        /// Returns the inspector of a client whose routes are installed.
        pub(crate) fn inspector(&self, client: &MetalBondClient) -> Arc<dyn Inspect> {
            client.inspector_with(self.0.clone())
        }

        /// Returns the heartbeat of its thread.
        pub(crate) fn heartbeat(&self) -> Heartbeat {
            self.0.heartbeat()
        }

        /// Returns whether its thread runs.
        pub(crate) fn life(&self) -> Life {
            self.0.life()
        }

        /// Applies new options to the routes that the client has received.
        pub(crate) fn reconfigure(
            &self,
            options: &Options,
            client: &MetalBondClient,
        ) -> Result<(), Failure> {
            let received = |vni| client.get_received_routes(vni);
            self.0.reconfigure(config(options), received)?;
            for mapping in &options.install_routes {
                if client.is_settled(mapping.vni)? {
                    self.0.synced(mapping.vni);
                }
            }
            Ok(())
        }

        /// Tells the writer that mapped VNIs without a subscription have no routes. Then it removes
        /// what an earlier process left of them, and waits for no server.
        pub(crate) fn release_unsubscribed(
            &self,
            options: &Options,
            client: &MetalBondClient,
        ) -> Result<(), Failure> {
            let subscribed = client.subscriptions()?;
            let mapped = options.install_routes.iter().map(|it| it.vni);
            for vni in mapped.filter(|it| !subscribed.contains(it)) {
                self.0.synced(vni);
            }
            Ok(())
        }

        /// Writes the last changes; with `--cleanup` removes all routes.
        ///
        /// Not after a failure: the service manager starts the command again, and the routes
        /// that stay are right until then.
        pub(crate) fn stop(&self, ended: &Result<(), Failure>) -> Result<(), Failure> {
            let stopped = match ended {
                Ok(()) => self.0.shutdown(STOP_TIMEOUT),
                Err(_) => self.0.abandon(STOP_TIMEOUT),
            };
            stopped.map_err(|error| Failure::RunTime(format!("kernel routes: {error}")))
        }
    }

    fn config(options: &Options) -> KernelConfig {
        let mapped = options.install_routes.iter().map(|it| (it.vni, it.table));
        let mut metrics = Vec::new();
        let mut devices = BTreeMap::new();
        for mapping in &options.install_routes {
            let device = mapping.device.clone().filter(|it| *it != options.tun);
            devices.extend(device.map(|it| (mapping.vni, it)));
            metrics.extend(mapping.metric.map(|it| (mapping.vni, it)));
        }
        let defaults = KernelConfig::default();
        let ids = options.nexthop_ids.map(|(first, last)| first..last + 1);
        KernelConfig {
            vni_tables: mapped.collect::<BTreeMap<_, _>>(),
            device: options.tun.clone(),
            vni_devices: devices,
            encap_source: options.encap_source,
            ipv4_only: options.ipv4_only,
            protocol: options.rt_proto,
            metric: options.metric,
            vni_metrics: metrics.into_iter().collect(),
            nexthop_objects: match options.kernel_form {
                KernelForm::Nexthop => NexthopMode::Auto,
                KernelForm::Inline => NexthopMode::Never,
            },
            track_nexthops: options.track_nexthops,
            excluded_types: options.excluded_types.clone(),
            cleanup_on_exit: options.cleanup,
            nexthop_ids: ids.unwrap_or(defaults.nexthop_ids),
            ..KernelConfig::default()
        }
    }
}

#[cfg(not(all(feature = "netlink", target_os = "linux")))]
mod imp {
    use std::sync::Arc;

    use rustbond::inspect::Inspect;
    use rustbond::{Builder, Heartbeat, Life, MetalBondClient, NoOpHandler};

    use crate::cli::failure::Failure;
    use crate::cli::options::Client as Options;

    /// Never started: this binary cannot install routes, and `--install-routes` was refused.
    #[derive(Clone)]
    pub(crate) struct Kernel;

    impl Kernel {
        pub(crate) fn start(_: &Options) -> Result<Option<Self>, Failure> {
            Ok(None)
        }

        pub(crate) fn client(&self, builder: Builder) -> rustbond::Result<MetalBondClient> {
            builder.handler(NoOpHandler)
        }

        pub(crate) fn inspector(&self, client: &MetalBondClient) -> Arc<dyn Inspect> {
            client.inspector()
        }

        pub(crate) fn heartbeat(&self) -> Heartbeat {
            Heartbeat::default()
        }

        pub(crate) fn reconfigure(&self, _: &Options, _: &MetalBondClient) -> Result<(), Failure> {
            Ok(())
        }

        pub(crate) fn release_unsubscribed(
            &self,
            _: &Options,
            _: &MetalBondClient,
        ) -> Result<(), Failure> {
            Ok(())
        }

        pub(crate) fn life(&self) -> Life {
            Life::default()
        }

        pub(crate) fn stop(&self, _: &Result<(), Failure>) -> Result<(), Failure> {
            Ok(())
        }
    }
}
