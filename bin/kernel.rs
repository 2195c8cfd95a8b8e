//! Routes into the kernel, where that is built in.

pub(crate) use imp::{IS_AVAILABLE, Kernel};

#[cfg(all(feature = "netlink", target_os = "linux"))]
mod imp {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use rustbond::inspect::Inspect;
    use rustbond::kernel::{KernelConfig, KernelWriter};
    use rustbond::{Builder, Heartbeat, MetalBondClient};

    use crate::args::ClientArgs;
    use crate::failure::Failure;

    pub(crate) const IS_AVAILABLE: bool = true;

    /// How long the kernel may take to take, or to give back, what is left at the end.
    const STOP_TIMEOUT: Duration = Duration::from_secs(10);

    /// The kernel's tables.
    #[derive(Clone)]
    pub(crate) struct Kernel(KernelWriter);

    impl Kernel {
        /// Starts writing routes; `None` if none are to be.
        pub(crate) fn start(args: &ClientArgs) -> Result<Option<Self>, Failure> {
            if args.install_routes.is_empty() {
                return Ok(None);
            }
            let writer = KernelWriter::start(config(args))?;
            Ok(Some(Self(writer)))
        }

        /// Starts a client whose routes it installs.
        pub(crate) fn client(&self, builder: Builder) -> rustbond::Result<MetalBondClient> {
            self.0.install(builder)
        }

        /// A client whose routes it installs, to look at.
        pub(crate) fn inspector(&self, client: &MetalBondClient) -> Arc<dyn Inspect> {
            client.inspector_with(self.0.clone())
        }

        /// The loop of its thread.
        pub(crate) fn heartbeat(&self) -> Heartbeat {
            self.0.heartbeat()
        }

        /// Installs what other options ask for, of the routes of that client.
        pub(crate) fn reconfigure(
            &self,
            args: &ClientArgs,
            client: &MetalBondClient,
        ) -> Result<(), Failure> {
            let received = |vni| client.get_received_routes(vni);
            self.0.reconfigure(config(args), received)?;
            for mapping in &args.install_routes {
                if client.is_synced(mapping.vni) {
                    self.0.synced(mapping.vni);
                }
            }
            Ok(())
        }

        /// Writes what is left, or removes all with `--cleanup`.
        pub(crate) fn stop(&self) -> Result<(), Failure> {
            let stopped = self.0.shutdown(STOP_TIMEOUT);
            stopped.map_err(|error| Failure::RunTime(format!("kernel routes: {error}")))
        }
    }

    fn config(args: &ClientArgs) -> KernelConfig {
        let mapped = args.install_routes.iter().map(|it| (it.vni, it.table));
        KernelConfig {
            vni_tables: mapped.collect::<BTreeMap<_, _>>(),
            device: args.tun.clone(),
            ipv4_only: args.ipv4_only,
            protocol: args.rt_proto,
            metric: args.metric,
            excluded_types: args.exclude_route_type.clone(),
            cleanup_on_exit: args.cleanup,
            ..KernelConfig::default()
        }
    }
}

#[cfg(not(all(feature = "netlink", target_os = "linux")))]
mod imp {
    use std::sync::Arc;

    use rustbond::inspect::Inspect;
    use rustbond::{Builder, Heartbeat, MetalBondClient, NoOpHandler};

    use crate::args::ClientArgs;
    use crate::failure::Failure;

    pub(crate) const IS_AVAILABLE: bool = false;

    /// There is none: `--install-routes` was refused.
    #[derive(Clone)]
    pub(crate) struct Kernel;

    impl Kernel {
        pub(crate) fn start(_: &ClientArgs) -> Result<Option<Self>, Failure> {
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

        pub(crate) fn reconfigure(
            &self,
            _: &ClientArgs,
            _: &MetalBondClient,
        ) -> Result<(), Failure> {
            Ok(())
        }

        pub(crate) fn stop(&self) -> Result<(), Failure> {
            Ok(())
        }
    }
}
