//! Requests to a control socket or to `--http`: one for each connection.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::place::Place;
use crate::cli::failure::Failure;

/// How long connecting and sending may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for the first byte of an answer, and between bytes. A long table takes time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest head of an answer, and largest line in its body's framing.
const HEAD_MAX: usize = 16 * 1024;

/// Bytes of an error's text that are read at most.
const PROBLEM_MAX: u64 = 64 * 1024;

/// Header lines of an answer.
const HEADERS_MAX: usize = 64;

/// A request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    /// Path and query, percent-encoded.
    pub(crate) target: &'a str,
    pub(crate) body: Option<&'a Value>,
}

impl<'a> Request<'a> {
    pub(crate) const fn get(target: &'a str) -> Self {
        Self {
            method: "GET",
            target,
            body: None,
        }
    }
}

/// How long the other side may be silent after the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Limited,
    Endless,
}

/// The body of an answer, read as it arrives.
pub(crate) type Body = BufReader<Box<dyn Read>>;

/// Sends a request and returns the body of the answer.
///
/// # Errors
///
/// There is no answer, or its status is not one of success.
pub(crate) fn ask(
    place: &Place,
    request: Request<'_>,
    patience: Patience,
) -> Result<Body, Failure> {
    let failed = |error: &io::Error| Failure::RunTime(format!("{place}: {}", describe(error)));
    let mut stream = connect(place)?;
    match send(&mut *stream, place, request) {
        // A server that closes early may have sent the reason.
        Err(error) if !is_closed(&error) => return Err(failed(&error)),
        Ok(()) | Err(_) => {}
    }
    if patience == Patience::Endless {
        stream.wait_for_ever().map_err(|error| failed(&error))?;
    }
    let mut reader = BufReader::new(stream);
    let (status, length) = read_head(&mut reader).map_err(|error| failed(&error))?;
    let body: Box<dyn Read> = match length {
        Length::Known(length) => Box::new(Exactly {
            from: reader,
            left: length,
        }),
        Length::Chunked => Box::new(Chunks {
            from: reader,
            left: 0,
            is_first: true,
            is_over: false,
        }),
        Length::ToTheEnd => Box::new(reader),
    };
    let mut body = BufReader::with_capacity(64 * 1024, body);
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let mut text = String::new();
    body.by_ref()
        .take(PROBLEM_MAX)
        .read_to_string(&mut text)
        .map_err(|error| failed(&error))?;
    Err(problem(place, status, &text))
}

/// Sends a request and returns an answer that is one JSON value.
pub(crate) fn ask_value(place: &Place, request: Request<'_>) -> Result<Value, Failure> {
    let body = ask(place, request, Patience::Limited)?;
    serde_json::from_reader(body).map_err(|error| unreadable(place, &error))
}

/// Returns the failure of an answer that cannot be read.
pub(crate) fn unreadable(place: &Place, error: &serde_json::Error) -> Failure {
    let why = match error.io_error_kind() {
        Some(kind) => describe(&kind.into()),
        None => format!("unexpected answer: {error}"),
    };
    Failure::RunTime(format!("{place}: {why}"))
}

/// Returns the text of an error of reading or writing, for the user.
pub(crate) fn describe(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "no answer in time".into(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            "the connection was closed before the answer was complete".into()
        }
        _ => error.to_string(),
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
    )
}

/// Returns the failure of a refused request, with the reason from the answer.
fn problem(place: &Place, status: u16, text: &str) -> Failure {
    let value: Option<Value> = serde_json::from_str(text).ok();
    let said = value.as_ref().and_then(|it| it["error"].as_str());
    let said = said.unwrap_or_else(|| text.lines().next().unwrap_or_default());
    let said = super::table::printable(said);
    let hint = match (place, status) {
        (Place::Http(_), 404 | 405) => {
            "; over HTTP there is only what can be seen, --at PATH of the control socket has all"
        }
        _ => "",
    };
    match status {
        400 | 404 | 405 | 409 | 422 if !said.is_empty() => {
            Failure::RunTime(format!("{place}: {said}{hint}"))
        }
        _ => Failure::RunTime(format!("{place}: HTTP status {status}: {said}{hint}")),
    }
}

/// A connection of either kind.
trait Stream: Read + Write {
    fn wait_for_ever(&self) -> io::Result<()>;
}

impl Stream for UnixStream {
    fn wait_for_ever(&self) -> io::Result<()> {
        self.set_read_timeout(None)
    }
}

impl Stream for TcpStream {
    fn wait_for_ever(&self) -> io::Result<()> {
        self.set_read_timeout(None)
    }
}

fn connect(place: &Place) -> Result<Box<dyn Stream>, Failure> {
    match place {
        Place::Socket(path) => connect_unix(path).map(|it| Box::new(it) as Box<dyn Stream>),
        Place::Http(address) => connect_tcp(address).map(|it| Box::new(it) as Box<dyn Stream>),
    }
}

fn connect_unix(path: &Path) -> Result<UnixStream, Failure> {
    let connect = || {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(CONNECT_TIMEOUT))?;
        Ok(stream)
    };
    connect().map_err(|error: io::Error| {
        let path = path.display();
        Failure::RunTime(match error.kind() {
            ErrorKind::NotFound => {
                format!("{path}: there is no such socket; is it running, and with --control?")
            }
            ErrorKind::ConnectionRefused => {
                format!("{path}: nothing listens there any more; is it running?")
            }
            ErrorKind::PermissionDenied => {
                format!("{path}: permission denied; only the user that runs it, and root, may ask")
            }
            _ => format!("{path}: {error}"),
        })
    })
}

fn connect_tcp(address: &str) -> Result<TcpStream, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::RunTime(format!("{address}: {why}"));
    let addresses = address.to_socket_addrs().map_err(|error| failed(&error))?;
    let mut last = io::Error::from(ErrorKind::NotFound);
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                let ready = stream
                    .set_read_timeout(Some(ANSWER_TIMEOUT))
                    .and_then(|()| stream.set_write_timeout(Some(CONNECT_TIMEOUT)))
                    .and_then(|()| stream.set_nodelay(true));
                return ready.map(|()| stream).map_err(|error| failed(&error));
            }
            Err(error) => last = error,
        }
    }
    Err(match last.kind() {
        ErrorKind::ConnectionRefused => {
            failed(&"connection refused; is it running, and with --http?")
        }
        ErrorKind::TimedOut => failed(&"connecting timed out"),
        _ => failed(&last),
    })
}

fn send(stream: &mut dyn Stream, place: &Place, request: Request<'_>) -> io::Result<()> {
    let Request { method, target, .. } = request;
    let host = match place {
        Place::Socket(_) => "localhost",
        Place::Http(address) => address,
    };
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    if let Some(body) = request.body {
        let body = body.to_string();
        let length = body.len();
        text +=
            &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    } else {
        text += "\r\n";
    }
    stream.write_all(text.as_bytes())
}

/// The length of a body.
enum Length {
    Known(u64),
    Chunked,
    ToTheEnd,
}

/// Reads up to the empty line. Returns the status and the length of the body.
fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, Length)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let begun = head.len();
        reader
            .by_ref()
            .take((HEAD_MAX - begun) as u64)
            .read_until(b'\n', &mut head)?;
        if head.len() == begun {
            let kind = if begun == HEAD_MAX {
                ErrorKind::InvalidData
            } else {
                ErrorKind::UnexpectedEof
            };
            return Err(kind.into());
        }
        if !b"HTTP/".starts_with(&head[..head.len().min(5)]) {
            return Err(invalid("this does not speak HTTP"));
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(&head);
    let (Ok(httparse::Status::Complete(_)), Some(status)) = (parsed, response.code) else {
        return Err(invalid("this does not speak HTTP"));
    };
    let header = |name: &str| {
        let found = response
            .headers
            .iter()
            .find(|it| it.name.eq_ignore_ascii_case(name));
        found.and_then(|it| std::str::from_utf8(it.value).ok())
    };
    if header("Transfer-Encoding").is_some_and(|it| it.eq_ignore_ascii_case("chunked")) {
        return Ok((status, Length::Chunked));
    }
    let length = header("Content-Length").map(|it| it.trim().parse());
    match length {
        Some(Ok(length)) => Ok((status, Length::Known(length))),
        Some(Err(_)) => Err(invalid("unreadable Content-Length")),
        None => Ok((status, Length::ToTheEnd)),
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// A body of known length; its end before that is an error.
struct Exactly<R> {
    from: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.by_ref().take(self.left).read(buffer)?;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// A body in chunks (RFC 9112, section 7.1).
struct Chunks<R> {
    from: R,
    left: u64,
    is_first: bool,
    is_over: bool,
}

impl<R: BufRead> Chunks<R> {
    fn next_size(&mut self) -> io::Result<u64> {
        if !std::mem::replace(&mut self.is_first, false) {
            self.line()?;
        }
        let line = self.line()?;
        match httparse::parse_chunk_size(&line) {
            Ok(httparse::Status::Complete((_, size))) => Ok(size),
            _ => Err(invalid("unreadable chunk")),
        }
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.from
            .by_ref()
            .take(HEAD_MAX as u64)
            .read_until(b'\n', &mut line)?;
        if line.ends_with(b"\n") {
            Ok(line)
        } else {
            Err(ErrorKind::UnexpectedEof.into())
        }
    }
}

impl<R: BufRead> Read for Chunks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.is_over {
            self.left = self.next_size()?;
            if self.left == 0 {
                self.is_over = true;
                while self.line()? != b"\r\n" {}
            }
        }
        if self.is_over || buffer.is_empty() {
            return Ok(0);
        }
        let count = self.from.by_ref().take(self.left).read(buffer)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(text: &str) -> io::Result<String> {
        let mut chunks = Chunks {
            from: text.as_bytes(),
            left: 0,
            is_first: true,
            is_over: false,
        };
        let mut body = String::new();
        chunks.read_to_string(&mut body).map(|_| body)
    }

    #[test]
    fn chunks_are_joined_and_a_missing_end_is_an_error() {
        assert_eq!(
            chunks("3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n").unwrap(),
            "abc0123456789"
        );
        assert_eq!(chunks("0\r\nTrailer: 1\r\n\r\n").unwrap(), "");
        for cut in ["", "3", "3\r\nab", "3\r\nabc\r\n", "3\r\nabc\r\n0\r\n"] {
            assert_eq!(
                chunks(cut).unwrap_err().kind(),
                ErrorKind::UnexpectedEof,
                "{cut:?}"
            );
        }
        assert_eq!(
            chunks("xyz\r\n").unwrap_err().kind(),
            ErrorKind::InvalidData
        );
    }

    #[test]
    fn heads_tell_status_and_length() {
        let head = |mut text: &[u8]| read_head(&mut text);
        let (status, length) =
            head(b"HTTP/1.1 404 Not Found\r\nContent-Length: 12\r\n\r\n").unwrap();
        assert!(matches!((status, length), (404, Length::Known(12))));
        let (_, length) = head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        assert!(matches!(length, Length::Chunked));
        assert!(head(b"SSH-2.0-x\r\n\r\n").is_err());
        assert!(head(b"HTTP/1.1 200 OK\r\n").is_err());
    }
}
