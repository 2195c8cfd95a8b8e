use super::request::Refusal;
use super::*;
use crate::http::response::{Media, Source, Status};

/// Reads all requests of a text, with the reason if the rest is refused.
fn read(bodies: Bodies, text: &[u8]) -> (Vec<Request>, Option<Refusal>) {
    let mut reader = RequestReader::new(bodies);
    let mut rest = text;
    let mut requests = Vec::new();
    loop {
        match reader.poll() {
            Ok(Some(request)) => requests.push(request),
            Err(refusal) => return (requests, Some(refusal)),
            Ok(None) if rest.is_empty() => return (requests, None),
            Ok(None) => {
                let count = reader.room().min(rest.len());
                assert!(count > 0, "no room for the rest of a request");
                reader.receive(&rest[..count]);
                rest = &rest[count..];
            }
        }
    }
}

/// What both listeners say to a text that is no request.
#[track_caller]
fn refusal(text: impl AsRef<[u8]>) -> Option<Refusal> {
    let found = [Bodies::Ignored, Bodies::Read].map(|it| read(it, text.as_ref()).1);
    assert_eq!(found[0], found[1], "the listeners differ");
    found[0]
}

fn request_with(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\n{lines}\r\n\r\n")
}

#[track_caller]
fn one(bodies: Bodies, text: &str) -> Request {
    let (mut requests, refusal) = read(bodies, text.as_bytes());
    assert_eq!((requests.len(), refusal), (1, None), "{text:?}");
    requests.remove(0)
}

#[test]
fn request_has_method_target_and_body() {
    let text = "\r\nPOST /a?b HTTP/1.1\r\nHost: x\r\ncontent-length: 3\r\n\r\nabc";
    let request = one(Bodies::Read, text);
    assert_eq!((&*request.method, &*request.target), ("POST", "/a?b"));
    assert_eq!(request.body, b"abc");
    assert!(request.manner.keeps_alive && request.manner.takes_chunks);
}

#[test]
fn requests_in_one_piece_are_separated() {
    let text = b"GET /1 HTTP/1.1\r\n\r\nPOST /2 HTTP/1.1\r\nContent-Length: 2\r\n\r\nab\
                 GET /3 HTTP/1.1\r\n\r\nGET /4";
    let (requests, refusal) = read(Bodies::Read, text);
    let targets: Vec<&str> = requests.iter().map(|it| &*it.target).collect();
    assert_eq!(
        (targets, refusal),
        (["/1", "/2", "/3"].to_vec(), None::<Refusal>)
    );
    assert_eq!(requests[1].body, b"ab");
}

#[test]
fn request_that_is_cut_anywhere_is_put_together() {
    let text = b"POST /a HTTP/1.1\r\nContent-Length: 4\r\n\r\n\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
    let (whole, _) = read(Bodies::Read, text);
    assert_eq!(whole.len(), 2);
    for cut in 0..text.len() {
        let mut reader = RequestReader::new(Bodies::Read);
        let mut found = Vec::new();
        for piece in [&text[..cut], &text[cut..]] {
            for byte in piece.chunks(reader.room().max(1)) {
                reader.receive(byte);
                while let Some(request) = reader.poll().unwrap() {
                    found.push(request);
                }
            }
        }
        assert_eq!(found, whole, "cut at {cut}");
    }
}

#[test]
fn incomplete_request_is_awaited() {
    for text in [
        "",
        "\r\n",
        "GET / HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab",
    ] {
        let found = read(Bodies::Read, text.as_bytes());
        assert_eq!(found, (Vec::new(), None), "{text:?}");
    }
}

#[test]
fn bytes_that_are_no_request_are_refused() {
    for text in [
        "GET /routes.json\r\n\r\n",
        "hello\r\n\r\n",
        "\x01\x04\x01\x08\r\n",
        "\x01\x00\x02\x02\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
    ] {
        assert_eq!(refusal(text), Some(Refusal::Malformed), "{text:?}");
    }
}

/// If lengths differ, a proxy before us and we may not agree on where the next request begins.
#[test]
fn content_lengths_that_differ_are_refused() {
    for lines in [
        "Content-Length: 5\r\nContent-Length: 0",
        "Content-Length: 0\r\nContent-Length: 5",
        "Content-Length: 5\r\nX: y\r\ncontent-length: 6",
    ] {
        let text = request_with(lines);
        assert_eq!(refusal(&text), Some(Refusal::Malformed), "{lines}");
    }
    let twice = request_with("Content-Length: 5\r\nContent-Length: 5") + "abcde";
    assert_eq!(one(Bodies::Read, &twice).body, b"abcde");
}

#[test]
fn content_length_with_other_bytes_than_digits_is_refused() {
    let most = format!("{}", u128::from(u64::MAX) + 1);
    for value in ["+3", "-1", "x", "", "3 3", "3,3", "3;q", "0x3", "٣", &most] {
        let text = request_with(&format!("Content-Length: {value}"));
        assert_eq!(refusal(&text), Some(Refusal::Malformed), "{value}");
    }
    let spaces = request_with("Content-Length: \t03 ") + "abc";
    assert_eq!(one(Bodies::Read, &spaces).body, b"abc");
}

#[test]
fn transfer_encoding_is_refused() {
    for lines in [
        "Transfer-Encoding: chunked",
        "transfer-encoding: identity",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 3\r\nTransfer-Encoding:",
    ] {
        let text = request_with(lines) + "0\r\n\r\n";
        assert_eq!(refusal(&text), Some(Refusal::TransferEncoding), "{lines}");
    }
}

#[test]
fn head_above_its_limit_is_refused() {
    let mut text = b"GET / HTTP/1.1\r\nX: ".to_vec();
    text.resize(HEAD_MAX - 1, b'x');
    assert_eq!(refusal(&text), None);
    text.push(b'x');
    assert_eq!(refusal(&text), Some(Refusal::HeadTooLong));
    let lines = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert_eq!(refusal(lines(64)), None);
    assert_eq!(refusal(lines(65)), Some(Refusal::HeadTooLong));
}

/// Empty lines before a request are skipped (RFC 9112, section 2.2), but count as its head.
#[test]
fn endless_empty_lines_are_refused() {
    let text = "\r\n".repeat(HEAD_MAX / 2);
    assert_eq!(refusal(text), Some(Refusal::HeadTooLong));
    let text = "\r\n".repeat(100) + "GET / HTTP/1.1\r\n\r\n";
    assert_eq!(one(Bodies::Read, &text).target, "/");
}

#[test]
fn body_above_its_limit_is_refused_where_bodies_are_read() {
    for (len, expected) in [
        (65_536, None),
        (65_537, Some(Refusal::BodyTooLarge)),
        (u64::MAX, Some(Refusal::BodyTooLarge)),
    ] {
        let text = request_with(&format!("Content-Length: {len}"));
        assert_eq!(read(Bodies::Read, text.as_bytes()).1, expected, "{len}");
        let request = one(Bodies::Ignored, &text);
        assert!(request.body.is_empty());
        assert!(!request.manner.keeps_alive, "{len}");
    }
    let body = "x".repeat(65_536);
    let text = request_with("Content-Length: 65536") + &body;
    assert_eq!(one(Bodies::Read, &text).body, body.as_bytes());
}

#[test]
fn connection_is_kept_unless_one_of_the_lines_says_close() {
    let keeps = |version: &str, lines: &str| {
        let text = format!("GET / HTTP/1.{version}\r\n{lines}\r\n");
        let manners = [Bodies::Ignored, Bodies::Read].map(|it| one(it, &text).manner);
        assert_eq!(manners[0], manners[1]);
        manners[0].keeps_alive
    };
    assert!(keeps("1", ""));
    assert!(keeps("1", "Connection: keep-alive\r\n"));
    assert!(!keeps("1", "connection: Close\r\n"));
    assert!(!keeps("1", "Connection: upgrade , Close\r\n"));
    assert!(!keeps("1", "Connection: a\r\nConnection: close\r\n"));
    assert!(!keeps("0", ""));
    assert!(!keeps("0", "Connection: keep-alive\r\n"));
    let text = b"GET / HTTP/1.1\r\nConnection: cl\xf6se\r\n\r\n";
    assert_eq!(refusal(text), Some(Refusal::Malformed));
}

/// Makes bodies of `left` times the same piece.
struct Pieces {
    piece: Vec<u8>,
    left: usize,
}

impl Source for Pieces {
    fn step(&mut self, to: &mut Vec<u8>) -> bool {
        to.extend_from_slice(&self.piece);
        self.left -= 1;
        self.left > 0
    }
}

fn long() -> Response {
    let pieces = Pieces {
        piece: vec![b'x'; 40_000],
        left: 5,
    };
    Response::stream(Media::Text, pieces)
}

/// Serves a text, and returns the responses and whether the connection is kept.
fn serve(text: &str, mut respond: impl FnMut() -> Response) -> (Vec<String>, bool) {
    let mut exchange = Exchange::new(Bodies::Read);
    let mut rest = text.as_bytes();
    let (mut responses, mut bytes) = (Vec::new(), Vec::new());
    loop {
        match exchange.step() {
            Step::Receive if rest.is_empty() => return (responses, true),
            Step::Receive => {
                let (now, later) = rest.split_at(exchange.room().min(rest.len()));
                exchange.receive(now);
                rest = later;
            }
            Step::Respond(_) => {
                assert!(matches!(exchange.step(), Step::Wait));
                exchange.respond(respond());
            }
            Step::Wait => panic!("nothing is asked for"),
            Step::Send => {
                // Sockets take what they like.
                let count = exchange.unsent().len().min(30_000);
                bytes.extend_from_slice(&exchange.unsent()[..count]);
                exchange.sent(count);
            }
            Step::Sent => {
                responses.push(String::from_utf8(std::mem::take(&mut bytes)).unwrap());
            }
            Step::Close => return (responses, false),
        }
    }
}

#[test]
fn short_response_has_its_length() {
    let (responses, is_open) = serve("GET / HTTP/1.1\r\n\r\n", || {
        Response::text(Status::Ok, "ok\n")
    });
    assert_eq!(
        responses,
        [
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n\
          Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
          Content-Length: 3\r\n\r\nok\n"
        ]
    );
    assert!(is_open);
}

#[test]
fn long_response_comes_in_chunks() {
    let (responses, is_open) = serve("GET / HTTP/1.1\r\n\r\n", long);
    let (head, body) = responses[0].split_once("\r\n\r\n").unwrap();
    assert!(head.ends_with("\r\nTransfer-Encoding: chunked"), "{head}");
    let sizes = body.split("\r\n").filter(|it| !it.starts_with('x'));
    let sizes: Vec<&str> = sizes.collect();
    assert_eq!(sizes, ["13880", "13880", "9c40", "0", "", ""]);
    assert_eq!(body.matches('x').count(), 200_000);
    assert!(is_open);
}

#[test]
fn long_response_to_http_1_0_ends_with_the_connection() {
    let (responses, is_open) = serve("GET / HTTP/1.0\r\n\r\n", long);
    let (head, body) = responses[0].split_once("\r\n\r\n").unwrap();
    assert!(head.ends_with("\r\nConnection: close"), "{head}");
    assert!(!head.contains("Transfer-Encoding"), "{head}");
    assert_eq!(body, "x".repeat(200_000));
    assert!(!is_open);
}

#[test]
fn response_to_head_has_no_body() {
    for (response, header) in [
        (Response::text(Status::Ok, "ok\n"), "Content-Length: 3"),
        (long(), "Transfer-Encoding: chunked"),
    ] {
        let mut response = Some(response);
        let (responses, is_open) = serve("HEAD / HTTP/1.1\r\n\r\n", || response.take().unwrap());
        assert!(responses[0].ends_with(&format!("\r\n{header}\r\n\r\n")));
        assert!(is_open);
    }
}

#[test]
fn refusal_is_answered_and_ends_the_connection() {
    let text = "GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc\
                GET / HTTP/1.1\r\n\r\n";
    let (responses, is_open) = serve(text, || Response::text(Status::Ok, "ok\n"));
    assert_eq!(responses.len(), 2);
    assert!(responses[0].starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(responses[1].starts_with("HTTP/1.1 400 Bad Request\r\n"));
    assert!(responses[1].contains("\r\nConnection: close\r\n"));
    assert!(responses[1].ends_with("{\"error\":\"this is not an HTTP request\"}\n"));
    assert!(!is_open);
}

#[test]
fn refusals_have_their_statuses() {
    let all = [
        (Refusal::Malformed, 400),
        (Refusal::TransferEncoding, 400),
        (Refusal::HeadTooLong, 431),
        (Refusal::BodyTooLarge, 413),
    ];
    for (refusal, code) in all {
        assert_eq!(refusal.response().head.status.code(), code, "{refusal:?}");
    }
}

#[test]
fn exchange_is_idle_only_between_requests() {
    let mut exchange = Exchange::new(Bodies::Ignored);
    assert!(matches!(exchange.step(), Step::Receive));
    assert!(exchange.is_between_requests() && !exchange.is_idle());
    exchange.receive(b"GET / HTTP/1.1\r\n\r\n");
    assert!(!exchange.is_between_requests());
    assert!(matches!(exchange.step(), Step::Respond(_)));
    exchange.respond(Response::text(Status::Ok, "ok\n"));
    assert!(matches!(exchange.step(), Step::Send) && !exchange.is_idle());
    exchange.sent(exchange.unsent().len());
    assert!(matches!(exchange.step(), Step::Sent) && exchange.is_idle());
    exchange.receive(b"G");
    assert!(!exchange.is_idle());
}
