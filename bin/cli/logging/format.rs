//! The format of a line of the log, for people or for machines.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use env_logger::fmt::Formatter;
use log::Record;
use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use serde_json::{Map, Value as Json};

/// The format of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// Time, level, message.
    #[default]
    Text,
    /// A JSON object: `ts`, `level`, `target`, `msg`, and fields as `peer` and `vni`.
    Json,
}

static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Changes the format of all later lines.
pub(super) fn set(format: Format) {
    IS_JSON.store(format == Format::Json, Ordering::Relaxed);
}

/// Writes a record as a line.
pub(super) fn write(buffer: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let time = buffer.timestamp_millis();
    if IS_JSON.load(Ordering::Relaxed) {
        writeln!(buffer, "{}", json(&time.to_string(), record))
    } else {
        writeln!(buffer, "{}", text(&time.to_string(), record))
    }
}

/// Formats a record for people: without fields, which the message contains.
fn text(time: &str, record: &Record<'_>) -> String {
    let mut line = format!("{time} {:<5} ", record.level());
    for part in record.args().to_string().chars() {
        if part.is_control() {
            line.extend(part.escape_debug());
        } else {
            line.push(part);
        }
    }
    line
}

fn json(time: &str, record: &Record<'_>) -> String {
    let mut fields = Fields(Map::new());
    // An error comes from a single field; the fields before it are kept.
    if record.key_values().visit(&mut fields).is_err() {
        fields.set("incomplete", true.into());
    }
    let mut line = String::from("{");
    let fixed = [
        ("ts", time.into()),
        ("level", record.level().as_str().to_lowercase().into()),
        ("target", record.target().into()),
        ("msg", record.args().to_string().into()),
    ];
    let fields = fields.0.into_iter();
    let all = fixed.map(|(key, value): (_, Json)| (key.to_owned(), value));
    for (count, (key, value)) in all.into_iter().chain(fields).enumerate() {
        let comma = if count == 0 { "" } else { "," };
        line += &format!("{comma}{}:{value}", Json::from(key));
    }
    line.push('}');
    line
}

/// The fields of a record.
struct Fields(Map<String, Json>);

impl Fields {
    fn set(&mut self, key: &str, value: Json) {
        self.0.insert(key.into(), value);
    }
}

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let mut found = Found(Json::Null);
        value.visit(&mut found)?;
        self.set(key.as_str(), found.0);
        Ok(())
    }
}

/// The value of a field.
struct Found(Json);

impl VisitValue<'_> for Found {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        self.0 = value.to_string().into();
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_end_a_line() {
        let pairs: &[(&str, u32)] = &[("vni", 7)];
        let record = |line: &dyn Fn(&Record<'_>) -> String| {
            line(
                &Record::builder()
                    .args(format_args!("a \"b\"\nc\u{1b}[0m"))
                    .level(log::Level::Warn)
                    .target("here")
                    .key_values(&pairs)
                    .build(),
            )
        };
        assert_eq!(record(&|it| text("T", it)), "T WARN  a \"b\"\\nc\\u{1b}[0m");
        let line = record(&|it| json("T", it));
        let expected =
            r#"{"ts":"T","level":"warn","target":"here","msg":"a \"b\"\nc\u001b[0m","vni":7}"#;
        assert_eq!(line, expected);
        assert!(serde_json::from_str::<Json>(&line).is_ok());
    }
}
