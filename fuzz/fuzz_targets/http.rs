//! Any bytes on the HTTP port are answered in HTTP, wherever they were cut on their way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustbond::internals::{Answer, serve};

/// Reads an answer as a plain client would.
fn check(bytes: &[u8]) {
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
        Some(length) => assert!(!is_chunked && length == body.len()),
        None if is_chunked => assert!(body.ends_with(b"0\r\n\r\n")),
        None => {}
    }
}

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let bytes = &bytes[..bytes.len().min(8192)];
    let whole = serve(bytes);
    match &whole {
        Answer::Wait => {}
        Answer::Sent(_, answer) | Answer::Refused(answer) => check(answer),
    }
    let part = &bytes[..usize::from(cut).min(bytes.len())];
    match (serve(part), &whole) {
        (Answer::Wait, _) | (Answer::Refused(_), Answer::Refused(_)) => {}
        (Answer::Sent(len, _), Answer::Sent(all, _)) => assert_eq!(len, *all),
        (early, whole) => panic!("{early:?} of a part, {whole:?} of the whole"),
    }
});
