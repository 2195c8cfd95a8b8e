//! One connection: requests come one after the other, and are answered.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::change::Change;
use super::listener::Shared;
use super::monitor::{self, Monitor};
use crate::http::api::{self, Chunk, Response, Status};

/// How long a peer may be silent between requests, and in one.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a peer may take to read what there is no more room for.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest head of a request.
const HEAD_MAX: usize = 8 * 1024;

/// Largest body of a request.
const BODY_MAX: u64 = 64 * 1024;

/// More header lines than any client sends.
const HEADERS_MAX: usize = 64;

/// What came.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    method: String,
    target: String,
    body: Vec<u8>,
    after: After,
}

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    KeepAlive,
    /// The peer wants no more, or cannot be understood any more.
    Close,
    /// The peer is of HTTP/1.0 and knows no chunks.
    CloseWithoutChunks,
}

/// Why no request came.
enum Nothing {
    /// The peer left, or was too slow.
    Gone,
    /// What came is no request; the answer to it.
    Refused(Response),
}

impl From<io::Error> for Nothing {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Serves a connection to its end.
pub(super) fn serve(stream: &UnixStream, shared: &Shared) {
    if let Err(error) = converse(stream, shared) {
        log::debug!("control connection: {error}");
    }
    // The listener has it open too. A peer that is gone needs no end.
    drop(stream.shutdown(Shutdown::Both));
}

/// Says that there are too many, if that can be said at once.
pub(super) fn turn_away(stream: &UnixStream) {
    let mut response = Response::problem(
        Status::ServiceUnavailable,
        "too many control connections are open",
    );
    let mut text = Vec::new();
    let sent = stream
        .set_nonblocking(true)
        .and_then(|()| write_response(&mut text, &mut response, After::Close, Wanted::All))
        .and_then(|()| (&*stream).write_all(&text));
    if let Err(error) = sent {
        log::debug!("control connection: {error}");
    }
}

fn converse(stream: &UnixStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let request = match read_request(&mut reader) {
            Ok(request) => request,
            Err(Nothing::Gone) => return Ok(()),
            Err(Nothing::Refused(mut response)) => {
                return write_response(&mut writer, &mut response, After::Close, Wanted::All);
            }
        };
        log::debug!("control: {} {}", request.method, request.target);
        let asked = api::Request::new(&request.method, &request.target);
        if asked.path == monitor::PATH {
            match Monitor::start(&asked, shared) {
                Ok(monitor) => {
                    return monitor.run(stream, request.after != After::CloseWithoutChunks);
                }
                Err(mut response) => {
                    let wanted = Wanted::by(&request);
                    write_response(&mut writer, &mut response, request.after, wanted)?;
                }
            }
        } else {
            let mut response = match Change::parse(&asked, &request.body) {
                None => api::respond(&asked, &*shared.inspect, &shared.cache),
                Some(Ok(change)) => change.execute(shared),
                Some(Err(response)) => response,
            };
            let wanted = Wanted::by(&request);
            write_response(&mut writer, &mut response, request.after, wanted)?;
        }
        if request.after != After::KeepAlive || shared.is_stopping() {
            return Ok(());
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Result<Request, Nothing> {
    let head = read_head(reader)?;
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let broken = || refuse(Status::BadRequest, "this is not an HTTP request");
    let (method, target, version) = match request.parse(&head) {
        Ok(httparse::Status::Complete(_)) => {
            let parts = (request.method, request.path, request.version);
            let (Some(method), Some(target), Some(version)) = parts else {
                return Err(broken());
            };
            (method, target, version)
        }
        Ok(httparse::Status::Partial) => return Err(broken()),
        Err(httparse::Error::TooManyHeaders) => return Err(too_long()),
        Err(_) => return Err(broken()),
    };
    let header = |name: &str| {
        let found = request
            .headers
            .iter()
            .find(|it| it.name.eq_ignore_ascii_case(name));
        found.map(|it| String::from_utf8_lossy(it.value))
    };
    if header("Transfer-Encoding").is_some() {
        let text = "the body of a request has a Content-Length and comes in no chunks";
        return Err(refuse(Status::BadRequest, text));
    }
    let length = match header("Content-Length").map(|it| it.trim().parse::<u64>()) {
        None => 0,
        Some(Ok(length)) if length <= BODY_MAX => length,
        Some(Ok(_)) => return Err(refuse(Status::TooLarge, "a body has at most 64 KiB")),
        Some(Err(_)) => return Err(refuse(Status::BadRequest, "unreadable Content-Length")),
    };
    let says = |what: &str| header("Connection").is_some_and(|it| it.eq_ignore_ascii_case(what));
    let after = match version {
        0 => After::CloseWithoutChunks,
        _ if says("close") => After::Close,
        _ => After::KeepAlive,
    };
    let (method, target) = (method.into(), target.into());
    let mut body = Vec::new();
    let count = reader.by_ref().take(length).read_to_end(&mut body)?;
    if count as u64 != length {
        return Err(Nothing::Gone);
    }
    Ok(Request {
        method,
        target,
        body,
        after,
    })
}

/// The bytes up to the empty line.
fn read_head(reader: &mut impl BufRead) -> Result<Vec<u8>, Nothing> {
    let mut head = Vec::new();
    loop {
        let begun = head.len();
        let mut rest = reader.by_ref().take((HEAD_MAX - begun) as u64);
        rest.read_until(b'\n', &mut head)?;
        if head.ends_with(b"\r\n\r\n") || head.ends_with(b"\n\n") {
            return Ok(head);
        }
        // Empty lines before a request are passed over (RFC 9112, section 2.2).
        if head == b"\r\n" || head == b"\n" {
            head.clear();
        } else if head.len() >= HEAD_MAX {
            return Err(too_long());
        } else if head.len() == begun {
            return Err(Nothing::Gone);
        }
    }
}

fn refuse(status: Status, text: &str) -> Nothing {
    Nothing::Refused(Response::problem(status, text))
}

fn too_long() -> Nothing {
    refuse(
        Status::TooLong,
        "the head of a request has at most 8 KiB and 64 header lines",
    )
}

/// Whether a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Head,
}

impl Wanted {
    fn by(request: &Request) -> Self {
        if request.method == "HEAD" {
            Self::Head
        } else {
            Self::All
        }
    }
}

fn write_response(
    to: &mut impl Write,
    response: &mut Response,
    after: After,
    wanted: Wanted,
) -> io::Result<()> {
    let mut head = status_line(response.status);
    for (name, value) in &response.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let is_chunked = match response.body.len() {
        Some(len) => {
            head += &format!("Content-Length: {len}\r\n");
            false
        }
        None if after == After::CloseWithoutChunks => false,
        None => {
            head += "Transfer-Encoding: chunked\r\n";
            true
        }
    };
    head += match after {
        After::KeepAlive => "Connection: keep-alive\r\n\r\n",
        After::Close | After::CloseWithoutChunks => "Connection: close\r\n\r\n",
    };
    if wanted == Wanted::Head {
        return to.write_all(head.as_bytes());
    }
    let mut bytes = head.into_bytes();
    loop {
        let chunk = response.body.next();
        let (Chunk::More(content) | Chunk::Last(content)) = &chunk;
        if is_chunked {
            append_chunk(&mut bytes, content);
        } else {
            bytes.extend_from_slice(content);
        }
        let is_last = matches!(chunk, Chunk::Last(_));
        if is_last && is_chunked {
            bytes.extend_from_slice(LAST_CHUNK);
        }
        to.write_all(&bytes)?;
        if is_last {
            return Ok(());
        }
        bytes.clear();
    }
}

/// The end of a body in chunks.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends a chunk (RFC 9112, section 7.1); an empty one would be the end.
pub(super) fn append_chunk(to: &mut Vec<u8>, content: &[u8]) {
    if content.is_empty() {
        return;
    }
    to.extend_from_slice(format!("{:x}\r\n", content.len()).as_bytes());
    to.extend_from_slice(content);
    to.extend_from_slice(b"\r\n");
}

/// The first line of an answer.
pub(super) fn status_line(status: Status) -> String {
    format!("HTTP/1.1 {} {}\r\n", status.code(), status.reason())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut text: &[u8]) -> Result<Request, Option<u16>> {
        read_request(&mut text).map_err(|it| match it {
            Nothing::Gone => None,
            Nothing::Refused(response) => Some(response.status.code()),
        })
    }

    #[test]
    fn requests_have_a_body_of_known_length() {
        let request =
            read(b"\r\nPOST /a?b HTTP/1.1\r\nHost: x\r\ncontent-length: 3\r\n\r\nabcdef").unwrap();
        assert_eq!((&*request.method, &*request.target), ("POST", "/a?b"));
        assert_eq!(request.body, b"abc");
        assert_eq!(request.after, After::KeepAlive);
        let request = read(b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n").unwrap();
        assert_eq!(request.after, After::Close);
        let request = read(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        assert_eq!(request.after, After::CloseWithoutChunks);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let long = [b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'x'; HEAD_MAX]].concat();
        let many = ["GET / HTTP/1.1\r\n", &"A: b\r\n".repeat(65), "\r\n"].concat();
        let all: [(&[u8], Option<u16>); 9] = [
            (b"", None),
            (b"GET / HTTP/1.1\r\n", None),
            (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", None),
            (b"\x01\x00\x02\x02\r\n\r\n", Some(400)),
            (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", Some(400)),
            (
                b"POST / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n",
                Some(413),
            ),
            (
                b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Some(400),
            ),
            (&long, Some(431)),
            (many.as_bytes(), Some(431)),
        ];
        for (text, status) in all {
            let text = String::from_utf8_lossy(text);
            assert_eq!(read(text.as_bytes()), Err(status), "{text:.40}");
        }
    }
}
