//! The options of `metalbond server` and `metalbond client`.
//!
//! [`table`] has a row for each option. Everything that knows options is made from it: the
//! definition of the command line and with it manual pages and completions ([`definition`]), the
//! configuration file ([`super::config`]), the template ([`super::manual`]) and the reload
//! ([`super::reload`]).

mod check;
mod definition;
mod parse;
mod row;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::ArgMatches;
use clap::parser::ValueSource;
use log::LevelFilter;
use rustbond::{ClientConfig, Endpoint, NextHopType, Route, ServerConfig, Vni};

use self::definition::FILE;
pub(crate) use self::definition::{as_go_takes_it, command};
pub(crate) use self::row::{Change, Mistake, Role, Row, Value};

use super::announcement::Announcement;
use super::logging::Format;
use super::socket::Choice;

/// The options of a server or client; the part of the other command keeps its defaults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) role: Role,
    /// The configuration file, of `--config`.
    pub(crate) file: Option<PathBuf>,
    pub(crate) common: Common,
    pub(crate) server: Server,
    pub(crate) client: Client,
    /// Values that were taken, and are more likely a mistake.
    pub(crate) warnings: Vec<Mistake>,
    /// The values as texts, to find out later which have changed.
    given: Given,
}

/// Options of both commands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Common {
    pub(crate) http: Option<String>,
    pub(crate) http_hosts: Vec<String>,
    pub(crate) control: Option<Choice>,
    verbose: bool,
    log_level: Option<LevelFilter>,
    pub(crate) log_format: Format,
}

/// Options of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    pub(crate) listen: Vec<Endpoint>,
    /// The number of the group that Unix sockets belong to.
    pub(crate) unix_group: Option<u32>,
    /// Seconds.
    pub(crate) drain: u32,
    pub(crate) config: ServerConfig,
}

/// Options of a client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    pub(crate) servers: Vec<String>,
    pub(crate) subscribe: Vec<Vni>,
    pub(crate) announce: Vec<Announcement>,
    pub(crate) install_routes: Vec<Mapping>,
    pub(crate) kernel_form: KernelForm,
    pub(crate) track_nexthops: bool,
    pub(crate) tun: String,
    pub(crate) encap_source: Option<Ipv6Addr>,
    pub(crate) ipv4_only: bool,
    pub(crate) rt_proto: u8,
    /// The first and the last.
    pub(crate) nexthop_ids: Option<(u32, u32)>,
    pub(crate) metric: Option<u32>,
    pub(crate) excluded_types: Vec<NextHopType>,
    pub(crate) cleanup: bool,
    pub(crate) config: ClientConfig,
}

/// A VNI and the kernel table of its routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) vni: Vni,
    pub(crate) table: u32,
    /// Of its routes, if it is another one than that of the rest.
    pub(crate) metric: Option<u32>,
    /// Of its routes, if it is another one than that of the rest.
    pub(crate) device: Option<String>,
}

/// How installed routes name their next hops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum KernelForm {
    /// By nexthop objects, where the kernel has them.
    #[default]
    Nexthop,
    /// Each route its own.
    Inline,
}

/// The warning of an option that a command line gives more than once; Go MetalBond takes the last.
const TWICE: &str = "given twice; the last one counts";

/// The values of the options, by name; defaults among them, an option without a value not.
type Given = BTreeMap<&'static str, Vec<String>>;

/// The options that a configuration file gives to a command, by name.
pub(crate) type FileKeys = BTreeMap<&'static str, FileKey>;

/// An option in a configuration file.
#[derive(Debug)]
pub(crate) struct FileKey {
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) values: Vec<String>,
}

/// Returns the options of a command, in the order of the help.
pub(crate) fn rows(role: Role) -> impl Iterator<Item = &'static Row> {
    table::ROWS
        .iter()
        .filter(move |it| it.roles.contains(&role))
}

/// Returns the option of a command that has this long name, or had it in an earlier version.
pub(crate) fn find(role: Role, name: &str) -> Option<&'static Row> {
    rows(role).find(|it| it.name == name || it.former == Some(name))
}

/// Returns what the value of an option must be, whichever command has it.
pub(crate) fn expectation(name: &str) -> Option<&'static str> {
    let row = table::ROWS.iter().find(|it| it.name == name);
    row.map(|it| it.expected)
}

impl Options {
    /// Returns options into which values can be parsed to see whether they are right.
    fn blank() -> Self {
        // The default of a server counts the cores; that is too slow for each of many values.
        static BLANK: LazyLock<Options> = LazyLock::new(Options::default);
        BLANK.clone()
    }

    /// Returns the file that a command line names.
    pub(crate) fn file(matches: &ArgMatches) -> Option<&PathBuf> {
        matches.get_one(FILE)
    }

    /// Returns whether a command line gives an option.
    pub(crate) fn is_given(matches: &ArgMatches, name: &str) -> bool {
        matches.value_source(name) == Some(ValueSource::CommandLine)
    }

    /// Takes the value of each option from the command line, else from the file, else its
    /// default.
    ///
    /// # Errors
    ///
    /// The first option that is missing, or does not go with another.
    pub(crate) fn read(role: Role, matches: &ArgMatches, file: &FileKeys) -> Result<Self, Mistake> {
        let mut options = Self::blank();
        options.role = role;
        options.file = Self::file(matches).cloned();
        for row in rows(role) {
            let key = file
                .get(row.name)
                .filter(|_| !Self::is_given(matches, row.name));
            let mut values = match key {
                Some(key) => key.values.clone(),
                None => definition::values(matches, row),
            };
            if !matches!(row.value, Value::List(_)) && values.len() > 1 {
                options.warn(row.name, None, TWICE);
                values.drain(..values.len() - 1);
            }
            for value in &values {
                if row.is_skipped(value) {
                    options.warn(row.name, None, "an empty entry is skipped");
                    continue;
                }
                (row.fill)(&mut options, value).map_err(|_| row.mistake(value))?;
            }
            if !values.is_empty() {
                options.given.insert(row.name, values);
            }
        }
        if role == Role::Client && Self::is_given(matches, "install-routes") {
            options.keep_last_mappings();
        }
        options.check()?;
        options.advise();
        Ok(options)
    }

    /// Leaves the last table of each VNI to which the command line gives more than one.
    fn keep_last_mappings(&mut self) {
        let mappings = std::mem::take(&mut self.client.install_routes);
        for (at, mapping) in mappings.iter().enumerate() {
            if mappings[at + 1..].iter().any(|it| it.vni == mapping.vni) {
                let problem = format!("VNI {} is {TWICE}", mapping.vni);
                self.warn("install-routes", None, &problem);
            } else {
                self.client.install_routes.push(mapping.clone());
            }
        }
    }

    /// Adds a warning about an option.
    fn warn(&mut self, option: &'static str, value: Option<&str>, problem: &str) {
        self.warnings.push(Mistake::new(option, value, problem));
    }

    /// Returns from which level on to log: that of `--log-level`, else of `--verbose`.
    pub(crate) fn log_level(&self) -> LevelFilter {
        let default = match self.common.verbose {
            true => LevelFilter::Debug,
            false => LevelFilter::Info,
        };
        self.common.log_level.unwrap_or(default)
    }

    /// Logs the warnings of reading the options.
    pub(crate) fn log_warnings(&self) {
        for warning in &self.warnings {
            log::warn!("option {warning}");
        }
    }

    /// Returns the options whose values are not those of `before`.
    pub(crate) fn changed_since(&self, before: &Self) -> Vec<&'static Row> {
        let is_changed = |it: &&Row| self.given.get(it.name) != before.given.get(it.name);
        rows(self.role).filter(is_changed).collect()
    }

    /// Keeps `before`'s value of an option as the one to compare with next time.
    pub(crate) fn keep_given(&mut self, row: &Row, before: &Self) {
        match before.given.get(row.name) {
            Some(values) => drop(self.given.insert(row.name, values.clone())),
            None => drop(self.given.remove(row.name)),
        }
    }
}

impl Client {
    /// Returns the VNIs to subscribe to.
    pub(crate) fn vnis(&self) -> BTreeSet<Vni> {
        self.subscribe.iter().copied().collect()
    }

    /// Returns the routes to announce.
    pub(crate) fn routes(&self) -> BTreeSet<(Vni, Route)> {
        let announced = self.announce.iter();
        announced.map(|it| (it.vni, it.route)).collect()
    }
}
