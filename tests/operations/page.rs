//! The page in a real browser.
#![allow(clippy::print_stderr, reason = "what is skipped, where pictures are")]

use std::sync::Arc;
use std::time::Duration;

use crate::browser::Browser;
use crate::support::{PATIENCE, client, eventually, server};
use rustbond::http::HttpServer;
use rustbond::inspect::{
    Command, Done, Inspect, PeerState, PeerStatus, Snapshot, Status, VniStatus, Watch, WatchFrom,
};
use rustbond::{
    ClientConfig, Destination, MetalBondClient, MetalBondServer, NextHop, NoOpHandler, Route, Vni,
};

fn browser(name: &str) -> Option<Browser> {
    match Browser::start(name) {
        Ok(browser) => Some(browser),
        Err(why) => {
            eprintln!("SKIPPED: {name}: {why}");
            None
        }
    }
}

fn net(text: &str) -> Destination {
    Destination::new(text.parse().unwrap())
}

fn hop(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

/// What a table shows, cell by cell.
fn cells(browser: &Browser) -> Vec<Vec<String>> {
    let rows = browser.run(
        "return [...document.querySelectorAll('#table tbody tr')]
           .map(row => [...row.cells].map(cell => cell.textContent))",
    );
    serde_json::from_value(rows).unwrap()
}

const ROWS: &str = "document.querySelectorAll('#table tbody tr').length";

/// A server with two clients and some routes, and the address of its page.
struct Shown {
    first: MetalBondClient,
    _second: MetalBondClient,
    http: HttpServer,
    _server: MetalBondServer,
}

impl Shown {
    fn start() -> Self {
        let server = server();
        let http = HttpServer::start("127.0.0.1:0", server.inspector()).unwrap();
        let first = client(&[server.local_addr()], NoOpHandler);
        let second = client(&[server.local_addr()], NoOpHandler);
        for number in 0..1_000_u32 {
            let destination = Destination::from_ipv4((0x0a00_0000 + number).into(), 32);
            let to = NextHop::standard(hop(&format!("2001:db8::{:x}", number % 7 + 1)));
            first.announce(Vni(100), destination, to).unwrap();
        }
        let wide = NextHop::standard(hop("2001:db8::a"));
        for (vni, prefix, to) in [
            (
                100,
                "198.51.100.1/32",
                NextHop::nat(hop("2001:db8::9"), 1024, 2047),
            ),
            (100, "10.0.0.0/8", wide),
            (200, "0.0.0.0/0", wide),
            (
                200,
                "2001:db8:1::/48",
                NextHop::load_balancer(hop("2001:db8::b")),
            ),
        ] {
            second.announce(Vni(vni), net(prefix), to).unwrap();
        }
        second.subscribe(Vni(100)).unwrap();
        eventually("all routes", || server.stats().routes == 1_004);
        Self {
            first,
            _second: second,
            http,
            _server: server,
        }
    }

    fn page(&self, view: &str) -> String {
        format!("http://{}/{view}", self.http.local_addr())
    }
}

#[test]
fn page_shows_peers_vnis_and_routes() {
    let Some(browser) = browser("tables") else {
        return;
    };
    let shown = Shown::start();
    browser.go(&shown.page(""));
    browser.wait("two peers", &format!("{ROWS} === 2"));
    let ready = "document.getElementById('ready').textContent";
    browser.wait("the status", &format!("{ready} === 'ready'"));
    for row in cells(&browser) {
        assert_eq!(row[1..3], ["established", "rustbond"], "{row:?}");
    }
    browser.click("#tab-vnis");
    let vnis = format!("{ROWS} === 2 && location.hash === '#/vnis'");
    browser.wait("two VNIs", &vnis);
    let vnis = cells(&browser);
    assert_eq!(vnis[0][..5], ["100", "1,002", "1,001", "1", "0"]);
    assert_eq!(vnis[1][..5], ["200", "2", "1", "0", "1"]);
    assert_eq!(vnis[0][6], "1", "subscribers");

    browser.click("#tab-routes");
    browser.wait("a page of routes", &format!("{ROWS} === 50"));
    let range = "document.getElementById('range').textContent";
    browser.wait("the range", &format!("{range} === '1–50 of 1,004'"));
    let before = cells(&browser);
    browser.click("#next");
    browser.wait("the next page", &format!("{range} === '51–100 of 1,004'"));
    assert_ne!(cells(&browser), before);
    browser.click("#previous");
    browser.wait("the first page", &format!("{range} === '1–50 of 1,004'"));
    assert_eq!(cells(&browser), before);
    assert_eq!(browser.complaints(), Vec::<String>::new());
    // The connections of the page are kept, and do not keep the server.
    shown.http.shutdown();
}

#[test]
fn page_searches_routes_and_follows_a_change() {
    let Some(browser) = browser("search") else {
        return;
    };
    let shown = Shown::start();
    browser.go(&shown.page("#/routes"));
    browser.wait("a page of routes", &format!("{ROWS} === 50"));
    // The longest match of each VNI.
    browser.type_into("#f-net", "10.0.0.5\u{e007}");
    browser.wait("a match in both VNIs", &format!("{ROWS} === 2"));
    let found = cells(&browser);
    assert_eq!(found[0][..2], ["10.0.0.5/32", "100"]);
    assert_eq!(found[1][..2], ["0.0.0.0/0", "200"]);
    // The longest is withdrawn: the next longer one shows, without a reload.
    browser.run("window.isSamePage = true");
    let to = NextHop::standard(hop("2001:db8::6"));
    let withdrawn = shown.first.withdraw(Vni(100), net("10.0.0.5/32"), to);
    withdrawn.unwrap();
    let prefix = "document.querySelector('#table tbody th').textContent";
    browser.wait("the next longer", &format!("{prefix} === '10.0.0.0/8'"));
    assert_eq!(browser.run("return window.isSamePage"), true);
    assert_eq!(browser.complaints(), Vec::<String>::new());

    // What is looked for is in the address.
    let address = browser.run("return location.href");
    browser.go("about:blank");
    browser.go(address.as_str().unwrap());
    browser.wait("the same again", &format!("{ROWS} === 2"));
    let field = browser.run("return document.getElementById('f-net').value");
    assert_eq!(field, "10.0.0.5");
    browser.go(&shown.page("#/routes?vni=100&type=nat"));
    browser.wait("one NAT route", &format!("{ROWS} === 1"));
    assert_eq!(cells(&browser)[0][3..5], ["nat", "1024–2047"]);

    // What is no address is said.
    browser.type_into("#f-net", "10.0.0.300\u{e007}");
    let problem = "document.getElementById('problem')";
    browser.wait("a problem", &format!("!{problem}.hidden"));
    let problem = browser.run(&format!("return {problem}.textContent"));
    let problem = problem.as_str().unwrap();
    assert!(problem.contains("expected an address"), "{problem}");
    let refused = browser.complaints();
    assert!(refused.iter().all(|it| it.contains("400")), "{refused:?}");
}

#[test]
fn page_fits_a_phone_and_dark_mode_and_follows_a_restart() {
    let Some(browser) = browser("phone") else {
        return;
    };
    let server = server();
    let inspect = server.inspector();
    let http = HttpServer::start("127.0.0.1:0", inspect.clone()).unwrap();
    let config = ClientConfig {
        keepalive_interval: 1,
        // The servers of these tests are young.
        settle_time: Duration::from_secs(1),
        ..ClientConfig::default()
    };
    let addresses = [server.local_addr().to_string()];
    let subscriber = MetalBondClient::start(&addresses, NoOpHandler, config).unwrap();
    subscriber.wait_all_established_timeout(PATIENCE).unwrap();
    subscriber.subscribe(Vni(100)).unwrap();
    for number in 0..300_u32 {
        let prefix = Destination::from_ipv4((0xc0a8_0000 + number).into(), 32);
        let to = match number % 3 {
            0 => NextHop::standard(hop("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff")),
            1 => NextHop::nat(hop("2001:db8::2"), 1024, 2047),
            _ => NextHop::load_balancer(hop("2001:db8::3")),
        };
        let route = Route::new(prefix, to);
        inspect
            .execute(Command::Announce(Vni(100 + number % 4), route))
            .unwrap();
    }
    let address = http.local_addr();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        for (name, width, height) in [("desktop", 1280, 1000), ("phone", 390, 844)] {
            browser.resize(width, height, name == "phone");
            for view in ["peers", "vnis", "routes"] {
                browser.go(&format!("http://{address}/#/{view}"));
                browser.wait("rows", &format!("{ROWS} > 0"));
                browser.wait(
                    "the status",
                    "document.querySelectorAll('#tiles li').length === 6",
                );
                let overflow =
                    browser.run("return document.documentElement.scrollWidth - window.innerWidth");
                assert!(
                    overflow.as_i64().unwrap() <= 0,
                    "{name} {view}: {overflow} too wide"
                );
                let picture = browser.picture(&format!("{name}-{scheme}-{view}"));
                eprintln!("{}", picture.display());
            }
        }
        let back = browser.run("return getComputedStyle(document.body).backgroundColor");
        let is_dark = back.as_str().unwrap().contains("(14, 21, 27)");
        assert_eq!(is_dark, scheme == "dark", "{back}");
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());

    browser.run("window.isSamePage = true");
    http.shutdown();
    browser.wait("the loss", "document.body.classList.contains('lost')");
    let banner = browser.run("return document.getElementById('banner').textContent");
    assert!(
        banner.as_str().unwrap().contains("Connection lost"),
        "{banner}"
    );
    let _again = HttpServer::start(address, inspect).unwrap();
    browser.wait("the recovery", "!document.body.classList.contains('lost')");
    browser.wait("no banner", "document.getElementById('banner').hidden");
    assert_eq!(browser.run("return window.isSamePage"), true);
}

/// A client whose first server has another name and a reason for having been lost.
struct Renamed(Arc<dyn Inspect>);

const EVIL: &str = "<img src=x onerror=document.title='hacked'>";

impl Inspect for Renamed {
    fn peers(&self) -> rustbond::Result<Vec<PeerStatus>> {
        let mut peers = self.0.peers()?;
        peers[0].name = EVIL.into();
        peers[0].state = PeerState::Retry;
        peers[0].last_error = Some(format!("{EVIL}: \"no\\such\nhost\""));
        Ok(peers)
    }

    fn status(&self) -> Status {
        self.0.status()
    }

    fn vnis(&self) -> rustbond::Result<Vec<VniStatus>> {
        self.0.vnis()
    }

    fn generation(&self) -> u64 {
        self.0.generation()
    }

    fn snapshot(&self, vni: Option<Vni>) -> rustbond::Result<Snapshot> {
        self.0.snapshot(vni)
    }

    fn announcements(&self) -> rustbond::Result<Vec<(Vni, Route)>> {
        self.0.announcements()
    }

    fn watch(&self, vni: Option<Vni>, from: WatchFrom) -> rustbond::Result<Watch> {
        self.0.watch(vni, from)
    }

    fn execute(&self, command: Command) -> rustbond::Result<Done> {
        self.0.execute(command)
    }
}

/// Names and reasons come from peers and people: they are text, whatever is in them.
#[test]
fn page_of_a_client_shows_names_as_text() {
    let Some(browser) = browser("names") else {
        return;
    };
    let (one, other) = (server(), server());
    let client = client(&[one.local_addr(), other.local_addr()], NoOpHandler);
    client.subscribe(Vni(7)).unwrap();
    let shown = Arc::new(Renamed(client.inspector()));
    let http = HttpServer::start("127.0.0.1:0", shown).unwrap();
    browser.go(&format!("http://{}/", http.local_addr()));
    browser.wait("two servers", &format!("{ROWS} === 2"));
    let rows = cells(&browser);
    let evil = rows.iter().find(|row| row[0] == EVIL).unwrap();
    assert!(evil[9].starts_with(EVIL), "{evil:?}");
    let images = browser.run("return document.querySelectorAll('img').length");
    assert_eq!(images, 0);
    let title = browser.run("return document.title");
    assert!(
        title.as_str().unwrap().starts_with("RustBond client"),
        "{title}"
    );
    // Sorted by the head of a column, with the keyboard.
    let sort = "#table thead th:nth-child(2) button";
    browser.type_key(sort, "\u{e007}");
    assert_eq!(cells(&browser)[0][1], "established");
    browser.type_key(sort, " ");
    assert_eq!(cells(&browser)[0][1], "retry");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
