//! Values as they are written on a command line and in a configuration file.

use std::fmt;
use std::str::FromStr;

use rustbond::Vni;

/// Largest VNI: 24 bits, as encapsulations carry.
pub(crate) const VNI_MAX: u32 = (1 << 24) - 1;

/// The error of a value that was not understood: what it should have been.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected(pub(crate) &'static str);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl std::error::Error for Expected {}

/// Parses a number of digits only, without the sign that `FromStr` takes.
pub(crate) fn decimal<T: FromStr>(text: &str) -> Option<T> {
    let is_decimal = text.bytes().all(|it| it.is_ascii_digit());
    text.parse().ok().filter(|_| is_decimal)
}

/// Parses a VNI of 24 bits.
pub(crate) fn vni(text: &str) -> Option<Vni> {
    decimal(text).filter(|vni| *vni <= VNI_MAX).map(Vni)
}

/// Parses a VNI of 32 bits, as the protocol carries. Those above 24 bits can be subscribed to, but
/// no packet can be encapsulated with one.
pub(crate) fn wide_vni(text: &str) -> Option<Vni> {
    decimal(text).map(Vni)
}

/// Parses a switch with a value, `--verbose=false`, by the words that Go MetalBond takes.
pub(crate) fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Some(true),
        "false" | "0" | "no" => Some(false),
        _ => None,
    }
}

/// Parses a number of bytes, with K, M or G for powers of 1024.
pub(crate) fn bytes(text: &str) -> Option<usize> {
    let (digits, shift) = match text.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    decimal::<usize>(digits)?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_powers_of_1024() {
        assert_eq!(bytes("1000").unwrap(), 1000);
        assert_eq!(bytes("256k").unwrap(), 256 << 10);
        assert_eq!(bytes("64M").unwrap(), 64 << 20);
        assert_eq!(bytes("2G").unwrap(), 2 << 30);
        for text in ["", "K", "-1", "1.5M", "1T", "99999999999G", "1é"] {
            assert!(bytes(text).is_none(), "{text:?}");
        }
    }
}
