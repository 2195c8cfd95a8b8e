//! Whether loops turn.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often a loop has turned.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns(Arc<AtomicU64>);

impl Turns {
    /// To be called by the loop in each turn, once a wake-up reaches it again: a loop that
    /// counts before that may be asked in between, sleep on, and look as if it hung.
    pub(crate) fn count(&self) {
        #[cfg(feature = "internals")]
        panic_if_asked();
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn so_far(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Panics in the thread that `RUSTBOND_TEST_PANIC` names (`THREAD=FILE`), once the file exists:
/// how a whole program fares then is seen from outside alone.
#[cfg(feature = "internals")]
fn panic_if_asked() {
    static ASKED: std::sync::OnceLock<Option<(String, String)>> = std::sync::OnceLock::new();
    let asked = ASKED.get_or_init(|| {
        let asked = std::env::var("RUSTBOND_TEST_PANIC").ok()?;
        let (thread, file) = asked.split_once('=')?;
        Some((thread.to_owned(), file.to_owned()))
    });
    if let Some((thread, file)) = asked
        && std::thread::current().name() == Some(thread)
        && std::path::Path::new(file).exists()
    {
        panic!("a test asked for it");
    }
}

/// A loop as seen from outside.
pub(crate) struct Beat {
    name: String,
    turns: Turns,
    /// As of the latest [`Heartbeat::ask`].
    asked_at: u64,
    wake: Box<dyn Fn() + Send>,
}

impl Beat {
    /// A loop of this name, which `wake` makes turn if it waits for something to do.
    pub(crate) fn new(
        name: impl Into<String>,
        turns: Turns,
        wake: impl Fn() + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            asked_at: turns.so_far(),
            turns,
            wake: Box::new(wake),
        }
    }

    fn is_silent(&self) -> bool {
        self.turns.so_far() == self.asked_at
    }
}

/// The loops of servers, clients, kernel writers and HTTP servers, for a watchdog: each is
/// asked for a sign of life, and gives it by beginning another turn.
///
/// No call waits. A loop that hangs, or whose thread is gone, is silent; one that has much to
/// do still turns every few milliseconds.
///
/// ```
/// # use rustbond::{MetalBondServer, ServerConfig};
/// # fn main() -> rustbond::Result<()> {
/// let server = MetalBondServer::start("[::1]:0", ServerConfig::default())?;
/// let mut heartbeat = server.heartbeat();
/// heartbeat.ask();
/// std::thread::sleep(std::time::Duration::from_millis(100));
/// assert_eq!(heartbeat.silent().count(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Heartbeat {
    beats: Vec<Beat>,
}

impl Heartbeat {
    pub(crate) fn new(beats: Vec<Beat>) -> Self {
        let mut heartbeat = Self { beats };
        heartbeat.ask();
        heartbeat
    }

    /// Adds the loops of another.
    pub fn join(&mut self, other: Self) {
        self.beats.extend(other.beats);
    }

    /// Asks every loop for a sign of life.
    pub fn ask(&mut self) {
        for beat in &mut self.beats {
            beat.asked_at = beat.turns.so_far();
            (beat.wake)();
        }
    }

    /// The threads whose loops have given no sign of life since they were asked last.
    pub fn silent(&self) -> impl Iterator<Item = &str> {
        let silent = self.beats.iter().filter(|beat| beat.is_silent());
        silent.map(|beat| beat.name.as_str())
    }

    /// The threads whose loops these are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.beats.iter().map(|beat| beat.name.as_str())
    }
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_map();
        for beat in &self.beats {
            debug.entry(&beat.name, &beat.turns.so_far());
        }
        debug.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loop_is_silent_until_it_turns() {
        let (turning, hanging) = (Turns::default(), Turns::default());
        let woken = turning.clone();
        let mut heartbeat = Heartbeat::new(vec![
            Beat::new("turning", turning, move || woken.count()),
            Beat::new("hanging", hanging.clone(), || {}),
        ]);
        assert_eq!(heartbeat.silent().collect::<Vec<_>>(), ["hanging"]);
        hanging.count();
        assert_eq!(heartbeat.silent().count(), 0);
        heartbeat.ask();
        assert_eq!(heartbeat.silent().collect::<Vec<_>>(), ["hanging"]);
    }
}
