//! How to send to a peer without reassembly: Go MetalBond and RustBond 0.1.
//!
//! Such a *legacy* peer (its HELLO offers no STREAM) takes one read of 65,535 bytes
//! at a time, wants whole frames in it, and gives up when a read fills its buffer.
//! So it is sent whole frames in chunks that fit a segment, and no more than it has
//! room for unread:
//!
//! - A client has no way to say how far it has read. The server sends it a burst,
//!   waits until the kernel has nothing left to send, pauses, and sends one frame
//!   more, whose acknowledgement tells the window: open again, all was read.
//! - A server answers KEEPALIVE. The client sends one behind so many bytes, and
//!   waits for the answer.
//!
//! To a server that is not legacy a client sends as much as the kernel takes, once a [`Trial`] has
//! shown that the way is not slow.

mod memory;
#[cfg(test)]
mod tests;
mod trial;
mod window;

use std::time::{Duration, Instant};

pub(crate) use memory::{Memory, Overrun, Verdict};
pub(crate) use trial::{Finding, Trial};
pub(crate) use window::Window;

/// Most bytes of a chunk: they fit the segment of a link with an MTU of 1280 (IPv6's least).
pub(crate) const CHUNK: usize = 1200;

/// Bytes sent to a legacy client before it must have read them.
const BURST: usize = 16 * 1024;

/// Bytes that may be missing from the window while all is read: what asked for it, and
/// what its scale rounds off.
const TOLERANCE: u32 = 4 * 1024;

/// Least window into which a frame is sent that only asks; it is never cut to fit.
const ROOM: u32 = 4 * 1024;

/// First wait before the kernel is asked for its queue; each further one is twice as long.
const QUERY: Duration = Duration::from_millis(1);

/// Longest wait between two queries.
const QUERY_MAX: Duration = Duration::from_millis(16);

/// How long a burst is given to be read while the window grows, and so tells nothing.
///
/// A receiving kernel that widens its window does so by twice the bytes that come, read
/// or not. 455 routes, at 140 microseconds each.
const BLIND: Duration = Duration::from_millis(64);

/// How often that time is doubled at most, while nothing tells that anything is read.
const BLIND_DOUBLED_MAX: u8 = 2;

/// Bytes by which a window may fall short of the widest there was, and be waited for with
/// patience alone: what is unread then, with a burst on top, fits a legacy buffer.
const NEAR: u32 = 32 * 1024;

/// How long a window may stay closed; then it counts as all there is.
///
/// Kernels change their mind about how much a window may be.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longest pause between two questions for the window.
const GAP_MAX: Duration = Duration::from_millis(64);

/// How long a window may fall short of that; then it counts as all there is.
const STUCK: Duration = Duration::from_secs(5);

/// The pace is halved so many times at most: to an eighth, about 1 MB/s.
pub(crate) const HALVINGS_MAX: u8 = 3;

/// Bytes that a legacy peer's buffer takes. The peer gives up when a read fills it.
const LEGACY_BUFFER: u64 = 65_535;

const _: () = assert!(BURST >> 3 >= CHUNK, "a burst is some chunks");
const _: () = assert!(
    BURST + 12 * CHUNK < 65_535,
    "a burst and what asks for the window fit a legacy buffer"
);

/// Whether peers without reassembly are spared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LegacyPacing {
    /// A peer whose HELLO does not offer STREAM is sent whole frames in small chunks, as
    /// fast as it reads.
    #[default]
    Auto,
    /// Treats every peer as one that reassembles frames: no pacing.
    Off,
}

/// How legacy peers are sent to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pacing {
    pub(crate) mode: LegacyPacing,
    /// Bytes per second, to one peer, at most.
    pub(crate) rate: u32,
}

/// Bytes per second to a legacy peer unless configured: a pause of 2 ms after 16 KiB.
pub(crate) const DEFAULT_RATE: u32 = 8 * 1024 * 1024;

/// Least rate: a chunk takes no longer than a third of a second.
pub(crate) const MIN_RATE: u32 = 4096;

impl Pacing {
    /// How long so many bytes take, when the pace was halved so many times.
    fn time(self, bytes: u64, halvings: u8) -> Duration {
        let micros = bytes * 1_000_000 / u64::from(self.rate.max(1));
        Duration::from_micros(micros << halvings)
    }
}

/// How bytes are to be handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// In any pieces.
    Stream,
    /// As a record: nothing that follows may get into its segment.
    Chunk,
}

/// What the kernel knows of a connection's sending side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SendQueue {
    /// All that was sent is acknowledged.
    pub(crate) is_empty: bool,
    /// Bytes the peer's kernel has room for, as of its last acknowledgement.
    pub(crate) window: Option<u32>,
}

/// Where the sending to a legacy client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So much more may be sent.
    Sending { left: usize },
    /// Waits until the kernel has nothing left of a burst.
    ///
    /// `query` is when the kernel is to be asked; `None` while the caller asks it.
    Draining {
        query: Option<Instant>,
        gap: Duration,
    },
    /// Leaves the peer the time to read, until then, or while the caller asks the kernel.
    Pausing {
        until: Option<Instant>,
        gap: Duration,
    },
    /// May send one frame, to be told the window.
    Asking { gap: Duration },
    /// Waits until the kernel has nothing left of that.
    Asked {
        query: Option<Instant>,
        wait: Duration,
        gap: Duration,
    },
}

/// The pace of one legacy client.
#[derive(Debug)]
pub(crate) struct Pacer {
    pacing: Pacing,
    halvings: u8,
    state: State,
    /// The window of a peer that has read everything.
    open_window: Option<u32>,
    /// It, when the last burst began.
    window_before: Option<u32>,
    /// Bursts in a row of which the window did not tell whether they were read.
    blind: u8,
    /// The widest window.
    widest: Option<u32>,
    /// When the last burst ended.
    burst_ended: Option<Instant>,
    /// When the connection was known to be a legacy peer's.
    begun: Instant,
    lead: Lead,
}

/// How many of the bytes that were sent the peer may not have read.
#[derive(Clone, Copy, Debug, Default)]
struct Lead {
    /// Bytes sent since the peer had surely read everything.
    unread: u64,
    /// Those of them that a narrower window, taken as all there is, may hide.
    hidden: u64,
    /// Bytes sent since the peer had everything there was to send: a place in a table.
    place: u64,
    /// Nothing more waited to be sent, after the last bytes that count.
    is_all_sent: bool,
}

impl Pacer {
    /// Begins with a query for the window.
    pub(crate) fn new(pacing: Pacing, halvings: u8, now: Instant) -> Self {
        Self {
            pacing,
            halvings: halvings.min(HALVINGS_MAX),
            state: State::Draining {
                query: Some(now),
                gap: QUERY,
            },
            open_window: None,
            window_before: None,
            blind: 0,
            widest: None,
            burst_ended: None,
            begun: now,
            lead: Lead::default(),
        }
    }

    /// Bytes per second at most.
    pub(crate) fn rate(&self) -> u32 {
        self.pacing.rate >> self.halvings
    }

    /// Bytes of the chunk that may be sent at this moment, or a frame if that is longer.
    pub(crate) fn room(&self) -> Option<usize> {
        match self.state {
            State::Sending { .. } => Some(CHUNK),
            State::Asking { .. } => Some(1),
            State::Draining { .. } | State::Pausing { .. } | State::Asked { .. } => None,
        }
    }

    /// Tells that so many bytes were sent.
    pub(crate) fn sent(&mut self, bytes: usize, now: Instant) {
        if bytes == 0 {
            return;
        }
        self.lead.unread += bytes as u64;
        self.lead.place += bytes as u64;
        match self.state {
            State::Sending { left } if left >= bytes + CHUNK => {
                self.state = State::Sending { left: left - bytes };
            }
            State::Sending { .. } => self.drain(now),
            State::Asking { gap } => {
                self.state = State::Asked {
                    query: Some(now + QUERY),
                    wait: QUERY,
                    gap,
                };
            }
            // A KEEPALIVE reply does not wait for anything.
            State::Draining { .. } | State::Pausing { .. } | State::Asked { .. } => {}
        }
    }

    /// Tells that nothing waits to be sent.
    ///
    /// Behind a table the burst ends here: otherwise nothing would ask whether it was read.
    pub(crate) fn all_sent(&mut self, now: Instant) {
        self.lead.is_all_sent = true;
        if let State::Sending { .. } = self.state
            && self.lead.has_table()
        {
            self.drain(now);
        }
    }

    /// Ends a burst.
    fn drain(&mut self, now: Instant) {
        self.burst_ended = Some(now);
        self.state = State::Draining {
            query: Some(now + QUERY),
            gap: QUERY,
        };
    }

    /// When something is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Sending { .. } | State::Asking { .. } => None,
            State::Draining { query, .. } | State::Asked { query, .. } => query,
            State::Pausing { until, .. } => until,
        }
    }

    /// Does what is due at `now`. Returns whether [`Self::report_queue`] is to be called.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Draining { query, .. }
            | State::Asked { query, .. }
            | State::Pausing { until: query, .. } => query.take_if(|it| *it <= now).is_some(),
            State::Sending { .. } | State::Asking { .. } => false,
        }
    }

    /// Tells what the kernel knows at `now`. Returns the size of a table, if that shows that the
    /// peer has read it.
    pub(crate) fn report_queue(&mut self, queue: SendQueue, now: Instant) -> Option<u64> {
        if let (Some(window), Some(open)) = (queue.window, self.open_window) {
            let risen = window.saturating_sub(open);
            self.lead.hidden = self.lead.hidden.saturating_sub(risen.into());
        }
        self.open_window = self.open_window.max(queue.window);
        self.widest = self.widest.max(queue.window);
        let state = self.state;
        self.state = match state {
            State::Draining { gap, .. } if !queue.is_empty => State::Draining {
                query: Some(now + gap),
                gap: (gap * 2).min(QUERY_MAX),
            },
            State::Draining { .. } if self.burst_ended.is_none() => self.burst(),
            State::Draining { .. } => {
                let gap = self.pause();
                let until = Some(now + gap);
                State::Pausing { until, gap }
            }
            State::Asked { wait, gap, .. } if !queue.is_empty => State::Asked {
                query: Some(now + wait),
                wait: (wait * 2).min(QUERY_MAX),
                gap,
            },
            State::Asked { .. } if self.is_read(queue.window, now) => self.burst(),
            State::Asked { gap, .. } => longer(gap, now),
            State::Pausing { gap, .. } if self.may_ask(queue.window, now) => State::Asking { gap },
            State::Pausing { gap, .. } => longer(gap, now),
            State::Sending { .. } | State::Asking { .. } => state,
        };
        self.lead.take_table()
    }

    /// Returns the overrun that can have ended the connection, if the peer's buffer may have been
    /// full. A peer that had surely read more was ended by something else.
    pub(crate) fn overrun(&self) -> Option<Overrun> {
        let may_be_full = self.lead.unread + u64::from(TOLERANCE) >= LEGACY_BUFFER;
        may_be_full.then_some(Overrun {
            begun: self.begun,
            place: self.lead.place,
        })
    }

    /// Whether what was sent has surely, or long enough, been read.
    fn is_read(&mut self, window: Option<u32>, now: Instant) -> bool {
        let (Some(window), Some(open)) = (window, self.open_window) else {
            return true;
        };
        let has_grown = self
            .window_before
            .is_some_and(|before| window > before + TOLERANCE);
        if has_grown {
            let is_over = self.is_over(BLIND * (1 << self.blind), now);
            self.blind = (self.blind + u8::from(is_over)).min(BLIND_DOUBLED_MAX);
            return is_over;
        }
        if window + TOLERANCE >= open {
            self.blind = 0;
            self.lead.unread = self.lead.hidden;
            return true;
        }
        let is_stuck = self.is_over(STUCK, now);
        if is_stuck {
            self.widest = Some(window);
        }
        let is_near = self
            .widest
            .is_none_or(|widest| window + NEAR >= widest && window >= widest / 2);
        let is_over = is_stuck || (is_near && self.is_over(PATIENCE, now));
        if is_over {
            self.take_as_open(window);
        }
        is_over
    }

    /// Takes a window as that of a peer that has read everything, without a proof of it.
    fn take_as_open(&mut self, window: u32) {
        self.open_window = Some(window);
        self.lead.hidden = self.lead.unread;
    }

    /// Whether there is room for a frame that only asks.
    ///
    /// A window that is less than half open tells by itself when it is not any more:
    /// a kernel reports when it has doubled.
    fn may_ask(&mut self, window: Option<u32>, now: Instant) -> bool {
        let (Some(window), Some(widest)) = (window, self.widest) else {
            return true;
        };
        if window < widest / 2 && self.is_over(STUCK, now) {
            self.widest = Some(window);
            self.take_as_open(window);
        }
        window >= ROOM && self.widest.is_none_or(|it| window >= it / 2)
    }

    /// Whether the pause after the last burst is over. Peers that lost a connection get a longer pause.
    fn is_over(&self, patience: Duration, now: Instant) -> bool {
        let patience = patience * (1 << self.halvings);
        self.burst_ended.is_some_and(|it| now >= it + patience)
    }

    fn burst(&mut self) -> State {
        self.window_before = self.open_window;
        // Where two were not seen to be read, there may be no more than two of them unread.
        let blind = u8::from(self.blind > 1);
        let left = (self.burst_bytes() >> blind).max(2 * CHUNK);
        State::Sending { left }
    }

    fn burst_bytes(&self) -> usize {
        (BURST >> self.halvings).max(2 * CHUNK)
    }

    fn pause(&self) -> Duration {
        // And the frame that asks, which may be as long as a chunk.
        let bytes = self.burst_bytes() + CHUNK;
        self.pacing.time(bytes as u64, self.halvings)
    }
}

impl Lead {
    /// Returns the size of a table if the peer has surely read all of it but a burst, which
    /// overruns no buffer; each table once.
    ///
    /// A window that was narrow for a while may come back narrower, so that some bytes are never
    /// known to be read.
    fn take_table(&mut self) -> Option<u64> {
        if !self.is_all_sent || self.unread > BURST as u64 {
            return None;
        }
        self.is_all_sent = false;
        let is_table = self.has_table();
        let size = std::mem::take(&mut self.place);
        is_table.then_some(size)
    }

    /// Whether so much was sent that it counts as a table: no connection dies for less.
    fn has_table(self) -> bool {
        self.place >= LEGACY_BUFFER / 2
    }
}

fn longer(gap: Duration, now: Instant) -> State {
    let gap = (gap * 2).min(GAP_MAX).max(gap);
    let until = Some(now + gap);
    State::Pausing { until, gap }
}
