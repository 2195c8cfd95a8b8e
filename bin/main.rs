//! The `metalbond` command.
fn main() {}
