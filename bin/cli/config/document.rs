//! The contents of a configuration file, checked key by key.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Problem;
use crate::cli::options::{self, FileKey, FileKeys, Role, Row, Value};

/// How similar a known key must be to be suggested, from 0 to 1.
const LIKENESS: f64 = 0.7;

/// The options that a file gives to each command.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) roles: BTreeMap<&'static str, FileKeys>,
}

impl Document {
    /// Parses a file.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it; if the syntax is wrong, errors of the syntax only.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let (document, errors) = DeTable::parse_recoverable(text);
        let mut problems: Vec<Problem> = errors
            .iter()
            .map(|error| Problem {
                line: error.span().map(|span| line_of(text, span.start)),
                text: error.message().into(),
            })
            .collect();
        // The first error of a line causes the others.
        problems.dedup_by_key(|problem| problem.line);
        let mut roles = BTreeMap::new();
        if problems.is_empty() {
            let mut reading = Reading {
                text,
                problems: Vec::new(),
            };
            for (name, value) in document.get_ref() {
                if let Some((role, keys)) = reading.role(name, value) {
                    roles.insert(role.name(), keys);
                }
            }
            problems = reading.problems;
        }
        problems.sort_unstable_by_key(|problem| problem.line);
        problems.dedup();
        if problems.is_empty() {
            Ok(Self { roles })
        } else {
            Err(problems)
        }
    }
}

/// Returns the number of the line in which bytes end, counted from 1.
pub(super) fn line_at(before: &[u8]) -> usize {
    before.iter().filter(|it| **it == b'\n').count() + 1
}

fn line_of(text: &str, at: usize) -> usize {
    line_at(&text.as_bytes()[..at.min(text.len())])
}

struct Reading<'a> {
    text: &'a str,
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

    /// Reads the table of a command.
    fn role(&mut self, name: &Name<'_>, value: &Spanned<DeValue<'_>>) -> Option<(Role, FileKeys)> {
        let at = name.span().start;
        let Some(role) = Role::of(name.get_ref()) else {
            let hint = hint_at_role(name.get_ref());
            self.refuse(at, format!("{}: unknown key; {hint}", shown(name)));
            return None;
        };
        let Some(table) = value.get_ref().as_table() else {
            let name = role.name();
            self.refuse(at, format!("{name}: expected a table, [{name}]"));
            return None;
        };
        let keys = table
            .iter()
            .filter_map(|(key, value)| self.key(role, key, value));
        Some((role, keys.collect()))
    }

    /// Reads an option.
    fn key(
        &mut self,
        role: Role,
        name: &Name<'_>,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<(&'static str, FileKey)> {
        let at = name.span().start;
        let Some(row) = options::find(role, name.get_ref()) else {
            let hint = hint_at_key(role, name.get_ref());
            self.refuse(at, format!("{}: unknown key; {hint}", shown(name)));
            return None;
        };
        let values = match (value.get_ref(), row.value) {
            (DeValue::Boolean(is_set), Value::Flag) => vec![is_set.to_string()],
            (_, Value::Flag) => {
                self.refuse(at, format!("{}: expected true or false", shown(name)));
                return None;
            }
            (DeValue::Array(items), Value::List(_)) => {
                items.iter().flat_map(|it| self.values(row, it)).collect()
            }
            (_, Value::One(_) | Value::List(_)) => self.values(row, value),
        };
        let line = line_of(self.text, at);
        Some((row.name, FileKey { line, values }))
    }

    /// Reads a value that is not an array; a list may be one text with commas.
    fn values(&mut self, row: &Row, value: &Spanned<DeValue<'_>>) -> Vec<String> {
        let at = value.span().start;
        let Some(text) = plain(value.get_ref()) else {
            self.refuse(at, format!("{}: {}", row.name, row.expected()));
            return Vec::new();
        };
        if let Err(mistake) = row.check_text(&text) {
            self.refuse(at, mistake.to_string());
        }
        row.split(&text).into_iter().map(str::to_owned).collect()
    }
}

/// Returns a hint for a name that is no command.
fn hint_at_role(name: &str) -> String {
    let has_option = |it: &Role| options::find(*it, name).is_some();
    let homes = Role::ALL.into_iter().filter(has_option);
    let homes: Vec<String> = homes.map(|it| format!("[{}]", it.name())).collect();
    if !homes.is_empty() {
        return format!("belongs into {}", homes.join(" or "));
    }
    let names = Role::ALL.map(Role::name);
    match nearest(name, names.into_iter()) {
        Some(near) => format!("did you mean [{near}]?"),
        None => format!("expected [{}]", names.join("] or [")),
    }
}

/// Returns a hint for a name that is no option of the command.
fn hint_at_key(role: Role, name: &str) -> String {
    let has_option = |it: &Role| options::find(*it, name).is_some();
    if let Some(other) = Role::ALL.into_iter().find(has_option) {
        return format!("belongs into [{}]", other.name());
    }
    let is_other_name = |it: &&Row| {
        it.alias == Some(name) || it.short.is_some_and(|short| name == short.to_string())
    };
    let by_other_name = options::rows(role).find(is_other_name).map(|it| it.name);
    let near = by_other_name.or_else(|| nearest(name, options::rows(role).map(|it| it.name)));
    match near {
        Some(near) => format!("did you mean {near}?"),
        None => format!("see metalbond {} --help", role.name()),
    }
}

/// Returns the name that is most similar to another, if any is similar.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |it: &&str| strsim::jaro(name, it);
    let rated = names.map(|it| (likeness(&it), it));
    let near = rated.filter(|(likeness, _)| *likeness >= LIKENESS);
    near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, it)| it)
}

/// Returns a value as the command line would have it; `None` for a value that it cannot have.
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
