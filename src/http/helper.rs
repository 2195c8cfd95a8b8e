//! Two threads that make slow responses, so that the loop never waits.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};

use super::api::{Query, Work};
use super::cache::{KEEP, SnapshotCache};
use super::mail::{ConnectionId, Mail};
use super::response::{Response, Status};
use crate::error::{Error, Result};
use crate::inspect::Inspect;
use crate::life::Life;
use crate::net::Postbox;

/// Most requests that wait for a thread. A connection has one; closed connections leave theirs.
const JOBS_MAX: usize = 64;

struct Job {
    from: ConnectionId,
    query: Query,
}

/// Handles of both threads. They end when this is dropped.
pub(super) struct Helpers {
    inspect: Arc<dyn Inspect>,
    cache: Arc<SnapshotCache>,
    /// A channel of their own: questions do not wait behind snapshots.
    questions: Sender<Job>,
    snapshots: Sender<Job>,
    threads: Vec<JoinHandle<()>>,
}

impl Helpers {
    pub(super) fn start(
        inspect: Arc<dyn Inspect>,
        postbox: &Postbox<Mail>,
        life: &Life,
    ) -> Result<Self> {
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
            let guard = life.guard(name, || {});
            let thread = std::thread::Builder::new()
                .name(name.into())
                .spawn(move || {
                    let _guard = guard;
                    helper.run();
                })
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

    /// Returns the response. If it takes time, returns `None` and posts it to the loop later.
    pub(super) fn answer(&self, query: Query, from: ConnectionId) -> Option<Response> {
        let jobs = match query.work() {
            Work::None => return Some(query.answer(&*self.inspect, &self.cache)),
            Work::Question => &self.questions,
            Work::Snapshot => &self.snapshots,
        };
        match jobs.try_send(Job { from, query }) {
            Ok(()) => None,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                let text = "too many requests are waiting already; try again later";
                Some(Response::problem(Status::ServiceUnavailable, text))
            }
        }
    }

    /// Waits for the threads to end. Each finishes the response that it is making.
    pub(super) fn stop(self) {
        drop((self.questions, self.snapshots));
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("a thread that makes HTTP responses had panicked");
            }
        }
    }
}

struct Helper {
    jobs: Receiver<Job>,
    inspect: Arc<dyn Inspect>,
    cache: Arc<SnapshotCache>,
    postbox: Postbox<Mail>,
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
                Ok(Job { from, query }) => {
                    has_snapshots |= query.work() == Work::Snapshot;
                    let response = query.answer(&*self.inspect, &self.cache);
                    self.postbox.post(Mail::Response(from, response), 1);
                }
                Err(RecvTimeoutError::Timeout) => has_snapshots = self.cache.forget_unused(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}
