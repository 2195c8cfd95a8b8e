//! Sessions that must not notice anything.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::wire::{KEEPALIVE, session, try_until_keepalive};

/// Some on each worker.
const SESSIONS: usize = 6;

/// Between an answer and the next KEEPALIVE.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    worst_us: AtomicU64,
    closed: AtomicUsize,
}

/// Sends KEEPALIVEs all the time and measures when they are answered.
pub(crate) struct Healthy {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Healthy {
    pub(crate) fn start(server: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..SESSIONS).map(|_| {
            let (mut stream, shared) = (session(server), Arc::clone(&shared));
            std::thread::spawn(move || {
                while !shared.stop.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    let answered = stream.write_all(&KEEPALIVE);
                    if answered
                        .and_then(|()| try_until_keepalive(&mut stream))
                        .is_err()
                    {
                        shared.closed.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                    let waited = u64::try_from(begin.elapsed().as_micros()).unwrap();
                    shared.worst_us.fetch_max(waited, Ordering::Relaxed);
                    std::thread::sleep(PAUSE);
                }
            })
        });
        Self {
            threads: threads.collect(),
            shared,
        }
    }

    /// Returns the longest wait for an answer since the last call.
    pub(crate) fn take_worst(&self) -> Duration {
        Duration::from_micros(self.shared.worst_us.swap(0, Ordering::Relaxed))
    }

    /// Stops. Returns the longest wait, and how many sessions the server has closed.
    pub(crate) fn stop(self) -> (Duration, usize) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let worst = self.shared.worst_us.load(Ordering::Relaxed);
        let closed = self.shared.closed.load(Ordering::Relaxed);
        (Duration::from_micros(worst), closed)
    }
}
