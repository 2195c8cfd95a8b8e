//! `/metrics`, in the text format of Prometheus, version 0.0.4.
//!
//! The text is made family by family while it is sent: with ten thousand peers it is never whole
//! in memory.

mod families;
mod process;
#[cfg(test)]
mod tests;

use std::fmt::{Display, Write};

use super::response::{Media, Response, Source};
use crate::core::status::sort_by_name;
use crate::error::Result;
use crate::inspect::{Inspect, PeerStatus, VniStatus};

/// Peers or VNIs that a step writes.
const ITEMS_PER_STEP: usize = 64;

/// The type of a family of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gauge,
    /// The name ends in `_total`.
    Counter,
}

/// The series of one name, and how to make them from a `T`.
struct Family<T> {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: fn(&mut Samples<'_>, &T),
}

/// The samples of one family for one peer, VNI or process.
struct Samples<'a> {
    to: &'a mut String,
    name: &'a str,
    /// The labels of all samples: `name="value"`, separated by commas.
    labels: &'a str,
}

impl<T> Family<T> {
    const fn gauge(
        name: &'static str,
        help: &'static str,
        samples: fn(&mut Samples<'_>, &T),
    ) -> Self {
        Self {
            name,
            kind: Kind::Gauge,
            help,
            samples,
        }
    }

    const fn counter(
        name: &'static str,
        help: &'static str,
        samples: fn(&mut Samples<'_>, &T),
    ) -> Self {
        Self {
            name,
            kind: Kind::Counter,
            help,
            samples,
        }
    }

    fn write_head(&self, to: &mut String) {
        let kind = match self.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let Self { name, help, .. } = self;
        append(
            to,
            format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"),
        );
    }

    /// Writes a family that has one item.
    fn write_whole(&self, to: &mut String, item: &T) {
        let mut samples = String::new();
        (self.samples)(
            &mut Samples {
                to: &mut samples,
                name: self.name,
                labels: "",
            },
            item,
        );
        if !samples.is_empty() {
            self.write_head(to);
            to.push_str(&samples);
        }
    }
}

impl Samples<'_> {
    fn put(&mut self, value: impl Display) {
        self.put_with(&[], value);
    }

    fn put_if(&mut self, value: Option<impl Display>) {
        if let Some(value) = value {
            self.put(value);
        }
    }

    fn put_with(&mut self, more: &[(&str, &str)], value: impl Display) {
        self.to.push_str(self.name);
        let mut labels = self.labels.to_owned();
        for (name, text) in more {
            push_label(&mut labels, name, text);
        }
        if !labels.is_empty() {
            append(self.to, format_args!("{{{labels}}}"));
        }
        append(self.to, format_args!(" {value}\n"));
    }
}

fn append(to: &mut String, text: std::fmt::Arguments<'_>) {
    to.write_fmt(text)
        .expect("writing to a String does not fail");
}

/// Appends `name="value"`, with the value escaped.
fn push_label(to: &mut String, name: &str, value: &str) {
    let comma = if to.is_empty() { "" } else { "," };
    append(to, format_args!("{comma}{name}=\""));
    for letter in value.chars() {
        match letter {
            '\\' => to.push_str("\\\\"),
            '"' => to.push_str("\\\""),
            '\n' => to.push_str("\\n"),
            other => to.push(other),
        }
    }
    to.push('"');
}

/// Families with many items, one family after the other.
struct Series<T: 'static> {
    families: &'static [Family<T>],
    items: Vec<(String, T)>,
    /// The current family, and its next item.
    at: (usize, usize),
}

impl<T> Series<T> {
    /// `label` returns the labels that identify an item.
    fn new(families: &'static [Family<T>], items: Vec<T>, label: fn(&T) -> String) -> Self {
        let items = items.into_iter().map(|it| (label(&it), it)).collect();
        Self {
            families,
            items,
            at: (0, 0),
        }
    }

    /// Appends some items. Returns whether there is more to come.
    fn step(&mut self, to: &mut String) -> bool {
        let Some(family) = self.families.get(self.at.0) else {
            return false;
        };
        if self.items.is_empty() {
            return false;
        }
        if self.at.1 == 0 {
            family.write_head(to);
        }
        let rest = &self.items[self.at.1..];
        for (labels, item) in rest.iter().take(ITEMS_PER_STEP) {
            let name = family.name;
            (family.samples)(&mut Samples { to, name, labels }, item);
        }
        self.at = if rest.len() > ITEMS_PER_STEP {
            (self.at.0, self.at.1 + ITEMS_PER_STEP)
        } else {
            (self.at.0 + 1, 0)
        };
        true
    }
}

/// Makes the text from its beginning to its end.
struct Text {
    head: String,
    peers: Series<PeerStatus>,
    vnis: Series<VniStatus>,
}

impl Text {
    fn new(inspect: &dyn Inspect) -> Result<Self> {
        let (mut peers, vnis) = (inspect.peers()?, inspect.vnis()?);
        let whole = families::Whole {
            status: inspect.status(),
            process: process::Process::read(),
            states: families::count_states(&peers),
            transports: families::count_transports(&peers),
        };
        let mut head = String::new();
        for family in families::WHOLE {
            family.write_whole(&mut head, &whole);
        }
        // Two series with the same labels make the whole text invalid.
        sort_by_name(&mut peers);
        peers.dedup_by(|later, earlier| later.name == earlier.name);
        Ok(Self {
            head,
            peers: Series::new(families::PEER, peers, |it| label("peer", &it.name)),
            vnis: Series::new(families::VNI, vnis, |it| label("vni", &it.vni.to_string())),
        })
    }
}

fn label(name: &str, value: &str) -> String {
    let mut label = String::new();
    push_label(&mut label, name, value);
    label
}

impl Source for Text {
    fn step(&mut self, to: &mut Vec<u8>) -> bool {
        let mut text = std::mem::take(&mut self.head);
        let has_more = !text.is_empty() || self.peers.step(&mut text) || self.vnis.step(&mut text);
        to.extend_from_slice(text.as_bytes());
        has_more
    }
}

/// Returns the response to `/metrics`.
pub(super) fn response(inspect: &dyn Inspect) -> Result<Response> {
    Ok(Response::stream(Media::Metrics, Text::new(inspect)?))
}
