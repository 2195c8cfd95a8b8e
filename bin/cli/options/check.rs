//! Checks between values that are right on their own.

use std::collections::BTreeSet;

use rustbond::Vni;

use super::{Client, Common, KernelForm, Mistake, Options, Role, Server, expectation};
use crate::cli::socket::Choice;

/// Whether this binary can install routes.
const HAS_KERNEL: bool = cfg!(all(feature = "netlink", target_os = "linux"));

/// The least `queue-hard-limit` that the library takes.
const LEAST_HARD_LIMIT: usize = 8 << 20;

impl Options {
    /// Refuses the first option that does not go with the others, or with this binary.
    pub(super) fn check(&self) -> Result<(), Mistake> {
        match self.role {
            Role::Server => self.server.check()?,
            Role::Client => self.client.check()?,
        }
        self.common.check()
    }
}

impl Options {
    /// Warns of options that are right on their own and are more likely a mistake together.
    pub(super) fn advise(&mut self) {
        if self.role != Role::Client {
            return;
        }
        if self.client.servers.is_empty() {
            let problem = "none is given; nothing is received or announced";
            self.warn("server", None, problem);
        }
        let subscribed = self.client.vnis();
        let mapped = self.client.install_routes.iter().map(|it| it.vni);
        let idle: BTreeSet<Vni> = mapped.filter(|it| !subscribed.contains(it)).collect();
        if !idle.is_empty() {
            let vnis: Vec<String> = idle.iter().map(ToString::to_string).collect();
            let problem = format!(
                "nothing is installed for what --subscribe does not have: VNI {}",
                vnis.join(", ")
            );
            self.warn("install-routes", None, &problem);
        }
    }
}

impl Server {
    fn check(&self) -> Result<(), Mistake> {
        if self.listen.is_empty() {
            let expected = expectation("listen").unwrap_or_default();
            let problem = format!("expected {expected}");
            return Err(Mistake::new("listen", None, &problem));
        }
        let listen: Vec<String> = self.listen.iter().map(ToString::to_string).collect();
        if let Some(endpoint) = first_repeated(&listen) {
            return Err(Mistake::new("listen", Some(endpoint), "given twice"));
        }
        if self.config.queue_soft_limit > self.config.queue_hard_limit {
            let problem = "is above queue-hard-limit";
            return Err(Mistake::new("queue-soft-limit", None, problem));
        }
        if self.config.queue_hard_limit < LEAST_HARD_LIMIT {
            let problem = "is below 8M, which one burst of changes can need";
            return Err(Mistake::new("queue-hard-limit", None, problem));
        }
        Ok(())
    }
}

impl Client {
    fn check(&self) -> Result<(), Mistake> {
        if let Some(server) = first_repeated(&self.servers) {
            return Err(Mistake::new("server", Some(server), "given twice"));
        }
        let checked = self.config.check(&self.servers);
        checked.map_err(|error| Mistake::new("server", None, &error.to_string()))?;
        let vnis = self.vnis().len();
        if vnis > self.config.max_vnis {
            let problem = format!("is below the {vnis} VNIs of --subscribe");
            return Err(Mistake::new("max-vnis", None, &problem));
        }
        let announced = self.announce.iter().map(|it| (it.vni, it.route));
        if let Some((vni, route)) = first_repeated(announced) {
            let problem = format!("VNI {vni} {route} is given twice");
            return Err(Mistake::new("announce", None, &problem));
        }
        let mapped = self.install_routes.iter().map(|it| it.vni);
        if let Some(vni) = first_repeated(mapped) {
            let problem = format!("VNI {vni} is given twice");
            return Err(Mistake::new("install-routes", None, &problem));
        }
        let has_device = self.install_routes.iter().any(|it| it.device.is_some());
        if has_device && self.kernel_form == KernelForm::Inline {
            let problem = "a device of a single VNI needs nexthop objects";
            return Err(Mistake::new("kernel-form", Some("inline"), problem));
        }
        if !self.install_routes.is_empty() && !HAS_KERNEL {
            let problem = "this metalbond was built without kernel routes";
            return Err(Mistake::new("install-routes", None, problem));
        }
        Ok(())
    }
}

impl Common {
    fn check(&self) -> Result<(), Mistake> {
        if cfg!(feature = "http") {
            return Ok(());
        }
        let problem = "this metalbond was built without HTTP";
        match (&self.http, &self.control) {
            (Some(address), _) => Err(Mistake::new("http", Some(address), problem)),
            (None, Some(Choice::At(path))) => Err(Mistake::new(
                "control",
                Some(&path.to_string_lossy()),
                problem,
            )),
            (None, None | Some(Choice::Off)) => Ok(()),
        }
    }
}

fn first_repeated<T: Ord + Copy>(items: impl IntoIterator<Item = T>) -> Option<T> {
    let mut seen = BTreeSet::new();
    items.into_iter().find(|item| !seen.insert(*item))
}

#[cfg(test)]
mod tests {
    use rustbond::{ClientConfig, ServerConfig};

    use super::super::{Row, Value, rows};
    use super::*;

    /// Returns the default that a row says there is, in its own column or in the help.
    fn default(row: &Row) -> Option<&'static str> {
        let text = row.help.split_once("[default: ");
        let text = text.and_then(|(_, rest)| rest.strip_suffix(']'));
        row.default.or(text)
    }

    #[test]
    fn defaults_of_the_table_are_those_of_the_library() {
        for role in Role::ALL {
            let mut options = Options::default();
            for row in rows(role).filter(|it| it.value != Value::Flag) {
                // Not a value: "one for each core", "the kernel's".
                let value = default(row).filter(|it| !it.contains(' '));
                if let Some(value) = value {
                    (row.fill)(&mut options, value).unwrap();
                }
            }
            let (server, client) = (ServerConfig::default(), ClientConfig::default());
            assert_eq!(
                format!("{:?}", options.server.config),
                format!("{server:?}")
            );
            assert_eq!(
                format!("{:?}", options.client.config),
                format!("{client:?}")
            );
        }
    }
}
