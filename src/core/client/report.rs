//! What the caller of a client is to log.

use std::fmt;
use std::time::Duration;

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
                write!(
                    f,
                    "no server is left: {routes} routes of {vnis} VNIs are stale and stay for at \
                     most {seconds} s; bring a server back within that time"
                )
            }
            Self::Expired { routes, vnis } => write!(
                f,
                "the stale time is over: {routes} routes of {vnis} VNIs are removed, because no \
                 server told them again"
            ),
            Self::Refused {
                limit,
                total,
                missing,
            } => write!(
                f,
                "the limit of {limit} routes is reached: {total} were refused so far, {missing} \
                 are missing; raise max-routes, or look who announces so many"
            ),
        }
    }
}
