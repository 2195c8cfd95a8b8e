//! The families in the order of the text. The README lists them.

use super::process::Process;
use super::{Family, Samples};
use crate::core::types::Transport;
use crate::inspect::ServerStats;
use crate::inspect::{KernelStatus, MessageCounts, PeerState, PeerStatus, Side, Status, VniStatus};

/// The process as a whole.
pub(super) struct Whole {
    pub(super) status: Status,
    pub(super) process: Process,
    /// Number of peers in each state, in the order of [`PeerState::ALL`].
    pub(super) states: [usize; PeerState::ALL.len()],
    /// Number of peers over each transport, in the order of [`Transport::ALL`].
    pub(super) transports: [usize; Transport::ALL.len()],
}

pub(super) fn count_states(peers: &[PeerStatus]) -> [usize; PeerState::ALL.len()] {
    PeerState::ALL.map(|state| peers.iter().filter(|it| it.state == state).count())
}

pub(super) fn count_transports(peers: &[PeerStatus]) -> [usize; Transport::ALL.len()] {
    let over = |transport| {
        peers
            .iter()
            .filter(move |it| it.transport == Some(transport))
    };
    Transport::ALL.map(|transport| over(transport).count())
}

/// A counter that only a server has.
const fn server(
    name: &'static str,
    help: &'static str,
    samples: fn(&mut Samples<'_>, &Whole),
) -> Family<Whole> {
    Family::counter(name, help, samples)
}

fn of_server(samples: &mut Samples<'_>, whole: &Whole, value: fn(&ServerStats) -> u64) {
    samples.put_if(whole.status.server.as_ref().map(value));
}

fn of_kernel(samples: &mut Samples<'_>, whole: &Whole, value: fn(&KernelStatus) -> u64) {
    samples.put_if(whole.status.kernel.as_ref().map(value));
}

pub(super) const WHOLE: &[Family<Whole>] = &[
    Family::gauge(
        "metalbond_build_info",
        "Always 1; the version and the side of the protocol are its labels.",
        |to, it| {
            let labels = [
                ("version", env!("CARGO_PKG_VERSION")),
                ("side", it.status.side.name()),
            ];
            to.put_with(&labels, 1);
        },
    ),
    Family::gauge(
        "metalbond_ready",
        "Whether the server listens, or the client has all its tables, in the kernel too if it is \
         to write them there.",
        |to, it| to.put(u8::from(it.status.not_ready.is_none())),
    ),
    Family::gauge(
        "metalbond_uptime_seconds",
        "Time since the start.",
        |to, it| to.put(it.status.uptime.as_secs_f64()),
    ),
    Family::gauge(
        "metalbond_peers",
        "Sessions of a server, servers of a client, by state.",
        |to, it| {
            for (state, count) in PeerState::ALL.into_iter().zip(it.states) {
                let is_a_servers = !matches!(state, PeerState::Connecting | PeerState::Retry);
                if it.status.side == Side::Client || is_a_servers {
                    to.put_with(&[("state", state.name())], count);
                }
            }
        },
    ),
    Family::gauge(
        "metalbond_connections",
        "Connections to peers, by transport.",
        |to, it| {
            for (transport, count) in Transport::ALL.into_iter().zip(it.transports) {
                to.put_with(&[("transport", transport.name())], count);
            }
        },
    ),
    Family::gauge(
        "metalbond_vnis",
        "VNIs with a route or a subscriber.",
        |to, it| to.put(it.status.vnis),
    ),
    Family::gauge("metalbond_routes", "Distinct routes.", |to, it| {
        to.put(it.status.routes);
    }),
    Family::gauge(
        "metalbond_announced_routes",
        "Routes that this process announces itself.",
        |to, it| to.put(it.status.announced),
    ),
    Family::counter(
        "metalbond_updates_received_total",
        "UPDATE messages received.",
        |to, it| to.put(it.status.updates_received),
    ),
    Family::counter(
        "metalbond_updates_sent_total",
        "UPDATE messages queued for peers.",
        |to, it| to.put(it.status.updates_sent),
    ),
    Family::gauge(
        "metalbond_server_subscriptions",
        "Sessions times the VNIs they subscribe to.",
        |to, it| of_server(to, it, |it| it.subscriptions as u64),
    ),
    Family::gauge(
        "metalbond_server_memory_bytes",
        "Bytes of the account, by what for.",
        |to, it| {
            let Some(server) = &it.status.server else {
                return;
            };
            let memory = &server.memory;
            for (kind, bytes) in [
                ("tables", memory.tables),
                ("queues", memory.queues),
                ("sessions", memory.sessions),
                ("watches", memory.watches),
            ] {
                to.put_with(&[("kind", kind)], bytes);
            }
        },
    ),
    Family::gauge(
        "metalbond_server_memory_limit_bytes",
        "Bytes that the account may have.",
        |to, it| of_server(to, it, |it| it.memory.limit as u64),
    ),
    Family::gauge(
        "metalbond_server_announcements",
        "Routes times their announcers.",
        |to, it| of_server(to, it, |it| it.announcements as u64),
    ),
    server(
        "metalbond_server_accepted_connections_total",
        "Connections accepted.",
        |to, it| of_server(to, it, |it| it.accepted),
    ),
    server(
        "metalbond_server_closed_connections_total",
        "Connections that ended.",
        |to, it| of_server(to, it, |it| it.closed),
    ),
    server(
        "metalbond_server_refused_connections_total",
        "Connections closed at once because of a limit.",
        |to, it| of_server(to, it, |it| it.refused_sessions),
    ),
    server(
        "metalbond_server_refused_requests_total",
        "Announcements and subscriptions refused because of a limit.",
        |to, it| of_server(to, it, |it| it.refused),
    ),
    server(
        "metalbond_server_malformed_messages_total",
        "Messages dropped as malformed.",
        |to, it| of_server(to, it, |it| it.malformed),
    ),
    server(
        "metalbond_server_folds_total",
        "Times that the queue of a slow peer was coalesced.",
        |to, it| of_server(to, it, |it| it.folds),
    ),
    server(
        "metalbond_server_legacy_drops_total",
        "Sessions of legacy peers that ended while a table was sent to them.",
        |to, it| of_server(to, it, |it| it.legacy_drops),
    ),
    server(
        "metalbond_server_cut_chunks_total",
        "Chunks for legacy peers that the kernel cut.",
        |to, it| of_server(to, it, |it| it.cut_chunks),
    ),
    server(
        "metalbond_server_held_up_total",
        "Times that a worker stopped reading because another was behind.",
        |to, it| of_server(to, it, |it| it.held_up),
    ),
    server(
        "metalbond_server_received_bytes_total",
        "Bytes received from sessions.",
        |to, it| of_server(to, it, |it| it.bytes_received),
    ),
    server(
        "metalbond_server_sent_bytes_total",
        "Bytes sent to sessions.",
        |to, it| of_server(to, it, |it| it.bytes_sent),
    ),
    Family::counter(
        "metalbond_client_refused_routes_total",
        "Announcements of routes that servers made and that were refused because of max-routes.",
        |to, it| to.put_if(it.status.client.map(|it| it.refused_routes)),
    ),
    Family::gauge(
        "metalbond_client_missing_routes",
        "Distinct routes that are missing because they were refused, up to 65536.",
        |to, it| to.put_if(it.status.client.map(|it| it.missing_routes)),
    ),
    Family::counter(
        "metalbond_client_displaced_routes_total",
        "Stale routes that gave way to routes of servers that are there, because of max-routes.",
        |to, it| to.put_if(it.status.client.map(|it| it.displaced_routes)),
    ),
    Family::gauge(
        "metalbond_kernel_routes_desired",
        "Destinations that should be in the kernel.",
        |to, it| of_kernel(to, it, |it| it.desired),
    ),
    Family::gauge(
        "metalbond_kernel_routes_installed",
        "Those of them that are in the kernel.",
        |to, it| of_kernel(to, it, |it| it.installed),
    ),
    Family::gauge(
        "metalbond_kernel_routes_settling",
        "Destinations in the kernel that an earlier process left and nobody announced yet.",
        |to, it| of_kernel(to, it, |it| it.settling),
    ),
    Family::gauge(
        "metalbond_kernel_routes_waiting",
        "Destinations that wait for a tunnel device.",
        |to, it| of_kernel(to, it, |it| it.waiting),
    ),
    Family::gauge(
        "metalbond_kernel_routes_failed",
        "Destinations that the kernel refused.",
        |to, it| of_kernel(to, it, |it| it.failed),
    ),
    Family::gauge(
        "metalbond_kernel_routes_shadowed",
        "Destinations where somebody else's route stands in the way.",
        |to, it| of_kernel(to, it, |it| it.shadowed),
    ),
    Family::gauge(
        "metalbond_kernel_routes_uninstallable",
        "Routes whose next hop cannot be installed.",
        |to, it| of_kernel(to, it, |it| it.uninstallable),
    ),
    Family::gauge(
        "metalbond_kernel_next_hops_unreachable",
        "Next hops that this host has no route to.",
        |to, it| of_kernel(to, it, |it| it.unreachable),
    ),
    Family::gauge(
        "metalbond_kernel_nexthop_objects",
        "Nexthop objects and groups in the kernel.",
        |to, it| of_kernel(to, it, |it| it.nexthop_objects),
    ),
    Family::counter(
        "metalbond_kernel_messages_total",
        "Netlink messages sent that change something.",
        |to, it| of_kernel(to, it, |it| it.messages),
    ),
    Family::counter(
        "metalbond_kernel_resyncs_total",
        "Times that the state of the kernel was read.",
        |to, it| of_kernel(to, it, |it| it.resyncs),
    ),
    Family::counter(
        "metalbond_kernel_route_repairs_total",
        "Bursts of routes that somebody else deleted.",
        |to, it| of_kernel(to, it, |it| it.repairs.routes),
    ),
    Family::counter(
        "metalbond_kernel_nexthop_repairs_total",
        "Nexthop objects that somebody else deleted.",
        |to, it| of_kernel(to, it, |it| it.repairs.nexthop_objects),
    ),
    Family::counter(
        "metalbond_kernel_device_losses_total",
        "Times that the tunnel device went or went down.",
        |to, it| of_kernel(to, it, |it| it.repairs.device),
    ),
    Family::gauge(
        "metalbond_kernel_device_up",
        "Whether the tunnel device is there and up.",
        |to, it| of_kernel(to, it, |it| it.device_up.into()),
    ),
    Family::gauge(
        "metalbond_kernel_in_sync",
        "Whether the kernel holds all that is desired.",
        |to, it| of_kernel(to, it, |it| it.in_sync.into()),
    ),
    Family::gauge(
        "process_resident_memory_bytes",
        "Memory in use.",
        |to, it| to.put_if(it.process.resident_bytes),
    ),
    Family::gauge(
        "process_virtual_memory_bytes",
        "Address space in use.",
        |to, it| to.put_if(it.process.virtual_bytes),
    ),
    Family::gauge("process_threads", "Threads.", |to, it| {
        to.put_if(it.process.threads);
    }),
    Family::gauge("process_open_fds", "Open file descriptors.", |to, it| {
        to.put_if(it.process.open_fds);
    }),
    Family::gauge(
        "process_max_fds",
        "File descriptors that may be open.",
        |to, it| to.put_if(it.process.max_fds),
    ),
    Family::counter(
        "process_cpu_seconds_total",
        "Processor time, of user and system.",
        |to, it| to.put_if(it.process.cpu_seconds),
    ),
    Family::gauge(
        "process_start_time_seconds",
        "When the process started, since 1970.",
        |to, it| to.put_if(it.process.start_seconds),
    ),
];

pub(super) const PEER: &[Family<PeerStatus>] = &[
    Family::gauge(
        "metalbond_peer_info",
        "Always 1; what the peer is, and where, are its labels.",
        |to, it| {
            let address = it.address.map(|it| it.to_string()).unwrap_or_default();
            to.put_with(&[("kind", it.kind.name()), ("address", &address)], 1);
        },
    ),
    Family::gauge(
        "metalbond_peer_up",
        "Whether the session is established.",
        |to, it| to.put(u8::from(it.state == PeerState::Established)),
    ),
    Family::gauge(
        "metalbond_peer_state",
        "Always 1; the state of the session is its label.",
        |to, it| to.put_with(&[("state", it.state.name())], 1),
    ),
    Family::gauge(
        "metalbond_peer_uptime_seconds",
        "How long the session has been established.",
        |to, it| to.put(it.uptime.unwrap_or_default().as_secs_f64()),
    ),
    Family::gauge(
        "metalbond_peer_flaps",
        "Sessions with this peer, or from its address, that ended in the last hour.",
        |to, it| to.put(it.flaps),
    ),
    Family::gauge(
        "metalbond_peer_keepalive_age_seconds",
        "How long nothing has come from the peer.",
        |to, it| to.put(it.silent.as_secs_f64()),
    ),
    Family::gauge(
        "metalbond_peer_routes",
        "Routes that the peer announces.",
        |to, it| to.put(it.routes),
    ),
    Family::gauge(
        "metalbond_peer_subscriptions",
        "VNIs that the peer subscribes to, or was asked for.",
        |to, it| to.put(it.subscriptions),
    ),
    Family::gauge(
        "metalbond_peer_queue_bytes",
        "Bytes that wait to be sent to the peer.",
        |to, it| to.put(it.queued_bytes),
    ),
    Family::counter(
        "metalbond_peer_messages_total",
        "Messages by direction and type.",
        |to, it| {
            put_counts(to, "received", &it.received);
            put_counts(to, "sent", &it.sent);
        },
    ),
    Family::counter(
        "metalbond_peer_malformed_messages_total",
        "Messages of the peer that were dropped as malformed.",
        |to, it| to.put(it.malformed),
    ),
    Family::counter(
        "metalbond_peer_refused_requests_total",
        "Announcements and subscriptions of the peer that were refused because of a limit.",
        |to, it| to.put(it.refused),
    ),
    Family::counter(
        "metalbond_peer_notices_total",
        "NOTICEs of the peer: what it refused, for the most part.",
        |to, it| to.put(it.notices),
    ),
    Family::counter(
        "metalbond_peer_folds_total",
        "Times that the queue of the peer was coalesced.",
        |to, it| to.put(it.folds),
    ),
];

fn put_counts(to: &mut Samples<'_>, direction: &str, counts: &MessageCounts) {
    let all = [
        ("hello", counts.hello),
        ("keepalive", counts.keepalive),
        ("subscribe", counts.subscribe),
        ("unsubscribe", counts.unsubscribe),
        ("update", counts.update),
        ("end_of_rib", counts.end_of_rib),
    ];
    for (name, count) in all {
        to.put_with(&[("direction", direction), ("type", name)], count);
    }
}

pub(super) const VNI: &[Family<VniStatus>] = &[
    Family::gauge("metalbond_vni_routes", "Routes by type.", |to, it| {
        let table = &it.table;
        let all = [
            ("std", table.standard),
            ("nat", table.nat),
            ("lb", table.load_balancer),
            ("other", table.other),
        ];
        for (name, count) in all {
            to.put_with(&[("type", name)], count);
        }
    }),
    Family::gauge(
        "metalbond_vni_subscribers",
        "Peers that subscribe; on a client, whether it does.",
        |to, it| to.put(it.subscribers),
    ),
    Family::gauge(
        "metalbond_vni_digest",
        "48 bits that are equal on all who hold the same routes, in whatever order they came.",
        |to, it| to.put(it.table.digest.to_u48()),
    ),
    Family::gauge(
        "metalbond_vni_synced",
        "On a client, whether the table is complete.",
        |to, it| to.put_if(it.is_synced.map(u8::from)),
    ),
];
