//! Any bytes in any pieces: no panic, and the pieces make no difference; what is
//! well-formed survives the canonical encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustbond::internals::{decode, decode_one, encode};

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, stream) = input;
    let pieces = decode(stream, usize::from(cut));
    assert_eq!(pieces, decode(stream, usize::MAX));
    if let Some((action, vni, route)) = decode_one(stream) {
        let mut frame = Vec::new();
        encode(&mut frame, action, vni, &route);
        assert_eq!(decode_one(&frame[4..]), Some((action, vni, route)));
    }
});
