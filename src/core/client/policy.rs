//! What a client takes of what servers say, before anything else sees it.

use crate::core::types::{IpNet, NextHopType, Route, Vni};

/// Which routes a rule of a [`RouteFilter`] is about: those that meet all that is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct RouteMatch {
    vni: Option<Vni>,
    within: Option<IpNet>,
    hop_type: Option<NextHopType>,
}

impl RouteMatch {
    /// Every route.
    pub const fn any() -> Self {
        Self {
            vni: None,
            within: None,
            hop_type: None,
        }
    }

    /// Of this VNI.
    pub const fn vni(mut self, vni: Vni) -> Self {
        self.vni = Some(vni);
        self
    }

    /// To a destination within this prefix, or the prefix itself.
    pub const fn within(mut self, prefix: IpNet) -> Self {
        self.within = Some(prefix);
        self
    }

    /// With a next hop of this type.
    pub const fn hop_type(mut self, hop_type: NextHopType) -> Self {
        self.hop_type = Some(hop_type);
        self
    }

    fn matches(&self, vni: Vni, route: &Route) -> bool {
        self.vni.is_none_or(|it| it == vni)
            && self
                .within
                .is_none_or(|it| it.contains(&route.destination.prefix))
            && self.hop_type.is_none_or(|it| it == route.next_hop.hop_type)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accept,
    Reject,
}

/// Which received routes count; the others are as if no server had them.
///
/// The first rule that matches a route decides; what none matches is accepted.
///
/// ```
/// use rustbond::{NextHopType, RouteFilter, RouteMatch, Vni};
///
/// // Of VNI 7 only what is within 10.0.0.0/8; no NAT routes at all.
/// let filter = RouteFilter::new()
///     .reject(RouteMatch::any().hop_type(NextHopType::Nat))
///     .accept(RouteMatch::any().vni(Vni(7)).within("10.0.0.0/8".parse()?))
///     .reject(RouteMatch::any().vni(Vni(7)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct RouteFilter {
    rules: Vec<(RouteMatch, Verdict)>,
}

impl RouteFilter {
    /// Accepts everything.
    pub const fn new() -> Self {
        Self { rules: Vec::new() }
    }

    /// One more rule: what matches counts.
    pub fn accept(mut self, routes: RouteMatch) -> Self {
        self.rules.push((routes, Verdict::Accept));
        self
    }

    /// One more rule: what matches does not count.
    pub fn reject(mut self, routes: RouteMatch) -> Self {
        self.rules.push((routes, Verdict::Reject));
        self
    }

    /// Whether a route counts.
    #[must_use]
    pub fn accepts(&self, vni: Vni, route: &Route) -> bool {
        let mut rules = self.rules.iter();
        let first = rules.find(|(routes, _)| routes.matches(vni, route));
        !matches!(first, Some((_, Verdict::Reject)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::types::{Destination, NextHop};

    #[test]
    fn first_rule_that_matches_decides() {
        let address = std::net::Ipv6Addr::LOCALHOST;
        let route =
            |prefix: &str, hop: NextHop| Route::new(Destination::new(prefix.parse().unwrap()), hop);
        let standard = NextHop::standard(address);
        let nat = NextHop::nat(address, 1, 2);
        let within = |prefix: &str| RouteMatch::any().within(prefix.parse().unwrap());
        let filter = RouteFilter::new()
            .accept(within("10.1.0.0/16").vni(Vni(1)))
            .reject(within("10.0.0.0/8"))
            .reject(RouteMatch::any().hop_type(NextHopType::Nat).vni(Vni(2)));
        for (vni, prefix, hop, expected) in [
            (1, "10.1.2.3/32", standard, true),
            (1, "10.1.0.0/16", standard, true),
            (1, "10.0.0.0/15", standard, false),
            (2, "10.1.2.3/32", standard, false),
            (2, "0.0.0.0/0", standard, true),
            (2, "::/0", nat, false),
            (1, "::/0", nat, true),
        ] {
            let route = route(prefix, hop);
            assert_eq!(filter.accepts(Vni(vni), &route), expected, "{vni} {route}");
        }
    }
}
