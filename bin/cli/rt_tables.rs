//! Names of kernel tables: those that iproute2 keeps, and those of VRF devices.

use std::path::{Path, PathBuf};

/// Where names are looked for; the first that is found counts.
const FILES: [&str; 3] = [
    "/etc/iproute2/rt_tables",
    "/usr/share/iproute2/rt_tables",
    "/usr/lib/iproute2/rt_tables",
];
/// More files like those, with names that end in `.conf`.
const FOLDER: &str = "/etc/iproute2/rt_tables.d";

/// Returns the number of the table with a name.
pub(crate) fn number(name: &str) -> Option<u32> {
    let mut more: Vec<PathBuf> = std::fs::read_dir(FOLDER)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|it| it == "conf"))
        .collect();
    more.sort_unstable();
    let files = FILES.iter().map(|it| Path::new(it).to_owned());
    let mut texts = files
        .chain(more)
        .filter_map(|it| std::fs::read_to_string(it).ok());
    let named = texts.find_map(|text| find(&text, name));
    named.or_else(|| vrf(name))
}

/// Returns the table of the VRF device with a name.
#[cfg(all(feature = "netlink", target_os = "linux"))]
fn vrf(name: &str) -> Option<u32> {
    match rustbond::kernel::vrf_table(name) {
        Ok(table) => table,
        Err(error) => {
            log::debug!("cannot look for a VRF device {name}: {error}");
            None
        }
    }
}

#[cfg(not(all(feature = "netlink", target_os = "linux")))]
fn vrf(_: &str) -> Option<u32> {
    None
}

/// Finds a name in lines of a number and a name; `#` begins a comment.
fn find(text: &str, name: &str) -> Option<u32> {
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let mut entries = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let number = words.next()?;
        let number = match number.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok()?,
            None => number.parse().ok()?,
        };
        Some((number, words.next()?))
    });
    entries
        .find(|(_, it)| *it == name)
        .map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables_are_found_and_comments_are_not() {
        let text = "#\n# reserved values\n254\tmain\n#100 red\n0x65 blue # tenant\nx y\n7\n";
        assert_eq!(find(text, "main"), Some(254));
        assert_eq!(find(text, "blue"), Some(101));
        for name in ["red", "tenant", "y", "", "7"] {
            assert_eq!(find(text, name), None, "{name}");
        }
    }
}
