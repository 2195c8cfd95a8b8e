//! `metalbond kernel`: what stands in the kernel, without a running client.

use clap::{Args, Subcommand};

use crate::cli::rt_tables;
use crate::cli::value::{Expected, decimal};

const PROTOCOL: &str = "a route protocol from 5 to 255";
const IDS: &str = "FROM-TO, nexthop numbers from 1 to 4294967294, at least 65536 of them";
const TABLE: &str = "a table from 1 to 4294967295, its name or that of a VRF device";

/// Returns what the value of an option of these commands must be.
pub(crate) fn expectation(name: &str) -> Option<&'static str> {
    Some(match name {
        "--table" => TABLE,
        "--rt-proto" => PROTOCOL,
        "--nexthop-ids" => IDS,
        _ => return None,
    })
}

#[derive(Args, Debug)]
pub(crate) struct KernelArgs {
    #[command(subcommand)]
    pub(crate) verb: KernelVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KernelVerb {
    /// List routes that a client installed, and those of others on the same prefixes.
    Show(Which),
    /// Remove routes that a client installed and left, and its nexthop objects.
    Flush(Which),
}

/// The routes that are meant.
#[derive(Args, Debug)]
pub(crate) struct Which {
    /// Only those of this kernel table [default: all].
    #[arg(long, value_name = "TABLE", value_parser = table)]
    pub(crate) table: Option<u32>,

    /// Protocol number that marks the routes.
    #[arg(long, value_name = "N", default_value = "254", value_parser = protocol)]
    pub(crate) rt_proto: u8,

    /// Numbers of the nexthop objects [default: those of a client without the option].
    #[arg(long, value_name = "FROM-TO", value_parser = ids)]
    pub(crate) nexthop_ids: Option<(u32, u32)>,
}

fn table(text: &str) -> Result<u32, Expected> {
    let table = decimal(text).or_else(|| rt_tables::number(text));
    table.filter(|it| *it != 0).ok_or(Expected(TABLE))
}

fn protocol(text: &str) -> Result<u8, Expected> {
    decimal(text)
        .filter(|it| *it >= 5)
        .ok_or(Expected(PROTOCOL))
}

fn ids(text: &str) -> Result<(u32, u32), Expected> {
    id_range(text).ok_or(Expected(IDS))
}

/// Parses the first and the last of a range of nexthop numbers.
pub(crate) fn id_range(text: &str) -> Option<(u32, u32)> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (decimal::<u32>(first)?, decimal::<u32>(last)?);
    let is_range = first != 0 && last < u32::MAX && last.checked_sub(first)? >= 65_535;
    is_range.then_some((first, last))
}

pub(crate) use imp::run;

#[cfg(all(feature = "netlink", target_os = "linux"))]
mod imp {
    use std::fmt::Write;

    use rustbond::kernel::{self, KernelConfig, KernelRoute, Standing};

    use super::{KernelArgs, KernelVerb, Which};
    use crate::cli::failure::Failure;
    use crate::cli::output::print;

    /// Runs `metalbond kernel`.
    pub(crate) fn run(args: &KernelArgs) -> Result<(), Failure> {
        match &args.verb {
            KernelVerb::Show(which) => show(which),
            KernelVerb::Flush(which) => flush(which),
        }
    }

    fn ids(which: &Which) -> std::ops::Range<u32> {
        let given = which.nexthop_ids.map(|(first, last)| first..last + 1);
        given.unwrap_or_else(|| KernelConfig::default().nexthop_ids)
    }

    fn show(which: &Which) -> Result<(), Failure> {
        let mut routes = kernel::survey(which.rt_proto, ids(which))?;
        routes.retain(|it| which.table.is_none_or(|table| it.table == table));
        let mut text = String::new();
        for route in &routes {
            line(&mut text, route);
        }
        print(format_args!("{text}")).map(|_| ())
    }

    fn line(text: &mut String, route: &KernelRoute) {
        let standing = match route.standing {
            Standing::Ours => "ours",
            Standing::Shadowed => "shadowed",
            Standing::Foreign => "foreign",
        };
        let hops: Vec<String> = route.next_hops.iter().map(ToString::to_string).collect();
        let via = if hops.is_empty() { "" } else { " via " };
        let written = writeln!(
            text,
            "{standing} {} table {} metric {} proto {}{via}{}",
            route.prefix,
            route.table,
            route.metric,
            route.protocol,
            hops.join(",")
        );
        written.expect("a string takes all");
    }

    fn flush(which: &Which) -> Result<(), Failure> {
        let flushed = kernel::flush(which.rt_proto, ids(which), which.table)?;
        print(format_args!(
            "removed {} routes and {} nexthop objects\n",
            flushed.routes, flushed.nexthop_objects
        ))
        .map(|_| ())
    }
}

#[cfg(not(all(feature = "netlink", target_os = "linux")))]
mod imp {
    use super::KernelArgs;
    use crate::cli::failure::Failure;

    pub(crate) fn run(_: &KernelArgs) -> Result<(), Failure> {
        let text = "this metalbond was built without kernel routes";
        Err(Failure::Argument(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_of_nexthop_numbers_has_two_ends_and_room() {
        assert_eq!(id_range("1-65536"), Some((1, 65_536)));
        for text in ["", "1", "1-2", "0-70000", "9-1", "1-4294967295", "-1-70000"] {
            assert_eq!(id_range(text), None, "{text}");
        }
    }
}
