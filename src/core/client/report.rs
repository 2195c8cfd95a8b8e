//! What the caller of a client is to log.

use std::fmt;
use std::time::Duration;

use super::missing::TOLD_APART;

/// Something that an operator must know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The last server is lost; its routes stay for a while.
    AllLost {
        routes: usize,
        vnis: usize,
        stale_time: Duration,
    },
    /// Routes that no server told again are removed.
    Expired { routes: usize, vnis: usize },
    /// Servers tell more than the client takes.
    Refused {
        limit: usize,
        total: u64,
        missing: usize,
    },
    /// Stale routes gave way to those of servers that are there.
    GaveWay { limit: usize, total: u64 },
}

/// A number of things, "1 route" or "2 routes".
struct Count(usize, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, of) = self;
        let end = if *count == 1 { "" } else { "s" };
        write!(f, "{count} {of}{end}")
    }
}

/// How many routes are missing, in words.
pub(super) struct LackOf(pub(super) usize);

impl fmt::Display for LackOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = Count(self.0, "route");
        match self.0 {
            1 => write!(f, "{routes} is missing"),
            TOLD_APART.. => write!(f, "{routes} or more are missing"),
            _ => write!(f, "{routes} are missing"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllLost {
                routes,
                vnis,
                stale_time,
            } => {
                let seconds = stale_time.as_secs_f64();
                let (is, stay) = match routes {
                    1 => ("is", "stays"),
                    _ => ("are", "stay"),
                };
                let (routes, vnis) = (Count(*routes, "route"), Count(*vnis, "VNI"));
                write!(
                    f,
                    "no server is left: {routes} of {vnis} {is} stale and {stay} for at most \
                     {seconds} s; bring a server back within that time"
                )
            }
            Self::Expired { routes, vnis } => {
                let (are, them) = match routes {
                    1 => ("is", "it"),
                    _ => ("are", "them"),
                };
                let (routes, vnis) = (Count(*routes, "route"), Count(*vnis, "VNI"));
                write!(
                    f,
                    "the stale time is over: {routes} of {vnis} {are} removed, because no server \
                     told {them} again"
                )
            }
            Self::GaveWay { limit, total } => {
                let limit = Count(*limit, "route");
                let routes = match total {
                    1 => "1 stale route has",
                    total => &format!("{total} stale routes have"),
                };
                write!(
                    f,
                    "the limit of {limit} is reached: {routes} given way so far to routes of \
                     servers that are there; raise max-routes, or look who announces so many"
                )
            }
            Self::Refused {
                limit,
                total,
                missing,
            } => {
                let limit = Count(*limit, "route");
                let announcements = match total {
                    1 => "1 announcement was",
                    total => &format!("{total} announcements were"),
                };
                let missing = LackOf(*missing);
                write!(
                    f,
                    "the limit of {limit} is reached: {announcements} refused so far, {missing}; \
                     raise max-routes, or look who announces so many"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_route_of_one_vni_is_singular() {
        let lost = |routes, vnis| Report::AllLost {
            routes,
            vnis,
            stale_time: Duration::from_secs(300),
        };
        let refused = |total, missing| Report::Refused {
            limit: 5,
            total,
            missing,
        };
        for (report, expected) in [
            (
                lost(1, 1),
                "no server is left: 1 route of 1 VNI is stale and stays for at most 300 s; bring \
                 a server back within that time",
            ),
            (
                lost(7, 2),
                "no server is left: 7 routes of 2 VNIs are stale and stay for at most 300 s; \
                 bring a server back within that time",
            ),
            (
                Report::Expired { routes: 1, vnis: 1 },
                "the stale time is over: 1 route of 1 VNI is removed, because no server told it \
                 again",
            ),
            (
                Report::Expired { routes: 2, vnis: 1 },
                "the stale time is over: 2 routes of 1 VNI are removed, because no server told \
                 them again",
            ),
            (
                refused(1, 1),
                "the limit of 5 routes is reached: 1 announcement was refused so far, 1 route is \
                 missing; raise max-routes, or look who announces so many",
            ),
            (
                refused(90_000, TOLD_APART),
                "the limit of 5 routes is reached: 90000 announcements were refused so far, 65536 \
                 routes or more are missing; raise max-routes, or look who announces so many",
            ),
        ] {
            assert_eq!(report.to_string(), expected);
        }
    }
}
