//! Requests out of a stream of bytes that may be cut anywhere (RFC 9112).

use super::Manner;
use crate::http::response::{Response, Status};

/// Largest head of a request: request line and header lines. Each connection costs so much.
pub(super) const HEAD_MAX: usize = 8 * 1024;

/// Most header lines. No browser sends so many.
const HEADERS_MAX: usize = 64;

/// Largest body that is read. A connection that sends one costs so much more.
const BODY_MAX: usize = 64 * 1024;

/// What a listener does with the bodies of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bodies {
    /// A body is not read: its request is answered, and the connection closed.
    Ignored,
    /// A body is read up to 64 KiB.
    Read,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    /// The `Host`, with its port.
    pub(crate) host: Option<String>,
    /// Empty with [`Bodies::Ignored`].
    pub(crate) body: Vec<u8>,
    /// How to send the response.
    pub(crate) manner: Manner,
}

/// Why bytes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// They are no request.
    Malformed,
    /// The end of the body is not told by a `Content-Length`.
    TransferEncoding,
    /// The head has too many bytes or lines.
    HeadTooLong,
    /// The body has too many bytes.
    BodyTooLarge,
}

impl Refusal {
    pub(super) fn response(self) -> Response {
        let (status, text) = match self {
            Self::Malformed => (Status::BadRequest, "this is not an HTTP request"),
            Self::TransferEncoding => (
                Status::BadRequest,
                "Transfer-Encoding is not supported; send the body with a Content-Length",
            ),
            Self::HeadTooLong => (
                Status::TooLong,
                "the head of a request has at most 8 KiB and 64 header lines",
            ),
            Self::BodyTooLarge => (Status::TooLarge, "the body of a request has at most 64 KiB"),
        };
        Response::problem(status, text)
    }
}

/// Puts requests together from the bytes of one connection.
#[derive(Debug)]
pub(super) struct RequestReader {
    bodies: Bodies,
    /// Bytes that are no part of a request yet.
    input: Vec<u8>,
    /// A request without its body, and the length of that body.
    begun: Option<(Request, usize)>,
}

impl RequestReader {
    pub(super) fn new(bodies: Bodies) -> Self {
        Self {
            bodies,
            input: Vec::new(),
            begun: None,
        }
    }

    /// Returns how many bytes may be received; at least one after [`Self::poll`] found no request.
    pub(super) fn room(&self) -> usize {
        let most = self.begun.as_ref().map_or(HEAD_MAX, |it| it.1);
        most.saturating_sub(self.input.len())
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= self.room(), "more than there is room for");
        self.input.extend_from_slice(bytes);
    }

    /// Returns whether no byte of a request has come.
    pub(super) fn is_empty(&self) -> bool {
        self.input.is_empty() && self.begun.is_none()
    }

    /// Takes the next request, if all of it has come.
    pub(super) fn poll(&mut self) -> Result<Option<Request>, Refusal> {
        if self.begun.is_none() {
            let Some((head, len)) = Head::parse(&self.input)? else {
                return Ok(None);
            };
            self.input.drain(..len);
            self.begun = Some(head.begin(self.bodies)?);
        }
        let is_whole = |it: &mut (Request, usize)| self.input.len() >= it.1;
        let Some((mut request, len)) = self.begun.take_if(is_whole) else {
            return Ok(None);
        };
        request.body = self.input.drain(..len).collect();
        Ok(Some(request))
    }
}

/// What the head of a request says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    method: String,
    target: String,
    host: Option<String>,
    takes_chunks: bool,
    keeps_alive: bool,
    content_length: u64,
}

impl Head {
    /// Reads a head and returns its length, or nothing if it is not complete.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(len)) if len <= HEAD_MAX => {
                Ok(Some((Self::of(&request)?, len)))
            }
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => Err(Refusal::HeadTooLong),
            Err(_) => Err(Refusal::Malformed),
        }
    }

    fn of(request: &httparse::Request<'_, '_>) -> Result<Self, Refusal> {
        let takes_chunks = request.version == Some(1);
        let mut keeps_alive = takes_chunks;
        let mut length = None;
        let mut host = None;
        for header in request.headers.iter() {
            let is = |name| header.name.eq_ignore_ascii_case(name);
            if is("connection") {
                let value = std::str::from_utf8(header.value).map_err(|_| Refusal::Malformed)?;
                let mut options = value.split(',').map(str::trim);
                keeps_alive &= !options.any(|it| it.eq_ignore_ascii_case("close"));
            } else if is("host") {
                let value = std::str::from_utf8(header.value).map_err(|_| Refusal::Malformed)?;
                // Two could mean different things to a proxy and to us (RFC 9112, section 3.2).
                if host.replace(value.to_owned()).is_some() {
                    return Err(Refusal::Malformed);
                }
            } else if is("transfer-encoding") {
                return Err(Refusal::TransferEncoding);
            } else if is("content-length") {
                let len = content_length(header.value)?;
                // If lengths differ, a proxy before us and we may not agree on where the next
                // request begins (RFC 9112, section 6.3).
                if *length.get_or_insert(len) != len {
                    return Err(Refusal::Malformed);
                }
            }
        }
        let text = |it: Option<&str>| it.map(str::to_owned).ok_or(Refusal::Malformed);
        Ok(Self {
            method: text(request.method)?,
            target: text(request.path)?,
            host,
            takes_chunks,
            keeps_alive,
            content_length: length.unwrap_or(0),
        })
    }

    /// Returns the request without its body, and how many bytes of a body to read.
    fn begin(self, bodies: Bodies) -> Result<(Request, usize), Refusal> {
        let has_body = self.content_length > 0;
        let (body_len, keeps_alive) = match bodies {
            Bodies::Ignored => (0, self.keeps_alive && !has_body),
            Bodies::Read => (self.content_length, self.keeps_alive),
        };
        let body_len = usize::try_from(body_len).map_err(|_| Refusal::BodyTooLarge)?;
        if body_len > BODY_MAX {
            return Err(Refusal::BodyTooLarge);
        }
        let manner = Manner {
            wants_body: self.method != "HEAD",
            takes_chunks: self.takes_chunks,
            keeps_alive,
        };
        let request = Request {
            method: self.method,
            target: self.target,
            host: self.host,
            body: Vec::new(),
            manner,
        };
        Ok((request, body_len))
    }
}

/// Reads a length: digits and nothing else.
fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    let text = std::str::from_utf8(value.trim_ascii()).map_err(|_| Refusal::Malformed)?;
    if !text.bytes().all(|it| it.is_ascii_digit()) {
        return Err(Refusal::Malformed);
    }
    text.parse().map_err(|_| Refusal::Malformed)
}
