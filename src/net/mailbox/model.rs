//! Every order in which threads can meet in a mailbox, tried by loom.
//!
//! ```sh
//! RUSTFLAGS='--cfg loom' cargo test --no-default-features --lib mailbox::model
//! ```
//!
//! Loom takes `SeqCst` for `AcqRel`, so what holds here does not depend on the former. A
//! wake-up that is lost leaves a thread waiting for ever, and loom calls that a deadlock.

use std::io;

use loom::model::Builder;
use loom::sync::{Arc, Condvar, Mutex, atomic::Ordering::SeqCst};
use loom::thread;

use super::{Mailbox, Postbox, Wake};

/// An eventfd and its owner's poll: rung once or more, it lets one wait pass.
#[derive(Clone, Default)]
struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Bell {
    fn wait(&self) {
        let (is_rung, condvar) = &*self.0;
        let mut guard = is_rung.lock().unwrap();
        while !*guard {
            guard = condvar.wait(guard).unwrap();
        }
        *guard = false;
    }
}

impl Wake for Bell {
    fn wake(&self) -> io::Result<()> {
        let (is_rung, condvar) = &*self.0;
        *is_rung.lock().unwrap() = true;
        condvar.notify_one();
        Ok(())
    }
}

/// Tries all orders with at most `preemptions` threads interrupted where they need not be.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Waits and takes, as a worker's loop does, until `count` items have come.
fn take(mailbox: &Mailbox<u32, Bell>, bell: &Bell, count: usize, turn: impl Fn()) -> Vec<u32> {
    let mut taken = Vec::new();
    while taken.len() < count {
        bell.wait();
        mailbox.rearm();
        while let Some(item) = mailbox.take() {
            taken.push(item);
        }
        turn();
    }
    taken
}

#[test]
fn all_that_is_posted_wakes_and_arrives_in_order() {
    check(3, || {
        let bell = Bell::default();
        let (mailbox, postbox) = Mailbox::with_waker(bell.clone(), 100);
        let other = postbox.clone();
        let poster = thread::spawn(move || {
            assert!(other.post(10, 3));
            assert!(other.post(11, 4));
        });
        let second = thread::spawn(move || assert!(postbox.post(20, 5)));
        let taken = take(&mailbox, &bell, 3, || {});
        let of_first: Vec<u32> = taken.iter().copied().filter(|it| *it < 20).collect();
        assert_eq!(of_first, [10, 11]);
        assert!(taken.contains(&20));
        poster.join().unwrap();
        second.join().unwrap();
        assert_eq!(mailbox.signals.weight.load(SeqCst), 0);
        assert_eq!(mailbox.take(), None);
    });
}

/// Posts as somebody who stops where the mailbox is full, and is woken when it is not.
fn feed(postbox: &Postbox<u32, Bell>, own: &Bell, items: &[u32]) {
    for &item in items {
        while postbox.is_full() {
            own.wait();
        }
        postbox.post(item, 4);
    }
}

#[test]
fn full_mailbox_wakes_its_sender_when_it_has_room() {
    check(2, || {
        let (bell, first, second) = (Bell::default(), Bell::default(), Bell::default());
        let (mailbox, postbox) = Mailbox::with_waker(bell.clone(), 4);
        let feeders: Vec<_> = [(&first, &[1, 2][..]), (&second, &[3][..])]
            .into_iter()
            .map(|(own, items)| {
                let (postbox, own) = (postbox.clone(), own.clone());
                thread::spawn(move || feed(&postbox, &own, items))
            })
            .collect();
        let mut taken = take(&mailbox, &bell, 3, || {
            if mailbox.has_room_for_waiters() {
                for feeder in [&first, &second] {
                    feeder.wake().unwrap();
                }
            }
        });
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 3]);
        for feeder in feeders {
            feeder.join().unwrap();
        }
    });
}

#[test]
fn mail_to_an_owner_that_ends_is_refused_or_dropped_with_it() {
    check(4, || {
        let (mailbox, postbox) = Mailbox::with_waker(Bell::default(), 4);
        let item = Arc::new(());
        let (posted, kept) = (item.clone(), postbox.clone());
        let poster = thread::spawn(move || kept.post(posted, 1));
        drop(mailbox);
        poster.join().unwrap();
        assert!(!postbox.post(item.clone(), 1));
    });
}
