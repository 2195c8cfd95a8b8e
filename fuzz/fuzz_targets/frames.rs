//! Any bytes in any pieces are the frames that a plain reading of the whole finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustbond::FrameError;
use rustbond::internals::frames;
use rustbond_fuzz::{BadHeader, take_frame};

fuzz_target!(|input: (Vec<u8>, &[u8])| {
    let (cuts, stream) = input;
    let mut rest = stream.to_vec();
    let mut expected = Vec::new();
    let error = loop {
        match take_frame(&mut rest) {
            Ok(Some(frame)) => expected.push(frame),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let error = error.map(|error| match error {
        BadHeader::Version(version) => FrameError::Version(version),
        BadHeader::Type(number) => FrameError::Type(number),
        BadHeader::Length(length) => FrameError::Length(length),
    });
    assert_eq!(frames(stream, &cuts), (expected, error));
});
