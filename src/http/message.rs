//! HTTP/1.x as bytes: a request comes apart, a response's head is put together.

use super::api::{Response, Status};

/// Largest request, header lines included. Costs that much for each connection.
pub(crate) const REQUEST_MAX: usize = 8 * 1024;

/// More header lines than any browser sends.
const HEADERS_MAX: usize = 64;

/// A request without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) target: String,
    /// HTTP/1.0 knows no chunks.
    pub(crate) takes_chunks: bool,
    /// Another request may follow on the connection.
    pub(crate) keeps_alive: bool,
    pub(crate) body: RequestBody,
}

/// What follows a request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestBody {
    /// Nothing.
    Empty,
    /// As many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// What the bytes received so far amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Incomplete,
    /// A request, and how many bytes it has.
    Complete(Head, usize),
    Broken,
    TooLong,
}

impl Parsed {
    /// Reads a request from its first byte on.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => match Head::of(&request) {
                Some(head) if len <= REQUEST_MAX => Self::Complete(head, len),
                Some(_) => Self::TooLong,
                None => Self::Broken,
            },
            Ok(httparse::Status::Partial) if bytes.len() < REQUEST_MAX => Self::Incomplete,
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => Self::TooLong,
            Err(_) => Self::Broken,
        }
    }

    /// What to say to a request that is none.
    pub(crate) fn problem(&self) -> Option<Response> {
        match self {
            Self::Incomplete | Self::Complete(..) => None,
            Self::Broken => {
                let text = "this is not an HTTP request\n";
                Some(Response::text(Status::BadRequest, text))
            }
            Self::TooLong => {
                let text = "a request has at most 8 KiB and 64 header lines\n";
                Some(Response::text(Status::TooLong, text))
            }
        }
    }
}

impl Head {
    fn of(request: &httparse::Request<'_, '_>) -> Option<Self> {
        let takes_chunks = request.version == Some(1);
        let mut head = Self {
            method: request.method?.to_owned(),
            target: request.path?.to_owned(),
            takes_chunks,
            keeps_alive: takes_chunks,
            body: RequestBody::Empty,
        };
        let mut length = None;
        for header in request.headers.iter() {
            let is = |name| header.name.eq_ignore_ascii_case(name);
            if is("connection") {
                let value = std::str::from_utf8(header.value).ok()?;
                let mut options = value.split(',').map(str::trim);
                head.keeps_alive &= !options.any(|it| it.eq_ignore_ascii_case("close"));
            } else if is("transfer-encoding") {
                head.body = RequestBody::Chunked;
            } else if is("content-length") {
                let len = content_length(header.value)?;
                // Two that differ: where the next request begins is anybody's guess
                // (RFC 9112, section 6.3).
                if *length.get_or_insert(len) != len {
                    return None;
                }
            }
        }
        if let (RequestBody::Empty, Some(len @ 1..)) = (head.body, length) {
            head.body = RequestBody::Length(len);
        }
        Some(head)
    }
}

/// Digits and nothing else.
fn content_length(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value.trim_ascii()).ok()?;
    let is_plain = text.bytes().all(|it| it.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

/// How the end of a response's body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delimiter {
    /// By its length.
    Length(usize),
    /// It is sent in chunks, and [`LAST_CHUNK`] is the end.
    Chunks,
    /// By the end of the connection.
    Close,
}

impl Delimiter {
    /// For this response to a reader that takes chunks or not.
    pub(crate) fn of(response: &Response, takes_chunks: bool) -> Self {
        match response.body.len() {
            Some(len) => Self::Length(len),
            None if takes_chunks => Self::Chunks,
            None => Self::Close,
        }
    }
}

/// Ends a chunked body.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A chunk with its length; none for no bytes, which would be the end.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

/// The status line and the header lines.
pub(crate) fn head(response: &Response, delimiter: Delimiter, keeps_alive: bool) -> Vec<u8> {
    let (code, reason) = (response.status.code(), response.status.reason());
    let mut text = format!("HTTP/1.1 {code} {reason}\r\n");
    for (name, value) in &response.headers {
        text.extend([*name, ": ", value.as_ref(), "\r\n"]);
    }
    match delimiter {
        Delimiter::Length(len) => text += &format!("Content-Length: {len}\r\n"),
        Delimiter::Chunks => text += "Transfer-Encoding: chunked\r\n",
        Delimiter::Close => {}
    }
    if !keeps_alive {
        text += "Connection: close\r\n";
    }
    text += "\r\n";
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a reader before us and we would disagree on where the next request begins.
    #[test]
    fn content_lengths_that_differ_or_are_no_digits_break_a_request() {
        for lines in [
            "Content-Length: 5\r\nContent-Length: 0",
            "Content-Length: +5",
        ] {
            let text = format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n");
            assert_eq!(Parsed::of(text.as_bytes()), Parsed::Broken, "{lines}");
        }
        let twice = complete("GET / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(twice.body, RequestBody::Length(5));
    }

    fn complete(text: &str) -> Head {
        match Parsed::of(text.as_bytes()) {
            Parsed::Complete(head, len) => {
                assert_eq!(len, text.len());
                head
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn requests_are_told_apart() {
        let all = [
            ("", Parsed::Incomplete),
            ("GET /routes.json HTTP/1.1\r\n", Parsed::Incomplete),
            ("GET /routes.json\r\n\r\n", Parsed::Broken),
            ("\x01\x04\x01\x08\r\n", Parsed::Broken),
            (
                "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
                Parsed::Broken,
            ),
        ];
        for (text, parsed) in all {
            assert_eq!(Parsed::of(text.as_bytes()), parsed, "{text:?}");
        }
        let head = complete("GET /routes.json?a HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(
            (head.method.as_str(), head.target.as_str()),
            ("GET", "/routes.json?a")
        );
        assert!(head.takes_chunks && head.keeps_alive);
        assert_eq!(head.body, RequestBody::Empty);
    }

    #[test]
    fn what_follows_is_known() {
        assert!(!complete("HEAD / HTTP/1.0\r\n\r\n").keeps_alive);
        assert!(!complete("GET / HTTP/1.1\r\nConnection: a, Close\r\n\r\n").keeps_alive);
        let body = |line: &str| complete(&format!("POST / HTTP/1.1\r\n{line}\r\n\r\n")).body;
        assert_eq!(body("Content-Length: 0"), RequestBody::Empty);
        assert_eq!(body("content-length: 17"), RequestBody::Length(17));
        assert_eq!(
            body("Transfer-Encoding: chunked\r\nContent-Length: 3"),
            RequestBody::Chunked
        );
    }

    #[test]
    fn what_has_no_end_is_too_long() {
        let mut text = b"GET / HTTP/1.1\r\nX: ".to_vec();
        text.resize(REQUEST_MAX - 1, b'x');
        assert_eq!(Parsed::of(&text), Parsed::Incomplete);
        text.push(b'x');
        assert_eq!(Parsed::of(&text), Parsed::TooLong);
        let mut text = String::from("GET / HTTP/1.1\r\n");
        text += &"A: b\r\n".repeat(HEADERS_MAX + 1);
        assert_eq!(Parsed::of(text.as_bytes()), Parsed::TooLong);
    }
}
