//! The parameters of a request.

use std::borrow::Cow;

use crate::core::types::Vni;

/// Items of a list if the request does not say how many.
const LIMIT: usize = 100;

/// The parameters after the question mark. Each is taken once.
pub(crate) struct Params<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// Which part of a list a request asks for.
#[derive(Debug)]
pub(super) struct Paging {
    /// Most items to return.
    pub(super) limit: usize,
    /// The `next` of an earlier response.
    pub(super) cursor: Option<String>,
}

impl<'a> Params<'a> {
    pub(crate) fn new(query: &'a str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).collect())
    }

    /// Takes a parameter as text; an empty one counts as missing.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        let at = self.0.iter().position(|it| it.0 == name);
        let found = at.map(|at| self.0.remove(at).1.into_owned());
        if self.0.iter().any(|it| it.0 == name) {
            return Err(format!("{name} is given twice"));
        }
        Ok(found.filter(|it| !it.is_empty()))
    }

    /// Takes a parameter that `parse` reads. `expected` describes it for the error.
    pub(crate) fn value<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let value = parse(&text).ok_or_else(|| format!("{name}={text}: expected {expected}"))?;
        Ok(Some(value))
    }

    pub(crate) fn vni(&mut self) -> Result<Option<Vni>, String> {
        self.value("vni", "a number up to 4294967295", |it| {
            it.parse().ok().map(Vni)
        })
    }

    pub(super) fn paging(&mut self) -> Result<Paging, String> {
        let expected = "a number from 1, or all";
        let limit = self.value("limit", expected, |it| match it {
            "all" => Some(usize::MAX),
            _ => it.parse().ok().filter(|it| *it > 0),
        })?;
        Ok(Paging {
            limit: limit.unwrap_or(LIMIT),
            cursor: self.text("cursor")?,
        })
    }

    /// Returns an error if a parameter is left. `known` are the names of all parameters.
    pub(crate) fn finish(self, known: &str) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("unknown parameter {name}; there are {known}")),
        }
    }
}

/// Returns the error for a cursor that is no `next` of an earlier response.
pub(super) fn bad_cursor(text: &str) -> String {
    format!("cursor={text}: expected what a response gave as next")
}
