//! Reads lists from an answer one item at a time: a table of a million routes is never in memory.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Whether to go on after an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    GoOn,
    /// Nobody wants the rest.
    Stop,
}

/// Reads an object and calls `each` with every item of its list `name`.
///
/// If `each` returns `Stop`, the reading ends with an error, which the caller expects.
pub(crate) fn for_each(
    from: impl std::io::Read,
    name: &str,
    each: &mut dyn FnMut(&RawValue) -> Then,
) -> serde_json::Result<()> {
    let mut reader = serde_json::Deserializer::from_reader(from);
    Object { name, each }.deserialize(&mut reader)?;
    reader.end()
}

struct Object<'a> {
    name: &'a str,
    each: &'a mut dyn FnMut(&RawValue) -> Then,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with {}", self.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut is_there = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == self.name {
                is_there = true;
                map.next_value_seed(List(&mut *self.each))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if is_there {
            Ok(())
        } else {
            Err(serde::de::Error::custom(format_args!("no {}", self.name)))
        }
    }
}

struct List<'a>(&'a mut dyn FnMut(&RawValue) -> Then);

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(item) = list.next_element::<Box<RawValue>>()? {
            if (self.0)(&item) == Then::Stop {
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_read_one_item_at_a_time() {
        let text = r#"{"total": 3, "next": null, "routes": [{"a":1}, "b",
            3], "more": {"x": []}}"#;
        let mut items = Vec::new();
        let mut each = |item: &RawValue| {
            items.push(item.get().to_owned());
            Then::GoOn
        };
        for_each(text.as_bytes(), "routes", &mut each).unwrap();
        assert_eq!(items, [r#"{"a":1}"#, "\"b\"", "3"]);
    }

    #[test]
    fn cut_or_missing_lists_are_errors() {
        let read = |text: &str| for_each(text.as_bytes(), "routes", &mut |_| Then::GoOn);
        assert!(read(r#"{"routes": []}"#).is_ok());
        assert!(read(r#"{"routes": [1"#).is_err());
        assert!(read(r#"{"routes": [1]"#).is_err());
        assert!(read(r#"{"vnis": []}"#).is_err());
        let stopped = for_each(br#"{"routes": [1, 2]}"#.as_slice(), "routes", &mut |_| {
            Then::Stop
        });
        assert!(stopped.is_err());
    }
}
