//! Law L: the coalesced sequence has the effect of the whole one, and tells only what differs.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use rustbond::internals::{coalesce, decode_one, encode};
use rustbond::{Action, Destination, NextHop, Route, Vni};

/// The table of a peer: what it was told of and has.
type Table = BTreeSet<(Vni, Route)>;

fn apply(frames: &[u8], table: &mut Table) -> usize {
    let (mut rest, mut count) = (frames, 0);
    while !rest.is_empty() {
        let len = 4 + usize::from(u16::from_be_bytes([rest[1], rest[2]]));
        let (action, vni, route) = decode_one(&rest[4..len]).expect("own frames are well-formed");
        let is_news = match action {
            Action::Add => table.insert((vni, route)),
            Action::Remove => table.remove(&(vni, route)),
        };
        assert!(is_news, "nothing that is known, nothing that is absent");
        rest = &rest[len..];
        count += 1;
    }
    count
}

fuzz_target!(|steps: Vec<(u8, u8)>| {
    let mut before = Table::new();
    let mut now = Table::new();
    let mut frames = Vec::new();
    for (number, vni) in steps {
        let vni = Vni(u32::from(vni % 3));
        let hop = NextHop::standard(std::net::Ipv6Addr::from(u128::from(number % 4)));
        let destination = Destination::from_ipv4(u32::from(number / 4).into(), 32);
        let route = Route::new(destination, hop);
        let action = if now.remove(&(vni, route)) {
            Action::Remove
        } else if number % 7 == 0 && !before.contains(&(vni, route)) && frames.is_empty() {
            // Present from the start.
            before.insert((vni, route));
            Action::Remove
        } else {
            now.insert((vni, route));
            Action::Add
        };
        encode(&mut frames, action, vni, &route);
    }
    let mut all = before.clone();
    apply(&frames, &mut all);
    let mut coalesced = before.clone();
    let told = apply(&coalesce(&frames), &mut coalesced);
    assert_eq!(coalesced, all);
    assert_eq!(told, before.symmetric_difference(&all).count());
});
