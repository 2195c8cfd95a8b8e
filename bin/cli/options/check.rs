//! What is wrong between values that are right on their own.

use std::collections::BTreeSet;

use super::{Client, Common, Mistake, Options, Role, Row, Server};
use crate::cli::socket::Choice;

/// Whether this binary can install routes.
const HAS_KERNEL: bool = cfg!(all(feature = "netlink", target_os = "linux"));

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

impl Row {
    /// Names an option that is required and was not given.
    pub(super) fn missing(&self) -> Mistake {
        let problem = format!("is required; expected {}", self.expected);
        mistake(self.name, None, &problem)
    }

    /// Names a value that the option cannot have.
    pub(super) fn mistake(&self, value: &str) -> Mistake {
        let problem = format!("expected {}", self.expected);
        mistake(self.name, Some(value), &problem)
    }
}

impl Server {
    fn check(&self) -> Result<(), Mistake> {
        if self.config.queue_soft_limit > self.config.queue_hard_limit {
            let problem = "is above queue-hard-limit";
            return Err(mistake("queue-soft-limit", None, problem));
        }
        Ok(())
    }
}

impl Client {
    fn check(&self) -> Result<(), Mistake> {
        if let Some(server) = first_repeated(&self.servers) {
            return Err(mistake("server", Some(server), "given twice"));
        }
        let checked = self.config.check(&self.servers);
        checked.map_err(|error| mistake("server", None, &error.to_string()))?;
        let announced = self.announce.iter().map(|it| (it.vni, it.route));
        if let Some((vni, route)) = first_repeated(announced) {
            let problem = format!("VNI {vni} {route} is given twice");
            return Err(mistake("announce", None, &problem));
        }
        let mapped = self.install_routes.iter().map(|it| it.vni);
        if let Some(vni) = first_repeated(mapped) {
            let problem = format!("VNI {vni} is given twice");
            return Err(mistake("install-routes", None, &problem));
        }
        if !self.install_routes.is_empty() && !HAS_KERNEL {
            let problem = "this metalbond was built without kernel routes";
            return Err(mistake("install-routes", None, problem));
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
            (Some(address), _) => Err(mistake("http", Some(address), problem)),
            (None, Some(Choice::At(path))) => {
                Err(mistake("control", Some(&path.to_string_lossy()), problem))
            }
            (None, None | Some(Choice::Off)) => Ok(()),
        }
    }
}

fn mistake(option: &'static str, value: Option<&str>, problem: &str) -> Mistake {
    Mistake {
        option,
        value: value.map(str::to_owned),
        problem: problem.into(),
    }
}

fn first_repeated<T: Ord + Copy>(items: impl IntoIterator<Item = T>) -> Option<T> {
    let mut seen = BTreeSet::new();
    items.into_iter().find(|item| !seen.insert(*item))
}

#[cfg(test)]
mod tests {
    use rustbond::{ClientConfig, ServerConfig};

    use super::super::{Value, rows};
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
