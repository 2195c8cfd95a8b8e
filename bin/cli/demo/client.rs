//! A client of the demonstration.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustbond::{ClientConfig, Error, MetalBondClient, Route, Vni};

use super::board::{Board, Seen};
use super::{PATIENCE, Stop, failed, route};

/// The interval of queries for what the client does not report as an event.
const ASK_AGAIN: Duration = Duration::from_millis(5);

pub(super) struct Client {
    pub(super) name: &'static str,
    pub(super) client: MetalBondClient,
    pub(super) board: Board,
}

impl Client {
    pub(super) fn start(
        name: &'static str,
        servers: [SocketAddr; 2],
        vnis: &[Vni],
    ) -> Result<Self, Error> {
        let board = Board::default();
        let config = ClientConfig {
            keepalive_interval: 1,
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_millis(200),
            ..ClientConfig::default()
        };
        let servers = servers.map(|it| it.to_string());
        let client = MetalBondClient::start(&servers, board.clone(), config)?;
        for vni in vnis {
            client.subscribe(*vni)?;
        }
        Ok(Self {
            name,
            client,
            board,
        })
    }

    pub(super) fn announce(&self, texts: &[&str]) -> Result<(), Error> {
        for (vni, route) in texts.iter().map(|text| route(text)) {
            self.client
                .announce(vni, route.destination, route.next_hop)?;
        }
        Ok(())
    }

    /// Waits until the client sees exactly these routes.
    pub(super) fn expect(&self, texts: &[&[&str]]) -> Result<(), Stop> {
        let texts = texts.iter().copied().flatten();
        let expected = texts.map(|text| route(text)).collect();
        self.wait("the routes of this step, and no other", |seen| {
            seen.routes == expected
        })
    }

    /// Waits until `is_reached`. `what` names the condition for the error.
    pub(super) fn wait(&self, what: &str, is_reached: impl Fn(&Seen) -> bool) -> Result<(), Stop> {
        if self.board.wait(PATIENCE, is_reached) {
            Ok(())
        } else {
            Err(self.missed(what))
        }
    }

    /// Waits until a route is known from both servers. There is no event for that, so this polls.
    pub(super) fn expect_two_servers_of(&self, vni: Vni, route: Route) -> Result<(), Stop> {
        let (destination, next_hop) = (route.destination, route.next_hop);
        let until = Instant::now() + PATIENCE;
        loop {
            let servers = self.client.get_route_servers(vni, &destination, &next_hop);
            if servers.is_ok_and(|it| it.is_some_and(|it| it.len() == 2)) {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(self.missed("each route from both servers"));
            }
            self.board.wait(ASK_AGAIN, |_| false);
        }
    }

    fn missed(&self, what: &str) -> Stop {
        let name = self.name;
        failed(format!("{name} does not have within {PATIENCE:?}: {what}"))
    }
}
