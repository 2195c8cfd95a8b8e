//! UPDATEs mean to the library what they mean to a decoder by hand, and its encoding of
//! them is the canonical one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustbond::internals::{decode_one, encode};
use rustbond_fuzz::{UPDATE, decode_update, encode_update, frame, translate};

fuzz_target!(|payload: &[u8]| {
    let by_hand = decode_update(payload);
    let decoded = decode_one(payload);
    assert_eq!(
        decoded.map(|(action, vni, route)| translate(action, vni, &route)),
        by_hand
    );
    if let (Some((action, vni, route)), Some(by_hand)) = (decoded, by_hand) {
        let mut bytes = Vec::new();
        encode(&mut bytes, action, vni, &route);
        assert_eq!(bytes, frame(UPDATE, &encode_update(&by_hand)));
        assert_eq!(decode_one(&bytes[4..]), Some((action, vni, route)));
    }
});
