//! All options of a command as they were given, to find out which have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use clap::{ArgMatches, Command as Definition, CommandFactory};

use super::OPTION;
use crate::cli::args::Cli;

/// The values of all options, by their long names; defaults among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Values(BTreeMap<String, Vec<OsString>>);

impl Values {
    /// What a command line gave to the command it names.
    pub(crate) fn of(matches: &ArgMatches) -> Self {
        let definition = Cli::command();
        let subcommand = matches.subcommand();
        let found = subcommand.and_then(|(name, given)| {
            let subcommand = definition.find_subcommand(name)?;
            Some(Self::from(subcommand, given))
        });
        found.unwrap_or_default()
    }

    fn from(definition: &Definition, given: &ArgMatches) -> Self {
        let mut values = BTreeMap::new();
        for option in definition.get_arguments() {
            let id = option.get_id().as_str();
            // Help and version are no values.
            let Ok(Some(raw)) = given.try_get_raw(id) else {
                continue;
            };
            if let Some(name) = option.get_long()
                && name != OPTION
            {
                values.insert(name.into(), raw.map(OsString::from).collect());
            }
        }
        Self(values)
    }

    /// Has the value of an option that it has in `other`.
    pub(crate) fn take_over(&mut self, name: &str, other: &Self) {
        match other.0.get(name) {
            Some(values) => drop(self.0.insert(name.into(), values.clone())),
            None => drop(self.0.remove(name)),
        }
    }

    /// The options whose values are others than before.
    pub(crate) fn changed_since(&self, before: &Self) -> BTreeSet<String> {
        let names = self.0.keys().chain(before.0.keys());
        let changed = names.filter(|it| self.0.get(*it) != before.0.get(*it));
        changed.cloned().collect()
    }
}
