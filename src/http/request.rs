//! What a client asks for.

/// Largest request, header lines included. Costs that much for each connection.
pub(super) const REQUEST_MAX: usize = 8 * 1024;

/// More header lines than any browser sends.
const HEADERS_MAX: usize = 64;

/// Whether the body of an answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// GET.
    Wanted,
    /// HEAD.
    Unwanted,
}

/// What there is to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Index,
    Routes(Format),
}

/// How a routing table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Yaml,
}

/// What the bytes received so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Incomplete,
    Fetch(Resource, Body),
    UnknownPath(Body),
    UnknownMethod,
    Broken,
    TooLong,
}

impl Request {
    /// Reads a request from its first byte on; `bytes` are at most [`REQUEST_MAX`].
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) if bytes.len() < REQUEST_MAX => return Self::Incomplete,
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Self::TooLong;
            }
            Err(_) => return Self::Broken,
        }
        let body = match request.method {
            Some("GET") => Body::Wanted,
            Some("HEAD") => Body::Unwanted,
            _ => return Self::UnknownMethod,
        };
        let path = request.path.and_then(|path| path.split(['?', '#']).next());
        match path {
            Some("/") => Self::Fetch(Resource::Index, body),
            Some("/routes.json") => Self::Fetch(Resource::Routes(Format::Json), body),
            Some("/routes.yaml") => Self::Fetch(Resource::Routes(Format::Yaml), body),
            _ => Self::UnknownPath(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        let all = [
            ("", Request::Incomplete),
            ("GET /routes.json HTTP/1.1\r\n", Request::Incomplete),
            (
                "GET /routes.json HTTP/1.1\r\nHost: a\r\n\r\n",
                Request::Fetch(Resource::Routes(Format::Json), Body::Wanted),
            ),
            (
                "HEAD /routes.yaml?pretty HTTP/1.0\r\n\r\n",
                Request::Fetch(Resource::Routes(Format::Yaml), Body::Unwanted),
            ),
            (
                "GET / HTTP/1.1\r\n\r\n",
                Request::Fetch(Resource::Index, Body::Wanted),
            ),
            (
                "GET /routes HTTP/1.1\r\n\r\n",
                Request::UnknownPath(Body::Wanted),
            ),
            ("POST /routes.json HTTP/1.1\r\n\r\n", Request::UnknownMethod),
            ("GET /routes.json\r\n\r\n", Request::Broken),
            ("\x01\x04\x01\x08\r\n", Request::Broken),
        ];
        for (text, request) in all {
            assert_eq!(Request::parse(text.as_bytes()), request, "{text:?}");
        }
    }

    #[test]
    fn what_has_no_end_is_too_long() {
        let mut text = b"GET / HTTP/1.1\r\nX: ".to_vec();
        text.resize(REQUEST_MAX - 1, b'x');
        assert_eq!(Request::parse(&text), Request::Incomplete);
        text.push(b'x');
        assert_eq!(Request::parse(&text), Request::TooLong);
        let mut text = String::from("GET / HTTP/1.1\r\n");
        text += &"A: b\r\n".repeat(HEADERS_MAX + 1);
        assert_eq!(Request::parse(text.as_bytes()), Request::TooLong);
    }
}
