//! Batches of a client's events, handed to the writer.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use super::*;
use crate::client::{Intake, Room};
use crate::core::client::Event;
use crate::kernel::intake::{BATCHES, WriterIntake};

const VNI: Vni = Vni(1);

/// A client's end of a bench, and how often the client was woken.
fn intake(bench: &Bench) -> (WriterIntake, Arc<AtomicUsize>) {
    let woken = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&woken);
    let intake = WriterIntake::new(
        bench.commands.clone(),
        Arc::clone(&bench.clients),
        Box::new(move || {
            count.fetch_add(1, SeqCst);
        }),
        Box::new(|| {}),
    );
    (intake, woken)
}

fn added(prefix: &str, hop: u16) -> Event {
    Event::RouteAdded(VNI, route(prefix, hop))
}

fn removed(prefix: &str, hop: u16) -> Event {
    Event::RouteRemoved(VNI, route(prefix, hop))
}

fn installed(bench: &Bench) -> Vec<String> {
    let routes = bench.resolved();
    routes.keys().map(|(_, it)| it.to_string()).collect()
}

#[test]
fn client_events_reach_the_kernel_in_order() {
    let mut bench = Bench::up(Mode::Objects);
    let (mut intake, _) = intake(&bench);
    bench.add("10.0.9.0/24", 1);
    assert_eq!(intake.room(), Room::Free);
    intake.take(vec![
        added("10.0.1.0/24", 1),
        removed("10.0.9.0/24", 1),
        added("10.0.2.0/24", 2),
        removed("10.0.1.0/24", 1),
        Event::Settled(VNI),
    ]);
    intake.take(vec![added("10.0.3.0/24", 3), removed("10.0.3.0/24", 3)]);
    assert!(bench.settle(SECOND));
    assert_eq!(installed(&bench), ["10.0.2.0/24"]);
}

#[test]
fn end_of_the_client_table_sweeps_routes_found_at_start() {
    let net = Net::default();
    net.0.borrow_mut().link = Some((DEVICE, true));
    let mut before = Bench::new(net.clone(), Mode::Objects);
    announce(&before);
    assert!(before.settle(SECOND));
    let mut bench = Bench::new(net, Mode::Objects);
    let (mut intake, _) = intake(&bench);
    intake.take(vec![added("10.0.7.0/24", 2)]);
    assert!(bench.settle(SECOND));
    assert_eq!(bench.resolved().len(), 300, "the table is not complete");
    intake.take(vec![Event::Settled(VNI)]);
    assert!(bench.settle(SECOND));
    assert_eq!(installed(&bench), ["10.0.7.0/24"]);
}

#[test]
fn busy_writer_takes_few_batches_and_wakes_the_client_when_it_takes_more() {
    let mut bench = Bench::up(Mode::Objects);
    let (mut intake, woken) = intake(&bench);
    let batch = |n: usize| vec![added(&format!("10.0.{n}.0/24"), 1)];
    let mut handed = 0;
    while intake.room() == Room::Free {
        intake.take(batch(handed));
        handed += 1;
    }
    assert_eq!(handed, BATCHES);
    assert_eq!(intake.room(), Room::Full);
    assert_eq!(woken.load(SeqCst), 0);
    bench.writer.turn(bench.now);
    assert_eq!(woken.load(SeqCst), 1, "asked many times, woken once");
    assert_eq!(intake.room(), Room::Free);
    bench.writer.turn(bench.now);
    assert_eq!(woken.load(SeqCst), 1, "nobody waits");
    assert!(bench.settle(SECOND));
    assert_eq!(bench.resolved().len(), BATCHES);
}

#[test]
fn flush_holds_back_the_client_until_the_kernel_has_all_before_it() {
    let mut bench = Bench::up(Mode::Objects);
    let (mut intake, woken) = intake(&bench);
    announce(&bench);
    let answer = bench.flush();
    while intake.room() == Room::Free {
        intake.take(vec![added("10.9.0.0/24", 1)]);
    }
    let after = (100, "10.9.0.0/24".parse().unwrap());
    // This takes all up to the flush.
    bench.writer.turn(bench.now);
    let before = woken.load(SeqCst);
    while answer.is_empty() {
        assert_eq!(intake.room(), Room::Full);
        assert!(!bench.resolved().contains_key(&after));
        bench.writer.turn(bench.now);
        bench.now += Duration::from_micros(10);
    }
    assert_eq!((bench.resolved().len(), woken.load(SeqCst)), (300, before));
    assert!(bench.settle(SECOND));
    assert!(bench.resolved().contains_key(&after) && woken.load(SeqCst) > before);
}

#[test]
fn batch_that_finds_the_channel_full_is_sent_later() {
    let mut bench = Bench::up(Mode::Objects);
    let (mut intake, woken) = intake(&bench);
    while !bench.commands.is_full() {
        bench.add("10.0.1.0/24", 1);
    }
    assert_eq!(intake.room(), Room::Free);
    intake.take(vec![removed("10.0.1.0/24", 1), added("10.0.2.0/24", 2)]);
    assert_eq!(intake.room(), Room::Full);
    bench.writer.turn(bench.now);
    assert_eq!(woken.load(SeqCst), 1);
    assert_eq!(intake.room(), Room::Free, "the batch is on its way");
    assert!(bench.settle(SECOND));
    assert_eq!(installed(&bench), ["10.0.2.0/24"]);
}

#[test]
fn intake_is_closed_after_the_writer_ended() {
    let bench = Bench::up(Mode::Objects);
    let (mut intake, _) = intake(&bench);
    let Bench {
        writer, clients, ..
    } = bench;
    drop(writer);
    intake.take(vec![added("10.0.2.0/24", 2)]);
    assert_eq!(intake.room(), Room::Closed);
    assert_eq!(clients.len(), 1);
    drop(intake);
    assert_eq!(clients.len(), 0, "nobody is woken in vain");
}

#[test]
fn route_removed_by_an_event_does_not_come_back_with_the_rest() {
    let mut bench = Bench::up(Mode::Objects);
    let (mut intake, _) = intake(&bench);
    bench.send(Command::Reconfigure(Box::new(Change {
        scope: Scope {
            vni_tables: BTreeMap::from([(VNI, 200)]),
            vni_metrics: BTreeMap::new(),
            ipv4_only: false,
            excluded_types: Vec::new(),
        },
        check_interval: Duration::from_secs(60),
        cleanup_on_exit: false,
        awaited: BTreeSet::from([VNI]),
    })));
    let seen = ["10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"].map(|it| route(it, 1));
    intake.take(vec![
        removed("10.0.1.0/24", 1),
        removed("10.0.2.0/24", 1),
        added("10.0.2.0/24", 1),
    ]);
    bench.send(Command::Received(VNI, seen.to_vec()));
    assert!(bench.settle(SECOND));
    assert_eq!(installed(&bench), ["10.0.2.0/24", "10.0.3.0/24"]);
}
