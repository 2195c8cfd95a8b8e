//! The threads that make answers that take time, so that the loop does not wait for them.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};

use super::api::{Query, Response, Status, Work};
use super::cache::{KEEP, SnapshotCache};
use super::worker::Told;
use crate::error::{Error, Result};
use crate::inspect::Inspect;
use crate::net::Postbox;

/// Requests that may wait for a thread; each of a connection, but those that were given up.
const JOBS_MAX: usize = 64;

/// Whose answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) place: usize,
    pub(super) serial: u64,
}

struct Job {
    asker: Asker,
    query: Query,
}

/// Both threads; they end when this is dropped.
pub(super) struct Helpers {
    inspect: Arc<dyn Inspect>,
    cache: Arc<SnapshotCache>,
    /// Questions do not wait behind snapshots.
    questions: Sender<Job>,
    snapshots: Sender<Job>,
    threads: Vec<JoinHandle<()>>,
}

impl Helpers {
    pub(super) fn start(inspect: Arc<dyn Inspect>, postbox: &Postbox<Told>) -> Result<Self> {
        let cache = Arc::new(SnapshotCache::default());
        let mut threads = Vec::new();
        let mut start = |name: &str| {
            let (sender, receiver) = crossbeam_channel::bounded(JOBS_MAX);
            let helper = Helper {
                jobs: receiver,
                inspect: Arc::clone(&inspect),
                cache: Arc::clone(&cache),
                postbox: postbox.clone(),
            };
            let thread = std::thread::Builder::new()
                .name(name.into())
                .spawn(move || helper.run())
                .map_err(Error::io("start a thread"))?;
            threads.push(thread);
            Ok(sender)
        };
        let questions = start("metalbond-query")?;
        let snapshots = start("metalbond-snapshot")?;
        Ok(Self {
            inspect,
            cache,
            questions,
            snapshots,
            threads,
        })
    }

    /// The answer, or none: then it comes by the mailbox.
    pub(super) fn answer(&self, query: Query, asker: Asker) -> Option<Response> {
        let jobs = match query.work() {
            Work::None => return Some(query.answer(&*self.inspect, &self.cache)),
            Work::Question => &self.questions,
            Work::Snapshot => &self.snapshots,
        };
        match jobs.try_send(Job { asker, query }) {
            Ok(()) => None,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                let text = "too many requests wait already; try again later";
                Some(Response::problem(Status::ServiceUnavailable, text))
            }
        }
    }

    /// Waits for the threads to end, each after the answer that it is making.
    pub(super) fn stop(self) {
        drop((self.questions, self.snapshots));
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("a thread that makes answers had panicked");
            }
        }
    }
}

struct Helper {
    jobs: Receiver<Job>,
    inspect: Arc<dyn Inspect>,
    cache: Arc<SnapshotCache>,
    postbox: Postbox<Told>,
}

impl Helper {
    fn run(self) {
        let mut has_snapshots = false;
        loop {
            let job = if has_snapshots {
                self.jobs.recv_timeout(KEEP)
            } else {
                self.jobs.recv().map_err(RecvTimeoutError::from)
            };
            match job {
                Ok(Job { asker, query }) => {
                    has_snapshots |= query.work() == Work::Snapshot;
                    let response = query.answer(&*self.inspect, &self.cache);
                    self.postbox.post(Told::Answer(asker, response), 1);
                }
                Err(RecvTimeoutError::Timeout) => has_snapshots = self.cache.forget_unused(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}
