//! Responses. Every status, header and media type is written here, and only here.

mod body;

use std::borrow::Cow;

use serde::Serialize;

pub(crate) use body::{Body, Chunk, List, Source, write_json};

/// What the page may load: only files of this server, and nothing inline.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// A response. The body is not sent if the request was HEAD.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: Head,
    pub(crate) body: Body,
}

/// What stands before the body. The codec adds the headers that say how the body ends.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: Status,
    pub(crate) headers: Vec<(&'static str, Cow<'static, str>)>,
}

/// The outcome of a request (RFC 9110, section 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    /// This process cannot do what the request asks for.
    Conflict,
    /// The request is for another host.
    Misdirected,
    /// The body is too large.
    TooLarge,
    /// The head is too long.
    TooLong,
    ServiceUnavailable,
}

/// The type of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    Html,
    Css,
    JavaScript,
    Json,
    /// One JSON value in each line.
    JsonLines,
    Yaml,
    Text,
    /// The text format of Prometheus, version 0.0.4.
    Metrics,
}

impl Status {
    pub(crate) const fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::BadRequest => 400,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::Misdirected => 421,
            Self::TooLong => 431,
            Self::ServiceUnavailable => 503,
        }
    }

    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::BadRequest => "Bad Request",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::Conflict => "Conflict",
            Self::TooLarge => "Content Too Large",
            Self::Misdirected => "Misdirected Request",
            Self::TooLong => "Request Header Fields Too Large",
            Self::ServiceUnavailable => "Service Unavailable",
        }
    }
}

impl Media {
    const fn name(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Css => "text/css; charset=utf-8",
            Self::JavaScript => "text/javascript; charset=utf-8",
            Self::Json => "application/json",
            Self::JsonLines => "application/x-ndjson",
            // Go MetalBond's; there was no registered name then.
            Self::Yaml => "text/yaml",
            Self::Text => "text/plain; charset=utf-8",
            Self::Metrics => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

impl Head {
    pub(crate) fn new(status: Status, media: Media) -> Self {
        let headers = vec![
            ("Content-Type", media.name().into()),
            ("Cache-Control", "no-store".into()),
            ("X-Content-Type-Options", "nosniff".into()),
        ];
        Self { status, headers }
    }
}

impl Response {
    fn new(status: Status, media: Media, body: Body) -> Self {
        Self {
            head: Head::new(status, media),
            body,
        }
    }

    fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.head.headers.push((name, value.into()));
        self
    }

    /// Returns a file of the page.
    pub(crate) fn file(media: Media, text: &'static str) -> Self {
        let body = Body::Whole(Cow::Borrowed(text.as_bytes()));
        let response = Self::new(Status::Ok, media, body);
        if media == Media::Html {
            response
                .with_header("Content-Security-Policy", PAGE_POLICY)
                .with_header("Referrer-Policy", "no-referrer")
        } else {
            response
        }
    }

    /// Returns what `source` makes, piece by piece.
    pub(crate) fn stream(media: Media, source: impl Source + 'static) -> Self {
        Self::new(Status::Ok, media, Body::stream(source))
    }

    /// Returns a value as JSON.
    pub(crate) fn json(value: &impl Serialize) -> Self {
        Self::json_with(Status::Ok, value)
    }

    fn json_with(status: Status, value: &impl Serialize) -> Self {
        let mut bytes = Vec::new();
        write_json(&mut bytes, value);
        bytes.push(b'\n');
        Self::new(status, Media::Json, Body::Whole(bytes.into()))
    }

    /// Returns plain text, which should end its last line.
    pub(crate) fn text(status: Status, text: impl Into<Cow<'static, str>>) -> Self {
        let bytes = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self::new(status, Media::Text, Body::Whole(bytes))
    }

    /// Returns an error: `{"error":TEXT}`.
    pub(crate) fn problem(status: Status, text: &str) -> Self {
        Self::json_with(status, &serde_json::json!({ "error": text }))
    }

    /// Returns the error for a method that its path does not allow. `allowed` is a value for the
    /// header `Allow`.
    pub(crate) fn not_allowed(allowed: &'static str) -> Self {
        let methods = allowed.replace(", ", " or ");
        let text = format!("this method is not allowed here; use {methods}");
        Self::problem(Status::MethodNotAllowed, &text).with_header("Allow", allowed)
    }

    /// Returns the error of a server or client that has ended. An empty list would be a lie.
    pub(crate) fn ended(error: &crate::error::Error) -> Self {
        Self::problem(Status::ServiceUnavailable, &error.to_string())
    }

    /// Returns the error for a client that should try again after a second.
    pub(crate) fn try_later(text: &str) -> Self {
        Self::problem(Status::ServiceUnavailable, text).with_header("Retry-After", "1")
    }
}
