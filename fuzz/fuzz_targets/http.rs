//! Both HTTP listeners answer any bytes in HTTP, the same wherever the bytes are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustbond::internals::{Listener, Served, serve};

/// Reads a response as a plain client would, and returns its status.
fn check(bytes: &[u8], is_head: bool) -> &str {
    let end = bytes
        .windows(4)
        .position(|it| it == b"\r\n\r\n")
        .expect("a head");
    let head = std::str::from_utf8(&bytes[..end]).expect("a head is text");
    let body = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next().expect("a status line");
    assert!(status.starts_with("HTTP/1.1 "), "{status}");
    let mut length = None;
    let mut is_chunked = false;
    for line in lines {
        assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
        let (name, value) = line.split_once(": ").expect("a header line");
        assert!(
            name.bytes()
                .all(|it| it.is_ascii_alphanumeric() || it == b'-'),
            "{name:?}"
        );
        match name {
            "Content-Length" => length = Some(value.parse::<usize>().expect("a number")),
            "Transfer-Encoding" => is_chunked = true,
            _ => {}
        }
    }
    match length {
        _ if is_head => assert!(body.is_empty()),
        Some(length) => assert!(!is_chunked && length == body.len()),
        None if is_chunked => assert!(body.ends_with(b"0\r\n\r\n")),
        None => {}
    }
    status
}

/// Reads all responses, and returns their statuses.
fn statuses(served: &Served) -> Vec<&str> {
    let responses = served.responses.iter().zip(&served.methods);
    let mut all: Vec<&str> = responses
        .map(|(response, method)| check(response, method == "HEAD"))
        .collect();
    if let Some(refused) = served.responses.get(served.methods.len()) {
        // Bytes that are no request get one response more, the last one.
        assert!(!served.is_open);
        all.push(check(refused, false));
    }
    assert_eq!(all.len(), served.responses.len());
    all
}

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let bytes = &bytes[..bytes.len().min(16 * 1024)];
    let (first, rest) = bytes.split_at(usize::from(cut).min(bytes.len()));
    for listener in [Listener::Http, Listener::Control] {
        let whole = serve(listener, &[bytes]);
        let cut = serve(listener, &[first, rest]);
        assert_eq!(statuses(&whole), statuses(&cut));
        assert_eq!(whole.bodies, cut.bodies);
        assert_eq!(whole.is_open, cut.is_open);
    }
});
