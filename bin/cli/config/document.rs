//! What stands in a configuration file, checked key by key.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, Command as Definition};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{OPTION, Problem};
use crate::cli::args::expectation;
use crate::cli::refusal::{self, Given};

/// How alike a key must be to one that is known to be taken for that, from 0 to 1.
const LIKENESS: f64 = 0.7;

/// The options that a file gives to each role.
#[derive(Debug)]
pub(super) struct Document {
    roles: BTreeMap<String, Vec<Key>>,
}

/// An option of a file.
#[derive(Debug)]
pub(super) struct Key {
    /// The long name of the option, and how its definition calls it.
    pub(super) name: String,
    pub(super) id: String,
    pub(super) line: usize,
    /// What would give it on the command line.
    pub(super) args: Vec<String>,
}

impl Document {
    /// Parses a file whose keys are the options of `definition`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it; errors of the syntax alone, if there are such.
    pub(super) fn parse(text: &str, definition: &Definition) -> Result<Self, Vec<Problem>> {
        let (document, errors) = DeTable::parse_recoverable(text);
        let mut problems: Vec<Problem> = errors
            .iter()
            .map(|error| Problem {
                line: error.span().map(|span| line_of(text, span.start)),
                text: error.message().into(),
            })
            .collect();
        // What follows on a line follows from the first.
        problems.dedup_by_key(|problem| problem.line);
        let mut roles = BTreeMap::new();
        if problems.is_empty() {
            let mut reading = Reading {
                text,
                definition,
                problems: Vec::new(),
            };
            for (role, value) in document.get_ref() {
                if let Some(keys) = reading.role(role, value) {
                    roles.insert(role.get_ref().to_string(), keys);
                }
            }
            problems = reading.problems;
        }
        problems.sort_by_key(|problem| problem.line);
        problems.dedup();
        if problems.is_empty() {
            Ok(Self { roles })
        } else {
            Err(problems)
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.roles.is_empty()
    }

    pub(super) fn has(&self, role: &str) -> bool {
        self.roles.contains_key(role)
    }

    /// The options for a role.
    pub(super) fn keys(&self, role: &str) -> &[Key] {
        self.roles.get(role).map_or(&[], Vec::as_slice)
    }
}

/// The number of the line that bytes end in, from 1 on.
pub(super) fn line_at(before: &[u8]) -> usize {
    before.iter().filter(|it| **it == b'\n').count() + 1
}

fn line_of(text: &str, at: usize) -> usize {
    line_at(&text.as_bytes()[..at.min(text.len())])
}

struct Reading<'a> {
    text: &'a str,
    definition: &'a Definition,
    problems: Vec<Problem>,
}

type Name<'a> = Spanned<toml::de::DeString<'a>>;

impl Reading<'_> {
    fn refuse(&mut self, at: usize, text: String) {
        self.problems.push(Problem {
            line: Some(line_of(self.text, at)),
            text,
        });
    }

    fn role(&mut self, name: &Name<'_>, value: &Spanned<DeValue<'_>>) -> Option<Vec<Key>> {
        let at = name.span().start;
        let definition = self.definition;
        let roles = definition.get_subcommands().filter(|it| takes_file(it));
        let roles: Vec<&Definition> = roles.collect();
        let Some(role) = roles.iter().find(|it| it.get_name() == name.get_ref()) else {
            let homes = roles
                .iter()
                .filter(|it| option(it, name.get_ref()).is_some());
            let homes: Vec<String> = homes.map(|it| format!("[{}]", it.get_name())).collect();
            let hint = if homes.is_empty() {
                let names: Vec<&str> = roles.iter().map(|it| it.get_name()).collect();
                match nearest(name.get_ref(), names.iter().copied()) {
                    Some(near) => format!("did you mean [{near}]?"),
                    None => format!("expected [{}]", names.join("] or [")),
                }
            } else {
                format!("belongs into {}", homes.join(" or "))
            };
            self.refuse(at, format!("{}: unknown key; {hint}", shown(name)));
            return None;
        };
        let Some(table) = value.get_ref().as_table() else {
            let name = role.get_name();
            self.refuse(at, format!("{name}: expected a table, [{name}]"));
            return None;
        };
        let keys = table
            .iter()
            .filter_map(|(key, value)| self.key(role, key, value));
        Some(keys.collect())
    }

    fn key(
        &mut self,
        role: &Definition,
        name: &Name<'_>,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<Key> {
        let at = name.span().start;
        let Some(option) = option(role, name.get_ref()) else {
            let hint = self.hint(role, name.get_ref());
            self.refuse(at, format!("{}: unknown key; {hint}", shown(name)));
            return None;
        };
        let mut values = Vec::new();
        let is_flag = !option.get_action().takes_values();
        match value.get_ref() {
            DeValue::Boolean(true) if is_flag => {
                return Some(self.made(option, at, vec![format!("--{}", name.get_ref())]));
            }
            DeValue::Boolean(false) if is_flag => return Some(self.made(option, at, Vec::new())),
            _ if is_flag => {
                self.refuse(at, format!("{}: expected true or false", shown(name)));
                return None;
            }
            DeValue::Array(them) if matches!(option.get_action(), ArgAction::Append) => {
                values.extend(them.iter());
            }
            _ => values.push(value),
        }
        let mut args = Vec::new();
        for value in &values {
            match plain(value.get_ref()) {
                Some(text) => {
                    args.push((value.span().start, format!("--{}={text}", name.get_ref())))
                }
                None => {
                    let expected = expectation(&format!("--{}", name.get_ref()));
                    let name = shown(name);
                    self.refuse(value.span().start, format!("{name}: expected {expected}"));
                }
            }
        }
        self.examine(role, &args);
        let args = args.into_iter().map(|(_, arg)| arg);
        Some(self.made(option, at, args.collect()))
    }

    fn made(&self, option: &Arg, at: usize, args: Vec<String>) -> Key {
        Key {
            name: option.get_long().unwrap_or_default().into(),
            id: option.get_id().to_string(),
            line: line_of(self.text, at),
            args,
        }
    }

    /// Finds the values that are not allowed, each given with its place.
    fn examine(&mut self, role: &Definition, args: &[(usize, String)]) {
        let parse = |args: &[(usize, String)]| {
            let line = ["metalbond", role.get_name()].into_iter();
            let line = line.chain(args.iter().map(|(_, arg)| arg.as_str()));
            self.definition.clone().try_get_matches_from(line)
        };
        // A file may have thousands; a wrong one is rare.
        if parse(args).is_ok() {
            return;
        }
        let wrong = args.iter().filter_map(|arg| {
            let error = parse(std::slice::from_ref(arg)).err()?;
            let text = refusal::describe(&error, &Given::new(&[]));
            let text = text.strip_prefix("--").unwrap_or(&text);
            Some((arg.0, text.to_owned()))
        });
        for (at, text) in wrong.collect::<Vec<_>>() {
            self.refuse(at, text);
        }
    }

    fn hint(&self, role: &Definition, name: &str) -> String {
        let roles = self.definition.get_subcommands();
        let mut others = roles.filter(|it| takes_file(it) && option(it, name).is_some());
        let options = || role.get_arguments().filter(|it| is_key(it));
        let by_alias = options().find(|it| {
            let aliases = it.get_all_aliases().unwrap_or_default();
            aliases.contains(&name) || it.get_short().is_some_and(|it| name == it.to_string())
        });
        let names = options().filter_map(Arg::get_long);
        let near = by_alias
            .and_then(Arg::get_long)
            .or_else(|| nearest(name, names));
        match (near, others.next()) {
            (_, Some(other)) => format!("belongs into [{}]", other.get_name()),
            (Some(near), None) => format!("did you mean {near}?"),
            (None, None) => format!("see metalbond {} --help", role.get_name()),
        }
    }
}

/// Whether a command takes a file.
pub(super) fn takes_file(role: &Definition) -> bool {
    role.get_arguments().any(|it| it.get_id() == OPTION)
}

/// Whether an option may stand in a file.
fn is_key(option: &Arg) -> bool {
    let is_help = matches!(
        option.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    );
    !is_help && option.get_id() != OPTION
}

/// The option of a long name.
fn option<'a>(role: &'a Definition, name: &str) -> Option<&'a Arg> {
    let mut options = role.get_arguments().filter(|it| is_key(it));
    options.find(|it| it.get_long() == Some(name))
}

/// The name that is most like another, if any is.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |it: &&str| strsim::jaro(name, it);
    let rated = names.map(|it| (likeness(&it), it));
    let near = rated.filter(|(likeness, _)| *likeness >= LIKENESS);
    near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, it)| it)
}

/// A value as it would stand on the command line; `None` for what cannot.
fn plain(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().into()),
        DeValue::Integer(number) => {
            let number = u64::from_str_radix(number.as_str(), number.radix());
            number.ok().map(|it| it.to_string())
        }
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    }
}

fn shown(name: &Name<'_>) -> String {
    name.get_ref().escape_debug().to_string()
}
