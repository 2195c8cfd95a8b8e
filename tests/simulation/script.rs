//! What a world is made of and what happens in it, as data: from a seed, or from a list.

use std::time::Duration;

use rustbond::internals::sim::{ClientSetup, ServerSetup};

use super::route::{ROUTES, SHARED_FROM};

/// Every client has them all.
pub(crate) const SERVERS: usize = 2;

/// VNIs are 1 to this.
pub(crate) const VNIS: u32 = 4;

/// Enough for every announcer to come back to a server that was restarted, even if it must
/// notice first that the connection is dead.
pub(crate) const LONG_SETTLE: Duration = Duration::from_secs(30);

/// More than twice as long as that: two servers are restarted one after the other.
pub(crate) const LONG_STALE: Duration = Duration::from_secs(70);

/// A client and the host it runs on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientPlan {
    pub(crate) setup: ClientSetup,
    /// Writes what it hears to a kernel; whether that has nexthop objects.
    pub(crate) kernel: Option<bool>,
    /// May announce what others announce too, next hop and all.
    pub(crate) shares: bool,
    /// Filters what it hears, and copies between VNIs.
    pub(crate) has_policy: bool,
    /// How long its consumer sleeps, and how many events it takes then.
    pub(crate) lag: Duration,
    pub(crate) appetite: usize,
}

/// A world before anything happens.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) servers: [ServerSetup; SERVERS],
    pub(crate) clients: Vec<ClientPlan>,
    /// Bytes that a connection holds in one direction.
    pub(crate) room: usize,
    /// Weight from which on a mailbox is full.
    pub(crate) mailbox: usize,
    /// Most bytes of a read.
    pub(crate) cut: usize,
    /// One way, shortest and longest.
    pub(crate) latency: [Duration; 2],
}

/// How a process or a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The kernel says goodbye in order.
    Fin,
    /// The kernel throws away what was on its way.
    Reset,
    /// Nobody says anything: a host that lost its power.
    Silent,
}

/// Which way a link does not carry anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToClient,
    Both,
}

/// All disturbances end, and everything must come to be right; then something more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing more.
    Whole,
    /// One server is lost and comes back: nobody may hear of a route.
    Restart(usize, End),
    /// All servers are restarted, together or one after the other: a client that lets them
    /// settle does not hear of a route.
    Blink(End),
    /// One server stays away, and all is right without it.
    Without(usize, End),
    /// All servers stay away: routes stay for `stale_time`, and go then.
    Alone(End),
    /// So do they one after the other, and the last one had no time to hear of everything.
    Decline(End),
    /// A client changes what it wants: that needs round trips, not somebody's timer.
    Prompt { client: usize, route: u16 },
}

/// One thing that happens. What makes no sense at its moment does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Pass {
        ms: u64,
    },
    Subscribe {
        client: usize,
        vni: u32,
    },
    Unsubscribe {
        client: usize,
        vni: u32,
    },
    Announce {
        client: usize,
        vni: u32,
        route: u16,
    },
    Withdraw {
        client: usize,
        vni: u32,
        route: u16,
    },
    AnnounceMany {
        client: usize,
        vni: u32,
        count: u16,
    },
    WithdrawMany {
        client: usize,
        vni: u32,
        count: u16,
    },
    Cut {
        client: usize,
        server: usize,
        end: End,
    },
    Block {
        client: usize,
        server: usize,
        way: Way,
    },
    Unblock {
        client: usize,
        server: usize,
    },
    Isolate {
        server: usize,
    },
    Rejoin {
        server: usize,
    },
    Slow {
        client: usize,
        server: usize,
        bytes: usize,
    },
    PauseClient {
        client: usize,
    },
    ResumeClient {
        client: usize,
    },
    PauseShard {
        server: usize,
        shard: usize,
    },
    PauseServer {
        server: usize,
    },
    ResumeServer {
        server: usize,
    },
    StopClient {
        client: usize,
        end: End,
    },
    StartClient {
        client: usize,
    },
    StopServer {
        server: usize,
        end: End,
    },
    StartServer {
        server: usize,
    },
    FailKernel {
        client: usize,
        percent: u8,
    },
    Meddle {
        client: usize,
        at: usize,
        is_told: bool,
    },
    LoseDevice {
        client: usize,
    },
    /// The servers announce a route themselves, or do so no longer.
    Configure {
        vni: u32,
        route: u16,
        is_announced: bool,
    },
    Rest(Rest),
}

/// The world of a seed.
pub(crate) fn setup(seed: u64) -> Setup {
    let mut random = fastrand::Rng::with_seed(seed);
    let random = &mut random;
    let count = match random.u8(..10) {
        0..6 => random.usize(2..7),
        6..9 => random.usize(7..16),
        _ => random.usize(30..51),
    };
    let servers = std::array::from_fn(|_| server(random));
    let all_modern = servers.iter().all(|it: &ServerSetup| it.is_modern);
    let stale_time = match random.bool() {
        true => Duration::from_secs(6),
        false => LONG_STALE,
    };
    let clients = (0..count)
        .map(|_| client(random, all_modern, stale_time))
        .collect();
    let room = pick(random, [700, 4096, 65_536, 262_144]);
    // A client's KEEPALIVE is behind up to 32 KiB, which must not take 2.5 s: a link carries
    // 100 KB/s at least.
    let slowest = Duration::from_micros(room as u64 * 5);
    let latency = Duration::from_micros(random.u64(20..2000));
    let longest = latency * random.u32(1..40);
    Setup {
        seed,
        servers,
        clients,
        room,
        mailbox: pick(random, [4, 64, 65_536]),
        cut: pick(random, [40, 400, 65_536]),
        latency: [latency, longest.min(slowest).max(latency)],
    }
}

fn pick<T, const N: usize>(random: &mut fastrand::Rng, of: [T; N]) -> T {
    random.choice(of).expect("there is something")
}

fn server(random: &mut fastrand::Rng) -> ServerSetup {
    let small = random.u8(..3) == 0;
    ServerSetup {
        shards: random.usize(1..5),
        keepalive_interval: random.u32(1..=5),
        is_modern: random.u8(..10) > 0,
        is_paced: random.u8(..4) > 0,
        soft_limit: if random.bool() { 200 } else { 20_000 },
        // More than peers announce at once, as in earnest: else the announcements of two that
        // come back end each other's sessions for ever.
        hard_limit: if small { 300_000 } else { 1 << 20 },
        seed: random.u64(..),
    }
}

fn client(random: &mut fastrand::Rng, all_modern: bool, stale_time: Duration) -> ClientPlan {
    let is_modern = random.u8(..5) > 0;
    let retry_min = Duration::from_millis(random.u64(200..1000));
    ClientPlan {
        setup: ClientSetup {
            servers: SERVERS,
            keepalive_interval: random.u32(1..=5),
            is_modern,
            is_paced: random.u8(..4) > 0,
            stale_time,
            settle_time: pick(
                random,
                [Duration::ZERO, Duration::from_secs(1), LONG_SETTLE],
            ),
            retry_min,
            retry_max: retry_min * random.u32(1..4),
            seed: random.u64(..),
        },
        kernel: (random.u8(..3) == 0).then(|| random.u8(..3) > 0),
        shares: is_modern && all_modern,
        has_policy: random.u8(..4) == 0,
        lag: Duration::from_millis(if random.bool() { 0 } else { random.u64(..500) }),
        appetite: pick(random, [1, 20, 1000]),
    }
}

/// What happens in the world of a seed.
pub(crate) fn steps(setup: &Setup) -> Vec<Step> {
    let mut random = fastrand::Rng::with_seed(setup.seed ^ 0x5eed_5eed);
    let random = &mut random;
    let clients = setup.clients.len();
    let mut steps = Vec::new();
    for client in 0..clients {
        for vni in 1..=VNIS {
            if random.u8(..3) > 0 {
                steps.push(Step::Subscribe { client, vni });
            }
        }
    }
    // Some worlds are quiet, some are not; in most, only some things go wrong.
    let troubles: Vec<u8> = (0..TROUBLES).filter(|_| random.bool()).collect();
    let trouble = random.u32(2..40);
    for _ in 0..random.usize(40..160) {
        let of = (random.usize(..clients), random.usize(..SERVERS));
        match random.u32(..100) {
            at if at < trouble && !troubles.is_empty() => {
                let kind = troubles[random.usize(..troubles.len())];
                misfortune(random, setup, kind, of, &mut steps);
            }
            _ if random.u8(..3) == 0 => steps.push(Step::Pass {
                ms: pass_ms(random),
            }),
            _ => steps.push(wish(random, of.0)),
        }
        if random.u8(..60) == 0 {
            steps.push(Step::Rest(rest(random, clients)));
        }
    }
    steps.push(Step::Rest(rest(random, clients)));
    steps
}

fn pass_ms(random: &mut fastrand::Rng) -> u64 {
    match random.u8(..10) {
        0..4 => random.u64(..5),
        4..8 => random.u64(..300),
        8 => random.u64(..3_000),
        _ => random.u64(..15_000),
    }
}

fn wish(random: &mut fastrand::Rng, client: usize) -> Step {
    let vni = random.u32(1..=VNIS);
    let route = random.u16(..ROUTES);
    let most = pick(random, [20, 150, 1500]);
    let count = random.u16(1..most);
    match random.u8(..42) {
        40.. => Step::Configure {
            vni,
            route,
            is_announced: random.bool(),
        },
        0..3 => Step::Subscribe { client, vni },
        3..6 => Step::Unsubscribe { client, vni },
        6..22 => Step::Announce { client, vni, route },
        22..34 => Step::Withdraw { client, vni, route },
        34..37 => Step::AnnounceMany { client, vni, count },
        _ => Step::WithdrawMany { client, vni, count },
    }
}

const TROUBLES: u8 = 12;

fn end(random: &mut fastrand::Rng) -> End {
    pick(random, [End::Fin, End::Reset, End::Silent])
}

fn misfortune(
    random: &mut fastrand::Rng,
    setup: &Setup,
    kind: u8,
    (client, server): (usize, usize),
    steps: &mut Vec<Step>,
) {
    let end = end(random);
    let way = pick(random, [Way::ToServer, Way::ToClient, Way::Both]);
    let shard = random.usize(..setup.servers[server].shards);
    let bytes = pick(random, [0, 10, 100, 2000]);
    let is_first = random.bool();
    let step = match kind {
        0 => Step::Cut {
            client,
            server,
            end,
        },
        1 if is_first => Step::Block {
            client,
            server,
            way,
        },
        1 => Step::Unblock { client, server },
        2 if is_first => Step::Isolate { server },
        2 => Step::Rejoin { server },
        3 => Step::Slow {
            client,
            server,
            bytes,
        },
        4 if is_first => Step::PauseClient { client },
        4 => Step::ResumeClient { client },
        5 if is_first => Step::PauseShard { server, shard },
        6 if is_first => Step::PauseServer { server },
        5 | 6 => Step::ResumeServer { server },
        7 if is_first => Step::StopClient { client, end },
        7 => Step::StartClient { client },
        8 if is_first => Step::StopServer { server, end },
        8 => Step::StartServer { server },
        9 => return change_of_mind(random, setup, (client, server), steps),
        11 => return twins(random, setup, (client, server), steps),
        _ => match random.u8(..4) {
            0 => Step::FailKernel {
                client,
                percent: pick(random, [0, 10, 60]),
            },
            1 => Step::LoseDevice { client },
            _ => Step::Meddle {
                client,
                at: random.usize(..1000),
                is_told: is_first,
            },
        },
    };
    steps.push(step);
}

/// A client ends a subscription and begins it again, while what it was told before is still on
/// its way: behind its slow reading, or in the mail of a shard whose thread sleeps.
fn change_of_mind(
    random: &mut fastrand::Rng,
    setup: &Setup,
    (client, server): (usize, usize),
    steps: &mut Vec<Step>,
) {
    let vni = random.u32(1..=VNIS);
    let pass = |random: &mut fastrand::Rng| Step::Pass {
        ms: pick(random, [0, 5, 50, 400]),
    };
    steps.push(Step::Subscribe { client, vni });
    steps.push(pass(random));
    let is_asleep = random.bool();
    if is_asleep {
        let shard = random.usize(..setup.servers[server].shards);
        steps.push(Step::PauseShard { server, shard });
    } else {
        steps.push(Step::Slow {
            client,
            server,
            bytes: pick(random, [100, 2000]),
        });
        steps.push(Step::AnnounceMany {
            client: random.usize(..setup.clients.len()),
            vni,
            count: random.u16(300..1500),
        });
    }
    for _ in 0..random.usize(1..4) {
        steps.extend([pass(random), Step::Unsubscribe { client, vni }]);
        steps.extend([pass(random), Step::Subscribe { client, vni }]);
    }
    if is_asleep {
        steps.extend([pass(random), Step::ResumeServer { server }]);
    }
}

/// Two clients announce the same, if they may, and one of them does so no longer while what the
/// servers told it may be stale.
fn twins(
    random: &mut fastrand::Rng,
    setup: &Setup,
    (client, server): (usize, usize),
    steps: &mut Vec<Step>,
) {
    let vni = random.u32(1..=VNIS);
    let route = random.u16(SHARED_FROM..ROUTES);
    let other = random.usize(..setup.clients.len());
    let pass = |random: &mut fastrand::Rng| Step::Pass {
        ms: pick(random, [0, 5, 300, 2_000]),
    };
    steps.push(Step::Subscribe { client, vni });
    for client in [client, other] {
        steps.push(Step::Announce { client, vni, route });
    }
    steps.push(pass(random));
    let end = end(random);
    match random.u8(..3) {
        0 => steps.extend((0..SERVERS).map(|server| Step::StopServer { server, end })),
        1 => steps.push(Step::Cut {
            client,
            server,
            end,
        }),
        _ => {}
    }
    steps.push(pass(random));
    steps.push(Step::Withdraw { client, vni, route });
    steps.push(Step::Pass {
        ms: pick(random, [0, 2_000, 5_000]),
    });
    steps.extend((0..SERVERS).map(|server| Step::StartServer { server }));
}

fn rest(random: &mut fastrand::Rng, clients: usize) -> Rest {
    let end = end(random);
    let server = random.usize(..SERVERS);
    match random.u8(..9) {
        8 => Rest::Decline(end),
        6.. => Rest::Prompt {
            client: random.usize(..clients),
            route: random.u16(..ROUTES),
        },
        0..2 => Rest::Whole,
        2 => Rest::Restart(server, end),
        3 => Rest::Blink(if end == End::Fin {
            End::Fin
        } else {
            End::Reset
        }),
        4 => Rest::Without(server, end),
        _ => Rest::Alone(end),
    }
}
