//! Names of groups, as the host's file has them.

use std::fs;

/// The groups of this host (group(5)).
const FILE: &str = "/etc/group";

/// Returns the number of the group with this name.
///
/// It is read from the file: a static binary has no other databases.
pub(crate) fn number(name: &str) -> Option<u32> {
    match fs::read_to_string(FILE) {
        Ok(text) => number_in(&text, name),
        Err(error) => {
            log::debug!("cannot read {FILE}: {error}");
            None
        }
    }
}

fn number_in(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        fields.next().filter(|it| *it == name && !it.is_empty())?;
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_is_found_by_its_whole_name() {
        let text = "root:x:0:\n# a comment\nkvm:x:108:alice,bob\nkv:x:7:\nbroken\nodd:x:y:\n";
        for (name, number) in [
            ("root", Some(0)),
            ("kvm", Some(108)),
            ("kv", Some(7)),
            ("k", None),
            ("", None),
            ("broken", None),
            ("odd", None),
        ] {
            assert_eq!(number_in(text, name), number, "{name}");
        }
        assert_eq!(number("root"), Some(0));
    }
}
